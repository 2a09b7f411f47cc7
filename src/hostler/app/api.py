"""Any operation of the native API by its path, and a session's stream.

Invariant: what is sent again has the same idempotency key, so it is done once.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import quote

import aiohttp
import anyio
import msgspec

from hostler.app import asking
from hostler.app.asking import LATEST_S, SEND_S, SOONEST_S, Back, Lost, News
from hostler.core.errors import Conflict, TooMany, Unavailable
from hostler.core.events import JsonObject

PAGE = 1000


@dataclass(frozen=True, slots=True)
class Api:
    """Speaks to one server with one key; bodies are JSON objects.

    All methods raise `CallerError` for what the server refuses and `Unavailable` when it does not
    answer.
    """

    http: aiohttp.ClientSession
    url: str
    key: str = field(repr=False)
    tenant: str | None = None

    async def get(self, path: str, **query: str | int | None) -> JsonObject:
        """Return what is there."""
        return await self._ask("GET", path, query=query)

    async def post(
        self,
        path: str,
        body: JsonObject,
        *,
        idempotency_key: str | None = None,
        tries_s: float = SEND_S,
    ) -> JsonObject:
        """Send something once; while no answer comes, again, for up to `tries_s`."""
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        until, wait_s = anyio.current_time() + tries_s, SOONEST_S
        while True:
            least_s = 0.0
            try:
                return await self._ask("POST", path, body=body, headers=headers)
            except Unavailable as error:
                least_s = error.retry_after_s
                if not asking.may_change(error) or _is_late(until, least_s, wait_s):
                    raise
            except Conflict as error:
                if not asking.may_change(error) or _is_late(until, least_s, wait_s):
                    raise
            await anyio.sleep(asking.waits(least_s, wait_s))
            wait_s = min(2 * wait_s, LATEST_S)

    async def patch(self, path: str, body: JsonObject) -> JsonObject:
        """Change what is there."""
        return await self._ask("PATCH", path, body=body)

    async def put(self, path: str, body: JsonObject) -> JsonObject:
        """Set what is there."""
        return await self._ask("PUT", path, body=body)

    async def delete(self, path: str) -> None:
        """Remove what is there."""
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
        """Send what comes in pieces, once."""
        async with self._open("POST", path, content=content) as answer:
            return asking.decoded(await answer.read(), self.url)

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

    async def news(
        self, session: str, *, after: str, patience_s: float = math.inf
    ) -> AsyncGenerator[News, None]:
        """Yield a session's frames in the batches that they come in, and word of the connection.

        Raises:
            CallerError: the server is there, and refuses.
            Unavailable: it was away for longer than `patience_s`.
        """
        path, wait_s, was_there = of_session(session, "events"), SOONEST_S, False
        lost_at: float | None = None
        while True:
            why, least_s = "the server ended the stream", 0.0
            try:
                headers = {"Accept": "text/event-stream", "Last-Event-ID": after}
                async with (
                    self._open("GET", path, headers=headers) as answer,
                    aclosing(asking.batches(answer)) as batches,
                ):
                    if lost_at is not None:
                        yield Back()
                    lost_at, was_there = None, True
                    async for frames in batches:
                        wait_s, after = SOONEST_S, frames[-1].id
                        yield frames
            except (Unavailable, TooMany) as error:
                if isinstance(error, TooMany) and not was_there:
                    raise  # who has never followed is told at once
                why, least_s = str(error), error.retry_after_s
            if lost_at is None:
                lost_at = anyio.current_time()
                yield Lost(why)
            sleep_s = asking.waits(least_s, wait_s)
            if anyio.current_time() + sleep_s > lost_at + patience_s:
                raise Unavailable(why, retry_after_s=least_s)
            await anyio.sleep(sleep_s)
            wait_s = min(2 * wait_s, LATEST_S)

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
            return asking.decoded(await answer.read(), self.url)

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
        asked = {name: str(value) for name, value in (query or {}).items() if value is not None}
        try:
            async with self.http.request(
                method,
                self.url + path,
                params=asked,
                data=content,
                headers=self._headers(headers),
                allow_redirects=False,
            ) as answer:
                if answer.status >= 300:
                    wait = answer.headers.get("Retry-After")
                    raise asking.refused(answer.status, await answer.read(), self.url, wait)
                yield answer
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise asking.silent(self.url, error) from error


def of_session(session: str, *rest: str) -> str:
    """Return a path; an id that somebody made up leads nowhere else."""
    return "/".join(["/api/sessions", *(quote(one, safe="") for one in (session, *rest))])


def _is_late(until: float, least_s: float, wait_s: float) -> bool:
    return anyio.current_time() + max(least_s, wait_s) > until
