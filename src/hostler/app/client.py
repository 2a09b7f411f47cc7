"""A client of the native API: what the commands know of a server.

Invariant: however often the connection breaks, following never gives a frame twice and never
leaves one out, since each says where to go on; and nothing is sent twice, since each request has
an idempotency key.
"""

from __future__ import annotations

import ssl
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, cast

import aiohttp
import anyio
import msgspec

from hostler.app.agent import Frame
from hostler.core.errors import (
    CallerError,
    Conflict,
    Forbidden,
    HostlerError,
    Invalid,
    NotFound,
    TooLarge,
    TooMany,
    Unauthorised,
    Unavailable,
)
from hostler.core.events import JsonObject

CONNECT_S = 5.0
SILENCE_S = 45.0
"""Three heartbeats of the server: a connection that says nothing for so long is gone."""
SOONEST_S, LATEST_S = 0.1, 3.0
"""Between two tries to reach a server that went away; each takes twice as long as the one before."""
SEND_S = 10.0
"""How long a request that got no answer is sent again."""
PAGE = 1000

_REFUSED = {
    kind.status: kind
    for kind in (Unauthorised, Forbidden, NotFound, Conflict, TooLarge, Invalid, TooMany)
}
_object: msgspec.json.Decoder[JsonObject] = msgspec.json.Decoder(dict[str, object])


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection broke; it is tried again until it is back."""

    why: str


@dataclass(frozen=True, slots=True)
class Back:
    """The connection is there again, and nothing was missed."""


News: TypeAlias = list[Frame] | Lost | Back


@dataclass(frozen=True, slots=True)
class Client:
    """Speaks to one server with one key.

    All methods raise `CallerError` for what the server refuses and `Unavailable` when it does not
    answer.
    """

    http: aiohttp.ClientSession
    url: str
    key: str
    tenant: str | None = None
    """For whom an operator acts; None: the key's own tenant."""

    def acting_in(self, tenant: str | None) -> Client:
        """Return this client in another tenant, which the operator's key may act in."""
        return self if tenant is None else replace(self, tenant=tenant)

    async def get(self, path: str, **query: str | int | None) -> JsonObject:
        return await self._ask("GET", path, query=query)

    async def post(self, path: str, body: JsonObject, *, tries_s: float = SEND_S) -> JsonObject:
        """Send something once; while no answer comes, again, with the same idempotency key."""
        headers, wait_s = {"Idempotency-Key": uuid.uuid4().hex}, SOONEST_S
        until = anyio.current_time() + tries_s
        while True:
            try:
                return await self._ask("POST", path, body=body, headers=headers)
            except (Unavailable, Conflict) as error:
                is_late = anyio.current_time() + wait_s > until
                if is_late or not _may_change(error):
                    raise
            await anyio.sleep(wait_s)
            wait_s = min(2 * wait_s, LATEST_S)

    async def patch(self, path: str, body: JsonObject) -> JsonObject:
        return await self._ask("PATCH", path, body=body)

    async def put(self, path: str, body: JsonObject) -> JsonObject:
        return await self._ask("PUT", path, body=body)

    async def delete(self, path: str) -> None:
        await self._ask("DELETE", path)

    async def download(self, path: str) -> AsyncGenerator[bytes, None]:
        """Yield what is there, in the pieces that it comes in.

        Raises:
            Unavailable: also in the middle, when it does not come to its end.
        """
        async with self._open("GET", path) as answer:
            async for piece in answer.content.iter_any():
                yield piece

    async def upload(self, path: str, content: AsyncIterable[bytes]) -> JsonObject:
        async with self._open("POST", path, content=content) as answer:
            return _decoded(await answer.read(), self.url)

    async def items(
        self, path: str, *, limit: int | None, page: int = PAGE, **query: str | int | None
    ) -> AsyncGenerator[JsonObject, None]:
        """Yield what a list holds, in pages of `page`, up to `limit`."""
        after, left = "", limit
        while left is None or left > 0:
            size = page if left is None else min(left, page)
            answer = await self.get(path, after=after or None, limit=size, **query)
            items = cast("list[JsonObject]", answer["items"])
            for item in items:
                yield item
            if not answer["more"]:
                return
            after, left = str(answer["cursor"]), None if left is None else left - len(items)

    async def make_session(self, agent: str | None) -> JsonObject:
        """Make a session, of the default agent or another, and return it."""
        return await self.post("/api/sessions", {} if agent is None else {"agent": agent})

    async def speak(self, session: str, content: str) -> JsonObject:
        """Say something and return the receipt."""
        return await self.post(f"/api/sessions/{session}/messages", {"content": content})

    async def cancel(self, session: str) -> None:
        """Ask for the run to end.  Said once: whoever waits for this has something else to try."""
        await self.post(f"/api/sessions/{session}/cancel", {}, tries_s=0)

    async def decide(self, session: str, call: str, decision: JsonObject) -> None:
        """Answer a request for an approval."""
        await self.post(f"/api/sessions/{session}/approvals/{call}", decision)

    async def answer(self, session: str, call: str, output: str) -> None:
        """Give the result of a call that clients answer."""
        await self.post(f"/api/sessions/{session}/calls/{call}/result", {"output": output})

    async def facts(self, session: str, *, after: str) -> list[Frame]:
        """Return all facts past a cursor."""
        frames: list[Frame] = []
        while True:
            page = await self.get(f"/api/sessions/{session}/events", after=after, limit=PAGE)
            frames += msgspec.convert(page["events"], list[Frame])
            after = str(page["cursor"])
            if not page["more"]:
                return frames

    async def follow(self, session: str, *, after: str) -> AsyncGenerator[News, None]:
        """Yield the frames past a cursor in the batches they come in, and go on until closed.

        Raises:
            CallerError: the server is there, and refuses.
        """
        path, wait_s, was_lost = f"/api/sessions/{session}/events", SOONEST_S, False
        while True:
            why = "the server ended the stream"
            try:
                headers = {"Accept": "text/event-stream", "Last-Event-ID": after}
                async with self._open("GET", path, headers=headers) as answer:
                    if was_lost:
                        yield Back()
                    wait_s, was_lost = SOONEST_S, False
                    async for frames in _batches(answer):
                        after = frames[-1].id
                        yield frames
            except Unavailable as error:
                why = str(error)
            if not was_lost:
                yield Lost(why)
            was_lost = True
            await anyio.sleep(wait_s)
            wait_s = min(2 * wait_s, LATEST_S)

    def _who(self) -> dict[str, str]:
        tenant = {} if self.tenant is None else {"Hostler-Tenant": self.tenant}
        return {"Authorization": f"Bearer {self.key}", **tenant}

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int | None] | None = None,
        body: JsonObject | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> JsonObject:
        content = None if body is None else msgspec.json.encode(body)
        async with self._open(
            method, path, query=query, content=content, headers=headers
        ) as answer:
            return _decoded(await answer.read(), self.url)

    def _headers(self, more: Mapping[str, str] | None) -> dict[str, str]:
        tenant = {} if self.tenant is None else {"Hostler-Tenant": self.tenant}
        return {"Authorization": f"Bearer {self.key}", **tenant, **(more or {})}

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int | None] | None = None,
        content: bytes | AsyncIterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        given = {name: str(value) for name, value in (query or {}).items() if value is not None}
        try:
            async with self.http.request(
                method,
                self.url + path,
                params=given,
                data=content,
                headers=self._headers(headers),
                allow_redirects=False,
            ) as answer:
                if answer.status >= 300:
                    raise refused(answer.status, await answer.read(), self.url)
                yield answer
        except TimeoutError as error:
            raise Unavailable(f"the server at {self.url} is silent") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"no server answers at {self.url}") from error


