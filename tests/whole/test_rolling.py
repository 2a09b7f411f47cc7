"""Two builds on one database: what the older one does not know it passes on, and leaves alone."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import cast

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from tests.services import Database
from tests.serving import Json, quick, serving

from hostler.app import upkeep
from hostler.core.events import Key
from hostler.engine import reconcile
from hostler.engine.drive import Driver
from hostler.stores.postgres_open import open_postgres
from hostler.testing.doubles import a_session, an_agent
from hostler.testing.store_kit import a_run, spoke

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]
RAW = '{"kind":"moon_rose","run":"run_1","over":["the","sea"]}'
ROUNDS = 5
NEWER = """
import sys
import anyio
from hostler.core import state
from hostler.core.events import Key, RunId, RunKey, SessionId, TenantId, Unknown
from hostler.core.ports import Reply, World
from hostler.engine.drive import Driver
from hostler.signals.local import LocalSignals
from hostler.stores.postgres_open import open_postgres
from hostler.testing.doubles import ModelDouble, an_agent

apply = state._apply
state._apply = lambda s, e, fact: None if isinstance(fact, Unknown) else apply(s, e, fact)

async def main(url, session):
    agent = an_agent(ModelDouble(lambda _: Reply(text="it rose", stop="end")))
    async with open_postgres(url) as store:
        drive = Driver(
            agents={"double": agent}.get, store=store, signals=LocalSignals(), world=World("newer")
        )
        key = RunKey(TenantId("default"), SessionId(session), RunId("run_1"))
        assert await drive(key) is None

anyio.run(main, *sys.argv[1:])
"""
"""A build that knows the kind: to it, it says nothing that models have to be told."""


async def a_foreign_run(postgres: Database) -> str:
    """Make a session in whose run a newer build has written what this one does not know."""
    async with open_postgres(postgres.url) as store:
        key = await a_session(store)
        begun = a_run("run_1", "", claim=1)[:2]
        await store.append(key, [spoke("run_1"), *begun])
        seq = (await store.head(key)).seq + 1
    await postgres.run(
        "SET hostler.house = 'on'",
        f"INSERT INTO events VALUES ('default', '{key.session}', {seq}, 0, 'moon_rose', '{RAW}')",
        f"UPDATE heads SET seq = {seq}, head = jsonb_set(head::jsonb, '{{seq}}', '{seq}')::text"
        f" WHERE session = '{key.session}'",
    )
    return str(key.session)


class Looked:
    """Counts how often it was looked for unfinished runs, and how often a session was driven."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, session: str) -> None:
        self.rounds = self.drives = 0
        look, drive = reconcile.reconcile, Driver.__call__

        async def looked(*args: object) -> int:
            found = await look(*args)  # type: ignore[arg-type]
            self.rounds += 1
            return found

        async def driven(driver: Driver, key: object) -> float | None:
            self.drives += cast("Key", key).session == session
            return await drive(driver, key)  # type: ignore[arg-type]

        monkeypatch.setattr(upkeep.reconcile, "reconcile", looked)
        monkeypatch.setattr(Driver, "__call__", driven)

    async def some(self) -> None:
        """Wait for some more rounds."""
        until = self.rounds + ROUNDS
        while self.rounds < until:
            await anyio.lowlevel.checkpoint()


def kinds(facts: list[Json]) -> list[object]:
    return [fact["kind"] for fact in facts]


@pytest.mark.usefixtures("impatient")
async def test_a_run_of_a_newer_build_is_shown_and_left_to_that_and_nobody_else_waits(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await a_foreign_run(postgres)
    looked = Looked(monkeypatch, session)
    newer = [sys.executable, "-c", NEWER, postgres.url, session]
    async with serving(an_agent(quick()), file=postgres.url) as client:
        with anyio.fail_after(60):
            await looked.some()
            before = await client.facts(session)
            drives, rounds = looked.drives, looked.rounds
            other = await client.speak(await client.session())
            done = await anyio.to_thread.run_sync(
                partial(subprocess.run, newer, capture_output=True, text=True, check=False)
            )
            assert done.returncode == 0, done.stderr
            after = await client.facts(session)
            again = await client.speak(session, "and now?")

    assert kinds(before) == ["user_spoke", "run_claimed", "run_started", "moon_rose"]
    assert before[-1]["over"] == ["the", "sea"]
    assert 1 <= drives <= rounds + 1, "it is rung for, and not again and again"
    assert other[-1].data["status"] == "done"
    assert after[: len(before)] == before
    claims = [fact["worker"] for fact in after if fact["kind"] == "run_claimed"]
    assert claims == ["w", "newer"]
    assert (after[-1]["kind"], after[-1]["status"]) == ("run_ended", "done")
    assert again[-1].data["status"] == "done", "the run is over, so what it held is in nobody's way"


@pytest.mark.usefixtures("impatient")
async def test_what_is_said_to_such_a_run_waits_behind_it_and_is_not_lost(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await a_foreign_run(postgres)
    looked = Looked(monkeypatch, session)
    path = f"/api/sessions/{session}"
    async with serving(an_agent(quick()), file=postgres.url) as client:
        with anyio.fail_after(60):
            said, _ = await client.call("POST", f"{path}/messages", {"content": "hello?"})
            stopped, _ = await client.call("POST", f"{path}/cancel", {"run": "run_1"})
            await looked.some()
        facts = await client.facts(session)

    assert (said, stopped) == (202, 202)
    assert kinds(facts)[3:] == ["moon_rose", "user_spoke", "cancel_requested"]
