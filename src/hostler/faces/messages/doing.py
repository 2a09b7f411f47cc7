"""What an agent does, in words of the Messages API: calls of an MCP server that is this one.

Clients show such a call with its result, and never run it.  They send both back as they came, and
then the agent reads what it did.

Invariant: a call is told before its result, and each in a block of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from hostler.core.events import JsonObject
from hostler.core.ports import Delta, Failure, Reply
from hostler.faces.http.answers import Answer
from hostler.faces.http.keepsakes import NOTHING, Keepsakes
from hostler.faces.messages.bodies import Message, Spoken, Step
from hostler.faces.messages.errors import VendorAnswer, tell
from hostler.faces.messages.writer import PING, Writer, call_block, stop_of, usage_of
from hostler.service.leg import Did

SERVER = "hostler"
"""What the MCP server is called that these calls are said to be of."""


class AgentWriter:
    """Writes what an agent says and does: the `http.direct.Words` and `Doing` of this face."""

    alive = PING
    tell = staticmethod(tell)
    id_headers: Sequence[bytes] = Writer.id_headers

    def __init__(
        self, id_: str, model: str, keepsakes: Keepsakes, *, shows_thinking: bool, streamed: bool
    ) -> None:
        self._id, self._model, self._keepsakes = id_, model, keepsakes
        self._shows, self._streamed = shows_thinking, streamed
        self._writer = Writer(id_, model, keepsakes, shows_thinking=shows_thinking)
        self._blocks = list[JsonObject]()
        """Of a whole answer."""

    def begin(self) -> Sequence[bytes]:
        return self._writer.begin()

    def add(self, delta: Delta) -> Sequence[bytes]:
        if self._streamed:
            return self._writer.add(delta)
        if delta.part == "text":
            self._blocks.append({"type": "text", "text": delta.text, "citations": list[object]()})
        elif delta.part == "thinking" and self._shows:
            signature = self._keepsakes.give(NOTHING)
            signed = {"thinking": delta.text, "signature": signature}
            self._blocks.append({"type": "thinking", **signed})
        return ()

    def did(self, did: Did) -> Sequence[bytes]:
        if did.output is None:
            # With its input at once: Claude Code gives up at an `input_json_delta` of such a block.
            return self._put(
                {
                    "type": "mcp_tool_use",
                    "id": did.call,
                    "name": did.name,
                    "server_name": SERVER,
                    "input": did.arguments,
                }
            )
        result: JsonObject = {
            "type": "mcp_tool_result",
            "tool_use_id": did.call,
            "is_error": did.failed,
            "content": [{"type": "text", "text": did.output, "citations": None}],
        }
        return self._put(result)

    def _put(self, block: JsonObject) -> Sequence[bytes]:
        if self._streamed:
            return self._writer.put(block)
        self._blocks.append(block)
        return ()

    def end(self, reply: Reply) -> Sequence[bytes]:
        # All of it was told as it came.
        return self._writer.end(msgspec.structs.replace(reply, text="", thinking=None))

    def error(self, answer: Answer, request: str) -> Sequence[bytes]:
        return self._writer.error(answer, request)

    def whole(self, reply: Reply) -> Answer:
        calls = [call_block(one.id, one.name, one.arguments) for one in reply.calls]
        stop, sequence = stop_of(reply)
        made = Message(
            id=self._id,
            model=self._model,
            content=[*self._blocks, *calls],
            stop_reason=stop,
            stop_sequence=sequence,
            usage=usage_of(reply.usage),
        )
        return VendorAnswer(200, made)

    def failed(self, failure: Failure) -> Answer:
        return self._writer.failed(failure)


def spelled_out(messages: Sequence[Spoken]) -> list[Spoken]:
    """Return a conversation in which what an agent did is calls of its own, each with its result."""
    made = list[Spoken]()
    for place, one in enumerate(messages):
        if one.role == "assistant" and isinstance(one.content, list):
            made += _steps(one.content, place)
        elif place == len(made):
            made.append(one)
        else:
            made.append(Step(role=one.role, content=one.content, message=place, block=0))
    return made


def _steps(blocks: Sequence[JsonObject], message: int) -> list[Spoken]:
    """Return what one message tells as the steps that it was."""
    steps, said, results = list[Spoken](), list[JsonObject](), list[JsonObject]()
    mine, first = set[str](), 0

    def step() -> Iterator[Step]:
        yield Step(role="assistant", content=[*said], message=message, block=first)
        if results:
            block = first + len(said)
            yield Step(role="user", content=[*results], message=message, block=block)

    for place, block in enumerate(blocks):
        kind, of = block.get("type"), block.get("tool_use_id")
        if kind == "mcp_tool_result" and isinstance(of, str) and of in mine:
            results.append({**block, "type": "tool_result"})
            continue
        if results:
            steps += step()
            said, results, first = [], [], place
        if kind == "mcp_tool_use" and block.get("server_name") == SERVER:
            if isinstance(name := block.get("id"), str):
                mine.add(name)
            said.append({**block, "type": "tool_use"})
        else:
            said.append(block)
    return [*steps, *step()] if said or results or not steps else steps
