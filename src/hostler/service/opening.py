"""Sessions that begin with a message: both are one write.

Invariant: what is refused leaves no session behind.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace

from msgspec import structs

from hostler.core.events import START, Key, Principal, Seq, UserSpoke
from hostler.core.records import Session
from hostler.service.authorise import authorise
from hostler.service.cursor import Cursor
from hostler.service.inbox import Message, Receipt
from hostler.service.once import Answering, once_of
from hostler.service.sessions import Sessions


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    sessions: Sessions

    async def open(
        self,
        who: Principal,
        session: Session,
        message: Message,
        *,
        answering: Answering[Receipt] | None = None,
    ) -> Receipt:
        """Make a session (`Sessions.new`) in which this is said, and see that a run answers it.

        Tools that the message brings are those of the session.

        Raises:
            Conflict: there are as many as there may be (`too_many_sessions`).
            Invalid, TooLarge, TooMany: as `Inbox.speak`.
        """
        authorise(who, "write", None)
        of, inbox, key = self.sessions, self.sessions.inbox, Key(session.tenant, session.id)
        tools = None if message.client_tools is None else session.client_tools
        spoke = await inbox.spoken(who, key, replace(message, client_tools=None))
        spoke = structs.replace(spoke, client_tools=tools)
        made = _receipt(key, spoke)
        once = once_of(answering, lambda _: made)
        running = inbox.running
        running = nullcontext() if running is None else running.one(key, is_new=True)
        with inbox.admission.entering():
            async with running, of.room.one(who.tenant):
                await of.store.create(session, [spoke], once=once)
        return made


def _receipt(key: Key, spoke: UserSpoke) -> Receipt:
    assert spoke.run is not None
    first = Cursor(Seq(START + 1))
    return Receipt(
        input=spoke.input,
        session=key.session,
        run=spoke.run,
        seq=first.seq,
        cursor=str(first),
        position=0,
        policy=spoke.policy,
    )
