"""Logs of runs as they may be, with text in flight between their facts, made by chance."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeAlias

from hostler.core.events import (
    ApprovalAsked,
    ApprovalGiven,
    AttemptDropped,
    AttemptId,
    CallId,
    Event,
    Fact,
    Fault,
    ModelAsked,
    ModelFailed,
    ModelReplied,
    PartShown,
    PrincipalId,
    RunEnded,
    RunId,
    RunStarted,
    Seq,
    SessionId,
    ToolCall,
    ToolFinished,
    ToolStarted,
    Usage,
)
from hostler.core.news import Piece
from hostler.core.ports import Delta
from hostler.core.shown import DataPart, DocumentPart, FilePart, Shown, SourcePart

RUN, SESSION = RunId("run_1"), SessionId("ses_12345678")
CLIENT = "locate"
"""A tool that clients run; all others are the server's."""
LATER = datetime(2100, 1, 1, tzinfo=UTC)
PARTS: Sequence[Shown] = (
    DataPart(name="progress", value={"done": 1}, key="a"),
    DataPart(name="progress", value={"done": 2}, key="a"),
    DataPart(name="progress", value=None, key="b"),
    DataPart(name="note", value="by the way"),
    SourcePart(url="https://example.com/a", title="A page"),
    SourcePart(url="https://example.com/b"),
    DocumentPart(title="Report", media_type="application/pdf", name="report.pdf"),
    FilePart(media_type="image/png", url="https://example.com/a.png"),
    FilePart(media_type="image/png", data="iVBORw0KGgo=", name="a.png"),
)
Item: TypeAlias = Event | Piece


