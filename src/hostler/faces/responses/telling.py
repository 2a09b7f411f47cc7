"""A response as the log tells it: facts and pieces of one run, from where the response begins.

It ends with its run, or where the run waits for what a client of Responses answers: results of
its tools, decisions on approvals.  What is answered begins the next response.

Invariant: pure; facts and pieces in their order give the same events, whoever reads them when.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hostler.beside.responses import Waits, ended
from hostler.core.events import (
    START,
    ApprovalAsked,
    ApprovalGiven,
    AttemptDropped,
    CallId,
    Event,
    Fact,
    Fault,
    JsonObject,
    ModelAsked,
    ModelFailed,
    ModelReplied,
    RunEnded,
    RunId,
    RunStarted,
    Seq,
    ToolCall,
    ToolFinished,
    ToolStarted,
    Unknown,
    Usage,
)
from hostler.core.news import Piece
from hostler.core.state import add
from hostler.core.streamed import each
from hostler.faces.responses.attempt import Attempt, tools_of
from hostler.faces.responses.echo import arguments_of, response, text_in
from hostler.faces.responses.writer import Item, Writer, encode

NO_FAULT = Fault(code="", message="")
_CODES = {"rate_limit": "rate_limit_exceeded", "invalid_request": "invalid_prompt"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Which facts of a log a response is made of."""

    run: RunId
    since: Seq
    """Where it begins."""
    splits: bool = True
    """It ends where its client has to answer; else it goes on with whoever does."""
    answers: int = 0
    """To so many calls came an answer with what began it."""


