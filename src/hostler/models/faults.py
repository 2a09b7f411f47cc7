"""What went wrong with a question to a model, in one vocabulary: whose fault, and does waiting help.

Providers agree on little but HTTP's status codes, and not always on those: an overflow of the
context window is told in some thirty wordings, a spent budget as a rate limit, a fault in the
middle of an answer with status 200.  The wordings are data here, in the order they are tried.

Invariant: no key and no whole page ever gets into a message, and every message names the provider.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import msgspec

from hostler.core.ports import Failure, FaultCode

_AGAIN: frozenset[FaultCode] = frozenset(
    {
        "rate_limit",
        "overloaded",
        "server",
        "timeout_connect",
        "timeout_first_byte",
        "timeout_idle",
        "truncated",
        "unavailable",
    }
)
"""The same question may well be answered later; of all others it never will be."""

_LONGEST_DETAIL = 300
_LONGEST_WAIT_S = 86_400.0

OVERFLOW = (
    r"prompt is too long",  # Anthropic
    r"exceed context limit",  # Anthropic, with the room for the answer
    r"request_too_large",  # Anthropic, in bytes
    r"input is too long for requested model",  # Bedrock
    r"exceeds? the (model'?s )?context (window|length)",  # OpenAI, Ollama
    r"input token count.*exceeds the maximum",  # Gemini
    r"maximum prompt length is \d+",  # xAI
    r"reduce (the length of the messages|your message size)",  # Groq
    r"maximum context length",  # vLLM, OpenRouter, Mistral, DeepSeek, LiteLLM
    r"maximum allowed input length",  # Poolside
    r"longer than the model'?s context length",  # Together
    r"token count.{0,20}exceeds the limit of \d+",  # GitHub Copilot
    r"available context size",  # llama.cpp
    r"greater than the context length",  # LM Studio
    r"context window exceeds limit",  # MiniMax
    r"exceeded model token limit",  # Kimi
    r"model_context_window_exceeded",  # z.ai
    r"prompt too long; exceeded",  # Ollama
    r"requested \d+ output tokens",  # vLLM
    r"context[_ ]?(length|size|window)[_ ](exceeded|error)",  # OpenAI's and llama.cpp's codes
    r"model_max_prompt_tokens_exceeded",  # GitHub Copilot's code
    r"token limit exceeded",
    r"too many tokens(?!.*(wait|per (min|day|hour)))",
)
"""After the collection of Pi (packages/ai/src/utils/overflow.ts), which grew by bug reports."""
OVERSIZE = r"request too large.*(tokens per min|TPM)"
"""One request larger than a minute's tokens: a rate limit by its code, never granted by waiting."""
FILTERED = (
    r"content[_ ]?(filter|policy|management)",
    r"responsible ?ai ?policy",
    r"flagged.*moderation|moderation.*flagged",
    r"blocked.*safety|safety.*block|prohibited_content|data_inspection_failed",
    r"violat\w* .{0,40}(usage|content) polic",
)
TOOL_SCHEMA = (
    r"invalid schema for function",  # OpenAI
    r"invalid_function_parameters",
    r"tools?[.\[]\d+\]?\S*(input_schema|parameters)",  # Anthropic, OpenAI-compatible servers
    r"function_declarations?\S*parameters|function_declarations\[\d+\]",  # Gemini
    r"(tool|function)\b.{0,40}\b(json[_ ]?schema|grammar)",  # llama.cpp, Groq
)
KEY = (r"(api key not valid|api_key_invalid|(incorrect|invalid) api[ _-]?key)",)
"""Some tell a bad key as a bad request."""
SPENT = (
    r"insufficient[_ ](quota|balance|credit|funds)",
    r"exceeded your current quota.*(plan|billing)",
    r"billing[_ ](hard[_ ]limit|not[_ ]active)|credit balance|out of credits|requires more credits",
)
"""Wordings of a budget at its end, often with the status of a rate limit."""

