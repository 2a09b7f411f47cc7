"""What does a call over Chat Completions cost: of a raw model, through which it only passes, and of
an agent, which has a session made for it?

The client's question goes to the model server, and its answer back, whole or streamed.  A token in
a burst is one of many that the model server sends in one write.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import anyio
import msgspec
from msgspec import Struct

from bench.bare import Client
from bench.drive import TURN_S, WrongError
from bench.machine import Spent
from bench.servers import Server
from bench.setting import Figures, Row, Setting
from bench.wire import Script, text_of

PATH = "/v1/chat/completions"
MODEL, AGENT = "openai:mock", "agent:bench"
WARM_S = 1.0
AT_ONCE = 16
CALLS = (1, 50)
"""Tokens of an answer."""


class _Said(Struct, frozen=True):
    content: str | None = None


class _Choice(Struct):
    message: _Said = _Said()
    delta: _Said = _Said()


class _Told(Struct):
    choices: list[_Choice]


_told = msgspec.json.Decoder(_Told)


@dataclass(slots=True)
class _Heard:
    """What came of one stream."""

    texts: list[str] = field(default_factory=list[str])
    is_over: bool = False

    def hear(self, block: bytes) -> None:
        if block == b"data: [DONE]":
            self.is_over = True
            return
        for choice in _told.decode(block[len("data: ") :]).choices:
            self.texts.append(choice.delta.content or "")


async def ask(client: Client, tokens: int, *, streamed: bool, model: str = MODEL) -> None:
    """Ask once and read the answer.

    Raises:
        WrongError, BrokenError, TimeoutError: there was no whole answer.
    """
    said = {"role": "user", "content": Script(tokens=tokens).prompt}
    body = {"model": model, "messages": [said], "stream": streamed}
    heard = _Heard()
    with anyio.fail_after(TURN_S):
        answer = await client.request("POST", PATH, body, on_event=heard.hear if streamed else None)
    if not streamed:
        heard.texts = [one.message.content or "" for one in _told.decode(answer).choices]
    text = "".join(heard.texts)
    if text != text_of(tokens) or heard.is_over is not streamed:
        raise WrongError(f"{text[-80:]!r}")


async def run(setting: Setting) -> list[Row]:
    figures, size, server = Figures("gateway"), setting.size, setting.servers[0]
    for model, what in ((MODEL, ""), (AGENT, "agent: ")):
        warm_s = min(WARM_S, size.secs)
        await _many(server, 1, streamed=True, secs=warm_s, at_once=2, model=model)
        for _ in range(size.reps):
            for tokens in CALLS:
                for streamed in (False, True):
                    done, spent = await _many(
                        server,
                        tokens,
                        streamed=streamed,
                        secs=size.secs,
                        at_once=AT_ONCE,
                        model=model,
                    )
                    case = f"{what}{tokens} tokens{' streamed' if streamed else ''}"
                    figures.add(server.name, case, "CPU per call", spent.cpu_s / done * 1e3, "ms")
                    figures.add(server.name, case, "calls", done / spent.wall_s, "/s")
            case = f"{what}{size.burst} tokens at once"
            done, spent = await _many(
                server, size.burst, streamed=True, secs=size.secs, at_once=1, model=model
            )
            each_us = spent.cpu_s / (done * size.burst) * 1e6
            figures.add(server.name, case, "CPU per token", each_us, "us")
    return figures.rows()


async def _many(
    server: Server, tokens: int, *, streamed: bool, secs: float, at_once: int, model: str
) -> tuple[int, Spent]:
    """Ask for so long; return how often, and what that took."""
    done, until = 0, time.perf_counter() + secs

    async def one_client() -> None:
        nonlocal done
        while time.perf_counter() < until:
            await ask(server.client, tokens, streamed=streamed, model=model)
            done += 1

    with server.spent() as spent:
        async with anyio.create_task_group() as tasks:
            for _ in range(at_once):
                tasks.start_soon(one_client)
    return done, spent
