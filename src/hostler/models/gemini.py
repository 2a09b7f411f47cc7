"""Google's Gemini API, `streamGenerateContent`.

Each event is a whole response with the next few parts of the message; calls come whole.  There is
no event that ends the stream: the message is complete when an event has a `finishReason`.

Invariant: an answer without a `finishReason`, or with one that is not the model's own, is a
failure, however much of it came.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from hostler.core.events import CallId, JsonObject, Stop, Usage
from hostler.core.ports import Delta, Failure, FaultCode, Reply, Request
from hostler.models.capabilities import capabilities
from hostler.models.draft import Draft
from hostler.models.exchange import Patience, Route, Transport, endpoint
from hostler.models.faults import Failed, complaint
from hostler.models.gemini_request import Mark, body
from hostler.models.mending import mended
from hostler.models.told import count, json_object

_STOPS: Mapping[str, Stop] = {
    "STOP": "end",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
}
_FAULTS: Mapping[str, FaultCode] = {
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "ESCALATION": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "MISSING_THOUGHT_SIGNATURE": "invalid_request",
    "PUP_LIMITED_DISABLED": "auth",
}
"""Reasons to finish that are none.  All others, known or not, are bad luck of the model, such as
MALFORMED_FUNCTION_CALL, UNEXPECTED_TOOL_CALL and OTHER: `server`, and another try may go well."""
_NO_REASON = "FINISH_REASON_UNSPECIFIED"
_VERSION = re.compile(r"/v\d+[a-z0-9]*(?=/|$)")


class _Call(Struct, gc=False):
    id: object = None
    name: object = None
    args: Raw = Raw()


class _Part(Struct, gc=False, rename="camel"):
    # `object` where gateways may differ: a wrong type is passed over, not the end of the answer.
    text: object = None
    thought: object = None
    thought_signature: object = None
    function_call: _Call | None = None
    executable_code: object = None
    code_execution_result: object = None
    tool_call: object = None
    tool_response: object = None


class _Content(Struct, gc=False):
    parts: list[_Part | None] | None = None


class _Candidate(Struct, gc=False, rename="camel"):
    content: _Content | None = None
    finish_reason: object = None
    finish_message: object = None


class _Feedback(Struct, gc=False, rename="camel"):
    block_reason: object = None
    block_reason_message: object = None


class _Chunk(Struct, gc=False, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: Raw = Raw()
    error: object = None


_THEIRS = ("executable_code", "code_execution_result", "tool_call", "tool_response")
"""Parts about tools that run at the provider: nothing to us, but it wants them back."""
_CAMEL = dict(zip(_Part.__struct_fields__, _Part.__struct_encode_fields__, strict=True))
_decoder = msgspec.json.Decoder(_Chunk)
_several = msgspec.json.Decoder(list[_Chunk])


class Gemini:
    """A `core.ports.Model` behind any base URL that serves `:streamGenerateContent`."""

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
            url=url_of(base_url, name),
            transport=transport,
            key=key,
            sign=_sign,
            headers=headers or {},
            patience=patience or Patience(),
            prices=self.able.prices,
            window=self.able.context_window,
        )

    def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
        """See `core.ports.Model`."""
        return self._route.ask(
            lambda: body(request, model=self.name, able=self.able),
            GeminiReading(self.name),
            tenant=request.tenant,
        )


class GeminiReading:
    """Reads one answer; an `exchange.Reading`."""

    def __init__(self, model: str) -> None:
        self.draft = Draft()
        self.over = False
        self._model = model
        self._finish: str | None = None
        self._why = ""
        self._usage = Raw()
        self._text_length = 0
        self._thought_length = 0
        self._calls = 0
        self._marks: list[Mark] = []

    @property
    def ended(self) -> bool:
        return self._finish is not None

    def read(self, payloads: Sequence[bytes]) -> None:
        decode = _decoder.decode
        for payload in payloads:
            try:
                chunk = decode(payload)
            except (ValueError, RecursionError):
                for one in self._odd(payload):
                    self._take(one)
            else:
                self._take(chunk)

    def _odd(self, payload: bytes) -> Sequence[_Chunk]:
        if payload == b"[DONE]":  # gateways, out of habit
            self.over = True
            return ()
        if not payload.lstrip().startswith(b"["):
            return (mended(_decoder, payload),)
        try:  # what there is without `alt=sse`: one array of all
            return _several.decode(payload)
        except (ValueError, RecursionError):
            return mended(_several, payload)

    def _take(self, chunk: _Chunk) -> None:
        if chunk.usage_metadata:
            self._usage = chunk.usage_metadata  # of all so far, each time
        candidates = chunk.candidates
        if not candidates or chunk.error is not None:
            self._beside(chunk)
            return
        candidate = candidates[0]
        content = candidate.content
        if content is not None and content.parts is not None:
            draft = self.draft
            for part in content.parts:
                if part is None:
                    continue
                text = part.text
                if isinstance(text, str) and part.thought_signature is None:
                    if part.thought is True:
                        draft.think(text)
                        self._thought_length += len(text)
                    else:
                        draft.text(text)
                        self._text_length += len(text)
                else:
                    self._part(part)
        reason = candidate.finish_reason
        if isinstance(reason, str) and reason and reason != _NO_REASON:
            self._finish = reason
            if isinstance(candidate.finish_message, str):
                self._why = candidate.finish_message

    def _beside(self, chunk: _Chunk) -> None:
        if chunk.error is not None and chunk.error != {}:
            raise complaint(chunk.error)
        feedback = chunk.prompt_feedback
        if feedback is not None and isinstance(feedback.block_reason, str):
            said, why = feedback.block_reason_message, f"blockReason {feedback.block_reason}"
            raise Failed("content_filter", f"{why}: {said}" if isinstance(said, str) else why)

    def _part(self, part: _Part) -> None:
        """Take a part with a signature or without text."""
        signature = part.thought_signature if isinstance(part.thought_signature, str) else None
        at = self._text_length
        if part.function_call is not None:
            mark = Mark(at=at, call=self._call(part.function_call), signature=signature)
        elif theirs := {_CAMEL[name]: value for name in _THEIRS if (value := getattr(part, name))}:
            mark = Mark(at=at, part=theirs, signature=signature)
        elif signature is None:
            return
        else:
            text = part.text if isinstance(part.text, str) else ""
            mark = self._signed(text, signature, thought=part.thought is True)
        self._marks.append(mark)

    def _signed(self, text: str, signature: str, *, thought: bool) -> Mark:
        if thought:
            at = self._thought_length
            self.draft.think(text)
            self._thought_length += len(text)
        else:
            at = self._text_length
            self.draft.text(text)
            self._text_length += len(text)
        return Mark(at=at, length=len(text), thought=thought, signature=signature)

    def _call(self, call: _Call) -> CallId:
        self._calls += 1
        return self.draft.call(
            index=self._calls,  # whole, each of them, whatever its id says
            provider_id=call.id if isinstance(call.id, str) and call.id else None,
            name=call.name if isinstance(call.name, str) else None,
            arguments=bytes(call.args).decode("utf-8", "replace"),
        )

    def counted(self) -> Usage:
        return _usage(_json_object(self._usage))

    def reply(self) -> Reply:
        finish = self._finish or ""
        stop = _STOPS.get(finish)
        if stop is None:
            why = f": {self._why}" if self._why else ""
            raise Failed(_FAULTS.get(finish, "server"), f"finishReason {finish}{why}")
        raw = _json_object(self._usage)
        return self.draft.reply(
            stop=stop, usage=_usage(raw), raw_usage=raw or None, replay=self._replay()
        )

    def _replay(self) -> JsonObject | None:
        if all(mark.signature is None and mark.part is None for mark in self._marks):
            return None
        return {"model": self._model, "parts": msgspec.to_builtins(self._marks)}


def _usage(raw: JsonObject) -> Usage:
    thought = count(raw, "thoughtsTokenCount")
    read = count(raw, "promptTokenCount") + count(raw, "toolUsePromptTokenCount")
    wrote = count(raw, "candidatesTokenCount")
    if not (thought and count(raw, "totalTokenCount") == read + wrote):
        wrote += thought  # counted apart, but for some gateways
    return Usage(
        input_tokens=read,
        output_tokens=wrote,
        cache_read_tokens=count(raw, "cachedContentTokenCount"),
        reasoning_tokens=thought,
    )


def _json_object(raw: Raw) -> JsonObject:
    try:
        value: object = msgspec.json.decode(raw) if raw else None
    except (ValueError, RecursionError):
        return {}
    return json_object(value)


def _sign(key: str) -> Mapping[str, str]:
    return {"x-goog-api-key": key}


def url_of(base_url: str, model: str) -> str:
    """Return where to ask a model; the base may have a version, and a query.

    Without a version it is v1beta: previews and the `-latest` names are not served by v1.
    """
    base, mark, query = base_url.partition("?")
    version = "" if _VERSION.search(base) else "/v1beta"
    model = quote(model if "/" in model else f"models/{model}", safe="/:@")
    path = f"/{model}:streamGenerateContent"
    url = endpoint(f"{base.rstrip('/')}{version}{mark}{query}", path)
    return f"{url}{'&' if mark else '?'}alt=sse"