_WORDS: Mapping[str, FaultCode] = {
    "rate_limit_exceeded": "rate_limit",
    "rate_limit_error": "rate_limit",
    "rate_limited": "rate_limit",
    "too_many_requests": "rate_limit",
    "resource_exhausted": "rate_limit",
    "overloaded_error": "overloaded",
    "overloaded": "overloaded",
    "engine_overloaded_error": "overloaded",
    "service_tier_capacity_exceeded": "overloaded",
    "capacity_exceeded": "overloaded",
    "unavailable": "overloaded",
    "server_error": "server",
    "api_error": "server",
    "internal": "server",
    "internal_error": "server",
    "internal_server_error": "server",
    "timeout_error": "server",
    "deadline_exceeded": "server",
    "network_error": "server",
    "provider_unavailable": "server",
    "invalid_api_key": "auth",
    "authentication_error": "auth",
    "permission_error": "auth",
    "permission_denied": "auth",
    "unauthenticated": "auth",
    "unauthorized": "auth",
    "invalid_request_error": "invalid_request",
    "invalid_argument": "invalid_request",
    "not_found_error": "invalid_request",
    "not_found": "invalid_request",
    "model_not_found": "invalid_request",
}
"""Codes and types in error objects, lower case."""
_STATUS: Mapping[int, FaultCode] = {
    401: "auth",
    402: "rate_limit",
    403: "auth",
    408: "server",
    409: "server",
    413: "context_overflow",
    425: "server",
    429: "rate_limit",
    498: "overloaded",  # Groq: no capacity in this tier
    503: "overloaded",
    529: "overloaded",  # Anthropic
}

_ADVICE: Mapping[FaultCode, str] = {
    "auth": "refused the key: check that it is set, valid and may use this model",
    "rate_limit": "limits the rate of requests",
    "overloaded": "is overloaded",
    "server": "had a fault of its own",
    "context_overflow": "says the conversation is longer than the model can read: shorten it",
    "content_filter": "stopped this with its content filter",
    "bad_tool_schema": "refused the schema of a tool",
    "invalid_request": "refused the request",
    "timeout_connect": "could not be connected to in time",
    "timeout_first_byte": "did not begin to answer in time",
    "timeout_idle": "stopped in the middle of its answer",
    "truncated": "ended its answer before it was complete",
    "unavailable": "cannot be reached",
}
_SPENT_ADVICE = "has no credit left for this account: see its billing page"


class Failed(Exception):
    """Ends an exchange with a model; `detail` is what is known beyond the code."""

    def __init__(
        self,
        code: FaultCode,
        detail: str = "",
        *,
        again: bool | None = None,
        retry_after_s: float | None = None,
        advice: str | None = None,
        words: Sequence[str] = (),
    ) -> None:
        """`words`: the codes and types that the provider itself gave it."""
        super().__init__(code, detail)
        self.code: FaultCode = code
        self.detail = detail
        self.again = code in _AGAIN if again is None else again
        self.retry_after_s = retry_after_s
        self.advice, self.words = advice, words

    def told(self, provider: str, secret: str | None) -> Failure:
        """Return what the caller is told: one line, without the secret."""
        message = f"{provider} {self.advice or _ADVICE[self.code]}"
        if self.detail:
            message += f": {_line(redacted(self.detail, secret))}"
        return Failure(
            code=self.code,
            message=message,
            again=self.again,
            retry_after_s=_bounded(self.retry_after_s) if self.again else None,
        )


def redacted(text: str, secret: str | None) -> str:
    """Return `text` with the secret, as it is or as JSON or a URL writes it, taken out."""
    if not secret:
        return text
    for form in {
        secret,
        secret.strip(),
        msgspec.json.encode(secret).decode()[1:-1],
        _quoted(secret),
    }:
        if form:
            text = text.replace(form, "[key]")
    return text


def _quoted(secret: str) -> str:
    return "".join(c if c.isalnum() or c in "-_.~" else f"%{ord(c):02X}" for c in secret)


def _line(text: str) -> str:
    if page := re.search(r"<!doctype|<html", text[:1000], re.IGNORECASE):
        title = re.search(r"<title[^>]*>([^<]{1,200})", text, re.IGNORECASE)
        text = text[: page.start()] + (f"a web page ({title[1]})" if title else "a web page")
    text = " ".join(text[: 4 * _LONGEST_DETAIL].split())
    return text if len(text) <= _LONGEST_DETAIL else text[: _LONGEST_DETAIL - 1] + "…"


@dataclass(frozen=True, slots=True)
class _Complaint:
    """What an error object says, whatever its shape."""

    words: tuple[str, ...]
    """Codes, types and statuses."""
    message: str
    status: int | None
    retry_after_s: float | None = None


def refusal(status: int, headers: Mapping[str, str], body: bytes, *, now: float) -> Failed:
    """Return what an answer with a status other than 200 means; `now` is for dates in headers."""
    try:
        said = _read(msgspec.json.decode(body)) if body.strip() else _Complaint((), "", None)
    except (ValueError, RecursionError):
        said = _Complaint((), body.decode("utf-8", "replace"), None)
    if 300 <= status < 400:
        place = headers.get("location", "elsewhere")
        return Failed("invalid_request", f"status {status}, a redirect to {place}: set base_url")
    wait_s = _retry_after_s(headers, now)
    return _judged(said, status, said.retry_after_s if wait_s is None else wait_s)


