"""A run as it is told to a client that has no word for a reply that is taken back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.core.events import (
    START,
    AttemptDropped,
    AttemptId,
    CallId,
    Event,
    Fact,
    Fault,
    ModelAsked,
    ModelFailed,
    ModelReplied,
    PrincipalId,
    RunEnded,
    RunId,
    RunStatus,
    Seq,
    SessionId,
    Stop,
    ToolCall,
    ToolFinished,
    ToolStarted,
    Usage,
)
from hostler.core.news import Piece
from hostler.core.ports import Delta, Failure, Reply
from hostler.service.leg import Did, Leg, Stopped, Told

RUN, SESSION, ATTEMPT = RunId("run_1"), SessionId("ses_1"), AttemptId("att_1")
LATER = datetime(2030, 1, 1, tzinfo=UTC)
USED = Usage(input_tokens=10, output_tokens=3)


@dataclass
class Log:
    """What is written and said of a run, as followers get it."""

    items: list[Event | Piece] = field(default_factory=list[Event | Piece])
    seq: int = 0
    asked: Seq = START
    length: int = 0

    def write(self, fact: Fact) -> None:
        self.seq += 1
        at = Seq(self.seq)
        self.items.append(Event(session=SESSION, seq=at, at=1.0, fact=fact, raw=b"{}"))
        if isinstance(fact, ModelAsked):
            self.asked, self.length = at, 0

    def ask(self) -> None:
        self.write(ModelAsked(run=RUN, attempt=ATTEMPT, provider="p", model="m"))

    def say(self, *pieces: tuple[str, str]) -> None:
        for part, text in pieces:
            delta = Delta(part, text)  # type: ignore[arg-type]
            piece = Piece(
                session=SESSION,
                run=RUN,
                asked=self.asked,
                attempt=ATTEMPT,
                seq=Seq(self.seq),
                start=self.length,
                delta=delta,
            )
            self.items.append(piece)
            self.length += len(text)

    def reply(
        self, text: str = "", *calls: ToolCall, thinking: str | None = None, stop: Stop = "end"
    ) -> None:
        self.write(
            ModelReplied(
                run=RUN,
                attempt=ATTEMPT,
                seen=self.asked,
                text=text,
                calls=calls,
                stop="tools" if calls else stop,
                usage=USED,
                thinking=thinking,
            )
        )

    def fail(self, *, code: str = "server", retry_s: float | None = 0.0) -> None:
        fault = Fault(code=code, message="oh")
        self.write(AttemptDropped(run=RUN, attempt=ATTEMPT, reason="failed"))
        self.write(ModelFailed(run=RUN, attempt=ATTEMPT, error=fault, retry_after_s=retry_s))

    def start(self, call: ToolCall, *, client: bool = False) -> None:
        until = LATER if client else None
        self.write(
            ToolStarted(
                run=RUN, call=call.id, name=call.name, arguments=call.arguments, expires_at=until
            )
        )

    def finish(self, call: ToolCall, output: str = "ok", *, by: str | None = None) -> None:
        who = None if by is None else PrincipalId(by)
        self.write(ToolFinished(run=RUN, call=call.id, outcome="ok", output=output, principal=who))

    def end(self, status: RunStatus = "done", reason: str | None = None) -> None:
        self.write(RunEnded(run=RUN, status=status, reason=reason, usage=USED))


def heard(log: Log, *, streamed: bool = True, does: bool = False) -> list[Told]:
    """Return all that is told up to the end of the leg."""
    leg, told = Leg(RUN, streamed=streamed, does=does), list[Told]()
    for item in log.items:
        told += leg.take(item)
        if leg.is_over:
            break
    assert leg.is_over
    return told


def text_of(told: Sequence[Told], part: str = "text") -> str:
    return "".join(one.text for one in told if isinstance(one, Delta) and one.part == part)


def the_reply(told: Sequence[Told]) -> Reply:
    assert isinstance(told[-1], Reply)
    return told[-1]


def a_call(name: str = "look") -> ToolCall:
    return ToolCall(id=CallId(f"call_{name}"), name=name, arguments={"at": 1})


# -- text ------------------------------------------------------------------------------------

TEXTS = st.text("ab \n", max_size=6)


STEPS = st.lists(st.tuples(TEXTS, TEXTS, st.lists(TEXTS, max_size=3)), max_size=4)


@given(steps=STEPS, does=st.booleans())
def test_what_is_streamed_is_the_text_of_the_reply(
    steps: list[tuple[str, str, list[str]]], *, does: bool
) -> None:
    log = Log()
    for text, lost, broken in steps:
        for one in broken:
            log.ask()
            log.say(("text", one[:2]), ("text", one[2:]))
            log.fail()
        log.ask()
        log.say(("thinking", text), ("text", text))
        log.reply(text + lost, a_call(), thinking=text)  # the last pieces did not come
        log.start(a_call())
        log.finish(a_call())
    log.end()

    told, whole = heard(log, does=does), heard(log, streamed=False, does=does)

    assert text_of(told) == the_reply(told).text
    assert text_of(told, "thinking") == (the_reply(told).thinking or "")
    assert the_reply(told).usage == the_reply(whole).usage
    apart = "" if does else "\n\n"
    assert the_reply(whole).text == apart.join(
        text + lost for text, lost, _ in steps if text + lost
    )


def test_an_attempt_that_says_the_same_goes_on_where_the_last_one_broke_off() -> None:
    log = Log()
    log.ask()
    log.say(("text", "It is "), ("text", "bl"))
    log.fail()
    log.ask()
    log.say(("text", "It"), ("text", " is blue"), ("text", "."))
    log.reply("It is blue.")
    log.end()

    assert [one.text for one in heard(log) if isinstance(one, Delta)] == ["It is ", "bl", "ue", "."]


@pytest.mark.parametrize("reply", ["It was.", "It", ""])
def test_an_attempt_that_says_something_else_begins_anew(reply: str) -> None:
    log = Log()
    log.ask()
    log.say(("text", "It is"))
    log.fail()
    log.ask()
    log.say(("text", reply))
    log.reply(reply)
    log.end()

    assert text_of(heard(log)) == ("It is" if not reply else f"It is\n\n{reply}")
    assert the_reply(heard(log, streamed=False)).text == reply


def test_text_of_other_runs_and_of_attempts_that_are_over_is_not_told() -> None:
    log = Log()
    log.ask()
    late = Log(asked=Seq(1), seq=1)
    late.say(("text", "late"))
    log.fail()
    log.items += late.items
    log.write(RunEnded(run=RunId("run_2"), status="failed", usage=USED))
    log.ask()
    log.reply("well")
    log.end()

    assert text_of(heard(log)) == "well"


# -- calls -----------------------------------------------------------------------------------


def test_a_segment_ends_when_nothing_goes_on_without_the_client() -> None:
    own, one, two = a_call("own"), a_call("one"), a_call("two")
    log = Log()
    log.ask()
    log.reply("", own, one, two)
    log.start(one, client=True)
    log.start(own)
    log.start(two, client=True)
    log.finish(own)
    log.finish(one, by="ann")

    reply = the_reply(heard(log))

    assert (reply.stop, [call.id for call in reply.calls]) == ("tools", [one.id, two.id])


def test_a_call_that_somebody_else_has_answered_is_not_told() -> None:
    own, one, two = a_call("own"), a_call("one"), a_call("two")
    log = Log()
    log.ask()
    log.reply("", own, one, two)
    log.start(one, client=True)
    log.start(two, client=True)
    log.start(own)
    log.finish(one, by="ann")
    log.finish(own)

    assert [call.id for call in the_reply(heard(log)).calls] == [two.id]


def test_a_call_is_told_as_it_is_to_be_run_and_not_as_it_was_asked_for() -> None:
    asked = a_call("Look")
    log = Log()
    log.ask()
    log.say(("arguments", "{}"))
    log.reply("", asked)
    log.write(
        ToolStarted(run=RUN, call=asked.id, name="look", arguments={"at": "sky"}, expires_at=LATER)
    )

    told = heard(log)

    (call,) = the_reply(told).calls
    assert (call.name, call.arguments) == ("look", {"at": "sky"})
    assert len(told) == 1


def test_what_tools_do_is_told_where_it_is_wanted() -> None:
    own, refused = a_call("own"), a_call("refused")
    log = Log()
    log.ask()
    log.reply("Look:", own, refused)
    log.start(own)
    log.finish(refused, "no")
    log.finish(own, "sky")
    log.ask()
    log.reply("blue")
    log.end()

    told = [one for one in heard(log, does=True) if isinstance(one, Did)]

    assert [(one.name, one.output) for one in told] == [
        ("own", None),
        ("refused", None),
        ("refused", "no"),
        ("own", "sky"),
    ]
    assert [one for one in heard(log) if isinstance(one, Did)] == []
    assert text_of(heard(log)) == "Look:\n\nblue"
    assert text_of(heard(log, does=True)) == "Look:blue"


# -- ends ------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", ["end", "length", "refusal"])
def test_why_the_model_stopped_is_why_the_answer_does(stop: Stop) -> None:
    log = Log()
    log.ask()
    log.reply("well", stop=stop)
    log.end(reason=None if stop == "end" else stop)

    reply = the_reply(heard(log))

    assert (reply.stop, reply.usage) == (stop, USED)


@pytest.mark.parametrize(
    ("status", "reason", "code", "told"),
    [
        ("failed", "step_limit", "server", "step_limit"),
        ("failed", "budget", "rate_limit", "budget"),
        ("failed", "something new", "server", "something new"),
        ("failed", None, "server", "failed"),
        ("cancelled", "enough", "server", "cancelled"),
        ("cancelled", None, "server", "cancelled"),
    ],
)
def test_why_there_is_no_answer_is_told(
    status: RunStatus, reason: str | None, code: str, told: str
) -> None:
    log = Log()
    log.ask()
    log.end(status, reason)

    last = heard(log)[-1]

    assert isinstance(last, Stopped)
    assert (last.code, last.reason, last.again) == (code, told, False)


@pytest.mark.parametrize(
    ("acted", "retry_s", "again"), [(False, 1.0, True), (False, None, False), (True, 1.0, False)]
)
def test_whoever_asks_again_after_a_fault_does_nothing_twice(
    *, acted: bool, retry_s: float | None, again: bool
) -> None:
    log = Log()
    if acted:
        log.ask()
        log.reply("", a_call())
        log.start(a_call())
        log.finish(a_call())
    log.ask()
    log.fail(code="overloaded", retry_s=retry_s)
    log.end("failed", "model_error")

    last = heard(log)[-1]

    assert isinstance(last, Failure)
    assert (last.code, last.again, last.message) == ("overloaded", again, "oh")


def test_a_fault_of_a_newer_release_is_one_of_the_server() -> None:
    log = Log()
    log.ask()
    log.fail(code="bored")
    log.end("failed", "model_error")

    last = heard(log)[-1]

    assert isinstance(last, Failure)
    assert last.code == "server"
