"""OpenAI's Chat Completions, as OpenAI and everybody who imitates it speak it.

Most of this file is about the imitations: what they leave out, send twice or call differently.
Which server wants what is not here but in `data/capabilities.toml`.

Invariant: an answer without the provider's own end is a failure, however much of it came.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence

import msgspec
from msgspec import Struct

from hostler.core.events import JsonObject, Stop, Usage
from hostler.core.ports import Delta, Failure, FaultCode, Reply, Request
from hostler.models.capabilities import Capabilities, capabilities
from hostler.models.chat_request import body
from hostler.models.draft import Draft
from hostler.models.exchange import Patience, Route, Transport, bearer, endpoint
from hostler.models.faults import Failed, complaint
from hostler.models.mending import mended
from hostler.models.thinking import Tags
from hostler.models.told import cost, count, json_object

_STOPS: Mapping[str, Stop] = {
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",  # Mistral: the context window is full
    "refusal": "refusal",
}
"""All others, known or not, mean that the model is done."""
_FAULTS: Mapping[str, FaultCode] = {
    "content_filter": "content_filter",
    "sensitive": "content_filter",  # z.ai
    "error": "server",  # OpenRouter
    "network_error": "server",  # z.ai
    "insufficient_system_resource": "overloaded",  # DeepSeek
    "model_context_window_exceeded": "context_overflow",  # z.ai
}
"""Reasons to finish that are none."""


class _Function(Struct, gc=False):
    name: object = None
    arguments: object = None


class _Call(Struct, gc=False):
    index: object = None
    id: object = None
    function: _Function | None = None
    extra_content: object = None


class _Said(Struct, gc=False):
    # `object` where imitations differ: a wrong type is passed over, not the end of the answer.
    content: object = None
    reasoning_content: object = None
    reasoning: object = None
    refusal: object = None
    tool_calls: list[_Call | None] | None = None
    reasoning_details: object = None


class _Choice(Struct, gc=False):
    delta: _Said | None = None
    message: _Said | None = None
    """Instead of `delta`, from servers that do not stream after all."""
    finish_reason: object = None
    stop_reason: object = None
    """vLLM: the stop sequence, or the number of the token, that ended the answer."""
    matched_stop: object = None
    """The same, from SGLang."""
    usage: object = None


class _Chunk(Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: object = None
    error: object = None


class _Piece(Struct, gc=False):
    """Of a `content` that is a list, as Mistral's reasoning models have it."""

    text: str = ""
    thinking: list[_Piece] | str | None = None


_NO_CHOICE = _Choice()
_decoder = msgspec.json.Decoder(_Chunk)
_any_decoder = msgspec.json.Decoder(object)


class OpenAIChat:
    """A `core.ports.Model` behind any base URL that serves `/chat/completions`."""

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
            url=endpoint(base_url, "/chat/completions"),
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
        return self._route.ask(
            lambda: body(request, model=self.name, able=self.able),
            ChatReading(self.name, self.able, request.wanted.stop),
            tenant=request.tenant,
        )


