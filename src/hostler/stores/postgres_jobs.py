"""The queue of runs in PostgreSQL: a connection for who works on it.

PgQueuer is given it as its driver.  A connection that was lost is made again by the next statement,
and hears again what it was listening to.

Invariant: used by one event loop; statements are sent one after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, Self, TypeAlias, TypeVar, cast

import asyncpg  # pyright: ignore[reportMissingTypeStubs]

from hostler.core.errors import HostlerError, Unavailable
from hostler.core.events import RunKey
from hostler.core.ports import Job
from hostler.stores.postgres_sql import combined
from hostler.stores.postgres_wire import Wire, connect, unavailable

T = TypeVar("T")
Heard: TypeAlias = Callable[[str | bytes | bytearray], None]
PATIENCE_S = 1.0
"""How long connecting is tried before callers hear that it does not work now."""


def key_text(key: RunKey) -> str:
    """Return a job's key.  Ids have no `/`."""
    return "/".join(key)


class JobRow(NamedTuple):
    """What a job is written from; see `write_jobs`."""

    key: str
    delay_s: float = 0.0
    priority: int = 0
    place: int = 0


class PostgresJobs:
    """The queue, by one connection of its own, which is made when it is needed."""

    def __init__(self, url: str, *, answer_s: float) -> None:
        self._url, self._answer_s = url, answer_s
        self._turn = asyncio.Lock()
        self._wire: Wire | None = None
        self._heard: dict[str, list[Heard]] = {}
        self.shutdown = asyncio.Event()

    async def write(self, job: Job, delay_s: float) -> None:
        """Queue a job, or bring it forward.  Raises Unavailable."""
        statement = combined(("write_jobs",))
        row = JobRow(key_text(job.key), delay_s, job.priority)
        await self.fetch(statement.text, *([value] for value in row))

    async def idle(self, keys: Sequence[RunKey]) -> Sequence[RunKey]:
        """Return those that have no job.  Raises Unavailable."""
        by_text = {key_text(key): key for key in keys}
        return [by_text[str(text)] for (text,) in await self.rows("idle_jobs", keys=[*by_text])]

    # -- statements --------------------------------------------------------------------------

    async def rows(self, name: str, /, **given: object) -> list[tuple[object, ...]]:
        """Return what a named statement finds.  Raises Unavailable."""
        return await self._ask(lambda wire: wire.asked(name, given))

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        """Return what PgQueuer asks for.  Raises Unavailable."""
        found = await self._ask(lambda wire: wire.fetch(query, *args))
        return [dict(cast("Mapping[str, object]", row)) for row in found]

    async def execute(self, query: str, *args: object) -> str:
        return await self._ask(lambda wire: wire.execute(query, *args))

    async def notify(self, channel: str, payload: str) -> None:
        await self.execute("SELECT pg_notify($1, $2)", channel, payload)

    async def add_listener(self, channel: str, callback: Heard) -> None:
        """Have a callback hear a channel, on this connection and on those after it."""
        async with self._turn:
            self._heard.setdefault(channel, []).append(callback)
            if self._wire is not None and not self._wire.db.is_closed():
                await _listen(self._wire, channel, callback)

    def close(self) -> None:
        if self._wire is not None:
            self._wire.db.terminate()

    async def _ask(self, ask: Callable[[Wire], Awaitable[T]]) -> T:
        async with self._turn:
            try:
                async with asyncio.timeout(self._answer_s):
                    return await ask(await self._open())
            except TimeoutError as error:
                self.close()
                raise Unavailable("the database does not answer") from error
            except (HostlerError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                raise unavailable(error) from error

    async def _open(self) -> Wire:
        wire = self._wire
        if wire is None or wire.db.is_closed():
            wire = await connect(self._url, patience_s=PATIENCE_S)
            try:
                for channel, callbacks in self._heard.items():
                    for callback in callbacks:
                        await _listen(wire, channel, callback)
            except BaseException:
                wire.db.terminate()  # nobody else knows it
                raise
            self._wire = wire
        return wire

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...


class _Ear(Protocol):
    """What is used of `asyncpg.Connection` to listen."""

    async def add_listener(self, channel: str, callback: Callable[..., None]) -> None: ...


async def _listen(wire: Wire, channel: str, callback: Heard) -> None:
    def hear(_db: object, _pid: int, _channel: str, payload: str) -> None:
        callback(payload)

    await cast("_Ear", wire.db).add_listener(channel, hear)
