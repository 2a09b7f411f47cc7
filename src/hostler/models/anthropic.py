"""Anthropic's Messages API, as Anthropic and those who imitate it speak it.

An answer is a row of blocks.  Text, thinking and calls go into the draft; what else there is
(signatures, hidden thinking, the provider's own tools) is kept in order, so that the model gets
its message back as it made it (`anthropic_request` says how).

Where the provider's own tools take long, it pauses the message; then it is asked to go on, and
both halves are one reply.

Invariant: an answer without `message_stop` is a failure, however much of it came.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from hostler.core.events import JsonObject, Stop, Usage
from hostler.core.ports import Delta, Failure, Reply, Request
from hostler.core.said import ModelSaid
from hostler.core.state import add
from hostler.models.anthropic_request import body
from hostler.models.calls import parsed
from hostler.models.capabilities import Capabilities, capabilities
from hostler.models.draft import Draft
from hostler.models.exchange import Patience, Route, Transport, bearer, endpoint
from hostler.models.faults import Failed, complaint
from hostler.models.mending import mended
from hostler.models.thinking import Tags
from hostler.models.told import count, json_object

VERSION = "2023-06-01"
"""Imitations know no other; 2026-10-21 differs in what it refuses, `temperature` among it, and can be
had by `headers`."""
_MOST_PAUSES = 10
"""Each pause is some ten uses of the provider's own tools."""
_STOPS: Mapping[str, Stop] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",  # the answer filled the window, not the question
    "refusal": "refusal",
}
"""All others, known or not, mean that the model is done."""


class _Delta(Struct, gc=False):
    # `object`: a wrong type is passed over, not the end of the answer.
    type: object = None
    text: object = None
    partial_json: object = None
    thinking: object = None
    signature: object = None
    citation: object = None
    stop_reason: object = None
    stop_sequence: object = None
    stop_details: object = None


class _Event(Struct, gc=False):
    type: object = None
    index: object = None
    delta: _Delta | None = None
    content_block: object = None
    message: object = None
    usage: object = None
    error: object = None
    content: object = None
    stop_reason: object = None
    stop_sequence: object = None
    stop_details: object = None
    """The last four of a whole message, from servers that do not stream after all."""


_decoder = msgspec.json.Decoder(_Event)


