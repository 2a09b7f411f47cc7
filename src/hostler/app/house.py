"""A running Hostler without a face: store, signals, engine and service, put together.

Invariant: leaving the context stops the work, not the runs: they go on from their last stored
fact when a house is opened on the same store again.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import cast

import anyio

from hostler.core.events import RunKey
from hostler.core.ports import AgentSpec, Job, Outbox, World
from hostler.engine.drive import Driver
from hostler.engine.queuer import EmbeddedEngine
from hostler.engine.reconcile import keep_reconciling
from hostler.harness.results import Results
from hostler.harness.toolbox import Toolbox
from hostler.models.absent import Absent
from hostler.service.admission import Admission
from hostler.service.retention import FOR_EVER, Forgetting, Keep
from hostler.service.service import Service, make_service
from hostler.signals.local import LocalSignals
from hostler.stores.memory import MemoryStore
from hostler.stores.sqlite import SqliteStore

SLOTS = 5000
"""Runs driven at once: a waiting run costs about 10 KB, so the machine is the limit before this."""


@asynccontextmanager
async def open_house(
    agents: Mapping[str, AgentSpec],
    *,
    default_agent: str,
    file: Path | None,
    is_server: bool = True,
    results: Path | None = None,
    keep: Keep = FOR_EVER,
) -> AsyncGenerator[Service]:
    """Open the store (in memory without a `file`), drive what is unfinished, yield the verbs.

    Runs of agents that are not among `agents` end with an error that says so; in a house that is
    no server, and is soon closed again, they are left for the one that serves them.
    `results`: the folder of long results of tools, which go with their session.

    Raises:
        SetupError: the file cannot be used.
    """
    engine, signals = EmbeddedEngine(), LocalSignals()
    world = World(f"{socket.gethostname()}-{os.getpid()}")

    async def outbox(key: RunKey) -> None:
        await engine.enqueue(Job(key))

    store = _store(file, signals, outbox)
    known = partial(_agent, agents, is_server=is_server)
    driver = Driver(agents=known, store=store, signals=signals, world=world)
    admission = Admission(active=lambda: engine.live)
    left = None if results is None else Results(results)
    service = make_service(
        store=store,
        engine=engine,
        signals=signals,
        agents=agents,
        default_agent=default_agent,
        world=world,
        admission=admission,
        forgetting=(forgetting := Forgetting(store=store, signals=signals, leftovers=left)),
    )
    with closing(store):
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: engine.serve(driver, slots=SLOTS))
                tasks.start_soon(keep_reconciling, store, engine)
                tasks.start_soon(keep, forgetting, world)
                tasks.start_soon(admission.watch)
                yield service
                tasks.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise _sole(group) from group


def _store(file: Path | None, signals: LocalSignals, outbox: Outbox) -> MemoryStore | SqliteStore:
    if file is None:
        return MemoryStore(observer=signals.publish, outbox=outbox)
    return SqliteStore.open(file, observer=signals.publish, outbox=outbox)


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
