"""What clients do: make a session, say something, read the answer to its end.

Invariant: a turn counts only if its answer is whole, to the last token.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import msgspec
from msgspec import Struct

from bench.bare import BrokenError, Client
from bench.wire import Script, text_of

TURN_S = 120.0
LOOK_AGAIN_S = 0.02
DELTA = b"event: delta\ndata: "
REPLY = b"event: model_replied\ndata: "
END = b"event: run_ended\ndata: "


class WrongError(Exception):
    """The answer was not what the model said."""


class _Made(Struct):
    id: str


class _Delta(Struct):
    part: str
    text: str


class _Ended(Struct):
    status: str


class _Replied(Struct):
    text: str


_made = msgspec.json.Decoder(_Made)
_delta = msgspec.json.Decoder(_Delta)
_ended = msgspec.json.Decoder(_Ended)
_replied = msgspec.json.Decoder(_Replied)


@dataclass(slots=True)
class Turn:
    """What a client saw of one turn; times are of `time.perf_counter`."""

    began: float = field(default_factory=time.perf_counter)
    ended: float = 0.0
    times: list[float] = field(default_factory=list[float])
    """When each piece of text came."""
    texts: list[str] = field(default_factory=list[str])
    reply: str = ""
    """The last one, as the log has it."""
    status: str = ""

    is_open: bool = False
    """Whether the stream has begun."""

    def hear(self, block: bytes) -> None:
        self.is_open = True
        if (place := block.find(DELTA)) >= 0:
            delta = _delta.decode(block[place + len(DELTA) :])
            if delta.part == "text":
                self.times.append(time.perf_counter())
                self.texts.append(delta.text)
        elif (place := block.find(REPLY)) >= 0:
            self.reply = _replied.decode(block[place + len(REPLY) :]).text
        elif (place := block.find(END)) >= 0:
            self.status = _ended.decode(block[place + len(END) :]).status

    @property
    def total_s(self) -> float:
        return self.ended - self.began

    @property
    def first_s(self) -> float:
        return self.times[0] - self.began


async def make_session(client: Client) -> str:
    return _made.decode(await client.request("POST", "/api/sessions", {})).id


async def make_sessions(client: Client, count: int, *, at_once: int = 16) -> list[str]:
    made, left = list[str](), iter(range(count))

    async def some() -> None:
        for _ in left:
            made.append(await make_session(client))

    async with anyio.create_task_group() as tasks:
        for _ in range(at_once):
            tasks.start_soon(some)
    return made


async def say(client: Client, session: str, script: Script, *, streams: bool = True) -> Turn:
    """Say the script and read the answer.

    `streams`: all of its text has to come as it is generated.  From another process some of it may
    be there in the reply alone.

    Raises:
        WrongError, BrokenError, TimeoutError: there was no whole answer.
    """
    turn, path = Turn(), f"/api/sessions/{session}/messages"
    with anyio.fail_after(TURN_S):
        await client.request("POST", path, {"content": script.prompt}, on_event=turn.hear)
    turn.ended = time.perf_counter()
    is_there = is_whole(turn, script) if streams else turn.reply == text_of(script.tokens)
    if turn.status != "done" or not is_there:
        raise WrongError(f"{turn.status}: {''.join(turn.texts)[-80:]!r}")
    return turn


def is_whole(turn: Turn, script: Script) -> bool:
    """Return whether every token came, once and in order."""
    text = "".join(turn.texts)
    if script.stamps:
        return [int(token.partition(":")[0]) for token in text.split()] == [*range(script.tokens)]
    return text == text_of(script.tokens)


@asynccontextmanager
async def watching(client: Client, sessions: Sequence[str]) -> AsyncGenerator[list[Turn]]:
    """Open a stream of each session, and end them all when the context is left.

    Raises:
        BrokenError, TimeoutError: they did not all open, or one has ended before.
    """
    turns = [Turn() for _ in sessions]

    async def one(session: str, turn: Turn) -> None:
        path = f"/api/sessions/{session}/events?after=now"
        await client.request("GET", path, on_event=turn.hear)
        raise BrokenError("the stream has ended")

    async with anyio.create_task_group() as tasks:
        for session, turn in zip(sessions, turns, strict=True):
            tasks.start_soon(one, session, turn)
        await until(lambda: all(turn.is_open for turn in turns))
        yield turns
        tasks.cancel_scope.cancel()


async def until(happened: Callable[[], bool]) -> None:
    """Wait for what streams tell.  Raises TimeoutError."""
    with anyio.fail_after(TURN_S):
        while not happened():  # noqa: ASYNC110  many streams, and no one end
            await anyio.sleep(LOOK_AGAIN_S)


@dataclass(slots=True)
class Turns:
    """What many clients saw."""

    done: list[Turn] = field(default_factory=list[Turn])
    errors: list[str] = field(default_factory=list[str])

    async def one(
        self, client: Client, script: Script, session: str | None = None, *, streams: bool = True
    ) -> None:
        """Take a turn, in a new session if none is given, and keep what became of it."""
        try:
            where = session or await make_session(client)
            self.done.append(await say(client, where, script, streams=streams))
        except (WrongError, BrokenError, TimeoutError, OSError) as error:
            self.errors.append(f"{type(error).__name__}: {error}")

    @property
    def p50_s(self) -> float:
        return statistics.median(turn.total_s for turn in self.done)


async def closed_loop(
    client: Client, script: Script, *, at_once: int, secs: float, streams: bool = True
) -> Turns:
    """Let so many clients take turn after turn, each in a new session, for so long."""
    turns, until = Turns(), time.perf_counter() + secs

    async def one_client() -> None:
        while not turns.errors and time.perf_counter() < until:
            await turns.one(client, script, streams=streams)

    async with anyio.create_task_group() as tasks:
        for _ in range(at_once):
            tasks.start_soon(one_client)
    return checked(turns)


def checked(turns: Turns) -> Turns:
    """Return the turns, or raise the first error: figures of failures compare nothing."""
    if turns.errors:
        raise WrongError(f"{len(turns.errors)} turns failed, the first with {turns.errors[0]}")
    return turns


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
