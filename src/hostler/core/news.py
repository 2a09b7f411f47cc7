"""News of sessions: the port that tells those who watch what was written, and who else watches.

Invariant: nothing here is stored; whoever missed it reads the log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias

from msgspec import Struct

from hostler.core.events import AttemptId, Event, Key, PrincipalId, RunId, RunKey, Seq, SessionId
from hostler.core.ports import Delta


class Piece(Struct, kw_only=True):
    """Text of the attempt in flight.  Positions count characters since the attempt began."""

    session: SessionId
    run: RunId
    asked: Seq
    """Where the attempt was written: names it within its session."""
    attempt: AttemptId
    seq: Seq
    """The last fact before it."""
    start: int
    delta: Delta
    wire: bytes | None = None
    text: str | None = None
    """As in `Event`."""

    @property
    def end(self) -> int:
        return self.start + len(self.delta.text)


AtOnce: TypeAlias = Callable[[Sequence[Event | Piece]], bool]
"""Takes news as it comes, without waiting; False: it takes nothing of it, keep all for `next`."""


class Watch(Protocol):
    """One watcher's view of one session, from the moment it was made."""

    at_once: AtOnce | None
    """Offered what comes while somebody waits in `next`, who is not woken for what it takes."""

    def begin(self) -> Sequence[Piece]:
        """Return the text of the attempt in flight so far; `next` goes on from here."""
        ...

    async def next(self) -> Sequence[Event | Piece] | None:
        """Wait for something new and return all of it, in order.

        Empty: nothing came for the watch's `quiet_s`.  None: more came than is kept for one
        watcher; read the log, then `begin` again.
        """
        ...


class Present(Struct, frozen=True, kw_only=True):
    """One open stream of somebody who lets others see that they watch."""

    principal: PrincipalId
    since: float
    """Unix seconds."""
    typing: bool


class Presence(Struct, kw_only=True):
    """Who watches a session now, oldest first.  Immutable but for `wire` and `text`."""

    watching: tuple[Present, ...]
    wire: bytes | None = None
    text: str | None = None
    """As in `Event`."""


class Attendance(Protocol):
    """A seat among those who watch a session."""

    async def next(self) -> Presence:
        """Wait until something changed since the last time, and return how it is now."""
        ...


class Signals(Protocol):
    """News of a session.  Lossy by contract: what is lost costs latency, never a fact."""

    def publish(self, key: Key, events: Sequence[Event]) -> None:
        """Pass on what was committed, in order; stamps each event with its `offset`."""
        ...

    def delta(self, key: RunKey, asked: Seq, attempt: AttemptId, delta: Delta) -> None: ...
    def lost(self, key: Key) -> None:
        """Let all who watch the session read its log again: it may be gone."""
        ...

    def watch(self, key: Key, *, quiet_s: float) -> AbstractContextManager[Watch]: ...
    def on_cancel(self, key: RunKey, ring: Callable[[], None]) -> AbstractContextManager[None]:
        """Call `ring` for each `cancel_requested` of the run that is published from now on."""
        ...

    def attend(self, key: Key, who: PrincipalId) -> AbstractContextManager[Attendance]:
        """Count a stream of `who` among those who watch, until the context is left."""
        ...

    def typing(self, key: Key, who: PrincipalId) -> None:
        """Show for some seconds that `who`, if among those who watch, types."""
        ...

    def present(self, key: Key) -> Sequence[Present]: ...


class Nodes(Protocol):
    """The other nodes of a fleet.  Lossy by contract: a node that is told nothing looks for itself."""

    def tell(self, kind: str, *words: str) -> None:
        """Let every other node hear this, soon."""
        ...

    def on(self, kind: str, hear: Callable[[Sequence[str]], None]) -> None:
        """Call `hear` with the words of each of this kind that another node tells: any words."""
        ...


REVOKED, UNSHARED, MOVED = "revoked", "unshared", "moved"
"""Kinds of what nodes tell: a key's id, or what holders of a link are called; tenant, user, session;
tenant, session and run of what shall go on elsewhere."""


class Alone:
    """The `Nodes` of a server that is the only one."""

    def tell(self, kind: str, *words: str) -> None: ...
    def on(self, kind: str, hear: Callable[[Sequence[str]], None]) -> None: ...


ALONE: Nodes = Alone()
