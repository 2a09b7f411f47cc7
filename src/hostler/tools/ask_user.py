"""The built-in `ask_user` tool: a question of the model's, answered by whoever is there.

It is a tool for clients: the call waits, parked, until a client sends its result.  The model may
say which answers it can use, by options or by a JSON Schema; others are refused, with words for
the client, and the call goes on waiting.

Invariant: never run here; an answer that does not fit never reaches the model.
"""

from __future__ import annotations

from typing import cast

import jsonschema_rs
import msgspec

from hostler.core.errors import ToolError
from hostler.core.events import JsonObject
from hostler.core.ports import CallContext, ToolSpec

ANSWER_S = 7 * 86_400.0
"""As long as an approval waits."""
DEEPEST = 64
"""Levels of an answer; the validator recurses."""
SHOWN_CHARS = 2_000
"""Of a schema, to the client whose answer does not fit it."""
PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000)
DESCRIPTION = """\
Ask the user a question and wait for the answer, which may take long. Use it for what only the \
user can know or decide. Give either `options` to choose one of, or a JSON `schema` that the \
answer must fit, or neither for an answer in free text."""


class AskUser:
    """A `core.ports.Tool`, and `harness.clients.Demanding`."""

    def __init__(self) -> None:
        self.spec = ToolSpec(
            name="ask_user",
            description=DESCRIPTION,
            parameters={
                "type": "object",
                "properties": {
                    "question": {"type": "string", "minLength": 1},
                    "options": {"type": "array", "items": {"type": "string"}, "minItems": 1},
                    "schema": {"type": "object"},
                },
                "required": ["question"],
                "additionalProperties": False,
            },
            effects="read",
            timeout_s=ANSWER_S,
            client=True,
        )

    async def __call__(self, arguments: JsonObject, context: CallContext) -> str:
        del arguments, context
        raise ToolError("The question was not put to anybody: the server cannot answer it.")

    def demand(self, arguments: JsonObject) -> None:
        """Raise ToolError for a question that no answer could fit."""
        if arguments.get("options") is None:
            _validator(arguments)
        elif arguments.get("schema") is not None:
            raise ToolError("Give either options or a schema, not both; nobody was asked.")

    def accept(self, arguments: JsonObject, output: str) -> None:
        """Raise ToolError, with what would fit, for an answer that does not."""
        options = cast("list[str] | None", arguments.get("options"))
        if options is not None:
            if output not in options:
                raise ToolError(f"the answer must be one of: {', '.join(options)}")
            return
        validator = _validator(arguments)
        if validator is not None and not _fits(validator, output):
            schema = msgspec.json.encode(arguments["schema"]).decode()[:SHOWN_CHARS]
            raise ToolError(f"the answer must fit this JSON Schema: {schema}")


def _validator(arguments: JsonObject) -> jsonschema_rs.Validator | None:
    schema = cast("JsonObject | None", arguments.get("schema"))
    if schema is None:
        return None
    try:
        return jsonschema_rs.validator_for(schema, offline=True, pattern_options=PATTERNS)
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        told = str(error).partition("\n")[0][:SHOWN_CHARS]
        raise ToolError(f"`schema` is no JSON Schema; nobody was asked: {told}") from error


def _fits(validator: jsonschema_rs.Validator, output: str) -> bool:
    """Whether an answer fits, as the text that it is or as the JSON that it says."""
    try:
        return validator.is_valid(output) or validator.is_valid(_read(output))
    except (ValueError, RecursionError):  # no JSON, or nothing that can be compared
        return False


def _read(output: str) -> object:
    value = cast("object", msgspec.json.decode(output))
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for one in level for inner in _inside(one)]
        if not level:
            return value
    raise ValueError("nested too deeply")


def _inside(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(cast("dict[str, object]", value).values())
    return cast("list[object]", value) if isinstance(value, list) else []
