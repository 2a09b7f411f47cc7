"""HTTP for questions to models, on aiohttp: the only module of models that knows it.

aiohttp because its parser is C: the HTTP client, not the JSON, decides what a streamed token
costs.  Its own time-outs are not used while a body comes: they would make and cancel a timer per
read, and would take a keep-alive comment for a sign of life.  One timer per answer looks, when it
fires, how long nothing has come.

Invariant: no wait without a limit, no buffer without a bound, no redirect followed with a key.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from ssl import SSLError
from typing import Protocol

import aiohttp
import anyio
import msgspec

from hostler.core.errors import Invalid
from hostler.core.trail import trace_headers
from hostler.models.exchange import Bounds, Patience
from hostler.models.faults import Failed, refusal
from hostler.models.sse import Events, EventTooLong

_KEPT_ALIVE_S = 60.0
_KIND_S = 1.0
"""How long a body that is over in all but name may take to end, for its connection to be kept."""
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "hostler"}
"""Compression gathers events into blocks: the opposite of a stream."""


class Guard(Protocol):
    """Says where connections may go."""

    def check(self, url: str) -> object:
        """Judge what can be judged without looking a name up.  Raises Invalid: not there."""
        ...

    def connector(self, *, keepalive_s: float) -> aiohttp.TCPConnector:
        """Return one that looks names up, judges each address and connects to what it judged."""
        ...


class Aiohttp:
    """A `Transport` for one event loop at a time; those of a loop that is gone are dropped.

    Without a `guard` it connects to wherever it is told: for what an operator configures.
    """

    def __init__(self, *, bounds: Bounds | None = None, guard: Guard | None = None) -> None:
        self._bounds, self._guard = bounds or Bounds(), guard
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: set[aiohttp.ClientResponse] = set()

    async def post(
        self, url: str, *, headers: Mapping[str, str], body: bytes, patience: Patience
    ) -> _Answer:
        self._check(url)
        session = await self._open()
        timeout = aiohttp.ClientTimeout(total=None, connect=patience.connect_s)
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream", **headers}
        headers |= trace_headers()
        try:
            async with asyncio.timeout(patience.first_byte_s):  # half the price of anyio's
                response = await session.post(
                    url, data=body, headers=headers, timeout=timeout, allow_redirects=False
                )
        except (aiohttp.ClientError, OSError, ValueError, Invalid) as error:
            raise self._failed(error) from error
        return _Answer(response, self._bounds, self._ending)

    async def get_json(self, url: str, *, headers: Mapping[str, str], timeout_s: float) -> object:
        self._check(url)
        session = await self._open()
        try:
            async with asyncio.timeout(timeout_s):
                response = await session.get(url, headers=headers, allow_redirects=False)
                answer = _Answer(response, self._bounds, self._ending)
                try:
                    body = await answer.body(timeout_s, self._bounds.list_bytes)
                finally:
                    answer.close(kindly=True)
        except (aiohttp.ClientError, OSError, ValueError, Invalid) as error:
            raise self._failed(error) from error
        if response.status != 200:
            raise refusal(response.status, response.headers, body, now=time.time())
        try:
            return msgspec.json.decode(body)
        except (ValueError, RecursionError) as error:
            raise Failed("invalid_request", f"{url} answered with no JSON") from error

    async def aclose(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            for response in list(self._ending):
                response.close()
            await session.close()

    async def _open(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is not None and self._loop is not loop:
            await self.aclose()
        if self._session is None:
            self._loop = loop
            # Not limited: aiohttp's 100 connections would be a hidden limit on runs at once.
            connector = (
                aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEPT_ALIVE_S)
                if self._guard is None
                else self._guard.connector(keepalive_s=_KEPT_ALIVE_S)
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=_HEADERS,
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
                trust_env=False,  # it would read ~/.netrc for each question
            )
        return self._session

    def _check(self, url: str) -> None:
        if self._guard is not None:
            try:
                self._guard.check(url)
            except Invalid as error:
                raise _refused(error) from error

    def _failed(self, error: Exception) -> Failed:
        if isinstance(error, Invalid):
            return _refused(error)
        if self._guard is not None and isinstance(error, aiohttp.ClientConnectorError):
            # Its text has the address, which is nobody's business who does not run this server.
            number = error.errno or 0  # below 0: a look-up's, which `strerror` does not know
            return Failed("unavailable", os.strerror(number) if number > 0 else "")
        return _failed(error)


class _Answer:
    """An `Answer`."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        bounds: Bounds,
        ending: set[aiohttp.ClientResponse],
    ) -> None:
        self._ending = ending
        self._response, self._content, self._bounds = response, response.content, bounds
        self._events = Events(bounds.event_bytes)
        self._left = bounds.body_bytes
        self._whole: list[bytes] | None = None
        if response.content_type == "application/json":
            self._whole = []
        self._loop = asyncio.get_running_loop()
        self._limit_s = 0.0
        self._since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._late = False
        connection = response.connection
        protocol = None if connection is None else connection.protocol
        self._closed = None if protocol is None else protocol.closed
        if self._closed is not None:
            self._closed.add_done_callback(self._gone)

    def _gone(self, closed: asyncio.Future[None]) -> None:
        # After a chunk that is none, aiohttp 3.14 closes the connection and leaves the reader
        # of the body waiting.
        closed.exception()
        if not self._content.is_eof() and self._content.exception() is None:
            self._content.set_exception(aiohttp.ClientPayloadError("its bytes are no HTTP"))

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._response.headers

    async def events(self, limit_s: float) -> list[bytes]:
        self._since = self._loop.time()
        if limit_s != self._limit_s:
            self._wait_for(limit_s)
        try:
            while data := await self._content.readany():
                self._left -= len(data)
                if self._left < 0:
                    raise Failed("server", "its answer is larger than any may be", again=False)
                if self._whole is not None and self._is_part(data, self._whole):
                    continue
                if payloads := self._events.feed(data):
                    return payloads
        except EventTooLong as error:
            raise Failed("server", f"it sent {error}", again=False) from error
        except (aiohttp.ClientError, OSError) as error:
            if self._late:
                raise TimeoutError from error
            raise Failed("truncated", _told(error)) from error
        finally:
            self._since = None
        whole, self._whole = self._whole, None
        return [b"".join(whole)] if whole else []

    def _is_part(self, data: bytes, whole: list[bytes]) -> bool:
        """Keep a piece of a body that is JSON; False for a stream that is called so by mistake."""
        if not whole and data.lstrip()[:1] not in {b"{", b"["}:
            self._whole = None
            return False
        whole.append(data)
        return True

    async def body(self, limit_s: float, limit_bytes: int | None = None) -> bytes:
        pieces: list[bytes] = []
        left = self._bounds.error_bytes if limit_bytes is None else limit_bytes
        try:
            with anyio.move_on_after(limit_s):
                while left > 0 and (data := await self._content.readany()):
                    pieces.append(data[:left])
                    left -= len(data)
        except (aiohttp.ClientError, OSError):
            pass  # what came before it broke says more than that it broke
        return b"".join(pieces)

    def close(self, *, kindly: bool) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._closed is not None:
            self._closed.remove_done_callback(self._gone)
        response = self._response
        if not kindly or response.closed:
            response.close()
            return
        # aiohttp itself puts the connection back as soon as it has parsed the body's end.
        self._ending.add(response)
        timer = self._loop.call_later(_KIND_S, self._end)
        self._content.on_eof(timer.cancel)
        self._content.on_eof(self._end)

    def _end(self) -> None:
        self._ending.discard(self._response)
        self._response.close()

    def _wait_for(self, limit_s: float) -> None:
        shorter, self._limit_s = limit_s < self._limit_s, limit_s
        if self._timer is not None and shorter:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:  # an earlier one looks again when it fires
            self._timer = self._loop.call_later(limit_s, self._look)

    def _look(self) -> None:
        waited_s = 0.0 if self._since is None else self._loop.time() - self._since
        if waited_s < self._limit_s:
            self._timer = self._loop.call_later(self._limit_s - waited_s, self._look)
        elif self._content.total_bytes > self._bounds.body_bytes - self._left:
            # Something came while this process had no time; its reader is about to run.
            self._timer = self._loop.call_later(0.0, self._look)
        else:
            self._late, self._timer = True, None
            self._response.close()


def _refused(error: Invalid) -> Failed:
    return Failed("invalid_request", error.detail, advice="is not asked")


def _failed(error: Exception) -> Failed:
    match error:
        case aiohttp.ConnectionTimeoutError():
            return Failed("timeout_connect")
        case TimeoutError():
            return Failed("timeout_first_byte")
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError() | ValueError():
            return Failed("invalid_request", f"{_told(error)}: is base_url right?")
        case _:
            return Failed("unavailable", _told(error))


def _told(error: BaseException) -> str:
    kind = "TLS: " if isinstance(error, SSLError | aiohttp.ClientSSLError) else ""
    return f"{kind}{error}" if str(error) else f"{kind}{type(error).__name__}"
