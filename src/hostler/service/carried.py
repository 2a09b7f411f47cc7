"""Conversations that clients carry: they send all of it each time, and agents answer.

    fresh           a session is made; what was said before is its first message's history
    with results    of calls that wait in a run: that run goes on, in its session
    sent again      the same results, or the same idempotency key: joins the run that goes on

A run whose client goes away is cancelled, unless that client finds it again by sending the same
again: then it goes on to where its client has to act.

Invariant: results are taken once; what cannot go on where it was is asked anew, with its history.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, replace
from typing import NamedTuple

import anyio
import msgspec

from hostler.core.errors import Conflict, Forbidden, HostlerError, Invalid, NotFound, Repeated
from hostler.core.events import Key, Principal, RunId, SessionId
from hostler.core.ports import AgentSpec, Reply
from hostler.core.said import UserSaid
from hostler.service.authorise import authorise
from hostler.service.call_ids import named, renamed
from hostler.service.conversation import Conversation, Results, results_of
from hostler.service.cursor import Cursor
from hostler.service.direct import LONGEST_TOLD, MOST_TOLD
from hostler.service.follow import Seat, end_of
from hostler.service.inbox import Message, Receipt
from hostler.service.leg import Leg, Told
from hostler.service.once import Answering, Asked
from hostler.service.opening import Opening
from hostler.service.resuming import Resuming
from hostler.service.sessions import Sessions

log = logging.getLogger(__name__)

GONE = "client went away"
"""Why a run was cancelled."""
_receipt = msgspec.json.Decoder(Receipt).decode
_encode = msgspec.json.encode


class _Begun(NamedTuple):
    session: SessionId
    run: RunId
    after: Cursor
    seat: Seat
    is_new: bool
    """The seat was taken before anything past the cursor."""
    is_found: bool
    """Whoever sends the same again finds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    opening: Opening
    resuming: Resuming

    @property
    def sessions(self) -> Sessions:
        return self.opening.sessions

    def find(self, who: Principal, name: str) -> AgentSpec:
        """Return an agent by its name.  Raises NotFound (`model_not_found`); says what there is."""
        authorise(who, "read", None)
        agents = self.sessions.agents
        found = None if ":" in name else agents.get(name)
        if found is None:
            there = ", ".join(f"agent:{one}" for one in [*agents][:MOST_TOLD])
            more = ", …" if len(agents) > MOST_TOLD else ""
            told = f"there is no agent {name[:LONGEST_TOLD]}; there is {there}{more}"
            raise NotFound(told, code="model_not_found")
        return found

    async def ask(
        self,
        who: Principal,
        conversation: Conversation,
        *,
        streamed: bool,
        does: bool = False,
        asked: Asked | None = None,
    ) -> AsyncGenerator[Told, None]:
        """Yield what an agent says and does; the `Reply` or `Failure` comes last.

        The reply has the calls that wait for the client; other calls are told where `does`.  All
        begins when the first part is asked for.  Close this (`aclosing`): whoever closes it before
        its end goes away.  `asked`: the request's idempotency key.

        Raises:
            Invalid, TooLarge: it cannot be said so, or `asked` was used otherwise (`key_reused`).
            TooMany, Conflict, Unavailable: as `Opening.open`.
            NotFound: the session was deleted meanwhile.
        """
        authorise(who, "write", None)
        with ExitStack() as stack:
            begun: _Begun | None = None
            with anyio.CancelScope(shield=True):  # or nobody would know what is to be cancelled
                begun = await self._begin(who, conversation, asked, stack)
            assert begun is not None
            leg = Leg(begun.run, streamed=streamed, does=does)
            try:
                await anyio.lowlevel.checkpoint_if_cancelled()
                batches = self.sessions.following.follow_on(
                    begun.seat, after=begun.after, ends=end_of(begun.run), current=begun.is_new
                )
                async with aclosing(batches):
                    async for batch in batches:
                        for item in batch:
                            for told in leg.take(item):
                                yield named(begun.run, told) if isinstance(told, Reply) else told
                            if leg.is_over:
                                return
            finally:
                if not (leg.is_over or begun.is_found):
                    with anyio.CancelScope(shield=True):
                        await self._cancel(who, begun)

    async def _begin(
        self, who: Principal, conversation: Conversation, asked: Asked | None, stack: ExitStack
    ) -> _Begun:
        said, runs = renamed(conversation.said)
        conversation = replace(conversation, said=said)
        results, begun = results_of(said, runs), None
        if results is not None:
            begun = await self._go_on(who, conversation, results, stack)
        return begun or await self._afresh(who, conversation, asked, stack)

    # -- a run that waits --------------------------------------------------------------------

    async def _go_on(
        self, who: Principal, conversation: Conversation, results: Results, stack: ExitStack
    ) -> _Begun | None:
        """Give a run its results, or find where they were given; None if it takes none of these."""
        session = await self._whose(who, conversation, results.run)
        if session is None:
            return None
        once = Asked.by(who, f"results {results.run}", min(results.answers), _encode(results[1:]))
        try:
            kept = await once.answered(self.sessions.store, who)
        except Invalid:  # other results were given before
            return None
        if kept is None:
            seat = stack.enter_context(await self.sessions.following.watch(who, session))
            try:
                return await self._resume(who, conversation, results, seat, once)
            except Repeated:  # since we looked
                kept = await once.answered(self.sessions.store, who)
            except (Conflict, NotFound):  # somebody else was first
                return None
        return None if kept is None else await self._join(who, _receipt(kept), stack)

    async def _whose(
        self, who: Principal, conversation: Conversation, run: RunId
    ) -> SessionId | None:
        """Return the session of a run, if it is there for `who`, and its agent is the one asked."""
        try:
            row = await self.sessions.store.run(who.tenant, run)
            await self.sessions.access.key(who, "write", row.session)
        except (NotFound, Forbidden):
            return None
        return row.session if row.agent == conversation.agent else None

    async def _resume(
        self,
        who: Principal,
        conversation: Conversation,
        results: Results,
        seat: Seat,
        once: Asked,
    ) -> _Begun | None:
        head = await self.sessions.store.head(seat.key)
        waiting = {one.call for one in head.waits if one.kind == "client_tool"}
        # What somebody else has answered meanwhile is passed over: the first answer holds.
        answers = {call: one for call, one in results.answers.items() if call in waiting}
        if head.active != results.run or not waiting or len(answers) < len(waiting):
            return None
        message = Message(
            content=results.content,
            policy="steer",
            metadata={},
            client_tools=conversation.client_tools,
            terms=conversation.terms,
        )
        session, answering = seat.key.session, Answering(once, _encode)
        receipt = await self.resuming.resume(
            who, session, results.run, message, answers, answering=answering
        )
        return _Begun(session, receipt.run, Cursor(receipt.seq), seat, is_new=True, is_found=True)

    # -- a new one ---------------------------------------------------------------------------

    async def _afresh(
        self, who: Principal, conversation: Conversation, asked: Asked | None, stack: ExitStack
    ) -> _Begun:
        store = self.sessions.store
        kept = None if asked is None else await asked.answered(store, who)
        if kept is not None:
            return await self._join(who, _receipt(kept), stack)
        session = self.sessions.new(
            who,
            conversation.agent,
            metadata=conversation.label,
            client_tools=conversation.client_tools,
        )
        said, content = conversation.said, ""
        if said and isinstance(last := said[-1], UserSaid):
            said, content = said[:-1], last.content
        message = Message(
            content=content,
            policy="queue",
            metadata={},
            history=said,
            terms=conversation.terms,
        )
        seat = stack.enter_context(self.sessions.following.seat(Key(session.tenant, session.id)))
        answering = None if asked is None else Answering(asked, _encode)
        try:
            receipt = await self.opening.open(who, session, message, answering=answering)
        except Repeated:  # since we looked
            assert asked is not None
            kept = await asked.answered(store, who)
            assert kept is not None
            return await self._join(who, _receipt(kept), stack)
        is_found, after = asked is not None, Cursor(receipt.seq)
        return _Begun(session.id, receipt.run, after, seat, is_new=True, is_found=is_found)

    async def _join(self, who: Principal, receipt: Receipt, stack: ExitStack) -> _Begun:
        watch = await self.sessions.following.watch(who, receipt.session)
        seat, after = stack.enter_context(watch), Cursor(receipt.seq)
        return _Begun(receipt.session, receipt.run, after, seat, is_new=False, is_found=True)

    async def _cancel(self, who: Principal, begun: _Begun) -> None:
        try:
            await self.sessions.inbox.cancel(who, begun.session, GONE, run=begun.run)
        except HostlerError as error:  # it goes on, and nobody is there to be told
            log.warning("the run %s cannot be cancelled: %s", begun.run, error)
