"""One question to a model over HTTP, from the key to the `Reply`: the part all wire APIs share.

    Route.ask ──▶ Transport.post ──▶ Answer.events ──▶ Reading.read ──▶ Draft ──▶ deltas, ending
                  (sockets)          (payloads)        (one wire API)

A wire API brings a function that writes the body and a `Reading`, neither of which does any I/O;
a transport brings bytes.  Neither knows the other.

Invariant: whatever comes, `ask` yields what was said, then exactly one ending, and raises nothing;
when it is closed early, the connection is closed.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from hostler.core.errors import SetupError
from hostler.core.events import Usage
from hostler.core.ports import Delta, Failure, Reply
from hostler.models.draft import Draft
from hostler.models.faults import Failed, refusal
from hostler.models.prices import priced

LARGEST_REPLY = 16 * 1024 * 1024
"""Characters; the longest outputs there are, 128,000 tokens, are about half a million."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait for a provider, in seconds.  Waiting for our own caller does not count."""

    connect_s: float = 10.0
    first_byte_s: float = 120.0
    """From the question to the first event: local models read long prompts slowly."""
    idle_s: float = 300.0
    """Between events; comments that keep the connection open are none.  As Codex has it."""
    tail_s: float = 5.0
    """After the message is complete, for what may still follow: usage, the end of the stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much a provider may send; more ends the exchange."""

    event_bytes: int = 16 * 1024 * 1024
    body_bytes: int = 256 * 1024 * 1024
    """The longest answers there are, at some 350 bytes a token, take 45 MB."""
    error_bytes: int = 64 * 1024
    """Of an answer that says what went wrong; the rest of it is not read."""
    list_bytes: int = 8 * 1024 * 1024
    """Of a list of models; those of the large gateways have half a megabyte."""


class Answer(Protocol):
    """What came back for a POST, its body still coming."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]:
        """By lower-case name."""
        ...

    async def events(self, limit_s: float) -> list[bytes]:
        """Wait for events, and return the data of all that are complete; none: the stream is over.

        A body of JSON counts as one event.

        Raises:
            TimeoutError: no event came for `limit_s`.
            Failed: `truncated` for a broken connection, `server` for more than the bounds.
        """
        ...

    async def body(self, limit_s: float) -> bytes:
        """Return the body as far as the bounds go; what there is of it when the connection breaks."""
        ...

    def close(self, *, kindly: bool) -> None:
        """Give the connection up; `kindly`: keep it if the body ends within the next moment."""
        ...


class Transport(Protocol):
    """HTTP.  The only thing between us and sockets, so that it can be exchanged."""

    async def post(
        self, url: str, *, headers: Mapping[str, str], body: bytes, patience: Patience
    ) -> Answer:
        """Send JSON; return as soon as the headers are there, whatever the status.

        Raises:
            Failed: `unavailable`, `timeout_connect`, `timeout_first_byte` or `invalid_request`.
        """
        ...

    async def get_json(self, url: str, *, headers: Mapping[str, str], timeout_s: float) -> object:
        """Return the decoded body.  Raises Failed, for a status other than 200 as well."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


