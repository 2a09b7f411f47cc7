"""What every session is held to: after each step, and once everybody was let to finish."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from tests.crash.session_house import ME, House
from tests.crash.session_sketch import Sketch

from hostler.core.events import Event, InputProcessed, Key, RunEnded, RunKey
from hostler.core.memory import remember
from hostler.core.ports import Reply
from hostler.core.state import State, fold
from hostler.engine.reconcile import reconcile
from hostler.testing.doubles import whole_log

Sketches: TypeAlias = Mapping[Key, Sketch]


async def check(house: House, sketches: Sketches) -> None:
    """Assert what is true after every step."""
    catch_up(house, sketches)
    for key, sketch in sketches.items():
        log, head = house.log(key), await house.store.head(key)
        sketch.check(head, log)
        if head.active is not None and not head.parked:
            run = RunKey(*key, head.active)
            assert house.jobs.is_live(run), "nobody will ever drive this run"
    never = [call for name, call in house.tools.done if name not in ("safe", "reader")]
    assert len(never) == len(set(never)), "an unsafe effect happened twice"


def catch_up(house: House, sketches: Sketches) -> None:
    """Let the sketches know what workers did."""
    for key, sketch in sketches.items():
        sketch.catch_up(house.log(key))


async def rest(house: House, sketches: Sketches) -> None:
    """Let everybody finish: models reply, tools end, nobody answers until it is too late."""
    house.fuse = None
    for _ in range(1000):
        for worker in house.at("model"):
            worker.let(Reply(text=f"{worker.said}rest-{house.minted}.", stop="end"))
        for worker in house.at("tool"):
            worker.let()
        for run in house.jobs.ready:
            house.work(run)
        await house.settle()
        if not house.workers and not house.jobs.ready:
            heads = [await house.store.head(key) for key in sketches]
            if all(head.active is None for head in heads):
                break
            times = [*house.jobs.due.values(), *(one.due for one in heads if one.due)]
            house.now = max(house.now, min(times))
            await reconcile(house.store, house.jobs)
    await check(house, sketches)


async def check_rest(house: House, sketches: Sketches) -> None:
    """Assert what is true once everything has come to its end."""
    for viewer in house.viewers:
        if viewer.scope is None:
            house.connect(viewer)
    await house.settle()
    for key, sketch in sketches.items():
        log, store = await whole_log(house.store, key), house.store
        assert [event.raw for event in log] == [event.raw for event in house.log(key)]
        sketch.check_rest(await store.head(key), log)
        await _check_transcript(house, key, log)
        rows = await store.runs(ME.tenant, session=key.session, status=None, after="", limit=999)
        own = log[len(sketch.history) :]
        ends = {e.fact.run: e.fact.status for e in own if isinstance(e.fact, RunEnded)}
        assert {row.id: row.status for row in rows} == ends
        _check_processed(house, sketch, own)
    assert not await house.store.approvals(
        ME.tenant, session=None, status="open", after="", limit=999
    )
    assert await house.store.unfinished() == []
    for viewer in house.viewers:
        told = [(event.seq, event.raw) for event in house.log(viewer.session)]
        assert viewer.facts == told, "not every fact once, in order"
        for asked, text in viewer.texts.items():
            said = house.spoken[viewer.session.session, asked]
            assert said.startswith(text), "text that was not said so"


async def _check_transcript(house: House, key: Key, log: list[Event]) -> None:
    recall = await house.store.recall(key)
    recalled = fold(remember(recall.past), recall.events)
    assert recalled.transcript == fold(State(), log).transcript


def _check_processed(house: House, sketch: Sketch, own: list[Event]) -> None:
    shown = "".join(
        text
        for run, request in house.asked
        if run.session == sketch.key.session
        for text in request
    )
    for event in own:
        if isinstance(event.fact, InputProcessed):
            assert sketch.accepted[event.fact.input] in shown, "processed, and never shown"