@asynccontextmanager
async def open_client(url: str, key: str, *, tls_cert: Path | None) -> AsyncGenerator[Client]:
    """Yield a client; `tls_cert` is the server's own certificate, if it is known."""
    timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_S, sock_read=SILENCE_S)
    connector = aiohttp.TCPConnector(ssl=True if tls_cert is None else _only(tls_cert))
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
        yield Client(http, url.rstrip("/"), key)


def refused(status: int, body: bytes, url: str) -> HostlerError:
    """Return the error for an answer that is none."""
    try:
        problem = _object.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        problem = {}
    detail = str(problem.get("detail") or f"{url} answers with status {status}")
    code = str(problem.get("code") or "") or None
    if status >= 500:
        return Unavailable(detail, code=code or "unavailable")
    return _REFUSED.get(status, CallerError)(detail, code=code, more=problem)


def _may_change(error: Unavailable | Conflict) -> bool:
    """Whether the same request may be answered otherwise: nothing came of it, or not yet."""
    if isinstance(error, Conflict):
        return error.code == "in_progress"
    return error.code != "internal"


def _decoded(body: bytes, url: str) -> JsonObject:
    try:
        return _object.decode(body or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CallerError(f"what answers at {url} is no Hostler server") from error


async def _batches(answer: aiohttp.ClientResponse) -> AsyncGenerator[list[Frame], None]:
    rest = list[bytes]()
    async for data in answer.content.iter_any():
        rest.append(data)
        if b"\n\n" not in b"".join(rest[-2:]):  # a long frame in many pieces is joined once
            continue
        whole, _, left = b"".join(rest).rpartition(b"\n\n")
        rest = [left]
        frames = [frame for block in whole.split(b"\n\n") if (frame := _frame(block)) is not None]
        if frames:
            yield frames


def _frame(block: bytes) -> Frame | None:
    fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
    if not {b"id", b"event", b"data"} <= fields.keys():
        return None
    return Frame(
        id=fields[b"id"].decode(),
        event=fields[b"event"].decode(),
        data=_object.decode(fields[b"data"]),
    )


def _only(cert: Path) -> ssl.SSLContext:
    """Return a context that trusts this certificate, whatever name it is for, and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cert)
    return context
