"""One process of a house: a store of its own, news, verbs, and whoever works in it, until it dies.

Dying means all of the process: workers, streams, all that is not in the store.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

import anyio
import anyio.abc
from tests.fleets import HubWire, until

from hostler.core.directory import Directory
from hostler.core.events import Event, Fact, Key, Seq
from hostler.core.head import Head
from hostler.core.news import Signals
from hostler.core.ports import World
from hostler.core.records import Appended, Once, Session
from hostler.core.store import Observer, Outbox, Store
from hostler.service.service import Service, make_service
from hostler.signals.fleet import FleetSignals
from hostler.signals.local import LocalSignals
from hostler.stores.memory_audit import MemoryAudits
from hostler.stores.postgres_directory import PostgresDirectory
from hostler.stores.postgres_open import open_postgres
from hostler.stores.sqlite import SqliteStore
from hostler.stores.sqlite_directory import SqliteDirectory

if TYPE_CHECKING:
    from tests.crash.session_house import House

There: TypeAlias = "tuple[Store, Directory]"
HEARD = "heard"
"""What nodes tell each other, so that all that was told before it has come."""


class Opens(Protocol):
    """Opens what is kept."""

    def __call__(
        self, *, observer: Observer, outbox: Outbox, clock: Callable[[], float]
    ) -> AbstractAsyncContextManager[There]: ...


def on_sqlite(file: Path) -> Opens:
    @asynccontextmanager
    async def opens(
        *, observer: Observer, outbox: Outbox, clock: Callable[[], float]
    ) -> AsyncGenerator[There]:
        store = SqliteStore.open(file, observer=observer, outbox=outbox, clock=clock)
        try:
            yield store, SqliteDirectory(store)
        finally:
            store.close()

    return opens


def on_postgres(url: str) -> Opens:
    @asynccontextmanager
    async def opens(
        *, observer: Observer, outbox: Outbox, clock: Callable[[], float]
    ) -> AsyncGenerator[There]:
        async with open_postgres(url, observer=observer, outbox=outbox, clock=clock) as store:
            yield store, PostgresDirectory(store)

    return opens


@dataclass(eq=False)
class Node:
    """Made once; `live` is one life."""

    house: House
    number: int
    is_dead: bool = False
    heard: set[str] = field(default_factory=set[str])

    async def live(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """One process, until it is stopped; it gets no chance to tidy up."""
        house, self.is_dead = self.house, False
        self._stop, self._stopped = anyio.Event(), anyio.Event()
        self.world = World(
            f"life-{self.number}-{house.deaths}", house.clock, house.mint, lambda: 0.0
        )

        try:
            async with house.opens(
                observer=self._observe, outbox=house.jobs.enqueue, clock=house.clock
            ) as (
                self.store,
                directory,
            ):
                self._mine(self.store)
                self._between(self.store)
                await self._serve(directory, task_status)
        finally:
            self._stopped.set()

    async def _serve(self, directory: Directory, task_status: anyio.abc.TaskStatus[None]) -> None:
        house, local = self.house, LocalSignals()
        wire = house.hub.wire() if len(house.nodes) > 1 else None
        fleet = None if wire is None else FleetSignals(local, wire)
        self.signals: Signals = fleet or local
        self.service: Service = make_service(
            audits=MemoryAudits(),
            store=self.store,
            directory=directory,
            engine=house.jobs,
            signals=self.signals,
            agents={house.agent.name: house.agent},
            default_agent=house.agent.name,
            world=self.world,
        )
        async with anyio.create_task_group() as self.tasks:
            if fleet is not None and wire is not None:
                await self._join(fleet)
            task_status.started()
            await self._stop.wait()
            self.tasks.cancel_scope.cancel()
        if wire is not None:
            _leave(house.hub.wires, wire)

    async def _join(self, fleet: FleetSignals) -> None:
        """Be heard by the others who live, and hear them."""
        others = [one for one in self.house.nodes if one is not self and one.is_up]
        fleet.on(HEARD, self.heard.update)
        self.tell = fleet.tell
        self.tasks.start_soon(fleet.serve, self.store.read)
        await until(lambda: fleet.is_up and fleet.peers >= len(others))

    @property
    def is_up(self) -> bool:
        return hasattr(self, "_stopped") and not self._stopped.is_set() and not self.is_dead

    async def end(self) -> None:
        self._stop.set()
        await self._stopped.wait()

    def _mine(self, store: Store) -> None:
        append, create = store.append, store.create

        async def mined_append(
            key: Key,
            facts: Sequence[Fact],
            *,
            fence: int | None = None,
            expected: Seq | None = None,
            once: Once | None = None,
        ) -> Appended:
            return await self.house.burn(
                self, lambda: append(key, facts, fence=fence, expected=expected, once=once)
            )

        async def mined_create(
            session: Session, facts: Sequence[Fact] = (), *, once: Once | None = None
        ) -> bool:
            return await self.house.burn(self, lambda: create(session, facts, once=once))

        store.append, store.create = mined_append, mined_create  # type: ignore[method-assign]

    def _between(self, store: Store) -> None:
        head: Callable[[Key], Awaitable[Head]] = store.head

        async def overtaken_head(key: Key) -> Head:
            """Return the head, and then let somebody write who makes it old."""
            found, overtake = await head(key), self.house.overtake
            if overtake is not None:
                self.house.overtake = None
                await overtake()
                self.house.overtaken = self.house.written()
            return found

        store.head = overtaken_head  # type: ignore[method-assign]

    def _observe(self, key: Key, events: Sequence[Event]) -> None:
        self.house.record(key, events)
        self.signals.publish(key, events)


def _leave(wires: list[HubWire], wire: HubWire) -> None:
    wire.ears = None
    wires.remove(wire)
