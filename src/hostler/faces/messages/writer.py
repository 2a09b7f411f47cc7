"""A model's answer as events of the Messages API, and as one message.

Blocks follow one another: each begins, grows and stops before the next one begins.  What is new of
a block since the last `take` is one event, however many deltas it came in.

What the model wants back (`seals`) is known at the end of its reply alone.  So once a model has
thought, its calls are not sent before the end: then the thought that is still open is signed with
it, or a block that is nothing but that is put before them.

Invariant: pure; the pieces of a block add up to the same text however they were cut.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from hostler.core.events import CallId, JsonObject, Stop, Usage
from hostler.core.ports import Delta, Reply
from hostler.faces.http.form import encode
from hostler.faces.messages.bodies import CacheCreation, Message, MessageUsage, ThinkingDetails
from hostler.faces.messages.seals import NOTHING, Seal, seal_of, sealed

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
_DELTA = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":'
_GROWS: Mapping[str, tuple[bytes, bytes]] = {
    "text": (b"text_delta", b"text"),
    "thinking": (b"thinking_delta", b"thinking"),
    "arguments": (b"input_json_delta", b"partial_json"),
}
_EMPTY: Mapping[str, JsonObject] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
}
_STOPS: Mapping[Stop, str] = {
    "end": "end_turn",
    "tools": "tool_use",
    "length": "max_tokens",
    "refusal": "refusal",
}


class Writer:
    """Made for one answer; `take` gives what is to be sent."""

    def __init__(self, id_: str, model: str, *, shows_thinking: bool) -> None:
        self._id, self._model, self._shows = id_, model, shows_thinking
        self._frames: list[bytes] = []
        self._pieces: list[str] = []
        self._prefix = b""
        self._part: str | None = None
        """What the open block holds; None: none is open."""
        self._call: CallId | None = None
        self._index = -1
        self._said = {"text": 0, "thinking": 0}
        """Characters of the reply so far."""
        self._arguments: list[str] = []
        """Of the open call."""
        self._begun = set[CallId]()
        self._thought = False
        self._is_held = False
        """Something waits for the reply, and with it all that is not of the open block."""
        self.size = 0
        """About how many bytes wait for `take`."""

    def begin(self) -> None:
        message = Message(id=self._id, model=self._model, content=[], usage=MessageUsage())
        self._frame("message_start", {"message": message})
        self._frames.append(PING)

    def add(self, delta: Delta) -> None:
        if (delta.part != self._part or delta.call != self._call) and not self._turns(delta):
            return
        text = delta.text
        self._pieces.append(text)
        self.size += len(text)

    def take(self) -> bytes:
        """Return what is new since the last time."""
        if self._pieces:
            self._join()
        made = b"".join(self._frames)
        self._frames.clear()
        self.size = 0
        return made

    def end(self, reply: Reply) -> None:
        """Write what is left of the reply, and its end."""
        seal = seal_of(reply, shown=self._shows)
        self._join()
        if self._shows:
            self._rest_of("thinking", reply.thinking or "")
        if self._part == "thinking":
            self._close(seal)
            seal = NOTHING
        self._rest_of("text", reply.text)
        self._rest_of_calls(reply, seal)
        self._close()
        delta = {
            "stop_reason": _STOPS[reply.stop],
            "stop_sequence": None,
            "stop_details": None,
            "container": None,
        }
        self._frame("message_delta", {"delta": delta, "usage": usage_of(reply.usage)})
        self._frame("message_stop", {})

    # -- one block after the other -------------------------------------------------------------

    def _turns(self, delta: Delta) -> bool:
        """Begin the block that a delta belongs to; False: it waits for the reply, which has it."""
        part, call = delta.part, delta.call
        self._thought |= part == "thinking"
        if part == "thinking" and not self._shows:
            return False
        self._is_held |= self._part == "arguments" and not self._is_whole()
        if self._is_held:
            return False
        if part != "arguments":
            if delta.text:
                self._open(part, _EMPTY[part])
            return bool(delta.text)
        if self._thought or call is None or call in self._begun or not delta.name:
            return False
        self._open_call(call, delta.name)
        return True

    def _is_whole(self) -> bool:
        """Whether the open call's arguments can be all of them."""
        self._join()
        try:
            msgspec.json.decode("".join(self._arguments), type=dict)
        except (ValueError, RecursionError):
            return False
        return True

    def _open_call(self, call: CallId, name: str) -> None:
        self._begun.add(call)
        self._arguments.clear()
        self._open("arguments", _call_block(call, name, {}), call)

    def _open(self, part: str, block: JsonObject, call: CallId | None = None) -> None:
        self._close()
        self._index += 1
        self._part, self._call = part, call
        self._prefix = _DELTA % (self._index, *_GROWS[part])
        self._frame("content_block_start", {"index": self._index, "content_block": block})

    def _join(self) -> None:
        text = "".join(self._pieces)
        self._pieces.clear()
        if self._part == "arguments":
            self._arguments.append(text)
        elif self._part is not None:
            self._said[self._part] += len(text)
        if text:
            self._frames.append(b"%b%b}}\n\n" % (self._prefix, msgspec.json.encode(text)))

    def _close(self, seal: Seal = NOTHING) -> None:
        """Stop the block that is open, if one is."""
        if self._part is None:
            return
        self._join()
        if self._part == "thinking":
            delta = {"type": "signature_delta", "signature": sealed(seal)}
            self._frame("content_block_delta", {"index": self._index, "delta": delta})
        self._frame("content_block_stop", {"index": self._index})
        self._part = self._call = None

    def _frame(self, kind: str, fields: JsonObject) -> None:
        made = encode({"type": kind, **fields})
        self._frames.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), made))
        self.size += len(made)

    # -- what only the reply has -----------------------------------------------------------------

    def _rest_of(self, part: str, whole: str) -> None:
        rest = whole[self._said[part] :]
        if rest:
            if self._part != part:
                self._open(part, _EMPTY[part])
            self._pieces.append(rest)
            self._join()

    def _rest_of_calls(self, reply: Reply, seal: Seal) -> None:
        late = [one for one in reply.calls if one.id not in self._begun]
        if seal != NOTHING and reply.calls:
            self._close()
            self._index += 1
            block = {"type": "redacted_thinking", "data": sealed(seal)}
            self._frame("content_block_start", {"index": self._index, "content_block": block})
            self._frame("content_block_stop", {"index": self._index})
        for one in late:
            self._open_call(one.id, one.name)
            self._pieces.append(encode(one.arguments).decode() if one.arguments else "")


