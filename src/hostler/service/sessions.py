"""Sessions: made, listed, labelled, deleted.

Invariant: the labels of a session are not facts; what happened in it is in its log alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import anyio
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from hostler.core.audited import leading_up
from hostler.core.errors import Conflict, Invalid, NotFound
from hostler.core.events import (
    START,
    ClientTool,
    JsonObject,
    Key,
    Policy,
    Principal,
    Seq,
    SessionForked,
    SessionId,
)
from hostler.core.head import Head
from hostler.core.ports import AgentSpec, World
from hostler.core.records import Hit, Labels, Segment, Session, Storage
from hostler.core.sealed import Secrets, masked
from hostler.core.state import State, fold
from hostler.core.store import Store
from hostler.service.authorise import Access, authorise, seen_by
from hostler.service.cursor import Cursor
from hostler.service.follow import Following, end_of
from hostler.service.inbox import Inbox
from hostler.service.limits import check_labels
from hostler.service.log import pages_of
from hostler.service.once import Answering, once_of
from hostler.service.retention import Forgetting
from hostler.service.room import Room
from hostler.service.tenants import Tenants
from hostler.service.turns import check_tools

ID = re.compile(r"ses_[A-Za-z0-9_-]{8,64}", re.ASCII)
DEFAULT_POLICY: Policy = "queue"
DELETE_WAIT_S = 5.0
"""How long a delete waits for the run it cancelled; then the log goes, and the run with it."""


def _made_with(session: Session) -> object:
    return session.agent, session.title, session.metadata, session.client_tools


def _lineage(parent: Session, at: Seq) -> tuple[Segment, ...]:
    """Return whose history a fork of `parent` at `at` begins with."""
    segments, start = list[Segment](), START
    for segment in (*parent.lineage, Segment(parent.id, at)):
        upto = Seq(min(segment.upto, at))
        if upto > start:
            segments.append(Segment(segment.session, upto))
            start = upto
    return tuple(segments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    store: Store
    inbox: Inbox
    following: Following
    agents: Mapping[str, AgentSpec]
    default_agent: str
    world: World
    forgetting: Forgetting
    room: Room
    tenants: Tenants
    access: Access
    secrets: Secrets | None = None

    async def create(
        self,
        who: Principal,
        *,
        agent: str | None = None,
        title: str | None = None,
        metadata: JsonObject | None = None,
        id: str | None = None,  # noqa: A002  the API's name for it
        client_tools: Sequence[ClientTool] = (),
        answering: Answering[Session] | None = None,
        finding: Answering[Session] | None = None,
    ) -> tuple[Session, bool]:
        """Make a session; return it, and whether it is new; `finding` keeps the answer if not.

        Raises:
            Invalid: no such agent, an `id` of another form, or over a limit.
            Conflict: the `id` is taken by a session made otherwise (`exists`), or there are as many
                as there may be (`too_many_sessions`).
        """
        authorise(who, "write", None)
        if id is not None and not ID.fullmatch(id):
            raise Invalid("the id has another form", fields=[("/id", f"a match of ^{ID.pattern}$")])
        agent = agent or await self.agent_for(who)
        session = self.new(
            who, agent, id=id, title=title, metadata=metadata, client_tools=client_tools
        )
        if id is None or not await self._is_there(session):
            async with self.room.one(who.tenant):
                if await self.store.create(session, once=once_of(answering, lambda _: session)):
                    return session, True
        return await self._found(who, session, finding), False

    def new(
        self,
        who: Principal,
        agent: str,
        *,
        id: str | None = None,  # noqa: A002  the API's name for it
        title: str | None = None,
        metadata: JsonObject | None = None,
        client_tools: Sequence[ClientTool] = (),
    ) -> Session:
        """Return a session that can be made, and is not yet.  Raises Invalid, as `create`."""
        if agent not in self.agents:
            raise Invalid(
                f"there is no agent named {agent!r}; there are: {', '.join(sorted(self.agents))}",
                fields=[("/agent", "the name of an agent that is served here")],
            )
        check_labels(title, metadata)
        check_tools(self.agents[agent], client_tools)
        session = self._new(who, agent, id=id, title=title, metadata=metadata)
        session.client_tools = tuple(client_tools)
        return masked(self.secrets, who.tenant, session)

    async def _is_there(self, session: Session) -> bool:
        try:
            await self.store.head(Key(session.tenant, session.id))
        except NotFound:
            return False
        return True

    async def _found(
        self, who: Principal, wanted: Session, finding: Answering[Session] | None
    ) -> Session:
        """Return the session that has the id, if it is the one that is wanted.  Raises Conflict."""
        key, there = Key(who.tenant, wanted.id), None
        if await self.access.sees(who, wanted.id):
            there = await self.store.session(key)
        if there is None or _made_with(there) != _made_with(wanted):
            raise Conflict(f"{wanted.id} exists, and was made otherwise", code="exists")
        if finding is not None:
            await self.store.append(key, [], once=finding.once(lambda _: there))
        return there

    async def fork(
        self,
        who: Principal,
        session: SessionId,
        *,
        at: int | None = None,
        title: str | None = None,
        answering: Answering[Session] | None = None,
    ) -> Session:
        """Make a session that begins with what this one said up to `at`, a closed step.

        Without `at`, the last one there is.

        Raises:
            NotFound: no such session.
            Conflict: calls or a model's reply are open at `at` (`open_step`).
            Invalid: `at` is not in the log.
        """
        key = await self.access.key(who, "read", session)
        authorise(who, "write", None)
        check_labels(title, None)
        parent = await self.store.session(key)
        if at is not None and not 0 <= at <= parent.head.seq:
            wanted = f"a position from 0 to {parent.head.seq}"
            raise Invalid(f"there is no event {at}", fields=[("/at", wanted)])
        end = await self._closed(key, Seq(parent.head.seq if at is None else at))
        if at is not None and end != at:
            raise Conflict(
                f"a step is open at {at}; the last closed one is {end}", code="open_step"
            )
        fork = self._new(who, parent.agent, title=title or parent.title, metadata=parent.metadata)
        fork.client_tools = parent.client_tools
        fork = masked(self.secrets, who.tenant, fork)
        fork.lineage = _lineage(parent, end)
        fork.head = Head(seq=end, base=Seq(end + 1))
        forked = SessionForked(run=None, origin=session, at=end, principal=who.id)
        shown = replace(fork, head=replace(fork.head, seq=Seq(end + 1)))
        async with self.room.one(who.tenant):
            await self.store.create(fork, [forked], once=once_of(answering, lambda _: shown))
        return shown

    async def _closed(self, key: Key, upto: Seq) -> Seq:
        """Return the last position up to `upto` at which nothing is open."""
        state, closed = State(), START
        async for events in pages_of(self.store, key, upto=upto):
            for event in events:
                fold(state, [event])
                if state.run is None or not (state.run.asked or state.run.asking):
                    closed = event.seq
        return closed

    def _new(
        self,
        who: Principal,
        agent: str,
        *,
        id: str | None = None,  # noqa: A002  the API's name for it
        title: str | None,
        metadata: JsonObject | None,
    ) -> Session:
        now = self.world.clock()
        return Session(
            tenant=who.tenant,
            id=SessionId(id or self.world.mint("ses")),
            agent=agent,
            principal=who.id,
            created_at=now,
            updated_at=now,
            title=title,
            metadata=metadata or {},
        )

    async def get(self, who: Principal, session: SessionId) -> Session:
        """Return a session.  Raises NotFound."""
        return await self.store.session(await self.access.key(who, "read", session))

    async def policy(self, who: Principal, session: SessionId) -> Policy:
        """Return what the session's agent says about messages that bring no policy."""
        await self.access.key(who, "write", session)
        if all(agent.policy == DEFAULT_POLICY for agent in self.agents.values()):
            return DEFAULT_POLICY
        there = await self.store.session(Key(who.tenant, session))
        agent = self.agents.get(there.agent)
        return agent.policy if agent is not None else DEFAULT_POLICY

    async def list(
        self, who: Principal, *, agent: str | None, status: str | None, after: str, limit: int
    ) -> Sequence[Session]:
        """Return sessions, newest first, past the id `after`."""
        authorise(who, "read", None)
        by = seen_by(who)
        if by is not None and after and not await self.access.sees(who, SessionId(after)):
            return []  # as past an absent one: its place in the list would tell of it
        return await self.store.sessions(
            who.tenant, agent=agent, status=status, after=after, limit=limit, seen_by=by
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
        key = await self.access.key(who, "write", session)
        check_labels(title, None if metadata is UNSET else metadata)
        labels = masked(self.secrets, who.tenant, Labels(title=title, metadata=metadata))
        return await self.store.relabel(key, labels)

    async def delete(self, who: Principal, session: SessionId) -> None:
        """Cancel what is going, then remove the session and its log.  Raises NotFound."""
        key = await self.access.key(who, "admin", session)
        head = await self.store.head(key)
        who = replace(who, scopes=None)  # who may delete it may stop and see it end
        if head.active is not None:
            for run in (*head.queue, head.active):
                with leading_up():
                    await self.inbox.cancel(who, session, "deleted", run=run)
            with anyio.move_on_after(DELETE_WAIT_S):
                after, ends = Cursor(head.seq), end_of(head.active)
                async for _ in self.following.follow(who, session, after=after, ends=ends):
                    pass
        await self.forgetting.forget(key)

    async def storage(self, who: Principal, *, limit: int) -> Storage:
        """Return what the tenant's sessions take, and the `limit` largest of them."""
        authorise(who, "read", None)
        found = await self.store.storage(who.tenant, limit=limit, seen_by=seen_by(who))
        if not who.is_operator:
            found.database_bytes = 0  # of all tenants
        return found

    async def search(self, who: Principal, query: str, *, limit: int) -> Sequence[Hit]:
        """Return the newest places where all the words of `query` were said."""
        authorise(who, "read", None)
        return await self.store.search(who.tenant, query, limit=limit, seen_by=seen_by(who))

    async def agent_for(self, who: Principal) -> str:
        """Return the agent of sessions that name none."""
        settings = await self.tenants.settings_of(who.tenant)
        chosen = settings.default_agent
        return chosen if chosen is not None and chosen in self.agents else self.default_agent
