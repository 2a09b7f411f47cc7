"""Agents without a server of their own: run in this process, or mounted in somebody's ASGI app.

Invariant: embedded or served, a message travels the same way: inbox, log, engine, loop, follow.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from hostler.app.agent import Agent
from hostler.app.building import RESULTS, build_agents
from hostler.app.bus import make_bus
from hostler.app.catalogue import make_catalogue
from hostler.app.endpoints import egress_guard, make_endpoints
from hostler.app.first_model import first_model, needs_model
from hostler.app.frames import Finished, Frame, finished
from hostler.app.house import open_house
from hostler.app.keys import ADMIN, AdminGate, admin_key
from hostler.app.part import Part
from hostler.app.server import make_app, opened_ways
from hostler.app.settings import Settings, load_settings
from hostler.app.vaults import kept_by_clients, limit_news, make_vault
from hostler.core.errors import SetupError
from hostler.core.events import Event, JsonObject
from hostler.core.news import Piece
from hostler.faces.http import form
from hostler.faces.http.guard import ANY
from hostler.faces.http.open_streams import OpenStreams
from hostler.faces.native import wire
from hostler.harness.key_limits import KeyLimits
from hostler.models.discover import Chosen
from hostler.service.cursor import Cursor
from hostler.service.follow import end_of
from hostler.service.inbox import Message
from hostler.service.rates import Rates

_object: msgspec.json.Decoder[JsonObject] = msgspec.json.Decoder(dict[str, object])


async def stream(
    agent: Agent, prompt: str, *, session: str | None, data: str | Path | None
) -> AsyncGenerator[Frame, None]:
    """Yield the frames of one run; see `Agent.stream`."""
    settings = load_settings({"data": data})
    file = None if data is None else settings.place
    chosen = await _chosen(agent, settings)
    vault = make_vault(settings, admin_key=settings.given_key or "", environ=os.environ)
    endpoints = make_endpoints(settings)
    async with (
        build_agents([agent], settings, chosen=chosen, vault=vault, endpoints=endpoints) as agents,
        open_house(
            agents,
            default_agent=agent.name,
            file=file,
            is_server=False,
            vault=vault,
            endpoints=endpoints,
        ) as service,
    ):
        made, _ = await service.sessions.create(ADMIN, agent=agent.name, id=session)
        with await service.following.watch(ADMIN, made.id) as seat:
            message = Message(content=prompt, policy="queue", metadata={})
            receipt = await service.inbox.speak(ADMIN, made.id, message)
            yield Frame(
                id=receipt.cursor,
                event="receipt",
                data=_object.decode(form.encode(receipt)),
            )
            after, ends = Cursor.parse(receipt.cursor), end_of(receipt.run)
            async for batch in service.following.follow_on(
                seat, after=after, ends=ends, current=True
            ):
                for item in batch:
                    yield _frame(item)


async def run(
    agent: Agent, prompt: str, *, session: str | None, data: str | Path | None
) -> Finished:
    """Run once and return how it ended; see `Agent.run`."""
    return await finished(stream(agent, prompt, session=session, data=data))


def asgi(agent: Agent, *, data: str | Path | None, admin_key: str | None) -> Mounted:
    """Return an application that serves one agent; see `Agent.asgi`."""
    return Mounted(agent, data, admin_key)


async def _chosen(agent: Agent, settings: Settings) -> Chosen | None:
    if not needs_model([agent], settings):
        return None
    return await first_model(settings, os.environ)


def _frame(item: Event | Piece) -> Frame:
    return Frame(
        id=str(Cursor.after(item)),
        event=wire.name_of(item),
        data=_object.decode(wire.data_of(item)),
    )


class Mounted:
    """An ASGI application that opens its house when it is first needed."""

    def __init__(self, agent: Agent, data: str | Path | None, key: str | None) -> None:
        self._agent = agent
        self._flags = {"data": data, "admin_key": key}
        self._app: asyncio.Future[ASGIApp] | None = None
        self._over: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        app = await self._opened()
        # A mount puts its own path in front; ours begin at /api.
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        await app({**scope, "path": path, "root_path": ""}, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self._opened()
                except SetupError as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.aclose()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _opened(self) -> ASGIApp:
        if self._app is None:
            loop = asyncio.get_running_loop()
            self._app, self._over = loop.create_future(), asyncio.Event()
            # The one task that nobody here can wait for: where no lifespan reaches us, the house
            # must outlive the request that opened it.
            self._task = loop.create_task(self._keep_open(self._app, self._over))
        return await asyncio.shield(self._app)

    async def _keep_open(self, opened: asyncio.Future[ASGIApp], over: asyncio.Event) -> None:
        async with AsyncExitStack() as stack:
            try:
                settings = load_settings(self._flags)
                key, _ = admin_key(settings.given_key, settings.data)
                chosen = await _chosen(self._agent, settings)
                vault = make_vault(settings, admin_key=key, environ=os.environ)
                endpoints, catalogue = make_endpoints(settings), make_catalogue(settings)
                bus = make_bus(settings)
                news = await limit_news(vault, bus)
                built = build_agents(
                    [self._agent],
                    settings,
                    chosen=chosen,
                    key_limits=KeyLimits(news=news),
                    vault=vault,
                    endpoints=endpoints,
                    catalogue=catalogue,
                )
                agents = await stack.enter_async_context(built)
                house = open_house(
                    agents,
                    default_agent=self._agent.name,
                    file=settings.place,
                    results=settings.data / RESULTS,
                    keep=settings.keep,
                    rates=Rates(settings.rates.limits()),
                    vault=vault,
                    endpoints=endpoints,
                    catalog=catalogue,
                    outbound=egress_guard(settings.egress),
                    bus=bus,
                    part=Part(limits=news),
                )
                service = await stack.enter_async_context(house)
                ways = await stack.enter_async_context(opened_ways(settings.identity, service))
                keepsakes = await kept_by_clients(vault)
            except SetupError as error:
                opened.set_exception(error)
                return
            streams = OpenStreams()
            made = partial(make_app, service, AdminGate(key.encode()), streams, ways=ways)
            # How it is called is the business of the application that it is mounted in.
            hosts, origins = settings.named_hosts or (ANY,), settings.named_origins
            opened.set_result(made(keepsakes=keepsakes, hosts=hosts, origins=origins))
            await over.wait()
            streams.close()

    async def aclose(self) -> None:
        """Stop the work, if it was begun."""
        if self._over is not None and self._task is not None:
            self._over.set()
            await self._task
