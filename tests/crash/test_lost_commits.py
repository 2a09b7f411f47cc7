"""The connection to PostgreSQL is cut at every message around commits: nothing is lost or doubled."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

import anyio
import anyio.abc
import asyncpg  # pyright: ignore[reportMissingTypeStubs]
import pytest
from tests.services import Database

from hostler.core.errors import Unavailable
from hostler.core.events import Event, Key, SessionId
from hostler.core.records import Labels
from hostler.stores import postgres_commits, postgres_wire
from hostler.stores.postgres import PostgresStore
from hostler.stores.postgres_commits import new_commit, settled
from hostler.stores.postgres_open import open_postgres
from hostler.stores.postgres_wire import Lost, connect
from hostler.testing.doubles import a_session, whole_log
from hostler.testing.store_kit import a_fork, once, spoke

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]
Where = Literal["before it is sent", "before it is answered", "within its answer"]
WHERES: Sequence[Where] = ("before it is sent", "before it is answered", "within its answer")


@dataclass
class Network:
    """What is between a store and its database; once armed, it cuts at one message, one time."""

    host: str
    port: int
    where: Where = "before it is sent"
    left: int = 0
    """Messages of the store until the cut; 0: none is to come."""
    cuts: int = 0
    connections: int = 0
    muted: int = 0
    """Answers on so many connections, the first ones, are lost."""
    is_down: bool = False
    """Nobody is let in."""
    url: str = ""

    def arm(self, at: int, where: Where) -> None:
        self.left, self.where = at, where

    async def serve(self, client: anyio.abc.SocketStream) -> None:
        if self.is_down:
            await client.aclose()
            return
        self.connections += 1
        number, is_cutting = self.connections, anyio.Event()
        async with (
            client,
            await anyio.connect_tcp(self.host, self.port) as server,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(self._up, client, server, is_cutting, tasks.cancel_scope)
            await self._down(server, client, is_cutting, number)
            tasks.cancel_scope.cancel()

    async def _up(
        self,
        client: anyio.abc.SocketStream,
        server: anyio.abc.SocketStream,
        is_cutting: anyio.Event,
        scope: anyio.CancelScope,
    ) -> None:
        with suppress(*GONE):
            while True:
                message = await client.receive()
                is_the_one, self.left = self.left == 1, max(0, self.left - 1)
                if is_the_one and self.where == "before it is sent":
                    self.cuts += 1
                    break
                if is_the_one:
                    is_cutting.set()
                await server.send(message)
        scope.cancel()

    async def _down(
        self,
        server: anyio.abc.SocketStream,
        client: anyio.abc.SocketStream,
        is_cutting: anyio.Event,
        number: int,
    ) -> None:
        with suppress(*GONE):
            while True:
                answer = await server.receive()  # so what was asked for is done
                if is_cutting.is_set():
                    self.cuts += 1
                    if self.where == "within its answer":
                        await client.send(answer[: len(answer) // 2])
                    return
                if number > self.muted:
                    await client.send(answer)


GONE = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)


@asynccontextmanager
async def a_network(url: str) -> AsyncGenerator[Network]:
    """Stand before the database, so that connections can be cut; yields with a URL of its own."""
    parts = urlsplit(url)
    network = Network(parts.hostname or "", parts.port or 5432)
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        who = parts.netloc.rpartition("@")[0]
        network.url = urlunsplit(parts._replace(netloc=f"{who}@127.0.0.1:{port}"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(listener.serve, network.serve))
            yield network
            tasks.cancel_scope.cancel()


async def write_all(store: PostgresStore, one: Key, two: Key) -> Key:
    """Write in every way that there is; return the key of the fork that was made."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(store.append, one, [spoke("run_1"), spoke("run_2")])
        tasks.start_soon(partial(store.append, two, [spoke("run_3")], once=once("scope")))
        tasks.start_soon(store.append, one, [spoke("run_4")])
    await store.relabel(one, Labels(title="told"))
    fork = await a_fork(store, one.tenant, (one.session, 2))
    await store.append(fork, [spoke("run_5")])
    return fork


