"""The queue of runs in Redis, in the keys and forms of Docket 0.27.

Docket's own script writes jobs; what is around it here, and what else is asked, is in `lua/`: each
is one step, so no ring is lost between a look and what is done about it.

Invariant: all keys begin with the name of the fleet, and nothing that Redis holds is unpickled.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping, Sequence
from importlib.resources import files
from typing import NamedTuple, Protocol, cast

from redis.asyncio import Redis
from redis.asyncio.connection import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from hostler.core.errors import SetupError
from hostler.core.events import RunId, RunKey, SessionId, TenantId
from hostler.core.ports import Job

TROUBLE = (RedisError, OSError, TimeoutError)
CONNECT_S = 2.0
CONNECTIONS = 8
"""At once; who needs one more waits.  Redis does one thing at a time anyway."""
GROUP = "docket-workers"
TASK = b"run"
_NOTHING: Mapping[bytes, bytes] = {
    b"when": b"1970-01-01T00:00:00+00:00",
    b"function": TASK,
    b"args": b"\x80\x05).",
    b"kwargs": b"\x80\x05}.",
    b"attempt": b"1",
}
"""All of a message that does not say which job it is: no time (Redis has that), and, pickled, no
arguments.  Whoever could have others unpickled would run code here, so no other message is taken."""
IDLE_AT_ONCE = 1000
BEAT_AT_ONCE = 500
"""Of which one command asks: Redis serves nobody else meanwhile."""


def _read(name: str, *, schedules: bool = False) -> str:
    own = (files("hostler.engine") / "lua" / f"{name}.lua").read_text(encoding="utf-8")
    if not schedules:
        return own
    theirs = (files("docket") / "lua" / "schedule.lua").read_text(encoding="utf-8")
    return f"local function schedule(KEYS, ARGV)\n{theirs}\nend\n{own}"


SCRIPTS: Mapping[str, str] = {
    **{name: _read(name) for name in ("beat", "count", "leave")},
    **{name: _read(name, schedules=True) for name in ("ring", "finish")},
}
"""Read with this module: a queue is made on an event loop, which does not wait for files."""


class Held(NamedTuple):
    """A job that a worker has."""

    message: bytes
    key: str
    claim: str
    """Whose: a worker, and by which message."""


class Script(Protocol):
    """What is used of `redis.commands.core.AsyncScript`."""

    def __call__(
        self, *, keys: Sequence[str], args: Sequence[str | bytes | int | float]
    ) -> Awaitable[object]: ...


class Queue:
    """A fleet's jobs, by connections of its own, which are made when they are needed."""

    def __init__(self, url: str, fleet: str, *, answer_s: float) -> None:
        """Raises SetupError: that is no URL of a Redis."""
        self.name = f"{fleet}:runs"
        try:
            pool = BlockingConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType]
                url,
                max_connections=CONNECTIONS,
                timeout=None,
                protocol=2,
                retry=Retry(NoBackoff(), 1),  # what is asked here may be asked twice
                socket_connect_timeout=min(CONNECT_S, answer_s),
                socket_timeout=answer_s,
                driver_info=None,  # to tell its version, it would read files on the event loop
            )
        except ValueError as error:
            raise SetupError(f"redis: {error}") from error
        self.client = Redis(connection_pool=pool)
        self._ring, self._finish = self._script("ring"), self._script("finish")
        self._beat, self._count = self._script("beat"), self._script("count")
        self._leave = self._script("leave")

    def _script(self, name: str) -> Script:
        return cast("Script", self.client.register_script(SCRIPTS[name]))

    def key(self, suffix: str) -> str:
        return f"{self.name}:{suffix}"

    async def close(self) -> None:
        await self.client.aclose()
        await self.client.connection_pool.disconnect()  # pyright: ignore[reportUnknownMemberType]

    # -- each of these raises one of TROUBLE -------------------------------------------------

    async def begin(self) -> None:
        """Make the stream, and the group of those who read it."""
        await self.client.xgroup_create(self.key("stream"), GROUP, id="0-0", mkstream=True)

    async def ring(self, job: Job, now: float) -> None:
        """Queue a job, bring it forward, or note that its key is to be handled once more."""
        key = key_text(job.key)
        await self._ring(
            keys=self._keys(key),
            args=_schedule_args(key, job.not_before, now, replace=True),
        )

    async def finish(self, held: Held, again: float | None, now: float) -> None:
        """End a job, or queue it again; nothing, if it is another worker's by now."""
        args = _schedule_args(held.key, again, now, replace=False, message=held.message)
        await self._finish(
            keys=[*self._keys(held.key), self.key(f"progress:{held.key}")],
            args=[*args, held.claim, now],
        )

    async def idle(self, keys: Sequence[RunKey]) -> Sequence[RunKey]:
        """Return those that have no job."""
        found = list[int]()
        for start in range(0, len(keys), IDLE_AT_ONCE):
            async with self.client.pipeline(transaction=False) as pipe:
                for key in keys[start : start + IDLE_AT_ONCE]:
                    pipe.exists(self.key(f"runs:{key_text(key)}"))
                found += cast("list[int]", await pipe.execute())
        return [key for key, count in zip(keys, found, strict=True) if not count]

    async def beat(
        self, held: Sequence[Held], *, worker: str, known: str, lease_s: float
    ) -> tuple[str, list[Held]]:
        """Renew leases; return the name of Redis's memory, and of which jobs they are still ours.

        `known`: the name it had; a Redis that began anew without its memory has another one.
        """
        name, ours = known, list[Held]()
        for start in range(0, max(1, len(held)), BEAT_AT_ONCE):
            some = held[start : start + BEAT_AT_ONCE]
            keys = [self.key("stream"), self.key("memory")]
            keys += [self.key(f"runs:{one.key}") for one in some]
            args: list[str | bytes | int] = [GROUP, worker, known, int(lease_s * 1000)]
            args.append(f"{worker} {time.time_ns()}")
            for one in some:
                args += (one.message, one.claim)
            said, *places = cast("list[bytes | int]", await self._beat(keys=keys, args=args))
            name = cast("bytes", said).decode()
            ours += [some[cast("int", place)] for place in places]
        return name, ours

    async def count(self, now: float) -> tuple[int, float]:
        """Return how many jobs are due and wait, and for how many seconds the oldest of them."""
        keys = [self.key("stream"), self.key("queue")]
        number, oldest_ms = cast("list[int]", await self._count(keys=keys, args=[now]))
        return number, oldest_ms / 1000

    async def leave(self, worker: str) -> None:
        """Forget a worker that has nothing."""
        await self._leave(keys=[self.key("stream")], args=[GROUP, worker])

    async def drop(self, message: bytes) -> None:
        """Remove a message that is none of ours."""
        async with self.client.pipeline(transaction=False) as pipe:
            pipe.xack(self.key("stream"), GROUP, message)
            pipe.xdel(self.key("stream"), message)
            await pipe.execute()

    def _keys(self, key: str) -> list[str]:
        """Return the keys of Docket's script, in its order."""
        names = ("stream", f"known:{key}", key, "queue", f"stream-id:{key}", f"runs:{key}")
        return [*map(self.key, names), self.key(f"state:{key}")]


def _schedule_args(
    key: str, at: float | None, now: float, *, replace: bool, message: bytes = b""
) -> list[str | bytes | int | float]:
    """Return the arguments of Docket's script, in its order; `message`: to be queued again."""
    is_due = at is not None and at <= now
    said = {b"key": key.encode(), **_NOTHING, b"generation": b"0"}
    pairs = [word for pair in said.items() for word in pair]
    when = "" if at is None else f"{at:.6f}"
    return [key, when, int(is_due), int(replace), message, 0, GROUP, "", *pairs]


def key_text(key: RunKey) -> str:
    """Return a job's key.  Ids have no `/`."""
    return "/".join(key)


def key_of(text: str) -> RunKey:
    tenant, session, run = text.split("/")
    return RunKey(TenantId(tenant), SessionId(session), RunId(run))


def is_job(message: Mapping[bytes, bytes]) -> bool:
    """Whether a message is one that was written here."""
    said = dict(message)
    key, generation = said.pop(b"key", b""), said.pop(b"generation", b"")
    return said == _NOTHING and key.count(b"/") == 2 and key.isascii() and generation.isdigit()