@dataclass
class Chance:
    """Writes a log of one run, and what streamed."""

    seed: int
    items: list[Item] = field(default_factory=list[Item])
    seq: int = 1
    calls: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def some(self, *what: str) -> str:
        return self.random.choice(what)

    def maybe(self) -> bool:
        return self.random.random() < 0.5

    def fact(self, fact: Fact) -> None:
        self.seq += 1
        self.items.append(Event(session=SESSION, seq=Seq(self.seq), at=1.0, fact=fact, raw=b""))

    def write(self) -> list[Item]:
        self.fact(RunStarted(run=RUN))
        for _ in range(self.random.randrange(1, 4)):
            if not self.step():
                return self.items
        self.ask()
        self.reply(())
        self.fact(RunEnded(run=RUN, status="done", usage=Usage()))
        return self.items

    def ask(self) -> None:
        """Ask a model, until it does not fail."""
        while True:
            attempt = AttemptId(f"att_{self.seq}")
            self.fact(ModelAsked(run=RUN, attempt=attempt, provider="p", model="m"))
            if self.maybe():
                return
            text = self.stream(self.said())
            error = Fault(code="server", message="busy")
            self.fact(ModelFailed(run=RUN, attempt=attempt, error=error, retry_after_s=0.0))
            if text:
                self.fact(AttemptDropped(run=RUN, attempt=attempt, reason="failed", text=text))

    def said(self) -> list[tuple[str, str]]:
        """Return what is said, part by part, in any order."""
        kinds = [self.some("text", "thinking") for _ in range(self.random.randrange(4))]
        return [(kind, self.some("a ", "b\n", '"c"', "")) for kind in kinds]

    def stream(self, said: Sequence[tuple[str, str]], calls: Sequence[ToolCall] = ()) -> str:
        """Let some of it stream, and return the text that did."""
        asked, start, text = Seq(self.seq), 0, ""
        deltas = [
            Delta("text" if kind == "text" else "thinking", what) for kind, what in said if what
        ]
        for call in calls:
            deltas += [Delta("arguments", one, call.id, call.name) for one in ("{", "}")]
        if self.maybe():
            deltas = deltas[: self.random.randrange(len(deltas) + 1)]
        for delta in deltas:
            self.items.append(
                Piece(
                    session=SESSION,
                    run=RUN,
                    asked=asked,
                    attempt=AttemptId(f"att_{asked - 1}"),
                    seq=asked,
                    start=start,
                    delta=delta,
                )
            )
            start += len(delta.text)
            text += delta.text if delta.part == "text" else ""
        return text

    def reply(self, calls: tuple[ToolCall, ...]) -> None:
        said, asked = self.said(), Seq(self.seq)
        self.stream(said, calls if self.maybe() else calls[::-1])
        self.fact(
            ModelReplied(
                run=RUN,
                attempt=AttemptId(f"att_{asked - 1}"),
                seen=asked,
                text="".join(what for kind, what in said if kind == "text"),
                thinking="".join(what for kind, what in said if kind != "text") or None,
                calls=calls,
                stop="tools" if calls else "end",
                usage=Usage(input_tokens=1),
            )
        )

    def step(self) -> bool:
        """Let a model make calls, and answer them; whether the run goes on."""
        self.ask()
        if self.random.random() < 0.1:
            text = self.stream(self.said())
            attempt = AttemptId(f"att_{self.seq - 1}")
            self.fact(AttemptDropped(run=RUN, attempt=attempt, reason="interrupted", text=text))
            self.fact(RunEnded(run=RUN, status="cancelled", reason="stopped", usage=Usage()))
            return False
        self.calls += 4
        calls = tuple(
            ToolCall(
                id=CallId(f"call_{self.calls + place}"),
                name=self.some("weather", "remove", CLIENT),
                arguments={},
            )
            for place in range(self.random.randrange(1, 4))
        )
        self.reply(calls)
        waits = [self.gate(call) for call in calls]
        self.random.shuffle(waits)
        for answer in waits:
            answer()
        if self.random.random() < 0.1:
            self.fact(RunEnded(run=RUN, status="failed", reason="budget", usage=Usage()))
            return False
        return True

    def gate(self, call: ToolCall) -> Callable[[], None]:
        """Let a call begin, and return how it is answered."""
        if self.random.random() < 0.2:
            self.finish(call, "error")
            return lambda: None
        if self.maybe():
            asked = ApprovalAsked(
                run=RUN,
                call=call.id,
                name=call.name,
                arguments={"x": 1},
                digest="d",
                expires_at=LATER,
            )
            self.fact(asked)
            return lambda: self.decide(call)
        self.start(call, {"x": 1})
        return lambda: self.end(call, self.some("ok", "error"))

    def decide(self, call: ToolCall) -> None:
        allowed = self.maybe()
        self.fact(
            ApprovalGiven(
                run=RUN,
                call=call.id,
                decision="allow" if allowed else "deny",
                principal=PrincipalId("p"),
            )
        )
        if not allowed:
            self.finish(call, "denied")
            return
        self.start(call, {"x": 2} if self.maybe() else {"x": 1})
        self.end(call, "ok")

    def end(self, call: ToolCall, outcome: str) -> None:
        """End a call, after it has shown what only the server's do."""
        for _ in range(0 if call.name == CLIENT else self.random.randrange(3)):
            self.fact(PartShown(run=RUN, call=call.id, part=self.random.choice(PARTS)))
        self.finish(call, outcome)

    def start(self, call: ToolCall, arguments: dict[str, object]) -> None:
        until = LATER if call.name == CLIENT else None
        started = ToolStarted(
            run=RUN, call=call.id, name=call.name, arguments=arguments, expires_at=until
        )
        self.fact(started)

    def finish(self, call: ToolCall, outcome: str) -> None:
        output = self.some("fine", '{"a": 1}', "[broken")
        self.fact(
            ToolFinished(
                run=RUN,
                call=call.id,
                outcome=outcome,  # type: ignore[arg-type]
                output=output,
            )
        )


def joined(items: Sequence[Item], place: int) -> list[Item]:
    """Return what somebody sees who comes at `place`: facts, the text in flight, and then all."""
    before = [one for one in items[:place] if isinstance(one, Event)]
    asked = [one.seq for one in before if isinstance(one.fact, ModelAsked)]
    ended = [one.seq for one in before if isinstance(one.fact, ModelReplied | ModelFailed)]
    ended += [one.seq for one in before if isinstance(one.fact, AttemptDropped)]
    is_open = bool(asked) and asked[-1] > max(ended, default=0)
    flying = [
        one
        for one in items[:place]
        if isinstance(one, Piece) and is_open and one.asked == asked[-1]
    ]
    return [*before, *flying, *items[place:]]
