"""What does a streamed token cost the model adapter?  CPU of this process, ours beside bare sockets.

*burst*: 500 tokens in one write; *paced*: one write per token, 1,000 a second and stream, 1 or 20
streams at once; *question*: a whole call of one token.  The floor is `bare` and msgspec, checking
nothing; *aiohttp* adds the HTTP client alone; Hostler is `OpenAIChat` with all that it checks.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import aiohttp
import anyio
import msgspec
from msgspec import Struct

from bench.bare import HOST, Client
from bench.drive import WrongError
from bench.setting import Figures, Row, Setting
from bench.wire import Script, text_of
from hostler.core.ports import Delta, Failure, Request
from hostler.core.said import UserSaid
from hostler.models.openai_chat import OpenAIChat
from hostler.models.transport import Aiohttp

GAP_S = 0.001

Read = Callable[[Script], Awaitable[str]]


class Case(NamedTuple):
    name: str
    script: Script
    at_once: int
    times: int


class _Delta(Struct):
    content: str | None = None


class _Choice(Struct):
    delta: _Delta


class _Chunk(Struct):
    choices: list[_Choice]


_chunk = msgspec.json.Decoder(_Chunk)


async def run(setting: Setting) -> list[Row]:
    figures, port, size = Figures("models"), setting.model_port, setting.size
    transport, client = Aiohttp(), Client(port)
    cases = [
        Case("burst", Script(tokens=size.burst), 1, size.answers),
        Case("paced x1", Script(tokens=size.burst, gap_s=GAP_S), 1, 1 + size.answers // 20),
        Case("paced x20", Script(tokens=size.burst, gap_s=GAP_S), 20, 1),
        Case("question", Script(tokens=1), 1, size.answers * 5),
    ]
    async with aiohttp.ClientSession() as session:
        readers = {
            ("hostler", "CPU per token"): ours(port, transport),
            ("floor", "CPU per token"): floor(client),
            ("hostler", "of it aiohttp"): through_aiohttp(port, session),
        }
        for _ in range(size.reps):
            for case in cases:
                for (name, figure), read in readers.items():
                    figures.add(name, case.name, figure, await _cpu_us(read, case), "us")
    client.close()
    await transport.aclose()
    return figures.rows()


def floor(client: Client) -> Read:
    async def read(script: Script) -> str:
        texts = list[str]()

        def hear(block: bytes) -> None:
            if block != b"data: [DONE]":
                texts.extend(choice.delta.content or "" for choice in _decode(block))

        await client.request("POST", "/v1/chat/completions", _body(script), on_event=hear)
        return "".join(texts)

    return read


def through_aiohttp(port: int, session: aiohttp.ClientSession) -> Read:
    async def read(script: Script) -> str:
        texts, rest, body = list[str](), b"", msgspec.json.encode(_body(script))
        url = f"http://{HOST}:{port}/v1/chat/completions"
        async with session.post(url, data=body) as response:
            async for data in response.content.iter_any():
                *blocks, rest = (rest + data).split(b"\n\n")
                for block in blocks:
                    if block != b"data: [DONE]":
                        texts.extend(choice.delta.content or "" for choice in _decode(block))
        return "".join(texts)

    return read


def ours(port: int, transport: Aiohttp) -> Read:
    model = OpenAIChat(
        name="mock",
        base_url=f"http://{HOST}:{port}/v1",
        transport=transport,
        key=lambda _: "sk-bench",
        provider="openai",
    )

    async def read(script: Script) -> str:
        texts = list[str]()
        question = Request(system="", transcript=[UserSaid(script.prompt)])
        async for part in model.stream(question):
            if isinstance(part, Delta):
                texts.append(part.text)
            elif isinstance(part, Failure):
                raise WrongError(part.message)
        return "".join(texts)

    return read


def _body(script: Script) -> dict[str, object]:
    messages = [{"role": "user", "content": script.prompt}]
    return {"model": "mock", "stream": True, "messages": messages}


def _decode(block: bytes) -> list[_Choice]:
    return _chunk.decode(block[6:]).choices


async def _cpu_us(read: Read, case: Case) -> float:
    async def checked() -> None:
        if await read(case.script) != text_of(case.script.tokens):
            raise WrongError(case.name)

    await checked()
    began = time.process_time()
    for _ in range(case.times):
        async with anyio.create_task_group() as tasks:
            for _ in range(case.at_once):
                tasks.start_soon(checked)
    cpu_s = time.process_time() - began
    return cpu_s * 1e6 / (case.script.tokens * case.at_once * case.times)
