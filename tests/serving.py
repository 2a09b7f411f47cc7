"""A server in the test's own process and event loop, and a client that speaks plain HTTP to it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TypeAlias, cast

import aiohttp
import anyio
from blockbuster import blockbuster_ctx
from tests.canaries import EARS, ON, Ears, canary, canary_vault, masked_lines

from hostler.app.bus import Bus
from hostler.app.house import open_house
from hostler.app.keys import AdminGate
from hostler.app.observing import Observing
from hostler.app.part import Part
from hostler.app.server import listen, make_app, serve_http
from hostler.core.ports import AgentSpec, Catalog, Reply
from hostler.faces.http.entry import Ways
from hostler.faces.http.keepsakes import KeepsakesOf
from hostler.faces.http.open_streams import OpenStreams
from hostler.harness.outbound import Outbound
from hostler.service.endpoints import Endpoints
from hostler.service.rates import Rates
from hostler.service.retention import FOR_EVER, Keep
from hostler.service.service import Service
from hostler.signals.fleet import FleetSignals
from hostler.signals.notify_wire import NotifyWire
from hostler.testing.doubles import ModelDouble
from hostler.vault.vault import SealedVault

KEY = canary("admin key", "hk_test_0123456789abcdef0123456789abcdef")
SENT_BESIDE = {
    name: canary(name, "") for name in ("Cookie", "X-Auth-Token", "Proxy-Authorization") if ON
}
"""Headers that mean nothing to us, and may be secret."""
LOOKS = {"_dot_postgresql_path", "_parse_connect_dsn_and_args", "_parse_connect_arguments"}
Json: TypeAlias = dict[str, object]


@dataclass(frozen=True)
class Frame:
    """One Server-Sent Event, read as a client reads it."""

    id: str
    event: str
    data: Json


@dataclass
class Client:
    """Speaks the native API as anybody would: aiohttp, JSON and lines."""

    http: aiohttp.ClientSession
    url: str
    key: str = KEY
    ears: Ears | None = field(default_factory=lambda: EARS, repr=False)

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        raw: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Json]:
        """Return status and JSON body ({} for none)."""
        text = raw if raw is not None else None if body is None else json.dumps(body).encode()
        sent = None if text is None else BytesIO(text)
        async with self.http.request(
            method, f"{self.url}{path}", data=sent, headers=self._headers(headers)
        ) as answer:
            told = await answer.text()
            if self.ears is not None:
                self.ears.answer(method, path, told.encode())
            read: Json = json.loads(told) if told else {}
            if "request_id" in read:  # of no two answers the same
                assert read.pop("request_id") == answer.headers["X-Request-Id"]
            return answer.status, read

    async def get(self, path: str) -> Json:
        """Return the JSON of a path that is there."""
        status, body = await self.call("GET", path)
        assert status == 200, body
        return body

    async def session(self, **fields: object) -> str:
        """Make a session and return its id."""
        status, made = await self.call("POST", "/api/sessions", fields)
        assert status == 201, made
        return str(made["id"])

    async def frames(
        self,
        path: str,
        *,
        method: str = "GET",
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[Frame, None]:
        """Yield the frames of a stream until it ends."""
        async with self.http.request(
            method,
            f"{self.url}{path}",
            data=None if body is None else json.dumps(body),
            headers={**self._headers(headers), "Accept": "text/event-stream"},
        ) as answer:
            assert answer.status == 200, await answer.text()
            fields: dict[str, str] = {}
            async for line in answer.content:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    fields[name] = value
                elif "data" in fields:
                    if self.ears is not None:
                        self.ears.hear(f"a frame of {path}", json.dumps(fields))
                    cursor = fields.get("id", "")
                    yield Frame(cursor, fields["event"], json.loads(fields["data"]))
                    fields = {}

    async def speak(self, session: str, content: object = "hello", **more: object) -> list[Frame]:
        """Say something and return every frame up to the end of its run."""
        path = f"/api/sessions/{session}/messages"
        body = {"content": content, **more}
        async with aclosing(self.frames(path, method="POST", body=body)) as frames:
            return [frame async for frame in frames]

    async def facts(self, session: str) -> list[Json]:
        """Return all facts of a session."""
        page = await self.get(f"/api/sessions/{session}/events?limit=1000")
        return [frame["data"] for frame in cast("list[dict[str, Json]]", page["events"])]

    def _headers(self, more: Mapping[str, str] | None) -> dict[str, str]:
        key = {"Authorization": f"Bearer {self.key}"} if self.key else dict[str, str]()
        return {**SENT_BESIDE, **key, **(more or {})}


def quick() -> ModelDouble:
    """Return a model that says one word at once."""
    return ModelDouble(lambda _: Reply(text="well", stop="end"))


Serve: TypeAlias = Callable[..., AbstractAsyncContextManager[Client]]


@asynccontextmanager
async def serving(
    *agents: AgentSpec,
    file: Path | str | None,
    streams: OpenStreams | None = None,
    ways: Ways | None = None,
    keepsakes: KeepsakesOf | None = None,
    hosts: Sequence[str] = (),
    origins: Sequence[str] = (),
    rates: Rates | None = None,
    results: Path | None = None,
    keep: Keep = FOR_EVER,
    observing: Observing | None = None,
    vault: SealedVault | None = None,
    endpoints: Endpoints | None = None,
    catalog: Catalog | None = None,
    outbound: Outbound | None = None,
    bus: Bus | None = None,
    part: Part | None = None,
    entered: Callable[[Service], object] = lambda _: None,
    ears: Ears | None = EARS,
) -> AsyncGenerator[Client]:
    """Serve agents; the first is the default.  `entered` is given what the faces are on.

    On PostgreSQL, where another server may drive what is said here, it hears the others over that.
    """
    if bus is None and isinstance(file, str):
        bus = partial(FleetSignals, wire=NotifyWire(file), fleet="test")
    vault = canary_vault() if vault is None else vault
    if ON and vault is not None:
        vault.learn(None, "admin-key", KEY)  # as the vault of `hostler serve` knows it
    served = {agent.name: agent for agent in agents}
    streams = OpenStreams() if streams is None else streams
    house = open_house(
        served,
        default_agent=agents[0].name,
        file=file,
        results=results,
        keep=keep,
        rates=rates,
        observing=observing,
        vault=vault,
        endpoints=endpoints,
        catalog=catalog,
        outbound=outbound,
        bus=bus,
        part=part,
    )
    async with AsyncExitStack() as stack:
        stack.enter_context(masked_lines(vault if ON else None))
        service = await stack.enter_async_context(house)
        entered(service)
        gate = AdminGate(KEY.encode())
        app = make_app(
            service, gate, streams, ways=ways, keepsakes=keepsakes, hosts=hosts, origins=origins
        )
        app = app if ears is None else ears.served(app)
        with listen("127.0.0.1", 0) as listening:
            port = listening.getsockname()[1]
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(serve_http, app, listening, streams)
                async with aiohttp.ClientSession() as http:
                    with blockbuster_ctx("hostler") as blocking:  # nothing of ours may
                        for function in blocking.functions.values():
                            # The driver of PostgreSQL looks for key files when it connects.
                            function.can_block_in("asyncpg/connect_utils.py", LOOKS)
                        yield Client(http, f"http://127.0.0.1:{port}", ears=ears)
                streams.close()
                tasks.cancel_scope.cancel()