async def check_all(store: PostgresStore, one: Key, two: Key, fork: Key) -> None:
    """Assert that everything was written, and once."""
    assert sorted(runs_of(await whole_log(store, one))) == ["run_1", "run_2", "run_4"]
    assert runs_of(await whole_log(store, two)) == ["run_3"]
    assert runs_of(await whole_log(store, fork))[3:] == ["run_5"]
    assert (await store.session(one)).title == "told"
    kept = await store.kept(two.tenant, "scope")
    assert kept is not None
    assert kept.answer == b"kept 1"
    rows = await store.runs(one.tenant, session=None, status=None, after="", limit=99)
    assert len(rows) == len({row.id for row in rows}) == 5


def runs_of(log: Sequence[Event]) -> list[str]:
    return [str(event.fact.run) for event in log]


@pytest.mark.parametrize("where", WHERES)
@pytest.mark.parametrize("enlists", [False, True], ids=["", "with jobs"])
async def test_wherever_the_connection_is_cut_all_is_written_once(
    postgres: Database, where: Where, *, enlists: bool
) -> None:
    async with (
        a_network(postgres.url) as network,
        open_postgres(network.url, enlists=enlists) as store,
    ):
        at = 0
        while network.cuts == at:
            at += 1
            one, two = [await a_session(store, tenant=f"t{at}") for _ in range(2)]
            network.arm(at, where)
            with anyio.fail_after(20):
                fork = await write_all(store, one, two)
            network.left = 0
            await check_all(store, one, two, fork)
            jobs = await postgres.run(
                f"SELECT split_part(dedupe_key, '/', 3) FROM pgqueuer WHERE dedupe_key LIKE 't{at}/%'"
            )
            queued = sorted(str(run) for (run,) in jobs)
            assert queued == (["run_1", "run_3", "run_5"] if enlists else []), queued

    assert at > 10


@pytest.mark.parametrize("where", WHERES)
async def test_a_commit_that_was_cut_is_told_of_once_and_before_its_caller(
    postgres: Database, where: Where
) -> None:
    told = list[tuple[SessionId, int]]()

    def observer(key: Key, events: Sequence[Event]) -> None:
        told.extend((key.session, event.seq) for event in events)

    async with (
        a_network(postgres.url) as network,
        open_postgres(network.url, observer=observer) as store,
    ):
        key = await a_session(store)
        await store.append(key, [spoke("run_0")])
        network.arm(1, where)
        done = await store.append(key, [spoke("run_1"), spoke("run_2")])

        assert network.cuts == 1
        assert told == [(key.session, 1), (key.session, 2), (key.session, 3)]
        assert [event.seq for event in done.events] == [2, 3]


async def test_what_a_database_that_answers_no_more_has_done_is_found_out(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_wire, "STATEMENT_S", 0.2)
    async with a_network(postgres.url) as network, open_postgres(network.url) as store:
        key = await a_session(store)
        network.muted = network.connections
        with anyio.fail_after(20):
            done = await store.append(key, [spoke("run_1")])

        assert [event.seq for event in done.events] == [1]
        assert await said(postgres, key) == 1


async def said(database: Database, key: Key) -> int:
    (row,) = await database.run(f"SELECT count(*) FROM events WHERE session = '{key.session}'")
    return int(str(row[0]))


async def test_what_cannot_be_found_out_in_time_is_told_as_not_known(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_commits, "RESOLVED_S", 0.2)
    async with a_network(postgres.url) as network, open_postgres(network.url) as store:
        key = await a_session(store)
        await store.append(key, [spoke("run_0")])
        network.arm(1, "before it is answered")
        network.is_down = True

        with pytest.raises(Unavailable, match="not known") as told:
            await store.append(key, [spoke("run_1")])

        assert told.value.code == "unknown_outcome"
        network.is_down = False
        assert (await store.append(key, [spoke("run_2")])).events[0].seq == 3
        assert runs_of(await whole_log(store, key)) == ["run_0", "run_1", "run_2"]


