"""A leg of a run: from where its client speaks, to where it ends or that client has to act.

    event, piece ─▶ leg ─▶ text, what tools did, and at last a reply or why there is none

It is told to clients that have no word for a reply that is taken back.  So a call is told when it
waits for them, and no sooner: a model that asks for a tool that is not there is asked again.  And
where an attempt broke off whose text was streamed, its successor goes on from there if it says the
same, and else begins a new paragraph.

Invariant: pure; what is streamed adds up to the text of the reply at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, cast, get_args

from msgspec import Struct

from hostler.core.events import (
    START,
    AttemptDropped,
    CallId,
    Event,
    Fact,
    JsonObject,
    ModelAsked,
    ModelFailed,
    ModelReplied,
    RunEnded,
    RunId,
    Stop,
    ToolCall,
    ToolFinished,
    ToolStarted,
    Unknown,
    Usage,
)
from hostler.core.news import Piece
from hostler.core.ports import Delta, Failure, FaultCode, Reply
from hostler.core.state import add

APART = "\n\n"
"""Between two texts that are told as one."""
_CODES = frozenset(get_args(FaultCode))


class Did(Struct, frozen=True, kw_only=True):
    """A tool of the agent's began; with an `output`, it has ended."""

    call: CallId
    name: str
    arguments: JsonObject
    output: str | None = None
    failed: bool = False


class Stopped(Failure, frozen=True, kw_only=True):
    """Why a run gave no answer, where that was no model's fault."""

    reason: str
    """As in `run_ended`; `cancelled` for all that were."""


Told: TypeAlias = Delta | Did | Reply | Failure
_MESSAGES: Mapping[str, str] = {
    "budget": "the run has used up what it may: tokens, time or money",
    "step_limit": "the run came to its limit of steps",
    "stuck": "the run went in circles",
    "poisoned": "the run was given up: whoever drove it failed again and again",
}


