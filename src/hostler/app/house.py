"""A running Hostler without a face: store, signals, engine and service, put together.

Invariant: leaving the context stops the work, not the runs: they go on from their last stored
fact when a house is opened on the same store again.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import anyio

from hostler.core.events import RunKey
from hostler.core.ports import AgentSpec, Job, World
from hostler.engine.drive import Driver
from hostler.engine.queuer import EmbeddedEngine
from hostler.engine.reconcile import keep_reconciling
from hostler.harness.toolbox import Toolbox
from hostler.models.absent import Absent
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
) -> AsyncGenerator[Service]:
    """Open the store (in memory without a `file`), drive what is unfinished, yield the verbs.

    Raises:
        SetupError: the file cannot be used.
    """
    engine, signals = EmbeddedEngine(), LocalSignals()
    world = World(f"{socket.gethostname()}-{os.getpid()}")

    async def outbox(key: RunKey) -> None:
        await engine.enqueue(Job(key))

    if file is None:
        store = MemoryStore(observer=signals.publish, outbox=outbox)
    else:
        store = SqliteStore.open(file, observer=signals.publish, outbox=outbox)
    driver = Driver(
        agents=lambda name: agents.get(name) or absent(name),
        store=store,
        signals=signals,
        world=world,
    )
    service = make_service(
        store=store,
        engine=engine,
        signals=signals,
        agents=agents,
        default_agent=default_agent,
        world=world,
    )
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: engine.serve(driver, slots=SLOTS))
            tasks.start_soon(keep_reconciling, store, engine)
            yield service
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise _sole(group) from group
    finally:
        if isinstance(store, SqliteStore):
            store.close()


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
