"""What does a streamed token cost?  CPU microseconds per token, ours beside bare sockets.

    python bench/models_stream.py [--loop uvloop] [--repeat 5]

A server in a process of its own sends Chat Completions streams: *burst*, 500 tokens in one write,
and *paced*, one TCP segment per token, 2,000 tokens a second and stream, 1 or 20 streams at once.
Rows: `floor` reads them with asyncio's streams and msgspec and checks nothing; `aiohttp` adds the
HTTP client; `ours` is `OpenAIChat` with all it checks.  *question* is a whole call of one token.
Medians of CPU time of the reading process; compare ratios within one run.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection

import aiohttp
import msgspec
import uvloop

from hostler.core.events import UserSaid
from hostler.core.ports import Delta, Failure, Reply, Request
from hostler.models.openai_chat import OpenAIChat
from hostler.models.transport import Aiohttp

TOKENS = 500
PACE_S = 1 / 2000

EVENT = (
    b'data: {"id":"chatcmpl-CbX1f8aJ2kQw9mN7","object":"chat.completion.chunk","created":1795000000,'
    b'"model":"gpt-5-mini","service_tier":"default","system_fingerprint":"fp_3f4a1c","choices":'
    b'[{"index":0,"delta":{"content":" tok%03d"},"logprobs":null,"finish_reason":null}]}\n\n'
)
TAIL = (
    b'data: {"id":"chatcmpl-CbX1f8aJ2kQw9mN7","object":"chat.completion.chunk","created":1795000000,'
    b'"model":"gpt-5-mini","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":500,"total_tokens":509}}\n\n'
    b"data: [DONE]\n\n"
)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

Read = Callable[[str], Awaitable[int]]


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta


class _Chunk(msgspec.Struct):
    choices: list[_Choice]


decoder = msgspec.json.Decoder(_Chunk)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while head := await _request(reader):
        tokens = 1 if b"/one/" in head else TOKENS
        events = [EVENT % n for n in range(tokens)]
        writer.write(HEAD)
        if b"/paced/" in head:
            loop = asyncio.get_running_loop()
            start = loop.time()
            for n, event in enumerate(events):
                await asyncio.sleep(start + n * PACE_S - loop.time())
                writer.write(_chunk(event))
            writer.write(_chunk(TAIL) + b"0\r\n\r\n")
        else:
            writer.write(_chunk(b"".join(events) + TAIL) + b"0\r\n\r\n")
        await writer.drain()


async def _request(reader: asyncio.StreamReader) -> bytes:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        size = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(size))
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
    return head


def _server(ready: Connection) -> None:
    async def main() -> None:
        server = await asyncio.start_server(_serve, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(main())


def floor(port: int) -> Read:
    async def read(kind: str) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}'
        head = f"POST /{kind}/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        rest, texts = b"", list[str]()
        while b"[DONE]" not in rest:
            blocks = (rest + await reader.read(262_144)).split(b"\n\n")
            rest = blocks[-1]
            for block in blocks:
                place = block.find(b'data: {"id')
                if place >= 0 and block is not rest:
                    texts.append(decoder.decode(block[place + 6 :]).choices[0].delta.content or "")
                elif b"[DONE]" in block:
                    rest = block
        writer.close()
        return len("".join(texts))

    return read


def through_aiohttp(port: int, session: aiohttp.ClientSession) -> Read:
    async def read(kind: str) -> int:
        texts = list[str]()
        body = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}'
        url = f"http://127.0.0.1:{port}/{kind}/v1"
        async with session.post(url, data=body) as response:
            rest = b""
            async for data in response.content.iter_any():
                *blocks, rest = (rest + data).split(b"\n\n")
                for block in blocks:
                    if block.startswith(b'data: {"id'):
                        texts.append(decoder.decode(block[6:]).choices[0].delta.content or "")
        return len("".join(texts))

    return read


def ours(port: int, transport: Aiohttp) -> Read:
    def model(kind: str) -> OpenAIChat:
        return OpenAIChat(
            name="gpt-5-mini",
            base_url=f"http://127.0.0.1:{port}/{kind}/v1",
            transport=transport,
            key=lambda: "sk-bench",
            provider="openai",
        )

    models = {kind: model(kind) for kind in ("burst", "paced", "one")}

    async def read(kind: str) -> int:
        length = 0
        async for part in models[kind].stream(Request(system="", transcript=[UserSaid("hi")])):
            match part:
                case Delta(text=text):
                    length += len(text)
                case Failure(message=message):
                    raise SystemExit(message)
                case Reply():
                    pass
        return length

    return read


async def _measure(read: Read, kind: str, at_once: int, times: int) -> float:
    tokens = 1 if kind == "one" else TOKENS
    await read(kind)
    start = time.process_time()
    for _ in range(times):
        lengths = await asyncio.gather(*(read(kind) for _ in range(at_once)))
        assert set(lengths) == {tokens * 7}, lengths
    return (time.process_time() - start) * 1e6 / (tokens * at_once * times)


async def _all(port: int, repeat: int) -> dict[str, dict[str, float]]:
    transport = Aiohttp()
    columns = {
        "burst": ("burst", 1, 40),
        "paced x1": ("paced", 1, 2),
        "paced x20": ("paced", 20, 1),
        "question": ("one", 1, 200),
    }
    async with aiohttp.ClientSession() as session:
        rows = {
            "floor": floor(port),
            "aiohttp": through_aiohttp(port, session),
            "ours": ours(port, transport),
        }
        found: dict[str, dict[str, list[float]]] = {}
        for _ in range(repeat):
            for column, (kind, at_once, times) in columns.items():
                for row, read in rows.items():
                    cost = await _measure(read, kind, at_once, times)
                    found.setdefault(row, {}).setdefault(column, []).append(cost)
    await transport.aclose()
    return {
        row: {column: statistics.median(costs) for column, costs in of.items()}
        for row, of in found.items()
    }


def main() -> None:
    parse = argparse.ArgumentParser()
    parse.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parse.add_argument("--repeat", type=int, default=5)
    asked = parse.parse_args()
    spawn = multiprocessing.get_context("spawn")
    ready, told = spawn.Pipe()
    server = spawn.Process(target=_server, args=(told,), daemon=True)
    server.start()
    run = uvloop.run if asked.loop == "uvloop" else asyncio.run
    rows = run(_all(ready.recv(), asked.repeat))
    server.terminate()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}"
    print(f"CPU us per token, {asked.loop}, Python {sys.version.split()[0]}, {machine}")
    columns = list(rows["floor"])
    print(f"{'':10}" + "".join(f"{column:>12}" for column in columns))
    for row, costs in rows.items():
        print(f"{row:10}" + "".join(f"{costs[column]:12.1f}" for column in columns))
    ratios = (f"{rows['ours'][column] / rows['floor'][column]:12.2f}" for column in columns)
    print(f"{'ours/floor':10}" + "".join(ratios))


if __name__ == "__main__":
    main()