class Teller:
    """Makes the events of one response of what is read."""

    def __init__(self, part: Part, writer: Writer) -> None:
        self._part, self._writer = part, writer
        self._names = tools_of(writer.about)
        self._usage, self._fault, self.response = Usage(), NO_FAULT, dict[str, object]()
        """`response`: the whole of it, once it is over."""
        self._asked: Seq = part.since
        self._attempt = Attempt(writer, self._asked, names=self._names)
        self._is_open = self._is_queued = False
        self._calls = dict[CallId, ToolCall]()
        """Of the last reply."""
        self._running = dict[CallId, Item]()
        self.ran = dict[str, CallId]()
        """Which calls of the agent's own tools items are, by their ids."""
        self._approved = set[CallId]()
        self._waits = Waits(part.answers)
        self._offered = list[tuple[Item, str]]()
        self.last: Seq = START
        """The last fact that was read."""

    @property
    def is_over(self) -> bool:
        return bool(self.response)

    def now(self) -> JsonObject:
        """Return the response as far as it is known."""
        status = "queued" if self._is_queued else "in_progress"
        writer = self._writer
        return self.response or response(writer.about, status, writer.output)

    def begin(self) -> None:
        self._is_queued = self._writer.about.echo.background
        self._writer.begin()

    def taken(self) -> list[bytes]:
        """Return the events that were made since the last time."""
        return self._writer.taken()

    # -- pieces --------------------------------------------------------------------------------

    def more(self, items: Sequence[Event | Piece]) -> bytes | None:
        """Return the events of text that only goes on; None if it is more than that.

        Nothing is changed: if they are sent, `note` it.
        """
        attempt, writer, made = self._attempt, self._writer, list[bytes]()
        offered, number = list[tuple[Item, str]](), writer.number
        for item in items:
            if not isinstance(item, Piece) or item.run != self._part.run or not self._is_open:
                return None
            delta = item.delta
            grows = attempt.follows(delta)
            if grows is None or item.asked != self._asked:
                return None
            texts = [delta.text] if not delta.sizes else [one.text for one in each(delta)]
            for text in texts:
                if text:
                    made.append(writer.piece(grows, text, number))
                    offered.append((grows, text))
                    number += 1
        self._offered = offered
        return b"".join(made)

    def note(self) -> None:
        """Take what `more` returned as sent."""
        for item, text in self._offered:
            self._attempt.noted(item, text)
        self._writer.number += len(self._offered)

    def take(self, item: Event | Piece) -> None:
        """Make the events of what was written or said next."""
        if self.is_over:
            return
        if isinstance(item, Event):
            self.last = item.seq
            if item.fact.run == self._part.run and item.seq >= self._part.since:
                self._fact(item, item.fact)
        elif item.run == self._part.run and item.asked == self._asked and self._is_open:
            for delta in each(item.delta):
                self._attempt.add(delta)

    # -- facts ---------------------------------------------------------------------------------

    def _fact(self, event: Event, fact: Fact | Unknown) -> None:
        is_parked = self._waits.take(fact)
        match fact:
            case ModelAsked() | ModelReplied() | ModelFailed() | AttemptDropped():
                self._model(event.seq, fact)
            case ApprovalAsked() | ApprovalGiven() | ToolStarted() | ToolFinished():
                self._call(fact)
            case RunStarted() if self._is_queued:
                self._going()
            case RunEnded():
                self._end(int(event.at), fact)
            case _:
                pass
        if is_parked and self._part.splits:  # nothing goes on until the client answers
            self.response = self._writer.end("completed", self._usage, int(event.at))

    def _going(self) -> None:
        if self._is_queued:
            self._is_queued = False
            self._writer.going()

    def _model(
        self, seq: Seq, fact: ModelAsked | ModelReplied | ModelFailed | AttemptDropped
    ) -> None:
        if isinstance(fact, ModelAsked):
            self._going()
            self._asked, self._is_open = seq, True
            self._attempt = Attempt(self._writer, seq, names=self._names)
        elif isinstance(fact, ModelReplied):
            self._replied(fact)
        elif isinstance(fact, ModelFailed):
            self._usage = add(self._usage, fact.usage)
            self._fault = fact.error
        else:
            self._dropped(fact)

    def _replied(self, fact: ModelReplied) -> None:
        self._usage, self._is_open = add(self._usage, fact.usage), False
        self._attempt.catch_up(fact)
        self._attempt.replied(fact)
        self._calls = {call.id: call for call in fact.calls}

    def _dropped(self, fact: AttemptDropped) -> None:
        if not self._is_open:
            return
        self._is_open = False
        if fact.reason == "worker_lost":
            self._attempt.lost()
            return
        self._attempt.catch_up(fact)
        self._attempt.stopped()

    # -- calls ---------------------------------------------------------------------------------

    def _call(self, fact: ApprovalAsked | ApprovalGiven | ToolStarted | ToolFinished) -> None:
        call = fact.call
        if isinstance(fact, ApprovalAsked):
            if call not in self._attempt.calls:
                self._writer.approval(call, fact.name, fact.arguments)
        elif isinstance(fact, ApprovalGiven):
            self._approved.add(call)
        elif isinstance(fact, ToolStarted):
            self._started(fact)
        else:
            self._finished(fact)

    def _started(self, fact: ToolStarted) -> None:
        call, writer, attempt = fact.call, self._writer, self._attempt
        if fact.expires_at is None:
            approval = call if call in self._approved else None
            item = writer.mcp_call(self._asked, attempt.next(), fact.name, approval)
            self._running[call], self.ran[str(item.body["id"])] = item, call
            writer.grow(item, encode(fact.arguments).decode())
            writer.tell(item)
            return
        item = attempt.calls.get(call)
        if item is None or item not in writer.open:
            item = attempt.call(call, fact.name)
            writer.grow(item, self._said(item, fact))
        writer.tell(item, self._said(item, fact))
        writer.close(item)

    def _said(self, item: Item, fact: ToolStarted) -> str:
        if item.kind == "custom_tool_call":
            return text_in(fact.arguments)
        return encode(fact.arguments).decode()

    def _finished(self, fact: ToolFinished) -> None:
        call, writer, attempt = fact.call, self._writer, self._attempt
        failed = fact.outcome != "ok"
        running, theirs = self._running.pop(call, None), attempt.calls.get(call)
        if running is not None:
            writer.answer(running, fact.output, failed=failed)
        elif theirs is not None:
            if theirs in writer.open:  # it was refused before anybody could run it
                writer.close(theirs, "incomplete")
            writer.call_output(self._asked, attempt.next(), call, fact.output)
        elif call in self._calls:
            asked = self._calls[call]
            item = writer.mcp_call(self._asked, attempt.next(), asked.name, None)
            self.ran[str(item.body["id"])] = call
            writer.grow(item, arguments_of(asked))
            writer.tell(item)
            writer.answer(item, fact.output, failed=failed)

    # -- its end -------------------------------------------------------------------------------

    def _end(self, at: int, fact: RunEnded) -> None:
        self._going()
        status, incomplete = ended(fact.status, self._waits.stop)
        error: JsonObject | None = None
        if status == "failed":
            error = {
                "code": _CODES.get(self._fault.code, "server_error"),
                "message": _why(fact.reason, self._fault),
            }
        self.response = self._writer.end(
            status, self._usage, at, error=error, incomplete=incomplete
        )

    @property
    def waits(self) -> frozenset[CallId]:
        """Return which calls its client has to answer, once it is over."""
        return frozenset(self._waits.waiting)


def _why(reason: str | None, fault: Fault) -> str:
    """Return why a run failed, in words."""
    if reason == "model_error" and fault.code:
        return f"{fault.code}: {fault.message}"
    return f"the run ended: {reason or 'failed'}"
