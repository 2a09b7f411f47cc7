"""The yardstick: the same turn over the same API on bare sockets, storing hardly anything.

It keeps messages in SQLite, one write for each, and knows no runs, no cursors, no recovery and no
second client.  What Hostler costs more than this is what its promises cost.

Invariant: nothing here is checked, so that nothing here can be left out.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from functools import partial

import msgspec
import uvloop
from msgspec import Struct

from bench.bare import LAST_CHUNK, STREAM, Client, Line, Request, chunk, listen

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "noop",
            "description": "A no-op tool.",
            "parameters": {"type": "object", "properties": {"x": {"type": "string"}}},
        },
    }
]


class _Function(Struct):
    name: str = ""
    arguments: str = ""


class _Call(Struct):
    function: _Function
    id: str = ""


class _Delta(Struct):
    content: str | None = None
    tool_calls: list[_Call] = []


class _Choice(Struct):
    delta: _Delta


class _Chunk(Struct):
    choices: list[_Choice]


class _Spoken(Struct):
    content: str


_chunk = msgspec.json.Decoder(_Chunk)
_spoken = msgspec.json.Decoder(_Spoken)
encode = msgspec.json.Encoder().encode
Message = dict[str, object]


class Messages:
    """Rows of JSON."""

    def __init__(self, file: str) -> None:
        self._db = sqlite3.connect(file, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS sessions (id TEXT PRIMARY KEY)")
        self._db.execute("CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY, of, json)")
        self._db.execute("CREATE INDEX IF NOT EXISTS by_session ON messages (of)")
        self._made = 0

    def make(self) -> str:
        self._made += 1
        session = f"ses_{self._made:016x}"
        self._db.execute("INSERT INTO sessions VALUES (?)", (session,))
        return session

    def add(self, session: str, message: Message) -> None:
        self._db.execute(
            "INSERT INTO messages (of, json) VALUES (?, ?)", (session, encode(message))
        )

    def all(self, session: str) -> list[Message]:
        rows = self._db.execute("SELECT json FROM messages WHERE of = ? ORDER BY id", (session,))
        return [msgspec.json.decode(row[0], type=Message) for row in rows]


class Turn:
    """One message and its answer."""

    def __init__(self, line: Line, session: str, messages: Messages, model: Client) -> None:
        self._line, self._session, self._messages, self._model = line, session, messages, model
        self._texts, self._calls, self._out = list[str](), list[_Call](), STREAM
        self._loop = asyncio.get_running_loop()

    async def run(self, content: str) -> None:
        self._messages.add(self._session, {"role": "user", "content": content})
        conversation = self._messages.all(self._session)
        while True:
            self._texts.clear()
            self._calls.clear()
            body = {"model": "mock", "stream": True, "messages": conversation, "tools": TOOLS}
            await self._model.request("POST", "/v1/chat/completions", body, on_event=self._hear)
            for message in self._said():
                self._messages.add(self._session, message)
                conversation.append(message)
            if not self._calls:
                break
        self._send(b'event: run_ended\ndata: {"status":"done"}\n\n')
        self._out += LAST_CHUNK
        self._flush()
        self._line.over()

    def _said(self) -> list[Message]:
        said: Message = {"role": "assistant", "content": "".join(self._texts) or None}
        if not self._calls:
            return [said]
        first = self._calls[0]
        function = {"name": first.function.name, "arguments": self._arguments()}
        said["tool_calls"] = [{"id": first.id, "type": "function", "function": function}]
        return [said, {"role": "tool", "tool_call_id": first.id, "content": "ok"}]

    def _arguments(self) -> str:
        return "".join(call.function.arguments for call in self._calls)

    def _hear(self, block: bytes) -> None:
        if block == b"data: [DONE]":
            return
        for choice in _chunk.decode(block[6:]).choices:
            if choice.delta.content:
                self._texts.append(choice.delta.content)
                data = encode({"part": "text", "text": choice.delta.content})
                self._send(b"event: delta\ndata: %b\n\n" % data)
            self._calls += choice.delta.tool_calls

    def _send(self, event: bytes) -> None:
        if not self._out or self._out is STREAM:  # what comes in one wake-up goes in one write
            self._loop.call_soon(self._flush)
        self._out += chunk(event)

    def _flush(self) -> None:
        if self._out:
            self._line.write(self._out)
            self._out = b""


def asked(
    line: Line, request: Request, *, messages: Messages, model: Client, tasks: asyncio.TaskGroup
) -> None:
    if request.path == "/healthz":
        line.answer({})
    elif request.path == "/api/sessions":
        line.answer({"id": messages.make()}, 201)
    else:
        turn = Turn(line, request.path.split("/")[3], messages, model)
        tasks.create_task(turn.run(_spoken.decode(request.body).content))


async def main() -> None:
    file, model_port = sys.argv[1:]
    messages, model = Messages(file), Client(int(model_port))
    async with asyncio.TaskGroup() as tasks:  # anyio's may not be called from a protocol
        answer = partial(asked, messages=messages, model=model, tasks=tasks)
        async with await listen(answer) as server:
            await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
