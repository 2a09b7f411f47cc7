"""Tools that a session's clients bring: shown to the model here, answered by them.

Invariant: never run here.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from hostler.core.errors import ToolError
from hostler.core.events import ClientTool, JsonObject
from hostler.core.ports import CallContext, ToolSpec


@runtime_checkable
class Demanding(Protocol):
    """A tool answered by clients that does not take every answer."""

    def demand(self, arguments: JsonObject) -> None:
        """Raise ToolError if no answer could fit a call with these arguments."""
        ...

    def accept(self, arguments: JsonObject, output: str) -> None:
        """Raise ToolError if `output` does not answer a call with these arguments."""
        ...


class OfClient:
    """A `core.ports.Tool` that waits for a client."""

    def __init__(self, tool: ClientTool) -> None:
        parameters: JsonObject = {"type": "object", "properties": {}}
        self.spec = ToolSpec(
            name=tool.name,
            description=tool.description,
            parameters=parameters | tool.parameters,
            timeout_s=tool.timeout_s,
            client=True,
        )

    async def __call__(self, arguments: JsonObject, context: CallContext) -> str:
        del arguments, context
        raise ToolError(f"{self.spec.name} is answered by a client, and was run by the server.")