class ChatReading:
    """Reads one answer; an `exchange.Reading`."""

    def __init__(self, model: str, able: Capabilities, stops: Collection[str] = ()) -> None:
        """`stops`: the stop sequences that were asked for; whatever else is told is none."""
        tags = able.think_tags
        self.draft = Draft(None if tags == "none" else Tags(implied=tags == "implied"))
        self.over = False
        self._model, self._able, self._stops = model, able, stops
        self._finish: str | None = None
        self._sequence: str | None = None
        self._usage: object = None
        self._refused = False
        self._thinking_field: str | None = None
        self._details: list[JsonObject] = []
        self._extra: JsonObject = {}

    @property
    def ended(self) -> bool:
        return self._finish is not None

    def read(self, payloads: Sequence[bytes]) -> None:
        draft = self.draft
        for payload in payloads:
            if payload == b"[DONE]":
                self._done()
                return
            try:
                chunk = _decoder.decode(payload)
            except (ValueError, RecursionError):
                chunk = mended(_decoder, payload)
            if not chunk.choices or chunk.error is not None or chunk.usage is not None:
                self._beside(chunk, payload)
            choice = chunk.choices[0] if chunk.choices else _NO_CHOICE
            said = choice.delta or choice.message
            if said is not None:
                content = said.content
                if isinstance(content, str):
                    draft.text(content)
                elif content:
                    self._pieces(content)
                if (
                    said.reasoning_content is not None
                    or said.reasoning is not None
                    or said.tool_calls is not None
                    or said.refusal is not None
                    or said.reasoning_details is not None
                ):
                    self._more(said)
            if choice.finish_reason is not None or choice.usage is not None:
                self._finished(choice)

    def _done(self) -> None:
        self.over = True
        if self._finish is None and not self._able.finish_reason:
            self._finish = "stop"

    def _beside(self, chunk: _Chunk, payload: bytes) -> None:
        if chunk.error is not None and chunk.error != {}:
            raise complaint(chunk.error)
        if chunk.usage is not None:
            self._usage = chunk.usage
        elif not chunk.choices and b'"message"' in payload:
            # An error without its usual wrapping: nothing else has a message and no choices.
            raise complaint(mended(_any_decoder, payload))

    def _more(self, said: _Said) -> None:
        for field, thought in (
            ("reasoning_content", said.reasoning_content),
            ("reasoning", said.reasoning),
        ):
            if isinstance(thought, str) and thought:
                self._thinking_field = field
                self.draft.think(thought)
                break  # gateways send the same twice, under both names
        if isinstance(said.refusal, str) and said.refusal:
            self._refused = True
            self.draft.text(said.refusal)
        for call in said.tool_calls or ():
            if call is not None:
                self._call(call)
        if self._able.replay_details:
            self._detail(said.reasoning_details)

    def _call(self, call: _Call) -> None:
        function = call.function or _Function()
        arguments = function.arguments
        if not isinstance(arguments, str | None):
            arguments = msgspec.json.encode(arguments).decode()  # an object, already whole
        ours = self.draft.call(
            index=call.index if isinstance(call.index, int) else None,
            provider_id=call.id if isinstance(call.id, str) and call.id else None,
            name=function.name if isinstance(function.name, str) else None,
            arguments=arguments,
        )
        if call.extra_content is not None and self._able.replay_details:
            self._extra[ours] = call.extra_content

    def _detail(self, details: object) -> None:
        for detail in msgspec.convert(details, list[object]) if isinstance(details, list) else ():
            if not isinstance(detail, dict):
                continue
            new, last = msgspec.convert(detail, dict[str, object]), (self._details or [{}])[-1]
            streamed = {"reasoning.text": "text", "reasoning.summary": "summary"}
            field = streamed.get(str(new.get("type")))
            if field is None or new.get("type") != last.get("type"):
                self._details.append(new)
                continue
            new[field] = f"{last.get(field) or ''}{new.get(field) or ''}"
            self._details[-1] = last | {k: v for k, v in new.items() if v is not None}

    def _pieces(self, content: object) -> None:
        try:
            pieces = msgspec.convert(content, list[_Piece])
        except msgspec.ValidationError:
            return
        for piece in pieces:
            thought = piece.thinking
            if isinstance(thought, list):
                thought = "".join(one.text for one in thought)
            if thought:
                self.draft.think(thought)
            if piece.text:
                self.draft.text(piece.text)

    def _finished(self, choice: _Choice) -> None:
        if choice.usage is not None and self._usage is None:
            self._usage = choice.usage  # Moonshot
        if isinstance(choice.finish_reason, str) and choice.finish_reason:
            self._finish = choice.finish_reason
            by = choice.stop_reason or choice.matched_stop
            self._sequence = by if isinstance(by, str) and by in self._stops else None

    def counted(self) -> Usage:
        return _usage(json_object(self._usage))

    def reply(self) -> Reply:
        finish = (self._finish or "").lower()
        if (code := _FAULTS.get(finish)) is not None:
            raise Failed(code, f"finish_reason {finish}")
        raw = json_object(self._usage)
        stop = "refusal" if self._refused else _STOPS.get(finish, "end")
        reply = self.draft.reply(
            stop=stop, usage=_usage(raw), raw_usage=raw or None, replay=self._replay()
        )
        sequence = self._sequence if reply.stop == "end" else None
        return msgspec.structs.replace(reply, stop_sequence=sequence)

    def _replay(self) -> JsonObject | None:
        replay: JsonObject = {}
        if self._able.thinking_field is not None and self._thinking_field is not None:
            replay["thinking_field"] = self._thinking_field
        if self._details:
            replay["reasoning_details"] = self._details
        if self._extra:
            replay["extra_content"] = self._extra
        return {"model": self._model, **replay} if replay else None


def _usage(raw: JsonObject) -> Usage:
    """Return usage under our names; providers agree on two of the five."""
    asked, made = (
        json_object(raw.get("prompt_tokens_details")),
        json_object(raw.get("completion_tokens_details")),
    )
    read, wrote = count(raw, "prompt_tokens"), count(raw, "completion_tokens")
    reasoning = count(made, "reasoning_tokens")
    if reasoning and count(raw, "total_tokens") == read + wrote + reasoning:
        wrote += reasoning  # xAI counts them apart
    cached = (
        count(asked, "cached_tokens")
        or count(raw, "prompt_cache_hit_tokens")  # DeepSeek
        or count(raw, "cached_tokens")  # Moonshot
    )
    spent = cost(raw)
    return Usage(
        input_tokens=read,
        output_tokens=wrote,
        cache_read_tokens=cached,
        cache_write_tokens=count(asked, "cache_write_tokens"),
        reasoning_tokens=reasoning,
        cost=spent,
        price=None if spent is None else "provider",
    )
