"""Conversations that are changed with no run: what is read next, and where each thing was said."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from hostler.core.events import (
    CallId,
    ConversationEdited,
    Event,
    Fact,
    ModelReplied,
    PrincipalId,
    RunEnded,
    RunId,
    Seq,
    SessionId,
    SessionRewound,
    ToolCall,
    Usage,
    UserSpoke,
)
from hostler.core.memory import remember
from hostler.core.said import ModelSaid, Said, ToolSaid, UserSaid
from hostler.core.state import State, fold, prompt, said_by
from hostler.service.whence import RESULT, Cut, fits, remade, reply_of, traced, without
from hostler.stores.memory import MemoryStore
from hostler.testing.crashing import check_prompt
from hostler.testing.doubles import a_session, whole_log
from hostler.testing.store_kit import a_run, a_step, finished, spoke, started

ME = PrincipalId("p")
CALL = ToolCall(id=CallId("theirs"), name="tool", arguments={})
HISTORY: tuple[Said, ...] = (
    UserSaid("was"),
    ModelSaid("there", (CALL,)),
    ToolSaid(CALL, "done"),
    ModelSaid("so"),
)


def put(*said: Said) -> ConversationEdited:
    return ConversationEdited(run=None, principal=ME, said=said)


def cut(place: int, taken: int, *said: Said) -> ConversationEdited:
    return ConversationEdited(run=None, principal=ME, said=said, place=place, taken=taken)


def edit(found: Cut) -> ConversationEdited:
    return cut(found.place, found.taken, *found.said)


def log_of(facts: Sequence[Fact]) -> list[Event]:
    return [
        Event(session=SessionId("ses_1"), seq=Seq(at), at=0.0, fact=fact, raw=b"")
        for at, fact in enumerate(facts, start=1)
    ]


def test_what_is_put_in_is_at_the_end_and_what_is_cut_is_gone() -> None:
    one = [spoke("run_1", "one"), *a_run("run_1", "first", claim=1)]
    state = fold(State(), log_of([put(UserSaid("before")), *one, put(UserSaid("after"))]))
    assert state.transcript == [
        UserSaid("before"),
        UserSaid("one"),
        ModelSaid("first"),
        UserSaid("after"),
    ]

    state = fold(State(), log_of([put(*HISTORY), cut(1, 2, ModelSaid("there")), cut(9, 9)]))
    assert state.transcript == [UserSaid("was"), ModelSaid("there"), ModelSaid("so")]


def test_a_run_is_taken_back_to_where_it_began_whatever_was_changed_before_it() -> None:
    one = [spoke("run_1", "one"), *a_run("run_1", "first", claim=1)]
    back = SessionRewound(run=None, before=RunId("run_1"), principal=ME)
    facts = [put(*HISTORY), *one, cut(0, 1), put(UserSaid("late")), back]
    assert fold(State(), log_of(facts)).transcript == [*HISTORY[1:]]

    grown = [put(*HISTORY), *one, cut(0, 1, UserSaid("a"), UserSaid("b")), back]
    assert fold(State(), log_of(grown)).transcript == [UserSaid("a"), UserSaid("b"), *HISTORY[1:]]

    across = [put(*HISTORY), *one, cut(3, 2), back]
    assert fold(State(), log_of(across)).transcript == [*HISTORY[:3]]


def test_a_cut_that_leaves_a_result_without_its_call_does_not_fit() -> None:
    assert [fits(HISTORY, cut(place, 1)) for place in range(4)] == [True, False, False, True]
    assert fits(HISTORY, cut(1, 2))
    assert not fits(HISTORY, cut(2, 0, UserSaid("between")))
    assert fits(HISTORY, put(UserSaid("x")))


Step = Callable[["Log"], list[Fact]]


class Log:
    """What a session could have been through, and what it is now."""

    def __init__(self) -> None:
        self.facts, self.runs = list[Fact](), 0

    @property
    def events(self) -> list[Event]:
        return log_of(self.facts)

    def run(self) -> str:
        self.runs += 1
        return f"run_{self.runs}"


def says(log: Log) -> list[Fact]:
    run, at = log.run(), len(log.facts)
    return [spoke(run, f"to {run}"), *a_run(run, "well", claim=log.runs, after=at + 1)]


def brings(log: Log) -> list[Fact]:
    said, *rest = says(log)
    assert isinstance(said, UserSpoke)
    return [replace(said, history=HISTORY), *rest]


def calls(log: Log) -> list[Fact]:
    """Two calls, a word said meanwhile, and one more run that waits."""
    run, at, later = log.run(), len(log.facts), log.run()
    a, b = f"{run}_a", f"{run}_b"
    steer = replace(spoke(run, "and quick", policy="steer"), history=HISTORY)
    answer = a_run(run, "", claim=1, after=at + 8)[2:4]
    return [
        spoke(run, "look"),
        *a_step(run, a, b, claim=log.runs, after=at + 1),
        started(run, b),
        finished(run, b),
        steer,
        spoke(later, "queued"),
        finished(run, a),
        *answer,
        RunEnded(run=RunId(run), status="done", usage=Usage()),
        *a_run(later, "queued, too", claim=log.runs, after=at + 13),
    ]


def puts(log: Log) -> list[Fact]:
    return [put(*HISTORY[: len(log.facts) % 5 and 4], UserSaid(f"put {len(log.facts)}"))]


def cuts(nth: int) -> Step:
    def step(log: Log) -> list[Fact]:
        things = traced(log.events)
        if not things:
            return []
        place = nth % len(things)
        said = things[place].said
        if isinstance(said, UserSaid):
            return [cut(place, 1)]
        place = reply_of(things, place)
        said = things[place].said
        assert isinstance(said, ModelSaid)
        if said.calls and nth % 2:
            return [edit(without(things, place, said.calls[nth % len(said.calls)].id))]
        return [edit(remade(things, place, replace(said, text="")))]

    return step


def rewinds(nth: int) -> Step:
    def step(log: Log) -> list[Fact]:
        run = RunId(f"run_{1 + nth % (log.runs + 1)}")
        return [SessionRewound(run=None, before=run, principal=ME)]

    return step


steps = st.one_of(
    st.sampled_from([says, brings, calls, puts]),
    st.integers(0, 30).map(cuts),
    st.integers(0, 5).map(rewinds),
)


@given(played=st.lists(steps, max_size=9))
@settings(max_examples=300, deadline=None)
def test_each_thing_is_found_where_it_was_said_whatever_a_session_has_been_through(
    played: list[Step],
) -> None:
    async def scenario() -> None:
        log, store = Log(), MemoryStore()
        key = await a_session(store)
        for step in played:
            facts = step(log)
            log.facts += facts
            if facts:
                await store.append(key, facts)

        events = await whole_log(store, key)
        state, recall = fold(State(), events), await store.recall(key)
        again = fold(remember(recall.past), recall.events)
        assert (again.transcript, again.begun) == (state.transcript, state.begun)
        check_prompt(prompt(state))
        things = traced(events)
        assert [one.said for one in things] == state.transcript
        assert all(_is_there(events, said, whence) for said, whence in things)

    anyio.run(scenario)


def _is_there(events: Sequence[Event], said: Said, whence: tuple[Seq, int]) -> bool:
    """Whether this, or what it was before something was taken out of it, was said there."""
    if whence == RESULT:
        return isinstance(said, ToolSaid)
    seq, place = whence
    fact = events[seq - 1].fact
    if isinstance(fact, UserSpoke | ConversationEdited):
        was = said_by(fact)[place] if isinstance(fact, UserSpoke) else fact.said[place]
        if isinstance(said, ModelSaid) and isinstance(was, ModelSaid):
            return {call.id for call in said.calls} <= {call.id for call in was.calls}
        return said == was
    replies = [one.fact for one in events if isinstance(one.fact, ModelReplied)]
    (reply,) = [one for one in replies if one.seen == seq]
    assert isinstance(said, ModelSaid)
    return {call.id for call in said.calls} <= {call.id for call in reply.calls}
