"""OpenAI's Responses, used without state: nothing is stored there, and nothing asked back by id.

An answer is a list of items (thoughts, messages, calls) that are told three times: as deltas,
whole when each is done, and whole once more at the end.  Servers leave out any two of the three,
number all items 0 or give an item another id in every event; so what was not told as deltas is
taken from where it is whole, once.

Invariant: an answer without the provider's own end is a failure, however much of it came.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

import msgspec
from msgspec import Struct

from hostler.core.events import JsonObject, Usage
from hostler.core.ports import Delta, Failure, FaultCode, Reply, Request
from hostler.models.capabilities import Capabilities, capabilities
from hostler.models.draft import Draft
from hostler.models.exchange import Patience, Route, Transport, bearer, endpoint
from hostler.models.faults import Failed, complaint
from hostler.models.mending import mended
from hostler.models.responses_items import Item, Items, as_it_came
from hostler.models.responses_request import Maker, body
from hostler.models.responses_seals import Seals
from hostler.models.thinking import Tags
from hostler.models.told import cost, count, json_object

_TEXT = "response.output_text.delta"
_THOUGHTS = frozenset(
    {
        "response.reasoning_summary_text.delta",
        "response.reasoning_text.delta",
        "response.reasoning.delta",  # OpenRouter
    }
)
_ENDS: Mapping[object, str] = {
    "response.completed": "completed",
    "response.done": "completed",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
    "response.cancelled": "cancelled",
}
_FAULTS: Mapping[object, FaultCode] = {
    "server_is_overloaded": "overloaded",
    "slow_down": "overloaded",
    "bio_policy": "content_filter",
    "misalignment_policy_violation": "content_filter",
}
"""Codes in errors that are this API's own."""
_IN_VAIN = re.compile(r"invalid_|unsupported_|unknown_|data_residency|.*image", re.IGNORECASE)
"""Codes of what the same question would meet again."""
_SEALED = "invalid_encrypted_content"
"""A thought was encrypted for another key's organisation, or is too old."""
_WAIT = re.compile(r"try again in (\d+(?:\.\d+)?) ?(ms|s)\b", re.IGNORECASE)
"""In the middle of a stream there is no header to say it in."""


class _Event(Struct, gc=False):
    # `object` where servers differ: a wrong type is passed over, not the end of the answer.
    type: object = None
    delta: object = None
    output_index: object = None
    item_id: object = None
    summary_index: object = None
    content_index: object = None
    name: object = None
    arguments: object = None
    item: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()
    error: object = None


class _Response(Struct, gc=False):
    is_a: object = msgspec.field(default=None, name="object")
    status: object = None
    error: object = None
    incomplete_details: object = None
    output: object = None
    usage: object = None


_decoder = msgspec.json.Decoder(_Event)
_whole_decoder = msgspec.json.Decoder(_Response)


class OpenAIResponses:
    """A `core.ports.Model` behind any base URL that serves `/responses`."""

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
        self._maker = Maker(provider, name)
        self._seals = Seals()
        self._route = Route(
            provider=provider,
            model=name,
            url=endpoint(base_url, "/responses"),
            transport=transport,
            key=key,
            sign=bearer,
            headers=headers or {},
            patience=patience or Patience(),
            prices=self.able.prices,
            window=self.able.context_window,
        )

    def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
        """See `core.ports.Model`."""
        seals = self._seals.question()
        return self._route.ask(
            lambda: body(request, maker=self._maker, able=self.able, seals=seals),
            ResponsesReading(self._maker, self.able),
            tenant=request.tenant,
            mended=lambda failed: _SEALED in failed.words and seals.broke(),
        )


