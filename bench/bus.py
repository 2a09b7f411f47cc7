"""What does the bus of a fleet cost?  Text that one node generates, watched on another.

Two processes of their own, each a node.  Each stream speaks 20 tokens a second; *delay* is from
where a token is given to the signals of one node to the watcher on the other.  CPU is that of a
node's process for each token; what speaking itself costs is measured with nobody elsewhere watching.

Over HOSTLER_BENCH_REDIS, and over HOSTLER_BENCH_POSTGRES where there is no Redis.

Invariant: names of fleets are made up for each measurement, and nothing is kept.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from uuid import uuid4

import anyio
import anyio.to_thread
import uvloop

from bench.postgres import NAMED, REDIS
from bench.setting import Figures, Row, Setting
from hostler.core import codec
from hostler.core.directory import DEFAULT
from hostler.core.events import AttemptId, Event, Key, ModelAsked, RunId, RunKey, Seq, SessionId
from hostler.core.news import Piece
from hostler.core.ports import Delta
from hostler.core.streamed import each
from hostler.signals.fleet import FleetSignals
from hostler.signals.local import LocalSignals
from hostler.signals.notify_wire import NotifyWire
from hostler.signals.redis_wire import RedisWire

GAP_S, SECS = 0.05, 5.0
RUN, ATTEMPT, ASKED = RunId("run_1"), AttemptId("att_1"), Seq(1)


@dataclass(frozen=True)
class Case:
    url: str
    fleet: str
    streams: int
    is_watched: bool
    secs: float


def node_of(case: Case) -> FleetSignals:
    make = RedisWire if case.url.startswith("redis") else NotifyWire
    return FleetSignals(LocalSignals(), make(case.url), fleet=case.fleet)


def keys_of(case: Case) -> list[Key]:
    return [Key(DEFAULT, SessionId(f"ses_{number}")) for number in range(case.streams)]


def the_question(key: Key) -> Event:
    fact = ModelAsked(run=RUN, attempt=ATTEMPT, provider="p", model="m")
    return Event(session=key.session, seq=ASKED, at=1.0, fact=fact, raw=codec.dump(fact))


def speaker(case: Case, pipe: Connection) -> None:
    uvloop.run(_speak(case, pipe))


async def _speak(case: Case, pipe: Connection) -> None:
    node = node_of(case)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node.serve)
        await anyio.sleep(2)
        pipe.send("up")
        await anyio.to_thread.run_sync(pipe.recv)
        before = time.process_time()
        async with anyio.create_task_group() as speaking:
            for number, key in enumerate(keys_of(case)):
                wait_s = GAP_S * number / case.streams
                speaking.start_soon(_say, case, node, RunKey(*key, RUN), wait_s)
        pipe.send(time.process_time() - before)
        await anyio.to_thread.run_sync(pipe.recv)
        tasks.cancel_scope.cancel()


async def _say(case: Case, node: FleetSignals, run: RunKey, wait_s: float) -> None:
    with node.on_cancel(run, lambda: None):
        key = Key(run.tenant, run.session)
        node.publish(key, [the_question(key)])
        at = time.monotonic() + 0.5 + wait_s
        for _ in range(round(case.secs / GAP_S)):
            await anyio.sleep(max(0.0, at - time.monotonic()))
            node.delta(run, ASKED, ATTEMPT, Delta("text", f"{time.monotonic():.6f} "))
            at += GAP_S
        await anyio.sleep(0.5)


def watcher(case: Case, pipe: Connection) -> None:
    uvloop.run(_watch(case, pipe))


async def _watch(case: Case, pipe: Connection) -> None:
    node, delays = node_of(case), list[float]()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(node.serve)
        if case.is_watched:
            for key in keys_of(case):
                tasks.start_soon(_follow, node, key, delays)
        await anyio.sleep(2)
        pipe.send("up")
        before = time.process_time()
        await anyio.to_thread.run_sync(pipe.recv)
        pipe.send((time.process_time() - before, delays))
        tasks.cancel_scope.cancel()


async def _follow(node: FleetSignals, key: Key, delays: list[float]) -> None:
    seen = 0
    with node.watch(key, quiet_s=60) as watch:
        while True:
            items = await watch.next()
            now = time.monotonic()
            for one in watch.begin() if items is None else items:
                if isinstance(one, Piece) and one.end > seen:
                    seen = one.end
                    delays.extend(now - float(delta.text) for delta in each(one.delta))


def measure(case: Case) -> Sequence[tuple[str, float, str]]:
    anew = multiprocessing.get_context("spawn")
    ours, theirs = anew.Pipe(), anew.Pipe()
    speaking = anew.Process(target=speaker, args=(case, ours[1]))
    watching = anew.Process(target=watcher, args=(case, theirs[1]))
    speaking.start()
    watching.start()
    ours[0].recv()
    theirs[0].recv()
    ours[0].send("go")
    sent_s = ours[0].recv()
    theirs[0].send("enough")
    heard_s, delays = theirs[0].recv()
    ours[0].send("enough")
    speaking.join()
    watching.join()
    tokens = case.streams * round(case.secs / GAP_S)
    rows = [
        ("CPU of who speaks", sent_s / tokens * 1e6, "us/token"),
        ("CPU of who watches", heard_s / tokens * 1e6, "us/token"),
        ("tokens that arrived", len(delays) / tokens * 100, "%"),
    ]
    ordered = sorted(delays)
    for percent in (50, 99) if ordered else ():
        at = min(len(ordered) - 1, len(ordered) * percent // 100)
        rows.append((f"delay p{percent}", ordered[at] * 1e3, "ms"))
    return rows


async def run(setting: Setting) -> list[Row]:
    figures = Figures("bus")
    urls = {"redis": os.environ.get(REDIS), "listen/notify": os.environ.get(NAMED)}
    for name, url in urls.items():
        for streams in setting.size.between if url else ():
            for is_watched in (False, True):
                case = Case(
                    url or "",
                    f"bench-{uuid4().hex[:8]}",
                    streams,
                    is_watched,
                    min(SECS, setting.size.secs),
                )
                told = f"{streams} streams, {'watched elsewhere' if is_watched else 'not watched'}"
                for what, value, unit in await anyio.to_thread.run_sync(measure, case):
                    figures.add(name, told, what, value, unit)
    return figures.rows()
