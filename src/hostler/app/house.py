"""A running Hostler without a face: store, signals, engine and service, put together.

Invariant: leaving the context stops the work, not the runs: they go on from their last stored
fact when a house is opened on the same store again.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import anyio

from hostler.app.bus import Bus, News
from hostler.app.engines import Lines
from hostler.app.observing import UNOBSERVED, Observing
from hostler.app.part import Part
from hostler.app.roster import roster
from hostler.app.storage import Storage, nothing, open_storage
from hostler.app.upkeep import Work, upkeep
from hostler.app.webhooks import make_outgoing
from hostler.core.news import Signals
from hostler.core.ports import Agents, AgentSpec, Catalog, Engine, World
from hostler.core.store import Outbox, Store
from hostler.engine.drive import Driver
from hostler.engine.leaving import Leaving
from hostler.engine.pace import Pace
from hostler.harness.outbound import Outbound
from hostler.harness.results import Results
from hostler.harness.toolbox import Toolbox
from hostler.models.absent import Absent
from hostler.service.admission import Admission, Line
from hostler.service.direct import Models
from hostler.service.endpoints import Endpoints
from hostler.service.rates import Rates
from hostler.service.retention import FOR_EVER, Forgetting, Keep
from hostler.service.schedule import InTime
from hostler.service.secrets import Sealing
from hostler.service.service import Service, join, make_service
from hostler.signals.local import LocalSignals
from hostler.vault.vault import SealedVault

SLOTS = 5000
"""Runs driven at once: a waiting run costs about 10 KB, so the machine is the limit before this."""


@asynccontextmanager
async def open_house(
    agents: Mapping[str, AgentSpec],
    *,
    default_agent: str,
    file: Path | str | None,
    is_server: bool = True,
    results: Path | None = None,
    keep: Keep = FOR_EVER,
    rates: Rates | None = None,
    observing: Observing | None = None,
    vault: SealedVault | None = None,
    endpoints: Endpoints | None = None,
    catalog: Catalog | None = None,
    outbound: Outbound | None = None,
    bus: Bus | None = None,
    part: Part | None = None,
) -> AsyncGenerator[Service]:
    """Open the store (a file, a PostgreSQL URL, or memory), drive what is unfinished, yield the verbs.

    Runs of agents that are not here end with an error that says so; if this is no server, they and
    webhooks wait for one.  `results`: long ones.  `catalog`: see `roster`.  Raises SetupError.
    """
    seen, part, left = observing or UNOBSERVED, part or Part(), results and Results(results)
    agents, catalog = roster(agents, catalog)
    engine, pace = part.open(file)
    news = News.of(LocalSignals(first=seen.first), bus)
    async with _storage(file, seen, news.signals, part.outbox(file), vault) as beside:
        known = seen.naming(partial(_agent, agents, is_server=is_server))
        driver = _driver(known, beside.store, news.signals, pace, vault, part.leaving)
        service = make_service(
            store=beside.store,
            audits=beside.audits,
            directory=beside.directory,
            engine=engine,
            signals=news.signals,
            agents=agents,
            default_agent=default_agent,
            world=driver.world,
            admission=_admission(seen, engine, news, Lines(pace, engine)),
            rates=rates,
            scraping=seen.scraping,
            forgetting=Forgetting(store=beside.store, signals=news.signals, leftovers=left),
            sealing=_sealing(vault, beside, left, outbound, sends=is_server),
            endpoints=endpoints,
            models=Models(catalog=catalog, told=seen.direct),
            here=part.here,
        )
        service = await _joined(service, beside, news, vault)
        async with aclosing(engine), _at_work(*_work(seen, driver, news, service, keep, part)):
            yield service


def _driver(
    known: Agents,
    store: Store,
    signals: Signals,
    pace: Pace,
    vault: SealedVault | None,
    leaving: Leaving,
) -> Driver:
    return Driver(
        agents=known,
        store=store,
        signals=signals,
        world=_world(),
        pace=pace,
        secrets=vault,
        leaving=leaving,
    )


def _admission(seen: Observing, engine: Engine, news: News, line: Line) -> Admission:
    """Return what limits runs; it, the engine and the news are seen from here on."""
    admission = Admission(line, active=lambda: engine.live)
    seen.enter(_Rooms(engine, news, admission))
    return admission


def _work(
    seen: Observing, driver: Driver, news: News, service: Service, keep: Keep, part: Part
) -> Sequence[Work]:
    """Return what is at work beside the faces."""
    store, world, engine = driver.store, driver.world, service.inbox.engine
    part.limits.join(news.nodes, news.peers)
    drive = InTime(service.schedule, seen.driven(driver, store, world.worker))
    serve = partial(engine.serve, drive, slots=SLOTS)
    hear = partial(news.serve, store.read)
    always = (seen.watch, hear, *upkeep(service, engine, keep, world))
    return (serve, *always) if part.drives else always


def _world() -> World:
    return World(f"{socket.gethostname()}-{os.getpid()}")


def _sealing(
    vault: SealedVault | None,
    beside: Storage,
    left: Results | None,
    outbound: Outbound | None,
    *,
    sends: bool,
) -> Sealing | None:
    if vault is None:
        return None
    outgoing = make_outgoing(
        beside.webhooks, vault, outbound, sends=sends, is_shared=beside.shared is not None
    )
    return Sealing(vault, beside.sealed, left, outgoing)


def _storage(
    place: Path | str | None,
    seen: Observing,
    signals: Signals,
    outbox: Outbox | None,
    vault: SealedVault | None,
) -> AbstractAsyncContextManager[Storage]:
    return open_storage(
        place,
        observer=seen.observer(signals.publish),
        outbox=outbox,
        timed=seen.committed,
        mask=nothing if vault is None else vault.mask,
        enlists=outbox is None,
    )


async def _joined(
    service: Service, beside: Storage, news: News, vault: SealedVault | None
) -> Service:
    """Read what is kept in memory of what is beside the logs, and hear of changes from here on.

    Raises SetupError.
    """
    await service.endpoints.endpoints.open(beside.directory)
    if vault is not None:
        await vault.open(beside.sealed)
    return join(service, news.nodes, shared=beside.shared)


@asynccontextmanager
async def _at_work(*work: Work) -> AsyncGenerator[None]:
    """Do all of this beside what the context does, until that is left."""
    try:
        async with anyio.create_task_group() as tasks:
            for one in work:
                tasks.start_soon(one)
            yield
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise _sole(group) from group


@dataclass(frozen=True, slots=True)
class _Rooms:
    """What `app.observing.Rooms` lets be read."""

    engine: Engine
    news: News
    limits: Admission

    def queue(self) -> tuple[int, float]:
        return self.engine.waiting()

    def watchers(self) -> int:
        return self.news.watching()

    def bus(self) -> tuple[bool, int, int] | None:
        return self.news.figures()

    def admission(self) -> tuple[int, int]:
        return self.limits.most, self.limits.refused


def _agent(agents: Mapping[str, AgentSpec], name: str, *, is_server: bool) -> AgentSpec | None:
    return agents.get(name) or (absent(name) if is_server else None)


def absent(name: str) -> AgentSpec:
    """Return an agent that says that it is not served here: a session's runs end, and tell why."""
    return AgentSpec(
        name=name,
        instructions="",
        models=[Absent(f"the agent {name} is not served here (any more)")],
        tools=Toolbox([], spill_folder=None),
    )


def _sole(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what really happened: a task group wraps even what its own body raises."""
    only = group.exceptions[0]
    if len(group.exceptions) > 1:
        return group
    if isinstance(only, BaseExceptionGroup):
        return _sole(cast("BaseExceptionGroup[BaseException]", only))
    return only
