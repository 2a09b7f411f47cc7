"""Conversations that are changed with no message: things are put in, and taken out.

Nobody answers what is put in; it is read with what is said next.

Invariant: it is done where no run is going, on the conversation as it is, in one write; each call
has its result after it, before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hostler.core.errors import Conflict
from hostler.core.events import (
    ConversationEdited,
    Event,
    Fact,
    JsonObject,
    Principal,
    SessionId,
)
from hostler.core.head import Head
from hostler.core.records import Appended, Session
from hostler.core.said import Said
from hostler.service.authorise import authorise
from hostler.service.by_head import by_head
from hostler.service.limits import check_metadata
from hostler.service.log import pages_of
from hostler.service.once import Answering, once_of
from hostler.service.sessions import Sessions
from hostler.service.turns import check_history
from hostler.service.whence import Cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Editing:
    sessions: Sessions

    async def begin(
        self,
        who: Principal,
        session: Session,
        said: Sequence[Said],
        metadata: JsonObject,
        *,
        answering: Answering[Session] | None = None,
    ) -> Session:
        """Make a session (`Sessions.new`) in which this was said.

        Raises:
            Conflict: there are as many as there may be (`too_many_sessions`).
            Invalid, TooLarge: no model can be shown this.
        """
        authorise(who, "write", None)
        of, fact = self.sessions, _put(who, said, metadata)
        once = once_of(answering, lambda _: session)
        with of.inbox.admission.entering():
            async with of.room.one(who.tenant):
                await of.store.create(session, [fact], once=once)
        return session

    async def put(
        self,
        who: Principal,
        session: SessionId,
        said: Sequence[Said],
        metadata: JsonObject,
        *,
        answering: Answering[Event] | None = None,
    ) -> Event:
        """Put things at the end of a conversation; return the fact.

        Raises:
            NotFound: no such session.
            Conflict: a run is going (`busy`).
            Invalid, TooLarge: no model can be shown this.
        """
        of, key = self.sessions, await self.sessions.access.key(who, "write", session)
        fact = _put(who, said, metadata)

        async def facts(head: Head) -> list[Fact]:
            _at_rest(head)
            return [fact]

        once = once_of(answering, _only)
        with of.inbox.admission.entering():
            return _only(await by_head(of.store, key, facts, once=once))

    async def take_out(
        self,
        who: Principal,
        session: SessionId,
        cut: Callable[[Sequence[Event]], tuple[Cut | None, JsonObject]],
    ) -> None:
        """Change a conversation as `cut` says to its whole log; with no `Cut`, note it alone.

        Raises:
            NotFound: no such session, or as `cut` raises it.
            Conflict: a run is going (`busy`).
        """
        of, key = self.sessions, await self.sessions.access.key(who, "write", session)

        async def facts(head: Head) -> list[Fact]:
            _at_rest(head)
            log = [event async for page in pages_of(of.store, key) for event in page]
            found, metadata = cut(log)
            place, taken, said = found or Cut(0, 0)
            return [
                ConversationEdited(
                    run=None,
                    principal=who.id,
                    said=said,
                    place=place,
                    taken=taken,
                    metadata=metadata,
                )
            ]

        with of.inbox.admission.entering():
            await by_head(of.store, key, facts)


def _put(who: Principal, said: Sequence[Said], metadata: JsonObject) -> ConversationEdited:
    check_history(said)
    check_metadata(metadata)
    return ConversationEdited(run=None, principal=who.id, said=tuple(said), metadata=metadata)


def _at_rest(head: Head) -> None:
    if head.active is not None:
        raise Conflict("a run is going: stop it, or wait for its end", code="busy")


def _only(done: Appended) -> Event:
    (event,) = done.events
    return event
