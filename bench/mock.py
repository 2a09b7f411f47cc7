"""The model server: Chat Completions, from prepared bytes, as fast as the prompt's script says.

Invariant: it is never what limits a measurement; it holds no state between requests.
"""

from __future__ import annotations

import asyncio
import time

import msgspec
import uvloop
from msgspec import Struct

from bench import wire
from bench.bare import STREAM, Line, Request, listen


class _Message(Struct):
    role: str
    content: object = None


class _Asked(Struct):
    messages: list[_Message]


_asked = msgspec.json.Decoder(_Asked)
_script = msgspec.json.Decoder(wire.Script)


class _Paced:
    """Writes each token when it is due; those that are late in one write."""

    def __init__(self, line: Line, chunks: list[bytes], script: wire.Script) -> None:
        self._line, self._chunks, self._script = line, chunks, script
        self._loop = asyncio.get_running_loop()
        self._start, self._sent = self._loop.time() + script.first_s, 0
        self._loop.call_at(self._start, self._write)

    def _write(self) -> None:
        if self._line.closed:
            return
        gap_s = self._script.gap_s
        due = (
            int((self._loop.time() - self._start) / gap_s + 1e-6) + 1
            if gap_s
            else len(self._chunks)
        )
        due = len(self._chunks) if due >= self._script.tokens else due
        if due > self._sent:
            self._line.write(b"".join(self._due(self._sent, due)))
            self._sent = due
        if due == len(self._chunks):
            self._line.over()
        else:
            self._loop.call_at(self._start + due * gap_s, self._write)

    def _due(self, start: int, end: int) -> list[bytes]:
        if not self._script.stamps:
            return self._chunks[start:end]
        at, tokens = time.perf_counter(), len(self._chunks) - 1
        made = [wire.stamped(n, at) for n in range(start, min(end, tokens))]
        return made + self._chunks[max(start, tokens) : end]


def asked(line: Line, request: Request) -> None:
    if not request.path.endswith("/chat/completions"):
        line.answer({"data": [{"id": "mock"}]})
        return
    messages = _asked.decode(request.body).messages
    place = max(n for n, message in enumerate(messages) if message.role == "user")
    script = _script.decode(str(messages[place].content))
    if sum(message.role == "tool" for message in messages[place:]) < script.calls:
        line.write(STREAM + wire.call())
        line.over()
        return
    chunks = wire.answer(script.tokens)
    if script.gap_s or script.first_s or script.stamps:
        line.write(STREAM)
        _Paced(line, chunks, script)
    else:
        line.write(STREAM + b"".join(chunks))
        line.over()


async def main() -> None:
    async with await listen(asked) as server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
