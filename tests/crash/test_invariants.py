"""The lab's checker: what is as it was promised passes, and each broken promise is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from hostler.core.events import (
    AttemptId,
    CallId,
    Event,
    Fact,
    InputDropped,
    InputId,
    InputProcessed,
    MessageScheduled,
    ModelAsked,
    ModelReplied,
    PrincipalId,
    RunClaimed,
    RunEnded,
    RunId,
    RunStarted,
    Seq,
    ToolCall,
    ToolFinished,
    ToolStarted,
    Usage,
    UserSpoke,
)
from hostler.stores.memory import MemoryStore
from hostler.testing.canaries import Canaries
from hostler.testing.crash.caller import Input, Later, Seen, Told
from hostler.testing.crash.invariants import Evidence, Found, violations
from hostler.testing.crash.served import Effect
from hostler.testing.doubles import a_session, whole_log

pytestmark = pytest.mark.anyio
LATER = "ses_later"
SOON = Input(LATER, "inp_soon", "run_soon", 1, "later")
NEVER = Input(LATER, "inp_never", "run_never", 2, "later")
DUE = datetime(2026, 1, 1, tzinfo=UTC)
RUN, CALL, SESSION = RunId("run_1"), CallId("call_1"), "ses_1"
FIRST, SECOND = AttemptId("att_1"), AttemptId("att_2")
USED = Usage(input_tokens=3, output_tokens=4)


def facts() -> list[Fact]:
    """Return a run in which a tool is called."""
    call = ToolCall(id=CALL, name="note", arguments={})
    return [
        UserSpoke(
            run=RUN,
            input=InputId("inp_1"),
            content="hello",
            policy="queue",
            principal=PrincipalId("p"),
            metadata={},
        ),
        RunClaimed(run=RUN, claim=1, worker="w"),
        RunStarted(run=RUN),
        ModelAsked(run=RUN, attempt=FIRST, provider="p", model="m"),
        ModelReplied(
            run=RUN,
            attempt=FIRST,
            seen=Seq(4),
            text="",
            calls=(call,),
            stop="tools",
            usage=USED,
        ),
        InputProcessed(run=RUN, input=InputId("inp_1")),
        ToolStarted(run=RUN, call=CALL, name="note", arguments={}),
        ToolFinished(run=RUN, call=CALL, outcome="ok", output="noted"),
        ModelAsked(run=RUN, attempt=SECOND, provider="p", model="m"),
        ModelReplied(
            run=RUN, attempt=SECOND, seen=Seq(9), text="well", calls=(), stop="end", usage=USED
        ),
        RunEnded(run=RUN, status="done", usage=Usage(input_tokens=6, output_tokens=8)),
    ]


def scheduled_facts() -> list[Fact]:
    """Return a message that is said when it is time, and one that is withdrawn before."""
    soon, never = (
        UserSpoke(
            run=RunId(run),
            input=InputId(name),
            content="later",
            policy="queue",
            principal=PrincipalId("p"),
            metadata={},
        )
        for run, name in ((SOON.run, SOON.input), (NEVER.run, NEVER.input))
    )
    run = soon.run
    return [
        MessageScheduled(run=None, message=soon, due_at=DUE),
        MessageScheduled(run=None, message=never, due_at=DUE),
        InputDropped(run=None, input=never.input, reason="withdrawn"),
        replace(soon, scheduled=Seq(1)),
        RunClaimed(run=run, claim=1, worker="w"),
        RunStarted(run=run),
        ModelAsked(run=run, attempt=FIRST, provider="p", model="m"),
        ModelReplied(
            run=run, attempt=FIRST, seen=Seq(7), text="well", calls=(), stop="end", usage=USED
        ),
        InputProcessed(run=run, input=soon.input),
        RunEnded(run=run, status="done", usage=USED),
    ]


@dataclass
class Case:
    """Evidence in which all is well, to be changed."""

    evidence: Evidence
    log: list[Event]
    later: list[Event]
    """Of the session in which something is said later."""

    def change(self, at: int, event: Event) -> None:
        """Have another event at a position of that session."""
        self.later[at - 1] = event

    def say_more(self, *facts: Fact) -> None:
        """Have more at the end of that session."""
        for fact in facts:
            last = self.later[-1]
            self.later.append(replace(last, seq=Seq(last.seq + 1), fact=fact))

    def without(self, kind: str) -> None:
        """Leave out the facts of a kind, as if they had never been written."""
        left = [event for event in self.log if event.kind != kind]
        self.log[:] = [_at(event, number) for number, event in enumerate(left, 1)]
        self._seen()

    def doubled(self, kind: str) -> None:
        twice = [one for e in self.log for one in ([e, e] if e.kind == kind else [e])]
        self.log[:] = [_at(event, number) for number, event in enumerate(twice, 1)]
        self._seen()

    def _seen(self) -> None:
        self.evidence.told.seen[SESSION] = [Seen(event.seq, event.kind) for event in self.log]


def _at(event: Event, seq: int) -> Event:
    return replace(event, seq=Seq(seq))


@pytest.fixture
async def case() -> Case:
    store = MemoryStore()
    key = await a_session(store)
    for number, fact in enumerate(facts()):
        await store.append(key, [fact], fence=1 if number > 1 else None)
    log = await whole_log(store, key)
    other = await a_session(store)
    for number, fact in enumerate(scheduled_facts()):
        await store.append(other, [fact], fence=1 if number > 4 else None)
    later = await whole_log(store, other)
    canaries = Canaries({"a key": "canary-0123456789abcdef0123"})
    told = Told(sessions={SESSION: "worker", LATER: "brief"}, titles={SESSION: "told"})
    told.scheduled += [Later(SOON, DUE), Later(NEVER, DUE)]
    told.withdrawn.add(NEVER.input)
    told.inputs.append(Input(SESSION, "inp_1", RUN, 1, "hello"))
    told.seen[SESSION] = [Seen(event.seq, event.kind) for event in log]
    told.webhooks["whk_1"] = "http://127.0.0.1/hook"
    rows = await store.runs(key.tenant, session=None, status=None, after="", limit=9)
    found = Found(
        logs={SESSION: log, LATER: later},
        runs=rows,
        calls={RUN: (await store.ledger.calls(key.tenant, RUN)).models},
        titles={SESSION: "told"},
        webhooks=frozenset({"whk_1"}),
    )
    return Case(
        Evidence(
            told=told,
            found=found,
            effects=[Effect("note", RUN, CALL)],
            delivered=[f'{{"run":"{run}"}}'.encode() for run in (RUN, SOON.run)],
            canaries=canaries,
        ),
        log,
        later,
    )


async def test_a_log_as_it_was_promised_passes(case: Case) -> None:
    assert violations(case.evidence) == []


def lose_the_session(case: Case) -> None:
    case.evidence.found.logs = {}


def lose_an_input(case: Case) -> None:
    case.evidence.told.inputs.append(Input(SESSION, "inp_2", RUN, 12, "lost"))


def move_an_input(case: Case) -> None:
    case.evidence.told.inputs[0] = Input(SESSION, "inp_1", RUN, 2, "hello")


def bring_back_a_session(case: Case) -> None:
    case.evidence.told.deleted.add(SESSION)


def take_an_input_twice(case: Case) -> None:
    case.evidence.told.inputs.clear()


def make_a_session_twice(case: Case) -> None:
    case.evidence.found.logs = {**case.evidence.found.logs, "ses_2": []}


def answer_twice(case: Case) -> None:
    case.evidence.told.twice.append("one thing and another")


def lose_a_title(case: Case) -> None:
    case.evidence.found.titles = {SESSION: None}


def lose_a_decision(case: Case) -> None:
    case.evidence.told.decisions["call_9"] = (SESSION, "allow")


def lose_a_cancel(case: Case) -> None:
    case.evidence.told.cancelled.append((SESSION, RUN))


def change_what_a_fork_begins_with(case: Case) -> None:
    case.evidence.told.forks["ses_2"] = (SESSION, 3)


def lose_a_webhook(case: Case) -> None:
    case.evidence.found.webhooks = frozenset()


def lose_a_delivery(case: Case) -> None:
    case.evidence.delivered = [f'{{"run":"{run}"}}'.encode() for run in ("run_12", SOON.run)]


def lose_what_was_scheduled(case: Case) -> None:
    case.change(1, replace(case.later[0], fact=case.later[1].fact))


def schedule_it_twice(case: Case) -> None:
    case.say_more(scheduled_facts()[0])


def schedule_what_nobody_was_told_of(case: Case) -> None:
    message = replace(spoken(SOON), input=InputId("inp_more"))
    case.say_more(MessageScheduled(run=None, message=message, due_at=DUE))


def schedule_it_for_another_time(case: Case) -> None:
    case.evidence.told.scheduled[0] = Later(SOON, DUE + timedelta(seconds=1))


def schedule_something_else(case: Case) -> None:
    case.evidence.told.scheduled[0] = Later(SOON._replace(content="what was sent"), DUE)


def never_say_it(case: Case) -> None:
    del case.later[3:]


def say_it_twice(case: Case) -> None:
    case.say_more(spoken(SOON))


def say_something_else(case: Case) -> None:
    case.change(4, replace(case.later[3], fact=replace(spoken(SOON), content="another word")))


def say_it_in_another_run(case: Case) -> None:
    case.change(4, replace(case.later[3], fact=replace(spoken(SOON), run=RUN)))


def say_it_as_if_it_had_come_now(case: Case) -> None:
    case.change(4, replace(case.later[3], fact=replace(spoken(SOON), scheduled=None)))


def say_it_too_early(case: Case) -> None:
    case.change(4, replace(case.later[3], at=DUE.timestamp() - 0.1))


def say_it_and_drop_it(case: Case) -> None:
    case.say_more(InputDropped(run=None, input=InputId(SOON.input), reason="busy"))


def drop_it(case: Case) -> None:
    never_say_it(case)
    case.say_more(InputDropped(run=None, input=InputId(SOON.input), reason="busy"))


def say_what_was_withdrawn(case: Case) -> None:
    case.say_more(spoken(NEVER))


def lose_what_was_withdrawn(case: Case) -> None:
    case.change(3, replace(case.later[2], fact=case.later[5].fact))


def drop_what_was_withdrawn_for_another_reason(case: Case) -> None:
    never = InputId(NEVER.input)
    fact = InputDropped(run=None, input=never, reason="unreadable")
    case.change(3, replace(case.later[2], fact=fact))


def tell_no_webhook_of_what_was_said_later(case: Case) -> None:
    case.evidence.delivered = case.evidence.delivered[:1]


def leave_what_was_said_later_without_an_end(case: Case) -> None:
    del case.later[-1]


def leave_a_message_to_be_said(case: Case) -> None:
    case.evidence.found.scheduled = [f"{SOON.input} of {LATER}"]


def spoken(given: Input) -> UserSpoke:
    """Return how something is said that was scheduled."""
    messages = [one.message for one in scheduled_facts() if isinstance(one, MessageScheduled)]
    (message,) = (one for one in messages if one.input == given.input)
    return replace(message, scheduled=Seq(given.seq))


def never_end(case: Case) -> None:
    case.without("run_ended")


def end_twice(case: Case) -> None:
    case.doubled("run_ended")


def leave_a_row_open(case: Case) -> None:
    case.evidence.found.runs[0].ended_at = None


def leave_a_gap(case: Case) -> None:
    case.log[-1] = _at(case.log[-1], 12)


def show_a_fact_twice(case: Case) -> None:
    case.evidence.told.seen[SESSION].insert(3, case.evidence.told.seen[SESSION][3])


def leave_a_fact_out(case: Case) -> None:
    del case.evidence.told.seen[SESSION][-1]


def run_a_call_twice(case: Case) -> None:
    case.evidence.effects = [*case.evidence.effects, *case.evidence.effects]


def run_a_call_unsaid(case: Case) -> None:
    case.evidence.effects = [*case.evidence.effects, Effect("note", RUN, "call_2")]


def say_a_call_was_done(case: Case) -> None:
    case.evidence.effects = []


def answer_no_call(case: Case) -> None:
    case.without("tool_finished")


def answer_a_call_twice(case: Case) -> None:
    case.doubled("tool_finished")


def forget_a_cost(case: Case) -> None:
    at = len(case.log) - 1
    case.log[at] = replace(
        case.log[at], fact=RunEnded(run=RUN, status="done", usage=Usage(input_tokens=3))
    )


def forget_a_row(case: Case) -> None:
    case.evidence.found.calls = {RUN: case.evidence.found.calls[RUN][:1]}


def tell_a_secret(case: Case) -> None:
    case.evidence.told.hear("an answer", b"it is canary-0123456789abcdef0123, you know")


def post_a_secret(case: Case) -> None:
    case.evidence.delivered = [*case.evidence.delivered, b"canary-0123456789abcdef0123"]


def tell_a_stranger(case: Case) -> None:
    case.evidence.learned = ["a stranger is told 403"]


def leave_something(case: Case) -> None:
    case.evidence.left = ["a node holds a file"]


def leave_a_file(case: Case) -> None:
    case.evidence.found.strays = ["a file is left"]


def need_a_person(case: Case) -> None:
    case.evidence.trouble = ["a node does not start"]


def break_the_database(case: Case) -> None:
    case.evidence.found.damage = ["a page is wrong"]


def break_a_chain(case: Case) -> None:
    case.evidence.found.chains = ["row 3 was changed"]


BROKEN: dict[str, list[Callable[[Case], None]]] = {
    "I1": [
        lose_the_session,
        lose_an_input,
        move_an_input,
        bring_back_a_session,
        take_an_input_twice,
        make_a_session_twice,
        answer_twice,
        lose_a_title,
        lose_a_decision,
        lose_a_cancel,
        change_what_a_fork_begins_with,
        lose_a_webhook,
        lose_a_delivery,
        lose_what_was_scheduled,
        schedule_it_twice,
        schedule_what_nobody_was_told_of,
        schedule_it_for_another_time,
        schedule_something_else,
        never_say_it,
        say_it_twice,
        say_something_else,
        say_it_in_another_run,
        say_it_as_if_it_had_come_now,
        say_it_too_early,
        say_it_and_drop_it,
        drop_it,
        say_what_was_withdrawn,
        lose_what_was_withdrawn,
        drop_what_was_withdrawn_for_another_reason,
        tell_no_webhook_of_what_was_said_later,
    ],
    "I2": [never_end, end_twice, leave_a_row_open, leave_what_was_said_later_without_an_end],
    "I3": [leave_a_gap, show_a_fact_twice, leave_a_fact_out],
    "I4": [run_a_call_twice, run_a_call_unsaid, say_a_call_was_done],
    "I5": [answer_no_call, answer_a_call_twice, lose_what_was_withdrawn],
    "I6": [forget_a_cost, forget_a_row],
    "I7": [tell_a_secret, post_a_secret],
    "I8": [tell_a_stranger],
    "I9": [leave_something, leave_a_file, leave_a_message_to_be_said],
    "I10": [need_a_person, break_the_database, break_a_chain],
}


@pytest.mark.parametrize(
    ("promise", "tamper"),
    [(promise, one) for promise, several in BROKEN.items() for one in several],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
async def test_a_broken_promise_is_named(
    case: Case, promise: str, tamper: Callable[[Case], None]
) -> None:
    tamper(case)

    assert promise in {one.promise for one in violations(case.evidence)}