class ResponsesReading:
    """Reads one answer; an `exchange.Reading`."""

    def __init__(self, maker: Maker, able: Capabilities) -> None:
        tags = able.think_tags
        self.draft = Draft(None if tags == "none" else Tags(implied=tags == "implied"))
        self.over = False
        self._maker, self._able = maker, able
        self._items = Items(self.draft)
        self._message: Item | None = None
        """The one that text comes for."""
        self._end: str | None = None
        self._usage: object = None

    @property
    def ended(self) -> bool:
        return self._end is not None

    def read(self, payloads: Sequence[bytes]) -> None:
        draft, items, message = self.draft, self._items, self._message
        for payload in payloads:
            try:
                event = _decoder.decode(payload)
            except (ValueError, RecursionError):
                if payload == b"[DONE]":
                    self._done()
                    return
                event = mended(_decoder, payload)
            delta = event.delta
            if event.type == _TEXT and isinstance(delta, str):
                if message is None or message.index != event.output_index or not message.told:
                    if not delta:
                        continue
                    message = items.saying(event.output_index, event.item_id)
                draft.text(delta)
                message.told += len(delta)
                items.length += len(delta)
                continue
            self._message = message
            self._other(event, payload)
            message = self._message
            if self.over:
                return
        self._message = message

    def _done(self) -> None:
        self.over = True
        if self._end is None and not self._able.finish_reason:
            self._end = "completed"

    def _other(self, event: _Event, payload: bytes) -> None:
        kind = event.type if isinstance(event.type, str) else None
        if isinstance(event.delta, str):
            self._delta(kind, event, event.delta)
        elif kind == "response.output_item.added":
            self._message = None
            self._items.added(as_it_came(event.item), event.output_index)
        elif kind == "response.output_item.done":
            self._message = None
            self._items.done(as_it_came(event.item), event.output_index)
        elif kind == "response.function_call_arguments.done":
            call = {"type": "function_call", "id": event.item_id, "name": event.name}
            self._items.argued({**call, "arguments": event.arguments}, event.output_index)
        elif kind in _ENDS:
            self._ended(_ENDS[kind], _response(event.response))
        elif kind == "error" or event.error is not None:
            raise _fault(as_it_came(payload))
        elif kind is None:
            self._untyped(payload)

    def _delta(self, kind: str | None, event: _Event, delta: str) -> None:
        index, id_, items = event.output_index, event.item_id, self._items
        if kind == "response.function_call_arguments.delta":
            items.argue(index, id_, delta)
        elif kind == "response.refusal.delta" and delta:
            items.refused = True
            self._message = items.saying(index, id_)
            items.say(self._message, delta)
        elif kind in _THOUGHTS and delta:
            part = (event.summary_index, event.content_index)
            items.think(index, id_, delta, (kind, part))

    def _untyped(self, payload: bytes) -> None:
        """Read what is no event: the whole answer, for want of a stream; or an error as it is."""
        response = _response(payload)
        if response.is_a == "response":
            if response.status not in ("queued", "in_progress"):
                self._ended("completed", response)
        elif b'"message"' in payload:
            raise _fault(as_it_came(payload))

    def _ended(self, end: str, response: _Response) -> None:
        self.over = True
        if response.status in ("incomplete", "failed", "cancelled"):
            end = str(response.status)
        self._usage = response.usage
        if end == "failed":
            raise _fault(response.error)
        if end == "cancelled":
            raise Failed("server", "the response was cancelled")
        self._items.all_done(response.output)
        why = json_object(response.incomplete_details).get("reason")
        if why == "content_filter":
            raise Failed("content_filter", f"incomplete: {why}")
        self._end = end

    def counted(self) -> Usage:
        return _counted(json_object(self._usage))

    def reply(self) -> Reply:
        items = self._items
        if (owed := items.owed) is not None:
            raise Failed("invalid_request", f"it made a {owed}, and only functions are run")
        raw = json_object(self._usage)
        cut = self._end == "incomplete"
        reply = self.draft.reply(
            stop="refusal" if items.refused else "length" if cut else "end",
            usage=_counted(raw),
            raw_usage=raw or None,
        )
        replay = items.replay(reply, self._maker)
        return reply if replay is None else msgspec.structs.replace(reply, replay=replay)


def _response(raw: msgspec.Raw | bytes) -> _Response:
    if not bytes(raw):
        return _Response()  # an end without a body, from some gateways
    try:
        return _whole_decoder.decode(raw)
    except msgspec.ValidationError:
        return _Response()
    except (ValueError, RecursionError):
        return mended(_whole_decoder, bytes(raw))


def _fault(said: object) -> Failed:
    top = json_object(said)
    error = json_object(top.get("error")) or top
    code = error.get("code")
    failed = complaint(said)
    if failed.code == "server" and isinstance(code, str):
        known = _FAULTS.get(code)
        if known is None and _IN_VAIN.match(code):
            known = "invalid_request"
        if known is not None:
            return Failed(known, failed.detail, words=failed.words)
    if failed.again and failed.retry_after_s is None and (wait := _WAIT.search(failed.detail)):
        failed.retry_after_s = float(wait[1]) / (1000.0 if wait[2].lower() == "ms" else 1.0)
    return failed


def _counted(raw: JsonObject) -> Usage:
    asked = json_object(raw.get("input_tokens_details"))
    made = json_object(raw.get("output_tokens_details"))
    read, wrote = count(raw, "input_tokens"), count(raw, "output_tokens")
    reasoning = count(made, "reasoning_tokens")
    if reasoning and count(raw, "total_tokens") == read + wrote + reasoning:
        wrote += reasoning  # xAI counts them apart
    spent = cost(raw)
    return Usage(
        input_tokens=read,
        output_tokens=wrote,
        cache_read_tokens=count(asked, "cached_tokens"),
        cache_write_tokens=count(asked, "cache_write_tokens"),
        reasoning_tokens=reasoning,
        cost=spent,
        price=None if spent is None else "provider",
    )