async def test_a_database_that_cannot_be_reached_is_told_and_used_again_when_it_can(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_wire, "CONNECT_S", 0.1)
    monkeypatch.setattr(postgres_commits, "RESOLVED_S", 0.2)
    async with a_network(postgres.url) as network, open_postgres(network.url) as store:
        key = await a_session(store)
        network.is_down = True
        await cut_all(postgres)

        for _ in range(2):
            with pytest.raises(Unavailable):
                await store.append(key, [spoke("run_1")])
            with pytest.raises(Unavailable):
                await store.head(key)

        network.is_down = False
        await store.append(key, [spoke("run_2")])
        assert runs_of(await whole_log(store, key)) == ["run_2"]


async def cut_all(database: Database) -> None:
    """End all connections of the database's owner, as a restart does."""
    await database.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


async def test_a_restart_of_the_database_is_not_noticed(postgres: Database) -> None:
    async with open_postgres(postgres.url) as store:
        key = await a_session(store)
        for number in range(5):
            await cut_all(postgres)
            await store.append(key, [spoke(f"run_{number}")])
            await cut_all(postgres)
            assert (await store.head(key)).seq == number + 1


# -- the commit's own row --------------------------------------------------------------------


async def test_a_commit_that_arrives_after_it_was_given_up_is_refused(postgres: Database) -> None:
    commit = new_commit()
    late = await connect(postgres.url)

    assert not await settled(postgres.url, commit, 0, "nobody")

    with pytest.raises(asyncpg.UniqueViolationError):
        await late.execute("INSERT INTO commits VALUES ($1, 0)", commit)
    late.db.terminate()


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
async def test_who_asks_for_a_commit_that_is_under_way_waits_for_its_end(
    postgres: Database, end: str
) -> None:
    commit, answers = new_commit(), list[bool]()
    slow = await connect(postgres.url)
    await slow.execute("BEGIN")
    await slow.execute("INSERT INTO commits VALUES ($1, 0)", commit)

    async def ask() -> None:
        answers.append(await settled(postgres.url, commit, 0, "nobody"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        with anyio.fail_after(20):
            while not await waiting(postgres):
                assert answers == []
        await slow.execute(end)

    assert answers == [end == "COMMIT"]
    slow.db.terminate()


async def waiting(database: Database) -> bool:
    return bool(await database.run("SELECT 1 FROM pg_locks WHERE NOT granted"))


async def test_what_nobody_waits_for_any_more_is_ended_before_it_is_asked_for(
    postgres: Database,
) -> None:
    commit, abandoned = new_commit(), await connect(postgres.url)
    await abandoned.execute("BEGIN")
    await abandoned.execute("INSERT INTO commits VALUES ($1, 0)", commit)

    with anyio.fail_after(20):
        assert not await settled(postgres.url, commit, 0, abandoned.name)

    abandoned.db.terminate()


@pytest.mark.parametrize("way", ["fetch", "execute"])
async def test_a_connection_that_the_driver_takes_for_busy_is_lost(
    postgres: Database, monkeypatch: pytest.MonkeyPatch, way: Literal["fetch", "execute"]
) -> None:
    """As it does when one ends in mid-answer, and does not call it closed."""

    async def confused(*_: object, **__: object) -> object:
        raise asyncpg.InternalClientError("another operation is in progress")

    wire = await connect(postgres.url)
    monkeypatch.setattr(asyncpg.Connection, way, confused)

    with pytest.raises(Lost):
        await (wire.fetch if way == "fetch" else wire.execute)("SELECT 1")

    assert wire.db.is_closed(), "nobody is given it again"
