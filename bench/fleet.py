"""What does a fleet on PostgreSQL cost, and how soon are the dead noticed?

*Takeover*: from `kill -9` of a node that drives ten runs to each one's next claim, elsewhere.  *Write
transactions*: by the database's own numbers (so nothing else may write there), of a turn with one call
of a tool, many at once.  *Delayed*: what a dequeue takes that passes over runs that wait.

The PostgreSQL is HOSTLER_BENCH_POSTGRES.

Invariant: it works in a database that was made for it, and is dropped after.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from subprocess import DEVNULL, PIPE

import anyio
import anyio.abc

from bench.drive import percentile
from bench.postgres import NAME, NAMED, a_database
from bench.setting import Figures, Row, Setting
from hostler.app.house import open_house
from hostler.app.part import Part
from hostler.core.events import Key, RunClaimed, RunKey
from hostler.core.ports import Delta, Failure, Job, Reply, Request
from hostler.stores.postgres import PostgresStore
from hostler.stores.postgres_jobs import PostgresJobs
from hostler.stores.postgres_open import open_postgres
from hostler.stores.postgres_wire import connect
from hostler.testing.doubles import (
    ModelDouble,
    ToolboxDouble,
    a_call,
    a_session,
    a_tool,
    an_agent,
    whole_log,
)
from hostler.testing.store_kit import spoke

HELD = "wait"
RUNS = 10


class Held(ModelDouble):
    """Never answers who says that it should wait; calls a tool for others, then answers."""

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
        if HELD in str(request.transcript[-1]):
            await anyio.sleep_forever()
        async for one in super().stream(request):
            yield one


def _answer(request: Request) -> Reply:
    if len(request.transcript) > 1:
        return Reply(text="well said", stop="end")
    return Reply(text="", stop="tools", calls=(a_call("look"),))


async def node(url: str, lease_s: float) -> None:
    """Be a node until killed."""
    agent = an_agent(Held(_answer), tools=ToolboxDouble({"look": a_tool("look")}))
    async with open_house(
        {"double": agent}, default_agent="double", file=url, part=Part(lease_s=lease_s)
    ):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await anyio.sleep_forever()


@asynccontextmanager
async def a_node(url: str, lease_s: float) -> AsyncGenerator[anyio.abc.Process]:
    argv = (sys.executable, "-m", "bench.fleet", url, str(lease_s))
    async with await anyio.open_process(argv, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL) as one:
        assert one.stdout is not None
        await one.stdout.receive()
        try:
            yield one
        finally:
            if one.returncode is None:
                one.kill()


async def ask(store: PostgresStore, count: int, text: str) -> Sequence[Key]:
    keys = [await a_session(store) for _ in range(count)]
    async with anyio.create_task_group() as tasks:
        for key in keys:
            tasks.start_soon(store.append, key, [spoke(f"run_{key.session}", text)])
    return keys


async def claims(store: PostgresStore, keys: Sequence[Key], number: int) -> list[float]:
    """Wait until all have been claimed so often; return when each was, the last time."""
    found = list[float]()
    for key in keys:
        at = list[float]()
        while len(at) < number:
            log = await whole_log(store, key)
            at = [event.at for event in log if isinstance(event.fact, RunClaimed)]
            await anyio.sleep(0.02)
        found.append(at[-1])
    return found


async def takeover(url: str, lease_s: float, kills: int, figures: Figures) -> None:
    late = list[float]()
    async with open_postgres(url, enlists=True) as store:
        for _ in range(kills):
            async with a_node(url, lease_s) as dying:
                keys = await ask(store, RUNS, HELD)
                await claims(store, keys, 1)
                async with a_node(url, lease_s):
                    killed_at = time.time()
                    dying.send_signal(signal.SIGKILL)
                    late += [at - killed_at for at in await claims(store, keys, 2)]
            for key in keys:
                await store.delete(key)
            wire = await connect(url)
            await wire.execute("DELETE FROM pgqueuer")
            await wire.db.close()
    case = f"{kills} kills, lease {lease_s:g} s"
    figures.add(NAME, case, "resumed p50", statistics.median(late), "s")
    figures.add(NAME, case, "resumed p99", percentile(late, 99), "s")


async def transactions(url: str, turns: int, figures: Figures) -> None:
    wire = await connect(url)

    async def written() -> int:
        ((number,),) = await wire.fetch("SELECT txid_snapshot_xmax(txid_current_snapshot())")
        return int(str(number))

    async with open_postgres(url, enlists=True) as store, a_node(url, 5.0):
        for at_once in (1, 16, 64):
            before, began = await written(), time.perf_counter()
            rounds = max(1, turns // at_once)
            for _ in range(rounds):
                keys = await ask(store, at_once, "go")
                for key in keys:
                    while (await store.head(key)).active is not None:  # noqa: ASYNC110
                        await anyio.sleep(0.01)
            done, spent_s = rounds * at_once, time.perf_counter() - began
            case = f"turns with a tool, {at_once} at once"
            figures.add(NAME, case, "write transactions", (await written() - before) / done, "each")
            figures.add(NAME, case, "turns", done / spent_s, "/s")
    await wire.db.close()


async def delayed(url: str, counts: Sequence[int], figures: Figures) -> None:
    jobs, wire = PostgresJobs(url, answer_s=30), await connect(url)
    look = """EXPLAIN (ANALYZE, FORMAT JSON) SELECT id FROM pgqueuer WHERE entrypoint = 'run'
        AND status = 'queued' AND execute_after < now()
        ORDER BY priority DESC, id LIMIT 50 FOR UPDATE SKIP LOCKED"""
    there = 0
    for count in counts:
        for number in range(there, count):
            await jobs.write(Job(RunKey(*_key(number))), 86_400.0)  # type: ignore[arg-type]
        there = count
        await wire.execute("ANALYZE pgqueuer")
        took = list[float]()
        for _ in range(20):
            ((plan,),) = await wire.fetch(look)
            took.append(
                float(str(plan).split('"Execution Time": ')[1].split("\n")[0].strip(" ,]}"))
            )
        case = f"{count} runs that wait"
        figures.add(NAME, case, "a look at the queue", statistics.median(took), "ms")
    jobs.close()
    await wire.db.close()


def _key(number: int) -> tuple[str, str, str]:
    return "default", f"ses_{number}", f"run_{number}"


async def run(setting: Setting) -> list[Row]:
    server, figures, size = os.environ.get(NAMED), Figures("fleet"), setting.size
    if not server:
        return []
    async with a_database(server) as url:
        async with open_postgres(url):
            pass
        await transactions(url, size.asks, figures)
        for lease_s in size.leases_s:
            await takeover(url, lease_s, size.kills, figures)
        await delayed(url, (0, size.idle_sessions), figures)
    return figures.rows()


def main() -> None:
    """Be a node: what `a_node` starts."""
    url, lease_s = sys.argv[1:]
    anyio.run(node, url, float(lease_s), backend_options={"use_uvloop": True})


if __name__ == "__main__":
    main()
