"""A session's run, sent from the node that drives it to another one, because somebody asks for it.

Invariant: it is left between two steps, and nothing of it is done twice; where there is no other
node, it goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msgspec import Struct

from hostler.core.errors import Conflict
from hostler.core.events import Principal, RunId, RunKey, Seq, SessionId, TenantId
from hostler.core.news import MOVED, Nodes
from hostler.core.store import Store
from hostler.service.authorise import Access


class Moved(Struct, kw_only=True):
    """A run was asked to be left; the `run_claimed` past `seq` says who took it."""

    session: SessionId
    run: RunId
    seq: Seq


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    store: Store
    access: Access
    nodes: Nodes
    send_away: Callable[[RunKey], bool]
    """Leaves a run, if it is driven in this process; returns whether it is."""

    async def move(self, who: Principal, session: SessionId) -> Moved:
        """Have the session's run go on elsewhere, soon.

        Raises:
            NotFound, Forbidden: as `Access.key`; the caller may not decide about the session.
            Conflict: it has no run that is going (`not_running`).
        """
        key = await self.access.key(who, "admin", session)
        head = await self.store.head(key)
        if head.active is None:
            raise Conflict("no run of this session is going", code="not_running")
        run = RunKey(*key, head.active)
        if not self.send_away(run):
            self.nodes.tell(MOVED, *run)
        return Moved(session=session, run=head.active, seq=head.seq)

    def heard(self, words: Sequence[str]) -> None:
        """Take in that another node was asked: tenant, session and run."""
        if len(words) == 3:
            tenant, session, run = words
            self.send_away(RunKey(TenantId(tenant), SessionId(session), RunId(run)))
