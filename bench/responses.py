"""What does a response cost?  OpenAI's Responses of a raw model, kept in a session or not at all.

A token in a burst is one of many that the model server sends in one write; a paced one comes alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import anyio
import msgspec
from msgspec import Struct

from bench.bare import Client
from bench.drive import TURN_S, WrongError
from bench.gateway import MODEL
from bench.machine import Spent
from bench.paced import GAP_S
from bench.servers import Server
from bench.setting import Figures, Row, Setting
from bench.wire import Script, text_of

PATH = "/v1/responses"
WARM_S = 1.0
AT_ONCE = 16
KEPT = {"kept": True, "not kept": False}


class _Told(Struct):
    type: str
    delta: str = ""


_told = msgspec.json.Decoder(_Told)


@dataclass(slots=True)
class _Heard:
    """What came of one stream."""

    texts: list[str] = field(default_factory=list[str])
    is_over: bool = False

    def hear(self, block: bytes) -> None:
        _, found, data = block.partition(b"\ndata: ")
        if not found:
            return
        event = _told.decode(data)
        self.texts.append(event.delta)
        self.is_over = self.is_over or event.type == "response.completed"


async def ask(client: Client, script: Script, *, kept: bool) -> None:
    """Ask once and read the events.

    Raises:
        WrongError, BrokenError, TimeoutError: there was no whole answer.
    """
    body = {"model": MODEL, "input": script.prompt, "stream": True, "store": kept}
    heard = _Heard()
    with anyio.fail_after(TURN_S + script.tokens * script.gap_s):
        await client.request("POST", PATH, body, on_event=heard.hear)
    text = "".join(heard.texts)
    if text != text_of(script.tokens) or not heard.is_over:
        raise WrongError(f"{text[-80:]!r}")


async def run(setting: Setting) -> list[Row]:
    figures, size, server = Figures("responses"), setting.size, setting.servers[0]
    await _many(server, Script(tokens=1), kept=True, secs=min(WARM_S, size.secs), at_once=2)
    for _ in range(size.reps):
        for name, kept in KEPT.items():
            short, burst = Script(tokens=1), Script(tokens=size.burst)
            done, spent = await _many(server, short, kept=kept, secs=size.secs, at_once=AT_ONCE)
            each_ms = spent.cpu_s / done * 1e3
            figures.add(server.name, f"1 token, {name}", "CPU per response", each_ms, "ms")
            done, spent = await _many(server, burst, kept=kept, secs=size.secs, at_once=1)
            each_us = spent.cpu_s / (done * size.burst) * 1e6
            case = f"{size.burst} tokens at once, {name}"
            figures.add(server.name, case, "CPU per token", each_us, "us")
            paced = Script(tokens=max(2, round(size.secs / GAP_S)), gap_s=GAP_S)
            with server.spent() as spent:
                async with anyio.create_task_group() as tasks:
                    for _ in range(size.streams):
                        tasks.start_soon(_one, server.client, paced, kept)
            each_us = spent.cpu_s / (size.streams * paced.tokens) * 1e6
            case = f"{size.streams} streams, {name}"
            figures.add(server.name, case, "CPU per token", each_us, "us")
    return figures.rows()


async def _one(client: Client, script: Script, kept: bool) -> None:  # noqa: FBT001  a task's argument
    await ask(client, script, kept=kept)


async def _many(
    server: Server, script: Script, *, kept: bool, secs: float, at_once: int
) -> tuple[int, Spent]:
    """Ask for so long; return how often, and what that took."""
    done, until = 0, time.perf_counter() + secs

    async def one_client() -> None:
        nonlocal done
        while time.perf_counter() < until:
            await ask(server.client, script, kept=kept)
            done += 1

    with server.spent() as spent:
        async with anyio.create_task_group() as tasks:
            for _ in range(at_once):
                tasks.start_soon(one_client)
    return done, spent
