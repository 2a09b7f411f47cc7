"""Sessions: made, listed, labelled, deleted.

Invariant: the labels of a session are not facts; what happened in it is in its log alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import anyio
from msgspec import UNSET, UnsetType

from hostler.core.errors import Conflict, Invalid
from hostler.core.events import JsonObject, Key, Policy, Principal, SessionId
from hostler.core.ports import AgentSpec, Hit, Session, Store, World
from hostler.service.cursor import Cursor
from hostler.service.follow import Following, any_end
from hostler.service.inbox import Inbox

ID = re.compile(r"ses_[A-Za-z0-9_-]{8,64}", re.ASCII)
DEFAULT_POLICY: Policy = "queue"
DELETE_WAIT_S = 5.0
"""How long a delete waits for the run it cancelled; then the log goes, and the run with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    store: Store
    inbox: Inbox
    following: Following
    agents: Mapping[str, AgentSpec]
    default_agent: str
    world: World

    async def create(
        self,
        who: Principal,
        *,
        agent: str | None = None,
        title: str | None = None,
        metadata: JsonObject | None = None,
        id: str | None = None,  # noqa: A002  the API's name for it
    ) -> tuple[Session, bool]:
        """Make a session; return it, and whether it is new.

        Raises:
            Invalid: no such agent, or an `id` of another form.
            Conflict: the `id` is taken by a session made otherwise (`exists`).
        """
        agent = agent or self.default_agent
        if agent not in self.agents:
            raise Invalid(
                f"there is no agent named {agent!r}; there are: {', '.join(sorted(self.agents))}",
                fields=[("/agent", "the name of an agent that is served here")],
            )
        if id is not None and not ID.fullmatch(id):
            raise Invalid("the id has another form", fields=[("/id", f"a match of ^{ID.pattern}$")])
        now = self.world.clock()
        session = Session(
            tenant=who.tenant,
            id=SessionId(id or self.world.mint("ses")),
            agent=agent,
            principal=who.id,
            created_at=now,
            updated_at=now,
            title=title,
            metadata=metadata or {},
        )
        if await self.store.create(session):
            return session, True
        there = await self.store.session(Key(who.tenant, session.id))
        same = (there.agent, there.title, there.metadata) == (agent, title, session.metadata)
        if not same:
            raise Conflict(f"{session.id} exists, and was made otherwise", code="exists")
        return there, False

    async def get(self, who: Principal, session: SessionId) -> Session:
        """Return a session.  Raises NotFound."""
        return await self.store.session(Key(who.tenant, session))

    async def policy(self, who: Principal, session: SessionId) -> Policy:
        """Return what the session's agent says about messages that bring no policy."""
        if all(agent.policy == DEFAULT_POLICY for agent in self.agents.values()):
            return DEFAULT_POLICY
        agent = self.agents.get((await self.get(who, session)).agent)
        return agent.policy if agent is not None else DEFAULT_POLICY

    async def list(
        self, who: Principal, *, agent: str | None, status: str | None, after: str, limit: int
    ) -> Sequence[Session]:
        """Return sessions, newest first, past the id `after`."""
        return await self.store.sessions(
            who.tenant, agent=agent, status=status, after=after, limit=limit
        )

    async def relabel(
        self,
        who: Principal,
        session: SessionId,
        *,
        title: str | UnsetType | None = UNSET,
        metadata: JsonObject | UnsetType = UNSET,
    ) -> Session:
        """Set the title, the metadata (as a whole) or both.  Raises NotFound."""
        there = await self.get(who, session)
        return await self.store.relabel(
            Key(who.tenant, session),
            title=there.title if title is UNSET else title,
            metadata=there.metadata if metadata is UNSET else metadata,
        )

    async def delete(self, who: Principal, session: SessionId) -> None:
        """Cancel what is going, then remove the session and its log.  Raises NotFound."""
        key = Key(who.tenant, session)
        head = await self.store.head(key)
        if head.active is not None:
            await self.inbox.cancel(who, session, "deleted")
            with anyio.move_on_after(DELETE_WAIT_S):
                after = Cursor(head.seq)
                async for _ in self.following.follow(key, after=after, ends=any_end):
                    pass
        await self.store.delete(key)

    async def search(self, who: Principal, query: str, *, limit: int) -> Sequence[Hit]:
        """Return the newest places where all the words of `query` were said."""
        return await self.store.search(who.tenant, query, limit=limit)
