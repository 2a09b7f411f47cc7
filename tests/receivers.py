"""A receiver of webhooks on loopback: it keeps what came, and answers as a test wants."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import anyio
import anyio.lowlevel
from aiohttp import web
from standardwebhooks import Webhook as Reference
from tests.serving import Client, Json

from hostler.harness.egress import Egress
from hostler.harness.outbound import Outbound

PATIENCE_S = 10.0


@dataclass(frozen=True)
class Came:
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Json:
        return json.loads(self.body)

    def verified(self, secret: str) -> Json:
        """Return the body, as the reference library reads it.  Raises when it is not signed."""
        return Reference(secret).verify(self.body, dict(self.headers))


Answering = Callable[[Came], Awaitable[web.StreamResponse]]


async def taken(_: Came) -> web.StreamResponse:
    return web.Response(status=204)


@dataclass
class Receiver:
    url: str = ""
    answer: Answering = taken
    came: list[Came] = field(default_factory=list[Came])
    _news: anyio.Event = field(default_factory=anyio.Event)

    def says(self, status: int, **headers: str) -> None:
        """Answer so from now on."""

        async def answer(_: Came) -> web.StreamResponse:
            return web.Response(status=status, headers=headers)

        self.answer = answer

    def hangs(self) -> None:
        """Answer nothing from now on, until the sender goes away."""

        async def answer(_: Came) -> web.StreamResponse:
            await anyio.sleep_forever()
            raise AssertionError

        self.answer = answer

    async def got(self, count: int) -> list[Came]:
        """Return what came, once it is so many."""
        with anyio.fail_after(PATIENCE_S):
            while len(self.came) < count:
                await self._news.wait()
        return self.came

    async def take(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        came = Came(headers, await request.read())
        self.came.append(came)
        news, self._news = self._news, anyio.Event()
        news.set()
        return await self.answer(came)


@asynccontextmanager
async def receiving() -> AsyncGenerator[Receiver]:
    """Yield a receiver that listens."""
    receiver, app = Receiver(), web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    receiver.url = f"http://{host}:{port}/hook"
    try:
        yield receiver
    finally:
        await runner.cleanup()


def to_loopback() -> Outbound:
    """Return what lets this machine be told, and nothing else that is not public."""
    return Outbound(Egress(allow=["127.0.0.1"]), in_clear=False)


async def a_hook(client: Client, url: str, **more: object) -> Json:
    """Set a webhook; return what was told of it."""
    status, made = await client.call("POST", "/api/webhooks", {"url": url, **more})
    assert status == 201, made
    return made


async def delivery(client: Client, hook: Json, *, tries: int, name: str | None = None) -> Json:
    """Return the newest delivery, or the one that is named, once it was tried so often."""
    path = f"/api/webhooks/{hook['id']}/deliveries"
    with anyio.fail_after(PATIENCE_S):
        while True:
            items = cast("list[Json]", (await client.get(path))["items"])
            for one in items:
                if one["id"] == (name or items[0]["id"]) and cast("int", one["tries"]) >= tries:
                    return one
            await anyio.lowlevel.checkpoint()
