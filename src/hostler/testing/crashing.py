"""Dying at every write: a worker that crashes at its n-th append, for every n.

After SQLite's `do_faultsim_test`: the n-th opportunity fails, n counts up until nothing failed,
and after each a fresh worker has to finish what the dead one left.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from hostler.core.events import (
    ApprovalAsked,
    ApprovalGiven,
    CallId,
    Event,
    Fact,
    InputDropped,
    InputProcessed,
    Key,
    MessageScheduled,
    PartShown,
    RunEnded,
    RunKey,
    RunStarted,
    ToolFinished,
    ToolStarted,
    Unknown,
    UserSpoke,
)
from hostler.core.head import Head
from hostler.core.loop import Drive, Interrupt
from hostler.core.news import Signals
from hostler.core.ports import AgentSpec, Handler, Job, World
from hostler.core.said import ModelSaid, Said, ToolSaid
from hostler.core.state import State, fold, prompt
from hostler.core.store import Store
from hostler.testing.doubles import Crash, whole_log

MOST_WORKERS = 100


class NoEngine:
    """Delivers nothing: the tests drive runs themselves."""

    async def enqueue(self, job: Job) -> None: ...

    async def idle(self, keys: Sequence[RunKey]) -> Sequence[RunKey]:
        return keys

    async def serve(self, handler: Handler, *, slots: int) -> None: ...
    async def aclose(self) -> None: ...

    def drain(self) -> None: ...
    @property
    def serves(self) -> bool:
        return True

    @property
    def live(self) -> int:
        return 0

    def waiting(self) -> tuple[int, float]:
        return 0, 0.0


@dataclass(slots=True)
class Workers:
    """Drives a session's runs to their end, one worker after the other.

    When a run waits for somebody outside, `outside` is asked to do something about it.
    """

    store: Store
    agent: AgentSpec
    signals: Signals
    interrupt: Interrupt = field(default_factory=Interrupt)
    outside: Callable[[Key, Head], Awaitable[None]] | None = None
    clock: Callable[[], float] = time.time
    crashes: int = 0

    async def work_until_rest(self, key: Key) -> list[Event]:
        """Return the whole log once no run is active.

        Raises:
            AssertionError: it does not come to rest.
        """
        for worker in range(MOST_WORKERS):
            head = await self.store.head(key)
            if head.active is None:
                return await whole_log(self.store, key)
            if head.parked and self.outside is not None:
                await self.outside(key, head)
            drive = Drive(
                key=RunKey(*key, head.active),
                agents=lambda _: self.agent,
                store=self.store,
                signals=self.signals,
                interrupt=self.interrupt,
                world=World(f"worker-{worker}", clock=self.clock, chance=lambda: 0.0),
            )
            self.crashes += await _crashed(drive)
        raise AssertionError("the session never came to rest")


async def _crashed(drive: Drive) -> bool:
    try:
        with drive.signals.on_cancel(drive.key, drive.interrupt.ring):
            await drive.run()
    except Crash:
        return True
    except BaseExceptionGroup as group:
        _, others = group.split(Crash)
        if others is not None:
            raise
        return True
    return False


async def every_death(
    play: Callable[[int, bool], Awaitable[bool]],
) -> AsyncGenerator[tuple[int, bool], None]:
    """Call `play(n, after)` for n = 1, 2, … until it says that nothing died; yield each (n, after).

    `after` is whether what the worker was writing when it died is in the log.
    """
    for after in (False, True):
        n = 1
        while await play(n, after):
            yield n, after
            n += 1


def check_log(log: Sequence[Event]) -> None:
    """Assert the promises that can be read off any log that has come to rest.

    Gapless; every input, said at once or later or never, ends visibly, once; every run ends once,
    and runs do not overlap; every call has one outcome, shows things only before it, and has at
    most one answer to a request for an approval, without which it did not begin; and wherever the
    log is cut, the prompt answers every call.
    """
    facts = [event.fact for event in log]
    assert [event.seq for event in log] == list(range(1, len(log) + 1)), "a hole"
    said = [f.input for f in facts if isinstance(f, UserSpoke)]
    later = [f.message.input for f in facts if isinstance(f, MessageScheduled)]
    accepted = sorted([*said, *(one for one in later if one not in said)])
    settled = sorted(f.input for f in facts if isinstance(f, InputProcessed | InputDropped))
    assert accepted == settled, "an input without an end, or with two"
    runs = sorted({f.run or "" for f in facts if isinstance(f, UserSpoke)})
    assert sorted(f.run or "" for f in facts if isinstance(f, RunEnded)) == runs, "ends of runs"
    begun = {f.run for f in facts if isinstance(f, RunStarted)}
    lives = [f for f in facts if isinstance(f, RunStarted | RunEnded) and f.run in begun]
    assert [type(f) for f in lives] == [RunStarted, RunEnded] * len(begun), "runs overlap"
    outcomes = [f.call for f in facts if isinstance(f, ToolFinished)]
    assert len(outcomes) == len(set(outcomes)), "a call with two outcomes"
    check_approvals(facts)
    check_shown(facts)
    for cut in range(len(log) + 1):
        check_prompt(prompt(fold(State(), log[:cut])))


def check_approvals(facts: Sequence[Fact | Unknown]) -> None:
    """Assert that what a person was asked about began only after a yes, with what that said."""
    asked, given = dict[CallId, ApprovalAsked](), dict[CallId, ApprovalGiven]()
    for fact in facts:
        match fact:
            case ApprovalAsked(call=call):
                assert call not in asked, "asked about twice"
                asked[call] = fact
            case ApprovalGiven(call=call):
                assert call in asked, "an answer to nothing"
                assert call not in given, "answered twice"
                given[call] = fact
            case ToolStarted(call=call) if call in asked:
                assert call in given, "begun without an answer"
                assert given[call].decision == "allow", "begun against an answer"
                assert fact.arguments == (given[call].arguments or asked[call].arguments)
            case _:
                pass


def check_shown(facts: Sequence[Fact | Unknown]) -> None:
    """Assert that calls showed things only while they ran."""
    runs = set[CallId]()
    for fact in facts:
        if isinstance(fact, ToolStarted):
            runs.add(fact.call)
        elif isinstance(fact, PartShown):
            assert fact.call in runs, "shown of a call that does not run"
        elif isinstance(fact, ToolFinished):
            runs.discard(fact.call)


def check_prompt(said: Sequence[Said]) -> None:
    """Assert that each call is answered right after the reply that made it, in order."""
    rest = list(said)
    while rest:
        one = rest.pop(0)
        assert not isinstance(one, ToolSaid), "an answer to nothing"
        if isinstance(one, ModelSaid):
            answers = rest[: len(one.calls)]
            ids = [answer.call.id for answer in answers if isinstance(answer, ToolSaid)]
            assert ids == [call.id for call in one.calls], "a call without its answer"
            del rest[: len(one.calls)]
