"""A run as the chunks of one UI message: what the log says of it, and what is being said.

    run        start … finish | abort | error
    step       start-step, what a model says and its tools answer, finish-step
    attempt    that came to nothing: reset-step, and its successor goes on in the same step

What streams is a foretaste of the reply: reasoning, then text, then calls, one part each.  Where
it was not that (a model that thinks between two sentences), the reply resets the step and says it
again in this order, so whoever watched and whoever comes later end with the same message.

Invariant: pure; no two readings of one log give another message, wherever text was watched.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from hostler.core.events import (
    START,
    ApprovalAsked,
    ApprovalGiven,
    AttemptDropped,
    CallId,
    Event,
    Fact,
    JsonObject,
    ModelAsked,
    ModelFailed,
    ModelReplied,
    PartShown,
    RunEnded,
    RunId,
    Seq,
    SessionId,
    ToolCall,
    ToolFinished,
    ToolStarted,
    Unknown,
    Usage,
)
from hostler.core.news import Piece
from hostler.core.state import add
from hostler.faces.aisdk.bodies import message_of
from hostler.faces.aisdk.wire import FINISH, frame, part_of, usage_of, value_of, why
from hostler.faces.http.form import encode

Kind: TypeAlias = Literal["reasoning", "text"]


@dataclass(slots=True)
class _Part:
    """Text as it streams."""

    kind: Kind
    id: str
    texts: list[str] = field(default_factory=list[str])
    is_open: bool = True


@dataclass(slots=True)
class _Call:
    """A call of the present step."""

    id: CallId
    about: JsonObject
    """What each chunk on its input says: name, and whose it is."""
    asked: ToolCall | None = None
    """As the reply has it."""
    shown: JsonObject | None = None
    """The arguments that were shown as those it runs with."""
    is_gated: bool = False
    waits: bool = False
    is_answered: bool = False


class Chunks:
    """The chunks of one run, or what is left of them for a client that has `seen` some calls."""

    def __init__(
        self,
        run: RunId,
        session: SessionId,
        agent: str,
        *,
        theirs: Collection[str] = (),
        named: Collection[str] = (),
        seen: Mapping[CallId, bool] | None = None,
        shown: Seq = START,
        since: Seq = START,
        message: str | None = None,
    ) -> None:
        """`theirs`: tools that clients run; `named`: those that this client has named itself.

        `seen`: of each call that the client knows, whether it has begun or ended there; `shown`:
        where in the log the last part was shown that it has.
        `since`: what was asked before is left out.  `message`: its id, if it is not the run's.
        """
        self.run, self.is_over = run, False
        self._seen: Mapping[CallId, bool] = seen or {}
        self._shown = shown
        self._theirs, self._named, self._since = theirs, named, since
        self._message = message or message_of(run)
        self._about: JsonObject = {"session": session, "run": run, "agent": agent}
        self._usage = Usage()
        self._out = list[bytes]()
        self._asked = START
        self._in_step = False
        self._parts = list[_Part]()
        self._calls = dict[CallId, _Call]()
        self._delta = b""
        self._of: str | None = None
        """How the next delta begins if it is of what came last: a part's kind, or a call."""
        self._left: str | None = None
        """What a model had said that was not let finish."""
        self._is_stale = False
        self._has_parked = False
        self._fault = ""

    @property
    def parked(self) -> bool:
        """Whether nothing goes on until somebody answers, as far as was read."""
        waits = [one for one in self._calls.values() if not one.is_answered]
        return bool(waits) and all(one.waits for one in waits)

    def drain(self) -> bytes:
        """Return the chunks that were made since the last time, as they are sent."""
        out, self._out = b"".join(self._out), []
        return out

    def start(self) -> None:
        self._put("start", messageId=self._message, messageMetadata=self._about)

    def pause(self) -> None:
        """End the stream of a run that waits for somebody."""
        self._end_step()
        self._put(
            "finish",
            finishReason="tool-calls",
            messageMetadata={**self._about, "usage": usage_of(self._usage)},
        )
        self.is_over = True

    def gone(self) -> None:
        """End the stream of a run that was deleted."""
        self._put("abort", reason="deleted")
        self.is_over = True

    # -- text, as it is generated ------------------------------------------------------------

    def more(self, items: Sequence[Event | Piece]) -> bytes | None:
        """Return what to send for text that only continues; None if it is more than that.

        Nothing is changed: if it is sent, `note` it.
        """
        frames = list[bytes]()
        for item in items:
            if not isinstance(item, Piece):
                return None
            if item.run != self.run or item.asked <= self._since:
                continue
            delta = item.delta
            if item.asked != self._asked or (delta.call or delta.part) != self._of:
                return None
            frames.append(b"%b%b}\n\n" % (self._delta, encode(delta.text)))
        return b"".join(frames)

    def note(self, items: Sequence[Event | Piece]) -> None:
        """Take text as sent."""
        for item in items:
            if isinstance(item, Piece) and item.run == self.run and item.delta.call is None:
                self._parts[-1].texts.append(item.delta.text)

    def take(self, item: Event | Piece) -> None:
        """Make the chunks of what was written or said next."""
        if isinstance(item, Piece):
            if item.run == self.run and item.asked == self._asked:
                self._piece(item)
        elif item.fact.run == self.run:
            self._fact(item.seq, item.fact)
            if self.parked and not self._has_parked:
                self._has_parked = True
                if self._seen.keys() & self._calls.keys():
                    self._out, self._in_step = [], False  # their stream ended here

    def _piece(self, piece: Piece) -> None:
        delta = piece.delta
        if (delta.call or delta.part) != self._of:
            self._close()
            if delta.part == "arguments":
                if delta.call is None or not self._begin(delta.call, delta.name):
                    return
                head: JsonObject = {"type": "tool-input-delta", "toolCallId": delta.call}
                self._of, key = delta.call, "inputTextDelta"
            else:
                kind: Kind = "text" if delta.part == "text" else "reasoning"
                part = self._open(kind)
                head = {"type": f"{kind}-delta", "id": part.id}
                self._of, key = delta.part, "delta"
            self._delta = b'data: %b,"%b":' % (encode(head)[:-1], key.encode())
        if delta.text:
            self._out.append(b"%b%b}\n\n" % (self._delta, encode(delta.text)))
        self.note([piece])

    def _open(self, kind: Kind) -> _Part:
        part = _Part(kind, f"{kind[0]}{self._asked}.{len(self._parts)}")
        self._parts.append(part)
        self._put(f"{kind}-start", id=part.id)
        return part

    def _close(self) -> None:
        """End the part that is open, if there is one."""
        self._of = None
        if self._parts and self._parts[-1].is_open:
            self._parts[-1].is_open = False
            self._put(f"{self._parts[-1].kind}-end", id=self._parts[-1].id)

    def _begin(self, call: CallId, name: str | None) -> bool:
        """Let a call be known, if it is new; False when it is not known how it is called."""
        if call in self._calls:
            return True
        if name is None:
            return False
        about: JsonObject = {"toolCallId": call, "toolName": name}
        if name not in self._theirs:
            about["providerExecuted"] = True  # or the app would take the call for its own
        if name not in self._named:
            about["dynamic"] = True
        self._calls[call] = _Call(call, about)
        self._put("tool-input-start", **about)
        return True

    # -- facts -------------------------------------------------------------------------------

    def _fact(self, seq: Seq, fact: Fact | Unknown) -> None:
        match fact:
            case ModelAsked() if seq > self._since:
                self._ask(seq, fact)
            case ModelReplied() if fact.seen > self._since:
                self._reply(fact)
            case ModelFailed():
                self._usage, self._is_stale = add(self._usage, fact.usage), True
                self._fault = f"{fact.error.code}: {fact.error.message}"
            case AttemptDropped():
                self._is_stale, self._left = True, fact.text
            case ApprovalAsked() | ApprovalGiven() | ToolStarted() | ToolFinished():
                if (call := self._calls.get(fact.call)) is not None:
                    self._call(call, fact)
            case PartShown() if fact.call in self._calls and seq > self._shown:
                self._out.append(frame(part_of(seq, fact.part)))
            case RunEnded():
                self._end(fact)
            case _:
                pass

    def _ask(self, seq: Seq, fact: ModelAsked) -> None:
        if self._is_stale:
            self._reset()
        else:
            self._end_step()
        if not self._in_step:
            self._put("start-step")
            self._in_step, self._parts, self._calls = True, [], {}
        self._asked, self._left, self._is_stale = seq, None, False
        self._about["model"] = f"{fact.provider}:{fact.model}"

    def _reply(self, fact: ModelReplied) -> None:
        self._usage = add(self._usage, fact.usage)
        self._settle(fact.thinking, fact.text, [call.id for call in fact.calls])
        for call in fact.calls:
            self._begin(call.id, call.name)
            self._calls[call.id].asked = call
        self._has_parked, self._asked = False, START
        if self._seen.keys() & self._calls.keys():
            self._out = []

    def _settle(self, thinking: str | None, text: str, calls: Sequence[CallId]) -> None:
        """Make the step say this, whatever was streamed of it."""
        told: list[tuple[Kind, str]] = [("reasoning", thinking or ""), ("text", text)]
        wanted: list[tuple[Kind, str]] = [(kind, what) for kind, what in told if what]
        if not self._is_begun(wanted, calls):
            self._reset()
        for place, (kind, what) in enumerate(wanted):
            if place >= len(self._parts):
                self._close()
                self._open(kind)
            rest = what[len("".join(self._parts[place].texts)) :]
            if rest:
                self._put(f"{kind}-delta", id=self._parts[place].id, delta=rest)
                self._parts[place].texts.append(rest)
        self._close()

    def _is_begun(self, wanted: Sequence[tuple[Kind, str]], calls: Sequence[CallId]) -> bool:
        """Whether what was shown of this step is how it begins."""
        shown, begun = [(part.kind, "".join(part.texts)) for part in self._parts], [*self._calls]
        if begun:  # nothing new comes before a call
            return shown == wanted and begun == calls[: len(begun)]
        if not shown:
            return True
        kind, what = shown[-1]
        last = wanted[len(shown) - 1] if len(shown) <= len(wanted) else (kind, "")
        return (
            shown[:-1] == wanted[: len(shown) - 1]
            and last[0] == kind
            and last[1].startswith(what)
            and (self._parts[-1].is_open or last[1] == what)
        )

    def _reset(self) -> None:
        """Take back what was shown of this step."""
        if self._parts or self._calls:
            self._put("reset-step")
        self._parts, self._calls, self._of = [], {}, None

    def _call(
        self, call: _Call, fact: ApprovalAsked | ApprovalGiven | ToolStarted | ToolFinished
    ) -> None:
        if isinstance(fact, ApprovalAsked):
            # To show a client its own call would run it: only what it looks like is told.
            if "providerExecuted" in call.about:
                self._show(call, fact.name, fact.arguments)
            else:
                text = encode(fact.arguments).decode()
                self._put("tool-input-start", **call.about)
                self._put("tool-input-delta", toolCallId=call.id, inputTextDelta=text)
            call.is_gated = call.waits = True
            self._put(
                "tool-approval-request",
                approvalId=call.id,
                toolCallId=call.id,
                signature=fact.digest,
            )
        elif isinstance(fact, ApprovalGiven):
            if not call.waits:
                return
            call.waits = False
            if self._seen.get(call.id):
                return
            because = {} if fact.reason is None else {"reason": fact.reason}
            allowed = fact.decision == "allow"
            self._put("tool-approval-response", approvalId=call.id, approved=allowed, **because)
        elif isinstance(fact, ToolStarted):
            call.waits = fact.expires_at is not None
            self._show(call, fact.name, fact.arguments)
        else:
            self._answer(call, fact)

    def _show(self, call: _Call, name: str, arguments: JsonObject) -> None:
        if call.shown != arguments:
            call.about["toolName"], call.shown = name, arguments
            if not self._seen.get(call.id):  # or a client would run its own call again
                self._put("tool-input-available", **call.about, input=arguments)

    def _answer(self, call: _Call, fact: ToolFinished) -> None:
        if call.is_answered:
            return
        call.waits, call.is_answered = False, True
        if fact.outcome == "ok":
            self._put("tool-output-available", toolCallId=call.id, output=value_of(fact.output))
        elif fact.outcome == "denied" and call.is_gated:
            self._put("tool-output-denied", toolCallId=call.id)
        elif call.shown is None and not call.is_gated and call.asked is not None:
            asked = call.asked
            tried = asked.arguments if asked.unparsed is None else asked.unparsed
            self._put("tool-input-error", **call.about, input=tried, errorText=fact.output)
        else:
            self._put("tool-output-error", toolCallId=call.id, errorText=fact.output)

    def _end(self, fact: RunEnded) -> None:
        if self._asked or self._is_stale:  # a model was not let finish
            self._settle(None, self._left or "", [])
        if fact.status == "done":
            self._end_step()
            reason = FINISH.get(fact.reason, "other")
            self._put(
                "finish",
                finishReason=reason,
                messageMetadata={**self._about, "usage": usage_of(self._usage)},
            )
        else:
            self._put(
                "message-metadata", messageMetadata={**self._about, "usage": usage_of(self._usage)}
            )
            if fact.status == "cancelled":
                self._put("abort", reason=fact.reason or "cancelled")
            else:
                self._put("error", errorText=why(fact.reason, self._fault))
        self.is_over = True

    def _end_step(self) -> None:
        if self._in_step:
            self._put("finish-step")
            self._in_step = False

    def _put(self, kind: str, /, **fields: object) -> None:
        self._out.append(frame({"type": kind, **fields}))
