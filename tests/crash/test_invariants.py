"""The lab's checker: what is as it was promised passes, and each broken promise is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from hostler.core.events import (
    AttemptId,
    CallId,
    Event,
    Fact,
    InputId,
    InputProcessed,
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
from hostler.testing.crash.caller import Input, Seen, Told
from hostler.testing.crash.invariants import Evidence, Found, violations
from hostler.testing.crash.served import Effect
from hostler.testing.doubles import a_session, whole_log

pytestmark = pytest.mark.anyio
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


@dataclass
class Case:
    """Evidence in which all is well, to be changed."""

    evidence: Evidence
    log: list[Event]

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
    canaries = Canaries({"a key": "canary-0123456789abcdef0123"})
    told = Told(sessions={SESSION: "worker"}, titles={SESSION: "told"})
    told.inputs.append(Input(SESSION, "inp_1", RUN, 1, "hello"))
    told.seen[SESSION] = [Seen(event.seq, event.kind) for event in log]
    told.webhooks["whk_1"] = "http://127.0.0.1/hook"
    rows = await store.runs(key.tenant, session=None, status=None, after="", limit=9)
    found = Found(
        logs={SESSION: log},
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
            delivered=[f'{{"run":"{RUN}"}}'.encode()],
            canaries=canaries,
        ),
        log,
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
    case.evidence.found.logs = {SESSION: case.log, "ses_2": []}


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
    case.evidence.delivered = [b'{"run":"run_12"}']


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
    ],
    "I2": [never_end, end_twice, leave_a_row_open],
    "I3": [leave_a_gap, show_a_fact_twice, leave_a_fact_out],
    "I4": [run_a_call_twice, run_a_call_unsaid, say_a_call_was_done],
    "I5": [answer_no_call, answer_a_call_twice],
    "I6": [forget_a_cost, forget_a_row],
    "I7": [tell_a_secret, post_a_secret],
    "I8": [tell_a_stranger],
    "I9": [leave_something, leave_a_file],
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
