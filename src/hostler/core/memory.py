"""What a session remembers of the runs that ended: its conversation, at a fraction of the price.

`fold` reads all that was written; a session's hundredth run should cost what its first did, so of
the runs before it only what was said is read, in a form made for that (`codec.Spoken`).

Invariant: `remember` gives the state that `fold` of all those events gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hostler.core.codec import Finished, Replied, Spoken
from hostler.core.events import (
    ConversationEdited,
    RunId,
    RunStarted,
    Seq,
    SessionRewound,
    ToolCall,
    UserSpoke,
)
from hostler.core.said import ModelSaid, Said, ToolSaid
from hostler.core.state import NEVER_RAN, State, approve, said_by, size_of


class Past(NamedTuple):
    """What was said, oldest first, and where it stands in the log."""

    seqs: Sequence[Seq]
    spoken: Sequence[Spoken]


def remember(past: Past) -> State:
    """Return the state that runs which all ended have left."""
    memory = _Memory()
    for seq, fact in zip(past.seqs, past.spoken, strict=True):
        if isinstance(fact, Replied):
            memory.replied(fact)
        elif isinstance(fact, Finished):
            memory.finished(fact)
        elif isinstance(fact, UserSpoke):
            memory.spoke(seq, fact)
        elif isinstance(fact, RunStarted):
            memory.began(fact.run)
        else:
            if isinstance(fact, SessionRewound | ConversationEdited):
                memory.began(None)
            approve(memory.state, fact)
    memory.settle()
    memory.join()
    memory.state.size += memory.size
    return memory.state


class _Memory:
    """What was read so far."""

    def __init__(self) -> None:
        self.state = State()
        self.size = 0
        self._said: list[Said] = self.state.transcript
        self._run: RunId | None = None
        self._calls: tuple[ToolCall, ...] = ()
        self._outcomes: dict[str, Finished] = {}
        self._steers: list[tuple[Seq, Said]] = []

    def replied(self, fact: Replied) -> None:
        if self._calls:
            self.settle()
        if self._steers:
            self._said += [said for at, said in self._steers if at < fact.seen]
            self._steers = [steer for steer in self._steers if steer[0] > fact.seen]
        if fact.text or fact.calls or fact.stop == "refusal":
            said = ModelSaid(fact.text, fact.calls, fact.thinking, fact.replay)
            self.size += size_of(said)
            self._said.append(said)
        self._calls = fact.calls

    def finished(self, fact: Finished) -> None:
        self.size += len(fact.output)
        self._outcomes[fact.call] = fact

    def spoke(self, seq: Seq, fact: UserSpoke) -> None:
        said = said_by(fact)
        self.size += sum(map(size_of, said))
        if fact.run == self._run:
            self._steers += [(seq, one) for one in said]
        elif fact.run is not None:
            self.state.pending.setdefault(fact.run, []).append((fact, seq))

    def began(self, run: RunId | None) -> None:
        self.settle()
        self.join()
        self._run = run
        if run is not None:
            self.state.begun[run] = len(self._said)
        begun = self.state.pending.pop(run, []) if run is not None else []
        for spoke, _ in begun:
            self._said += said_by(spoke)

    def settle(self) -> None:
        """Put the answers of the last reply's calls after it."""
        for call in self._calls:
            done = self._outcomes.get(call.id)
            if done is None:
                self._said.append(ToolSaid(call, NEVER_RAN, failed=True))
            else:
                self._said.append(ToolSaid(call, done.output, failed=done.outcome != "ok"))
        self._calls = ()
        self._outcomes.clear()

    def join(self) -> None:
        """Put in what was said to a run after its last reply."""
        self._said += [said for _, said in self._steers]
        self._steers = []
