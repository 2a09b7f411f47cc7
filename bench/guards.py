"""What do the rings round a model cost?  CPU of this process, with and without.

*judging*: a URL and the address of its name, by the egress rules; *new connection*: a whole call
of one token on a connection of its own, plain (server `floor`) and judged; *burst* and *call*: a
model bare (`floor`) and behind its breakers, per token and for a whole call of one.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address

from bench.bare import HOST
from bench.drive import WrongError
from bench.setting import Figures, Row, Setting
from bench.wire import Script
from hostler.core.ports import Failure, Model, Request
from hostler.core.said import UserSaid
from hostler.harness.egress import Egress
from hostler.harness.key_limits import KeyLimits
from hostler.harness.outbound import Outbound
from hostler.models.breaker import Breaking
from hostler.models.openai_chat import OpenAIChat
from hostler.models.transport import Aiohttp

NAME = "models.example"
URL = f"https://{NAME}/v1/chat/completions"
JUDGED = 1_000


async def run(setting: Setting) -> list[Row]:
    figures, size, port = Figures("guards"), setting.size, setting.model_port
    plain, one, many = Aiohttp(), Script(tokens=1), Script(tokens=size.burst)
    guard = Outbound(Egress(allow=[NAME]), resolve=_here)
    bare = _model(f"http://{HOST}:{port}/v1", plain)
    behind = Breaking(bare, KeyLimits(), place="bench", key=lambda _: "sk-bench")
    for _ in range(size.reps):
        figures.add("hostler", "judging", "CPU each", _judging_us(Egress()), "us")
        for server, url, made in (
            ("floor", f"http://{HOST}:{port}/v1", None),
            ("hostler", f"http://{NAME}:{port}/v1", guard),
        ):
            used = await _cpu_us(lambda u=url, m=made: _once(u, m, one), size.answers)
            figures.add(server, "new connection", "CPU each", used, "us")
        for server, model in (("floor", bare), ("hostler", behind)):
            used = await _cpu_us(lambda m=model: _ask(m, many), size.answers)
            figures.add(server, "burst", "CPU per token", used / size.burst, "us")
            used = await _cpu_us(lambda m=model: _ask(m, one), size.answers * 5)
            figures.add(server, "call", "CPU each", used, "us")
    await plain.aclose()
    return figures.rows()


async def _here(host: str, port: int) -> Sequence[str]:
    del host, port
    return [HOST]


def _judging_us(egress: Egress) -> float:
    address = ip_address("93.184.216.34")
    began = time.process_time()
    for _ in range(JUDGED):
        target = egress.check(URL)
        egress.admit(target.host, target.port, [address])
    return (time.process_time() - began) / JUDGED * 1e6


def _model(url: str, transport: Aiohttp) -> Model:
    return OpenAIChat(
        name="mock",
        base_url=url,
        transport=transport,
        key=lambda _: "sk-bench",
        provider="openai",
    )


@asynccontextmanager
async def _transport(guard: Outbound | None) -> AsyncGenerator[Aiohttp]:
    transport = Aiohttp(guard=guard)
    try:
        yield transport
    finally:
        await transport.aclose()


async def _once(url: str, guard: Outbound | None, script: Script) -> None:
    async with _transport(guard) as transport:
        await _ask(_model(url, transport), script)


async def _ask(model: Model, script: Script) -> None:
    async for part in model.stream(Request(system="", transcript=[UserSaid(script.prompt)])):
        if isinstance(part, Failure):
            raise WrongError(part.message)


async def _cpu_us(act: Callable[[], Awaitable[None]], times: int) -> float:
    await act()
    began = time.process_time()
    for _ in range(times):
        await act()
    return (time.process_time() - began) / times * 1e6