def complaint(error: object) -> Failed:
    """Return what an error object in the middle of an answer means."""
    said = _read(error)
    return _judged(said, said.status, said.retry_after_s)


def _judged(said: _Complaint, status: int | None, wait_s: float | None) -> Failed:
    words = " ".join((*said.words, said.message))
    detail = said.message or " ".join(said.words)
    if status is not None:
        detail = f"status {status}, {detail}" if detail else f"status {status}"
    busy = status == 429 or (status is not None and status >= 500)
    if _matches((OVERSIZE,), words) or (not busy and _matches(OVERFLOW, words)):
        return Failed("context_overflow", detail)
    if not busy and _matches(FILTERED, words):
        return Failed("content_filter", detail)
    if not busy and _matches(TOOL_SCHEMA, words):
        return Failed("bad_tool_schema", detail)
    # Google words a limit per minute as a spent budget, but then says when to come back.
    if status == 402 or (said.retry_after_s is None and _matches(SPENT, words)):
        return Failed("rate_limit", detail, again=False, advice=_SPENT_ADVICE)
    return Failed(_code(said, status), detail, retry_after_s=wait_s, words=said.words)


def _code(said: _Complaint, status: int | None) -> FaultCode:
    if status is not None and status in _STATUS:
        return _STATUS[status]
    broken = status is None or status >= 500
    if not broken and _matches(KEY, said.message):
        return "auth"
    for word in said.words:
        code = _WORDS.get(word.lower())
        if code is not None and (status is None or not broken or code in _AGAIN):
            return code
    return "server" if broken else "invalid_request"


@functools.cache
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{one})" for one in patterns), re.IGNORECASE)


def _matches(patterns: tuple[str, ...], words: str) -> bool:
    return _compiled(patterns).search(words[:10_000]) is not None


def _read(value: object) -> _Complaint:
    """Read `{"error": {…}}`, `{"error": "…"}`, `{"message": …}`, `{"detail": …}`, or a list of one."""
    if isinstance(value, list):
        value = next(iter(msgspec.convert(value, list[object])), None)
    if not isinstance(value, dict):
        return _Complaint((), _word(value), None)
    top = msgspec.convert(value, dict[object, object])
    inner = top.get("error")
    if isinstance(inner, str):
        return _Complaint((inner,) if inner.isidentifier() else (), _said(top) or inner, None)
    if isinstance(inner, dict):
        top = msgspec.convert(inner, dict[object, object])
    words = tuple(word for key in ("code", "type", "status") if (word := _word(top.get(key))))
    status = next((int(one) for one in words if re.fullmatch(r"[45]\d\d", one)), None)
    return _Complaint(words, _said(top), status, _delay_s(top.get("details")))


def _said(top: Mapping[object, object]) -> str:
    message = _word(top.get("message")) or _word(top.get("detail"))
    metadata = top.get("metadata")  # OpenRouter: what the provider behind it said
    if isinstance(metadata, dict):
        raw = _word(msgspec.convert(metadata, dict[object, object]).get("raw"))
        message = f"{message}: {raw}" if raw and raw != message else message
    return message


def _word(value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return ""
    return msgspec.json.encode(value).decode()


def _delay_s(details: object) -> float | None:
    """Google's RetryInfo: `{"retryDelay": "12.5s"}` among the details."""
    words = _word(details)
    if re.search(r'"quotaId":"[^"]*PerDay', words):
        return None  # some seconds, as ever, and not to be believed
    found = re.search(r'"retryDelay":"(\d+(?:\.\d+)?)s"', words)
    return min(float(found[1]), _LONGEST_WAIT_S) if found else None


def _retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """RFC 9110, 10.2.3: seconds or a date; and the milliseconds that OpenAI sends beside it."""
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) / scale
        except ValueError:
            seconds = _until(value, now)
        if (wait_s := _bounded(seconds)) is not None:
            return wait_s
    return None


def _bounded(seconds: float | None) -> float | None:
    if seconds is None or math.isnan(seconds):
        return None
    return min(max(seconds, 0.0), _LONGEST_WAIT_S)


def _until(date: str, now: float) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp() - now
    except (ValueError, OverflowError):
        return None
