"""What the core asks of whoever keeps the log.

The docstrings are the contract that stores are tested against (`hostler.testing.store_suite`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Protocol, TypeAlias

from hostler.core.events import (
    CallId,
    Event,
    Fact,
    Key,
    PrincipalId,
    RunId,
    Seq,
    SessionId,
    TenantId,
)
from hostler.core.head import Head
from hostler.core.ledger import ANY_RUN, Ledger, RunFilter
from hostler.core.ports import Job
from hostler.core.records import (
    Appended,
    Approval,
    Hit,
    Kept,
    Labels,
    Once,
    Recall,
    RunRow,
    Session,
    Share,
    Storage,
    Timer,
)

LARGEST_READ = 1024 * 1024
"""Bytes of facts: whoever reads a log holds a page of it, and some of them wait for their client."""
AHEAD_S = 30.0
"""How long before its time a scheduled message is rung for.  More than the reconciler's rhythm, so that
it is said in time, and little, so that no engine holds what is due next year."""


class Store(Protocol):
    """The log and the tables kept from it.  Every key carries its tenant.

    All methods raise NotFound for a session that is absent, Unavailable when the storage cannot
    serve now.  Cancelling a call does not tell whether it took effect.
    """

    async def create(
        self, session: Session, facts: Sequence[Fact] = (), *, once: Once | None = None
    ) -> bool:
        """Make a session that begins with `facts`; return False, and change nothing, if it exists.

        With `lineage`, its log begins with that history: its head starts there.

        Raises:
            Repeated: `once` was done before; nothing was written.
            Conflict: forks still read what a deleted session of this id had said.
            NotFound: what `lineage` names is gone.
        """
        ...

    async def restore(self, session: Session, events: Sequence[Event]) -> bool:
        """Make a session with a log written elsewhere, at the times that its events have.

        Return False, and change nothing, if the id is taken.

        Raises:
            Conflict: another session has one of the runs, or as `create`.
        """
        ...

    async def session(self, key: Key) -> Session: ...
    async def sessions(
        self,
        tenant: TenantId,
        *,
        agent: str | None,
        status: str | None,
        after: str,
        limit: int,
        seen_by: PrincipalId | None = None,
    ) -> Sequence[Session]:
        """Return sessions, newest first, past the id `after` ("" for the newest).

        `seen_by`, here and in other lists: only of sessions that they made or have a grant for.
        """
        ...

    async def relabel(self, key: Key, labels: Labels) -> Session:
        """Set the labels that are named, and leave the others as they are at this moment."""
        ...

    async def delete(self, key: Key, *, idle_since: float | None = None) -> Sequence[SessionId]:
        """Remove the session with all that is kept of it.  Absent ones are fine.

        Of its log, what forks of it have read stays, for them alone, as long as there is one.
        With `idle_since`, nothing is done if a run is active, or it was touched then or later.

        Return the sessions of which nothing is left: this one if no fork reads it, and those
        deleted before that it alone had read.
        """
        ...

    async def tidy(self) -> None:
        """Remove kept answers and links that are good no more."""
        ...

    async def count(self, tenant: TenantId, *, active: bool = False) -> int:
        """Return how many sessions the tenant has; only those that are queued or running."""
        ...

    async def forgettable(
        self,
        *,
        before: float,
        keep: int,
        limit: int,
        of: TenantId | None = None,
        but: Collection[TenantId] = (),
    ) -> Sequence[Key]:
        """Return idle sessions, oldest first, of every tenant: not touched since `before`, or not
        among the `keep` that their tenant touched last.  Of one tenant, or of all `but` some.
        """
        ...

    async def storage(
        self, tenant: TenantId, *, limit: int, seen_by: PrincipalId | None = None
    ) -> Storage:
        """Return what the tenant's sessions take, and the `limit` largest of them."""
        ...

    async def append(
        self,
        key: Key,
        facts: Sequence[Fact],
        *,
        fence: int | None = None,
        expected: Seq | None = None,
        once: Once | None = None,
    ) -> Appended:
        """Write `facts` atomically and durably, in order, with head, runs and search index.

        Then, in commit order and before this returns, tell the observer (`Observer`); a run that
        became active is handed to the outbox.  Without `fence` anybody may write.  One refused
        append never fails others that share its commit.

        Raises:
            Fenced: `fence` is not the session's; nothing was written.
            Moved: the head is past `expected`; nothing was written.
            Repeated: `once` was done before; nothing was written.
        """
        ...

    async def kept(self, tenant: TenantId, scope: str) -> Kept | None:
        """Return the answer that was kept for a `Once` of the last 24 hours."""
        ...

    async def head(self, key: Key) -> Head: ...
    async def read(self, key: Key, *, after: Seq, limit: int) -> Sequence[Event]:
        """Return up to `limit` events past `after`, in order, at least one of those there are.

        They end with the one with which they have `LARGEST_READ` bytes, if they have so many.
        """
        ...

    async def recall(self, key: Key) -> Recall:
        """Return all that a worker needs to know, in one consistent read.

        `past`: the facts before `head.base` whose kind is in `codec.SPOKEN`, for `remember`;
        `events`: all from `head.base` on, for `fold`.  Their `raw` may be empty.
        """
        ...

    async def unfinished(self) -> Sequence[Job]:
        """Return a job for every active run of every tenant that can go on now: what is to be rung for.

        Not those that wait for somebody outside, before the first of their waits expires.
        And every message whose time comes within `AHEAD_S`, its input in the place of a run.
        """
        ...

    async def scheduled(self, key: Key) -> Sequence[Timer]:
        """Return the messages that are still to be said, the next one first; of nothing, none."""
        ...

    @property
    def ledger(self) -> Ledger:
        """The rows of runs, model calls and tool calls."""
        ...

    async def run(self, tenant: TenantId, run: RunId) -> RunRow: ...
    async def runs(
        self,
        tenant: TenantId,
        *,
        session: str | None,
        status: str | None,
        after: str,
        limit: int,
        only: RunFilter = ANY_RUN,
    ) -> Sequence[RunRow]:
        """Return runs, newest first, past the id `after` ("" for the newest)."""
        ...

    async def approval(self, tenant: TenantId, session: SessionId, call: CallId) -> Approval: ...
    async def approvals(
        self,
        tenant: TenantId,
        *,
        session: str | None,
        status: str | None,
        after: str,
        limit: int,
        seen_by: PrincipalId | None = None,
    ) -> Sequence[Approval]:
        """Return approvals, oldest first, past the call `after` ("" for the oldest)."""
        ...

    async def share(self, share: Share) -> None:
        """Keep a link.  Raises NotFound for an absent session."""
        ...

    async def shares(self, key: Key) -> Sequence[Share]: ...
    async def unshare(self, key: Key, share: str) -> None:
        """Remove a link.  Absent ones are fine."""
        ...

    async def shared(self, digest: str) -> Share | None:
        """Return the link with this digest, of whatever tenant, unless it has expired."""
        ...

    async def search(
        self, tenant: TenantId, query: str, *, limit: int, seen_by: PrincipalId | None = None
    ) -> Sequence[Hit]:
        """Return the newest places where all the words were said, by users or models."""
        ...


Observer: TypeAlias = Callable[[Key, Sequence[Event]], None]
"""Told of each append, after its commit, on the event loop; must not block or raise."""
Outbox: TypeAlias = Callable[[Job], Awaitable[None]]
"""Asked to see that the run is driven; losing it costs time, not the run (the reconciler)."""