class Reading(Protocol):
    """How the stream of one wire API is read.  Made for one answer; does no I/O."""

    @property
    def draft(self) -> Draft: ...
    @property
    def ended(self) -> bool:
        """The provider said that the message is complete; usage may still follow."""
        ...

    @property
    def over(self) -> bool:
        """Nothing more is to come, whether or not the connection is closed."""
        ...

    def read(self, payloads: Sequence[bytes]) -> None:
        """Take the data of events into the draft.

        Raises:
            Failed: the provider tells of a fault, or sends what cannot be read.
        """
        ...

    def counted(self) -> Usage:
        """Return the usage that was told so far, at whatever moment."""
        ...

    def reply(self) -> Reply:
        """Return the message, `ended` and `draft` closed.  Raises Failed: it is no answer after all."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where questions to one model go, and how."""

    provider: str
    """As messages and usage tables call it."""
    model: str
    url: str
    transport: Transport
    key: Callable[[str], str | None]
    """A tenant's.  Asked for each question, so that keys may change while a run goes on.

    Raises SetupError when there is one that cannot be had.
    """
    sign: Callable[[str], Mapping[str, str]]
    """From the key to the headers that carry it."""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    patience: Patience = Patience()
    prices: str | None = None
    window: int | None = None
    """Tokens of context, for providers that cut longer conversations in silence."""

    async def ask(
        self,
        write: Callable[[], bytes],
        reading: Reading,
        *,
        tenant: str,
        mended: Callable[[Failed], bool] | None = None,
    ) -> AsyncGenerator[Delta | Reply | Failure, None]:
        """Ask once.  `write` is called before the first await.

        `mended`: whether a failure is over with, as the same question will be written otherwise.
        """
        started, key = time.monotonic(), ""
        try:
            key = self._key(tenant)
            answer = await self._answer(key, write)
        except Failed as failed:
            yield _again(failed, mended).told(self.provider, key)
            return
        del write  # and with it the transcript, which was only lent
        draft, said, heard, failure = reading.draft, 0, False, None
        limit_s = self.patience.first_byte_s - (time.monotonic() - started)
        try:
            while not reading.over:
                try:
                    payloads = await answer.events(limit_s)
                    reading.read(payloads)
                except (Failed, TimeoutError) as error:
                    payloads, failure = [], _failed(error, reading, heard=heard)
                for delta in draft.take():
                    said += len(delta.text)
                    yield delta
                if not payloads:
                    break
                if said > LARGEST_REPLY:
                    failure = Failed("server", "its answer has no end", again=False)
                    break
                heard = True
                limit_s = self.patience.tail_s if reading.ended else self.patience.idle_s
            draft.close()
            for delta in draft.take():
                yield delta
        finally:
            answer.close(kindly=reading.over)
        if failure is None and not reading.ended:
            failure = _unfinished(answer, heard=heard)
        if failure is None:
            yield self._reply(reading)
        else:
            yield self._failure(_again(failure, mended), reading, key)

    def _failure(self, failed: Failed, reading: Reading, key: str | None) -> Failure:
        """Return what the caller is told; what was counted is billed, reply or not."""
        told, used = failed.told(self.provider, key), reading.counted()
        if not (used.input_tokens or used.output_tokens):
            return told
        usage = priced(self.prices, self.model, used)
        return msgspec.structs.replace(told, usage=usage)

    def _key(self, tenant: str) -> str:
        try:
            return (self.key(tenant) or "").strip()
        except SetupError as error:
            raise Failed("auth", str(error), advice="is not asked") from error

    async def _answer(self, key: str, write: Callable[[], bytes]) -> Answer:
        if not (key.isascii() and key.isprintable()):
            raise Failed("auth", "the key holds characters that no header can carry")
        headers = {**(self.sign(key) if key else {}), **self.headers}
        try:
            body = write()
        except (ValueError, TypeError, RecursionError, msgspec.MsgspecError) as error:
            raise Failed("invalid_request", f"it cannot be written as JSON: {error}") from error
        answer = await self.transport.post(
            self.url, headers=headers, body=body, patience=self.patience
        )
        if 200 <= answer.status < 300:
            return answer
        try:
            said = await answer.body(self.patience.first_byte_s)
        finally:
            answer.close(kindly=True)
        raise refusal(answer.status, answer.headers, said, now=time.time())

    def _reply(self, reading: Reading) -> Reply | Failure:
        try:
            reply = reading.reply()
        except Failed as failed:
            return self._failure(failed, reading, None)
        usage = priced(self.prices, self.model, reply.usage)
        read = usage.input_tokens
        if self.window is not None and read > self.window:
            detail = f"{read} tokens, and it reads {self.window}"
            return self._failure(Failed("context_overflow", detail), reading, None)
        return msgspec.structs.replace(reply, usage=usage)


def _again(failed: Failed, mended: Callable[[Failed], bool] | None) -> Failed:
    """Return the failure, to be asked again at once if that is worth it."""
    if mended is not None and mended(failed):
        failed.again, failed.retry_after_s = True, 0.0
    return failed


def _failed(error: Failed | TimeoutError, reading: Reading, *, heard: bool) -> Failed | None:
    """Return what ended the stream; nothing, when the message was complete before that."""
    if isinstance(error, TimeoutError):
        error = Failed("timeout_idle" if heard else "timeout_first_byte")
        return None if reading.ended else error
    return None if reading.ended and error.code == "truncated" else error


def _unfinished(answer: Answer, *, heard: bool) -> Failed:
    kind = answer.headers.get("content-type", "")
    if heard or not kind or kind.startswith("text/event-stream"):
        return Failed("truncated")
    return Failed("invalid_request", f"it answered with {kind}, not a stream: is base_url right?")


def bearer(key: str) -> Mapping[str, str]:
    """Return the headers that carry a key in the way of most."""
    return {"Authorization": f"Bearer {key}"}


def endpoint(base_url: str, path: str) -> str:
    """Return the URL of a path below the base, which may have a query, or the path already."""
    base, mark, query = base_url.partition("?")
    base = base.rstrip("/").removesuffix(path)
    return f"{base}{path}{mark}{query}"