class Leg:
    """Takes what follows where the client spoke, in order."""

    def __init__(self, run: RunId, *, streamed: bool, does: bool) -> None:
        """`streamed`: text is told as it comes, else when a reply is there; `does`: `Did` is told."""
        self._run, self._streamed, self._does = run, streamed, does
        self._asked = START
        self._parts = {"thinking": _Part("thinking"), "text": _Part("text")}
        self._last: str | None = None
        """What was told last: a part, or `did`."""
        self._open = dict[CallId, ToolCall]()
        """Calls of the last reply without an outcome."""
        self._begun = dict[CallId, ToolStarted]()
        """Those of them that are run here."""
        self._waits = dict[CallId, ToolCall]()
        """Those that wait for a client."""
        self._usage = Usage()
        self._stop: Stop = "end"
        self._fault: ModelFailed | None = None
        self._has_acted = False
        self.is_over = False

    def take(self, item: Event | Piece) -> Sequence[Told]:
        """Return what is to be told; a `Reply` or `Failure` is the last."""
        if isinstance(item, Piece):
            if not self._streamed or item.run != self._run or item.asked != self._asked:
                return ()
            delta = item.delta
            return () if delta.part == "arguments" else self._say(delta.part, delta.text)
        return self._fact(item, item.fact) if item.fact.run == self._run else ()

    def _fact(self, event: Event, fact: Fact | Unknown) -> Sequence[Told]:
        match fact:
            case ModelAsked():
                self._asked = event.seq
            case ModelFailed():
                self._usage, self._fault = add(self._usage, fact.usage), fact
                self._broke_off()
            case AttemptDropped():
                self._broke_off()
            case ModelReplied():
                return self._replied(fact)
            case ToolStarted():
                return self._started(fact)
            case ToolFinished():
                return self._finished(fact)
            case RunEnded():
                self.is_over = True
                return [self._ended(fact)]
            case _:
                pass
        return ()

    # -- what the model says -----------------------------------------------------------------

    def _say(self, part: Literal["thinking", "text"], text: str) -> list[Told]:
        new = self._parts[part].said(text)
        return self._tell(part, new) if new else []

    def _tell(self, part: Literal["thinking", "text"], text: str) -> list[Told]:
        at = self._parts[part]
        if at.is_new and at.told and (self._last == part or not self._does):
            text = APART + text
        at.is_new, self._last = False, part
        at.told.append(text)
        return [Delta(part, text)]

    def _broke_off(self) -> None:
        self._asked = START
        for part in self._parts.values():
            part.broke_off()

    def _replied(self, fact: ModelReplied) -> list[Told]:
        told = list[Told]()
        wholes: Sequence[tuple[Literal["thinking", "text"], str]] = (
            ("thinking", fact.thinking or ""),
            ("text", fact.text),
        )
        for part, whole in wholes:
            new = self._parts[part].settled(whole)
            told += self._tell(part, new) if new else []
            self._parts[part].is_new = True
        self._usage, self._stop, self._fault = add(self._usage, fact.usage), fact.stop, None
        self._asked, self._open = START, {call.id: call for call in fact.calls}
        self._waits, self._begun = {}, {}
        return told

    # -- what tools do -----------------------------------------------------------------------

    def _started(self, fact: ToolStarted) -> Sequence[Told]:
        if fact.call not in self._open:
            return ()
        if fact.expires_at is not None:
            made = ToolCall(id=fact.call, name=fact.name, arguments=fact.arguments)
            self._waits[fact.call] = made
            return self._paused()
        self._begun[fact.call], self._has_acted = fact, True
        return self._did(fact.call, fact.name, fact.arguments)

    def _finished(self, fact: ToolFinished) -> Sequence[Told]:
        asked = self._open.pop(fact.call, None)
        if asked is None or self._waits.pop(fact.call, None) is not None:
            return self._paused()
        begun, told = self._begun.pop(fact.call, None), list[Told]()
        if begun is None:  # it was refused, by us or by somebody
            name, arguments = asked.name, asked.arguments
            told += self._did(fact.call, name, arguments)
        else:
            name, arguments = begun.name, begun.arguments
        is_bad = fact.outcome != "ok"
        told += self._did(fact.call, name, arguments, output=fact.output, failed=is_bad)
        return [*told, *self._paused()]

    def _did(
        self,
        call: CallId,
        name: str,
        arguments: JsonObject,
        *,
        output: str | None = None,
        failed: bool = False,
    ) -> list[Told]:
        if not self._does:
            return []
        self._last = "did"
        made = Did(call=call, name=name, arguments=arguments, output=output, failed=failed)
        return [made]

    # -- how it ends -------------------------------------------------------------------------

    def _paused(self) -> list[Told]:
        """End the leg if nothing goes on until a client answers."""
        if not self._waits or self._waits.keys() != self._open.keys():
            return []
        self.is_over = True
        return [self._reply("tools", [self._waits[call] for call in self._open])]

    def _ended(self, fact: RunEnded) -> Reply | Failure:
        if fact.status == "done":
            stop: Stop = "end" if self._stop == "tools" else self._stop
            return self._reply(stop, ())
        reason = fact.reason or fact.status
        if fact.status == "cancelled":
            why = f": {fact.reason}" if fact.reason else ""
            told = f"the run was cancelled{why}"
            return Stopped(code="server", message=told, again=False, reason="cancelled")
        if self._fault is not None and reason in ("model_error", "wait_too_long"):
            return self._failed(self._fault)
        told = _MESSAGES.get(reason, f"the run failed: {reason}")
        code: FaultCode = "rate_limit" if reason == "budget" else "server"
        return Stopped(code=code, message=told, again=False, reason=reason)

    def _failed(self, fault: ModelFailed) -> Failure:
        code = cast("FaultCode", fault.error.code if fault.error.code in _CODES else "server")
        wait_s = fault.retry_after_s
        # Whoever asks again has the agent begin again, with all that it did.
        again = wait_s is not None and not self._has_acted
        message = fault.error.message
        return Failure(code=code, message=message, again=again, retry_after_s=wait_s)

    def _reply(self, stop: Stop, calls: Sequence[ToolCall]) -> Reply:
        return Reply(
            text="".join(self._parts["text"].told),
            thinking="".join(self._parts["thinking"].told) or None,
            stop=stop,
            calls=tuple(calls),
            usage=self._usage,
        )


class _Part:
    """Text of one kind."""

    __slots__ = ("_broken", "_held", "_now", "is_new", "kind", "told")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.told = list[str]()
        """All that was told, over all replies."""
        self.is_new = True
        """Nothing was told of this reply yet."""
        self._now = list[str]()
        """What has come of this attempt."""
        self._broken = ""
        """What was told of attempts that broke off, while the present one says nothing else."""
        self._held = ""
        """What has come of this attempt and was not told, since it is in `_broken`."""

    def said(self, text: str) -> str:
        """Take what has come; return what is new of it."""
        self._now.append(text)
        if not self._broken:
            return text
        self._held += text
        if self._broken.startswith(self._held):
            return ""
        broken, held, self._broken, self._held = self._broken, self._held, "", ""
        if held.startswith(broken):
            return held[len(broken) :]
        self.is_new = True
        return held

    def settled(self, whole: str) -> str:
        """Take a whole reply; return what of it was not told."""
        new = self.said(whole[sum(map(len, self._now)) :])
        if self._broken and self._held and self._held != self._broken:
            new, self.is_new = self._held, True
        self._now, self._broken, self._held = [], "", ""
        return new

    def broke_off(self) -> None:
        if not self._broken:
            self._broken = "".join(self._now)
        self._now, self._held = [], ""
