"""A model's answer as events of the Messages API, and as one message.

Blocks follow one another: each begins, grows and stops before the next one begins.

What the model wants back (a keepsake) is known at the end of its reply alone.  So once a model has
thought, its calls are not sent before the end: then the thought that is still open is signed with
it, or a block that is nothing but that is put before them.

Invariant: pure; the pieces of a block add up to the same text however they were cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from hostler.core.events import CallId, JsonObject, Stop, Usage
from hostler.core.ports import Delta, Failure, Reply
from hostler.faces.http.answers import Answer
from hostler.faces.http.form import encode
from hostler.faces.http.keepsakes import NOTHING, Keepsake, Keepsakes, keepsake_of
from hostler.faces.messages.bodies import CacheCreation, Message, MessageUsage, ThinkingDetails
from hostler.faces.messages.errors import VendorAnswer, event, failed, tell

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
    """Writes one answer: the `http.direct.Words` of this face."""

    alive = PING
    tell = staticmethod(tell)
    id_headers: Sequence[bytes] = (b"request-id",)

    def __init__(self, id_: str, model: str, keepsakes: Keepsakes, *, shows_thinking: bool) -> None:
        self._id, self._model, self._shows = id_, model, shows_thinking
        self._keepsakes = keepsakes
        self._frames: list[bytes] = []
        """What is to be sent."""
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

    def begin(self) -> Sequence[bytes]:
        start = Message(id=self._id, model=self._model, content=[], usage=MessageUsage())
        return (_frame("message_start", {"message": start}), PING)

    def add(self, delta: Delta) -> Sequence[bytes]:
        if (delta.part != self._part or delta.call != self._call) and not self._turns(delta):
            return ()
        self._grow(delta.text)
        return self._taken()

    def put(self, block: JsonObject) -> Sequence[bytes]:
        """Return a block that is whole from its start."""
        self._whole_block(block)
        return self._taken()

    def end(self, reply: Reply) -> Sequence[bytes]:
        kept = keepsake_of(reply, shown=self._shows)
        if self._shows:
            self._rest_of("thinking", reply.thinking or "")
        if self._part == "thinking":
            self._close(kept)
            kept = NOTHING
        self._rest_of("text", reply.text)
        self._rest_of_calls(reply, kept)
        self._close()
        stop, sequence = stop_of(reply)
        delta = {
            "stop_reason": stop,
            "stop_sequence": sequence,
            "stop_details": None,
            "container": None,
        }
        self._put("message_delta", {"delta": delta, "usage": usage_of(reply.usage)})
        self._put("message_stop", {})
        return self._taken()

    def error(self, answer: Answer, request: str) -> Sequence[bytes]:
        return (event(answer, request),)

    def whole(self, reply: Reply) -> Answer:
        made = message(self._id, self._model, reply, self._keepsakes, shown=self._shows)
        return VendorAnswer(200, made)

    def failed(self, failure: Failure) -> Answer:
        return failed(failure)

    def _taken(self) -> Sequence[bytes]:
        made, self._frames = self._frames, []
        return made

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
        try:
            msgspec.json.decode("".join(self._arguments), type=dict)
        except (ValueError, RecursionError):
            return False
        return True

    def _open_call(self, call: CallId, name: str) -> None:
        self._begun.add(call)
        self._arguments.clear()
        self._open("arguments", call_block(call, name, {}), call)

    def _open(self, part: str, block: JsonObject, call: CallId | None = None) -> None:
        self._close()
        self._index += 1
        self._part, self._call = part, call
        self._prefix = _DELTA % (self._index, *_GROWS[part])
        self._put("content_block_start", {"index": self._index, "content_block": block})

    def _grow(self, text: str) -> None:
        """Add to the block that is open."""
        if self._part == "arguments":
            self._arguments.append(text)
        elif self._part is not None:
            self._said[self._part] += len(text)
        if text:
            self._frames.append(b"%b%b}}\n\n" % (self._prefix, msgspec.json.encode(text)))

    def _close(self, kept: Keepsake = NOTHING) -> None:
        """Stop the block that is open, if one is."""
        if self._part is None:
            return
        if self._part == "thinking":
            # Even with nothing in it: some clients send no thought back that has no signature.
            delta = {"type": "signature_delta", "signature": self._keepsakes.give(kept)}
            self._put("content_block_delta", {"index": self._index, "delta": delta})
        self._put("content_block_stop", {"index": self._index})
        self._part = self._call = None

    def _whole_block(self, block: JsonObject) -> None:
        self._close()
        self._index += 1
        self._put("content_block_start", {"index": self._index, "content_block": block})
        self._put("content_block_stop", {"index": self._index})

    def _put(self, kind: str, fields: JsonObject) -> None:
        self._frames.append(_frame(kind, fields))

    # -- what only the reply has -----------------------------------------------------------------

    def _rest_of(self, part: str, whole: str) -> None:
        rest = whole[self._said[part] :]
        if rest:
            if self._part != part:
                self._open(part, _EMPTY[part])
            self._grow(rest)

    def _rest_of_calls(self, reply: Reply, kept: Keepsake) -> None:
        late = [one for one in reply.calls if one.id not in self._begun]
        if kept != NOTHING and reply.calls:
            data = self._keepsakes.give(kept)
            self._whole_block({"type": "redacted_thinking", "data": data})
        for one in late:
            self._open_call(one.id, one.name)
            self._grow(encode(one.arguments).decode() if one.arguments else "")


def _frame(kind: str, fields: JsonObject) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), encode({"type": kind, **fields}))


def stop_of(reply: Reply) -> tuple[str, str | None]:
    """Return why it stopped, and the stop sequence, where that is known."""
    if reply.stop == "end" and reply.stop_sequence is not None:
        return "stop_sequence", reply.stop_sequence
    return _STOPS[reply.stop], None


def message(id_: str, model: str, reply: Reply, keepsakes: Keepsakes, *, shown: bool) -> Message:
    """Return an answer as one message; `shown`: its thoughts, too."""
    kept, content = keepsake_of(reply, shown=shown), list[JsonObject]()
    if reply.thinking and shown:
        signed = {"thinking": reply.thinking, "signature": keepsakes.give(kept)}
        content.append({"type": "thinking", **signed})
        kept = NOTHING
    if reply.text:
        content.append({"type": "text", "text": reply.text, "citations": list[object]()})
    if kept != NOTHING and reply.calls:
        content.append({"type": "redacted_thinking", "data": keepsakes.give(kept)})
    content += [call_block(one.id, one.name, one.arguments) for one in reply.calls]
    stop, sequence = stop_of(reply)
    return Message(
        id=id_,
        model=model,
        content=content,
        stop_reason=stop,
        stop_sequence=sequence,
        usage=usage_of(reply.usage),
    )


def call_block(call: CallId, name: str, arguments: JsonObject) -> JsonObject:
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