class Anthropic:
    """A `core.ports.Model` behind any base URL that serves `/v1/messages`."""

    def __init__(
        self,
        *,
        name: str,
        base_url: str,
        transport: Transport,
        key: Callable[[str], str | None],
        provider: str,
        headers: Mapping[str, str] | None = None,
        able: Mapping[str, object] | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Raises SetupError for an `able` that overrides what is no field of `Capabilities`."""
        self.provider, self.name = provider, name
        self.able = capabilities(provider, base_url, name, able)
        self._route = Route(
            provider=provider,
            model=name,
            url=messages_url(base_url),
            transport=transport,
            key=key,
            sign=bearer if self.able.bearer_key else lambda secret: {"x-api-key": secret},
            headers={"anthropic-version": VERSION, **(headers or {})},
            patience=patience or Patience(),
            prices=self.able.prices,
            window=self.able.context_window,
        )

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
        """See `core.ports.Model`."""
        reading = MessagesReading(self.name, self.able)
        usage, raw = Usage(), list[JsonObject | None]()
        said = tuple(request.transcript)  # is only lent, and a pause comes later
        for _ in range(_MOST_PAUSES):
            reply: Reply | None = None
            write = _writer(request, self.name, self.able)
            async with aclosing(self._route.ask(write, reading, tenant=request.tenant)) as parts:
                async for part in parts:
                    if isinstance(part, Reply):
                        reply = part
                    elif isinstance(part, Failure) and len(raw):  # after pauses, each was billed
                        yield replace(part, usage=add(usage, part.usage))
                    else:
                        yield part
            if reply is None:
                return
            usage, raw = add(usage, reply.usage), [*raw, reply.raw_usage]
            if not reading.paused:
                counts = reply.raw_usage if len(raw) == 1 else {"parts": raw}
                yield replace(reply, usage=usage, raw_usage=counts)
                return
            paused = ModelSaid(reply.text, reply.calls, reply.thinking, reply.replay)
            request = replace(request, transcript=(*said, paused))
            reading.go_on()
        detail = f"it paused {_MOST_PAUSES} times"
        failure = Failed("truncated", detail, again=False).told(self.provider, None)
        yield replace(failure, usage=usage)


def _writer(request: Request, model: str, able: Capabilities) -> Callable[[], bytes]:
    return lambda: body(request, model=model, able=able)


def messages_url(base_url: str) -> str:
    """Return the URL to ask, for a base with or without `/v1`, or the path already."""
    base = base_url.partition("?")[0].rstrip("/")
    known = base.endswith(("/v1", "/messages"))
    return endpoint(base_url, "/messages" if known else "/v1/messages")


class _Block:
    """One block of the answer: what of it is in the draft, as a length, and the rest of it."""

    __slots__ = ("chars", "fields", "kind", "pieces", "place")

    def __init__(self, kind: str, place: int, fields: JsonObject) -> None:
        self.kind, self.place, self.fields = kind, place, fields
        self.chars = 0
        self.pieces: list[str] = []
        """Of the input of the provider's own tools, as JSON."""

    @property
    def empty(self) -> bool:
        held = self.chars or self.fields.get("signature")
        return not held and self.kind in {"", "text", "thinking"}

    def kept(self) -> JsonObject:
        """Return what `anthropic_request` makes the block from again."""
        if self.kind in {"text", "thinking"}:
            extra = {k: v for k, v in self.fields.items() if k not in {"text", "thinking"} and v}
            return {"type": self.kind, "chars": self.chars, **extra}
        if self.kind == "tool_use":
            return {k: v for k, v in self.fields.items() if k not in {"id", "name", "input"}}
        whole = parsed("".join(self.pieces)) if self.pieces else None
        return self.fields if whole is None else self.fields | {"input": whole}


class MessagesReading:
    """Reads one answer, and what follows its pauses; an `exchange.Reading`."""

    def __init__(self, model: str, able: Capabilities) -> None:
        tags = able.think_tags
        self.draft = Draft(None if tags == "none" else Tags(implied=tags == "implied"))
        self.over = False
        self._model, self._able = model, able
        self._blocks: list[_Block] = []
        self._by_index: dict[object, _Block] = {}
        self._index: object = None
        self._block: _Block | None = None
        self._mixed = False
        self._stop: str | None = None
        self._sequence: str | None = None
        self._usage: JsonObject = {}

    @property
    def ended(self) -> bool:
        return self._stop is not None and (self.over or not self._able.message_stop)

    @property
    def paused(self) -> bool:
        return self._stop == "pause_turn"

    def go_on(self) -> None:
        """Be ready for what follows a pause."""
        self.over, self._stop, self._usage = False, None, {}
        self._by_index, self._index, self._block = {}, None, None

    def read(self, payloads: Sequence[bytes]) -> None:
        draft = self.draft
        for payload in payloads:
            try:
                event = _decoder.decode(payload)
            except (ValueError, RecursionError):
                if payload == b"[DONE]":  # from those who speak Chat Completions as well
                    continue
                event = mended(_decoder, payload)
            delta = event.delta
            if delta is None or event.type != "content_block_delta":
                self._beside(event, payload)
                if self.over:
                    return
                continue
            block = self._block
            if block is None or event.index != self._index:
                block = self._turn(event.index, delta)
            text = delta.text
            if delta.type == "text_delta" and isinstance(text, str):
                draft.text(text)
                block.chars += len(text)
            elif delta.type == "input_json_delta":
                self._argue(block, delta.partial_json)
            elif delta.type == "thinking_delta":
                self._think(block, delta.thinking)
            else:
                self._extend(block, delta, payload)

    def _turn(self, index: object, delta: _Delta) -> _Block:
        """Return the block of a delta that is not of the last one; begin one nobody announced."""
        block = self._by_index.get(index) if isinstance(index, int) else self._block
        if block is None:
            kind = "thinking" if delta.type in ("thinking_delta", "signature_delta") else "text"
            return self._begin({"type": kind}, index)
        # Two texts, or two thoughts, at once cannot be told apart again in the whole.
        later = self._blocks[block.place + 1 :]
        self._mixed |= any(one.kind == block.kind and one.chars for one in later)
        self._block, self._index = block, index
        return block

    def _begin(self, fields: JsonObject, index: object) -> _Block:
        kind = fields.get("type")
        block = _Block(kind if isinstance(kind, str) else "", len(self._blocks), fields)
        self._blocks.append(block)
        self._block, self._index = block, index
        if isinstance(index, int):
            self._by_index[index] = block
        if block.kind == "text" and isinstance(text := fields.get("text"), str):
            self.draft.text(text)
            block.chars += len(text)
        elif block.kind == "thinking":
            self._think(block, fields.get("thinking"))
        elif block.kind == "tool_use":
            id_, name, whole = fields.get("id"), fields.get("name"), fields.get("input")
            self.draft.call(
                index=block.place,
                provider_id=id_ if isinstance(id_, str) and id_ else None,
                name=name if isinstance(name, str) else None,
                arguments=json_object(whole) or None,
            )
        return block

    def _think(self, block: _Block, thought: object) -> None:
        if isinstance(thought, str) and thought:
            self.draft.think(thought)
            block.chars += len(thought)

    def _argue(self, block: _Block, piece: object) -> None:
        if isinstance(piece, dict):
            piece = msgspec.json.encode(piece).decode()
        if not isinstance(piece, str):
            return
        if block.kind == "tool_use":
            self.draft.call(index=block.place, arguments=piece)
        else:
            block.pieces.append(piece)

    def _extend(self, block: _Block, delta: _Delta, payload: bytes) -> None:
        if delta.type == "signature_delta":
            block.fields["signature"] = delta.signature if isinstance(delta.signature, str) else ""
        elif delta.type == "citations_delta":
            known = block.fields.get("citations")
            before = msgspec.convert(known, list[object]) if isinstance(known, list) else []
            block.fields["citations"] = [*before, delta.citation]
        elif block.kind not in {"text", "thinking", "tool_use"}:
            # Of blocks nobody here knows: what they hold is put together as it comes.
            raw = json_object(json_object(msgspec.json.decode(payload)).get("delta"))
            for name, value in raw.items():
                old = block.fields.get(name)
                if name != "type":
                    both = isinstance(old, str) and isinstance(value, str)
                    block.fields[name] = f"{old}{value}" if both else value

    def _beside(self, event: _Event, payload: bytes) -> None:
        match event.type:
            case "content_block_start":
                self._begin(json_object(event.content_block), event.index)
            case "message_start":
                self._count(json_object(event.message).get("usage"))
            case "message_delta":
                delta = event.delta or _Delta()
                self._count(event.usage)
                self._stopped(delta)
            case "message_stop":
                self.over = True
            case "message":
                self._whole(event)
            case "error":
                raise complaint(msgspec.json.decode(payload))
            case _ if event.error or (event.type is None and event.message):
                raise complaint(msgspec.json.decode(payload))  # without its usual wrapping
            case _:
                pass  # pings, the ends of blocks, and what is yet to be invented

    def _whole(self, event: _Event) -> None:
        blocks = msgspec.convert(event.content, list[object]) if _is_list(event.content) else []
        for block in blocks:
            self._begin(json_object(block), None)
        self._count(event.usage)
        self._stopped(event)
        self.over = True

    def _stopped(self, told: _Delta | _Event) -> None:
        reason, sequence = told.stop_reason, told.stop_sequence
        if not isinstance(reason, str) or not reason:
            return
        self._stop = reason
        if reason == "stop_sequence" and isinstance(sequence, str):
            self._sequence = sequence
        why = json_object(told.stop_details).get("explanation")
        if reason == "refusal" and isinstance(why, str) and not any(b.chars for b in self._blocks):
            self.draft.text(why)

    def _count(self, usage: object) -> None:
        # Counts are told at the start and, grown, at the end; not everybody tells all of them twice.
        self._usage |= {k: v for k, v in json_object(usage).items() if v is not None}

    def counted(self) -> Usage:
        return _usage(self._usage)

    def reply(self) -> Reply:
        stop = _STOPS.get(self._stop or "", "end")
        usage = _usage(self._usage)
        reply = self.draft.reply(stop=stop, usage=usage, raw_usage=self._usage or None)
        sequence = self._sequence if reply.stop == "end" else None
        return replace(reply, replay=self._replay(reply), stop_sequence=sequence)

    def _replay(self, reply: Reply) -> JsonObject | None:
        blocks = [one for one in self._blocks if not one.empty]
        if self._mixed or all(
            one.kind == "tool_use" or (one.kind == "text" and not one.fields.get("citations"))
            for one in blocks
        ):
            return None
        for kind, whole in (("text", reply.text), ("thinking", reply.thinking or "")):
            if sum(one.chars for one in blocks if one.kind == kind) != len(whole):
                return None
        return {"model": self._model, "content": [one.kept() for one in blocks]}


def _usage(raw: JsonObject) -> Usage:
    """Return usage under our names; the API counts what it read from its cache, or wrote, apart."""
    read, wrote = (
        count(raw, "cache_read_input_tokens"),
        count(raw, "cache_creation_input_tokens"),
    )
    details = json_object(raw.get("output_tokens_details"))
    return Usage(
        input_tokens=count(raw, "input_tokens") + read + wrote,
        output_tokens=count(raw, "output_tokens"),
        cache_read_tokens=read,
        cache_write_tokens=wrote,
        reasoning_tokens=count(details, "thinking_tokens"),
    )


def _is_list(value: object) -> bool:
    return isinstance(value, list)