def message(id_: str, model: str, reply: Reply, *, shows_thinking: bool) -> Message:
    """Return an answer as one message."""
    seal, content = seal_of(reply, shown=shows_thinking), list[JsonObject]()
    redacted: JsonObject = {"type": "redacted_thinking", "data": sealed(seal)}
    if reply.thinking and shows_thinking:
        signed = {"thinking": reply.thinking, "signature": sealed(seal)}
        content.append({"type": "thinking", **signed})
        seal = NOTHING
    if reply.text:
        content.append({"type": "text", "text": reply.text, "citations": list[object]()})
    if seal != NOTHING and reply.calls:
        content.append(redacted)
    content += [_call_block(one.id, one.name, one.arguments) for one in reply.calls]
    stop, usage = _STOPS[reply.stop], usage_of(reply.usage)
    return Message(id=id_, model=model, content=content, stop_reason=stop, usage=usage)


def _call_block(call: CallId, name: str, arguments: JsonObject) -> JsonObject:
    block: JsonObject = {"id": call, "name": name, "input": arguments}
    return {"type": "tool_use", **block, "caller": {"type": "direct"}}


def usage_of(usage: Usage) -> MessageUsage:
    """Return usage as this API counts it: apart from what the cache gave and took."""
    read, wrote = usage.cache_read_tokens, usage.cache_write_tokens
    return MessageUsage(
        input_tokens=max(0, usage.input_tokens - read - wrote),
        cache_creation_input_tokens=wrote,
        cache_read_input_tokens=read,
        cache_creation=CacheCreation(ephemeral_5m_input_tokens=wrote),
        output_tokens=usage.output_tokens,
        output_tokens_details=ThinkingDetails(thinking_tokens=usage.reasoning_tokens),
    )
