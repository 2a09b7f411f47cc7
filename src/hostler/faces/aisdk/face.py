"""The routes of a chat: say something or answer, watch, stop.

Invariant: translation only; what is said, answered and cancelled goes through the verbs of the
service, and what a client may do to a session is what it may do anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, cast

import msgspec
from msgspec import structs
from starlette.types import ASGIApp

from hostler.core.errors import Conflict, Invalid, NotFound, Repeated, SetupError
from hostler.core.events import Event, Principal, RunId, Seq, SessionId
from hostler.core.ports import mint
from hostler.core.records import Session
from hostler.faces.aisdk import bodies
from hostler.faces.aisdk.bodies import (
    Answered,
    NewChat,
    UiFrame,
    UiMessage,
    message_of,
    run_of,
    session_of,
)
from hostler.faces.aisdk.chunks import Chunks
from hostler.faces.aisdk.finding import answer_to, labelled, taken_back_by
from hostler.faces.aisdk.stream import ChatStream
from hostler.faces.http.answers import Answer, naming, tell
from hostler.faces.http.endpoint import REPLAYED, Call, Operation
from hostler.faces.http.open_streams import OpenStreams
from hostler.service.cursor import Cursor
from hostler.service.follow import end_of
from hostler.service.inbox import Cancelled, Message, Receipt
from hostler.service.limits import check_depth
from hostler.service.once import Answering, Asked
from hostler.service.service import Service
from hostler.service.waits import Decision

AGENT = "hostler-agent"
"""The header that names the agent of a new chat."""
_receipts = msgspec.json.Decoder(Receipt)
_encode = msgspec.json.encode


class _Tools(NamedTuple):
    """Of a session: which tools its clients run, and which of these they brought themselves."""

    theirs: frozenset[str]
    named: frozenset[str]


@dataclass(frozen=True, slots=True)
class Chats:
    """The handlers, on one service and its open streams."""

    service: Service
    streams: OpenStreams

    async def say(self, call: Call) -> ASGIApp:
        """Take what is said, or what is answered, and stream what comes of it."""
        body, who = cast("NewChat", call.body), call.who
        said = bodies.said(body)
        if said is None and body.id is None:
            raise _nothing()
        chat = mint("ses") if body.id is None else body.id
        session = await self._session(call, chat, body, said)
        await self.streams.check(who, self.service.tenants)
        settled = await self._answer(call, session, body)
        if said is not None:
            return await self._speak(call, session, body, said)
        newest = body.all[-1] if body.all else None
        run = None if newest is None else run_of(newest.id)
        if run is None or run == session.head.active:
            run = None if newest is None else session.head.active
        if run is None:
            raise _nothing()
        return await self._rest(call, session, run, body, settled)

    async def watch(self, call: Call) -> ASGIApp:
        """Stream the whole message of the run that is going; 204 when none is."""
        chat = call.path["session"]
        try:
            session = await self.service.sessions.get(call.who, session_of(call.who, chat))
        except NotFound:
            if session_of(call.who, chat) == chat:
                raise
            return Answer(204)  # a chat in which nothing was said yet
        head = session.head
        if head.active is None or head.cancelled:
            return Answer(204)
        await self.streams.check(call.who, self.service.tenants)
        theirs, named = self._tools(session)
        agent = await self._agent(call.who, session, head.active)
        chunks = Chunks(head.active, session.id, agent, theirs=theirs, named=named)
        return self._follow(call, session, chunks, after=head.base, settled=head.seq)

    async def stop(self, call: Call) -> ASGIApp:
        """Cancel the run that is going; whoever watches is told."""
        session = session_of(call.who, call.path["session"])
        return Answer(202, await self.service.inbox.cancel(call.who, session, "stopped"))

    # -- the session -------------------------------------------------------------------------

    async def _session(
        self, call: Call, chat: str, body: NewChat, said: UiMessage | None
    ) -> Session:
        """Return the chat's session, which is made when something is said for the first time.

        Raises:
            Conflict: it has another agent than the one that is wanted.
            NotFound: there is none, and nothing is said.
        """
        service, who, name = self.service, call.who, session_of(call.who, chat)
        agent = body.agent or call.headers.get(AGENT)
        try:
            await service.access.key(who, "write", name)
            session = await service.sessions.get(who, name)
        except NotFound:
            if said is None:
                raise
            session = await self._create(who, name, chat, body, agent)
        if agent is not None and agent != session.agent:
            told = f"this chat is with {session.agent}, not with {agent}"
            raise Conflict(told, code="other_agent")
        return session

    async def _create(
        self, who: Principal, name: SessionId, chat: str, body: NewChat, agent: str | None
    ) -> Session:
        sessions = self.service.sessions
        if agent is None and body.purpose in self.service.agents:
            agent = body.purpose
        try:
            made, _ = await sessions.create(
                who,
                agent=agent,
                id=name,
                metadata={"chat": chat},
                client_tools=bodies.tools_of(body.tools or ()),
            )
        except Conflict as taken:
            if taken.code != "exists":
                raise
            try:
                return await sessions.get(who, name)  # made meanwhile, by the other tab
            except NotFound:
                raise taken from None
        return made

    async def _agent(self, who: Principal, session: Session, run: RunId) -> str:
        """Return who answers in a run: what was said for it can have named another agent."""
        return (await self.service.runs.of_session(who, session.id, run)).agent

    def _tools(self, session: Session) -> _Tools:
        named = frozenset(tool.name for tool in session.client_tools)
        agent = self.service.agents.get(session.agent)
        try:
            specs = () if agent is None else agent.tools.with_clients(session.client_tools).specs
        except SetupError:  # the agent was changed since
            specs = ()
        return _Tools(named | {spec.name for spec in specs if spec.client}, named)

    # -- what the client says ----------------------------------------------------------------

    async def _answer(self, call: Call, session: Session, body: NewChat) -> Seq:
        """Pass on answers to what waits; return how far the log is known then.

        What does not wait any more is passed over: the first answer holds.
        """
        waits = {wait.call: wait.kind for wait in session.head.waits}
        settled = session.head.seq
        for found in bodies.answers(body.all) if waits else ():
            kind = waits.get(found.call)
            if kind is None or (kind == "approval") != (found.approval is not None):
                continue
            del waits[found.call]
            try:
                event = await self._one(call, session.id, found)
            except (Conflict, NotFound):
                continue
            settled = max(settled, event.seq)
        return settled

    async def _one(self, call: Call, session: SessionId, found: Answered) -> Event:
        waits, said = self.service.waits, found.approval
        if said is None:
            check_depth("/messages", found.output)
            output = bodies.text_of(found.output)
            return await waits.answer(
                call.who, session, found.call, output=output, is_error=found.is_error
            )
        decision = Decision(
            verdict="allow" if said.approved else "deny",
            reason=said.reason,
            digest=said.signature,
        )
        deed = replace(call, path={"session": session, "call": found.call})
        return await self.service.auditing.during(
            deed.entry("approval.answer", status=200),
            partial(waits.approve, call.who, session, found.call, decision),
        )

    async def _speak(self, call: Call, session: Session, body: NewChat, said: UiMessage) -> ASGIApp:
        service, who = self.service, call.who
        service.admit("run")
        tools = None if body.tools is None else bodies.tools_of(body.tools)
        message = Message(
            content=bodies.content_of(said, body.context, at=body.newest_at),
            policy=body.policy or await service.sessions.policy(who, session.id),
            metadata=labelled(body.metadata or {}, said.id),
            purpose=body.purpose,
            before=await taken_back_by(service, who, session.id, body, said),
            client_tools=tools,
        )
        if tools is not None:
            session = structs.replace(session, client_tools=tools)
        with ExitStack() as stack:
            seat = stack.enter_context(await service.following.watch(who, session.id))
            receipt, is_new = await self._receipt(call, session.id, message, said)
            run, seq, (theirs, named) = receipt.run, receipt.seq, self._tools(session)
            joins = receipt.policy in ("steer", "coalesce")
            agent = await self._agent(who, session, run) if joins else session.agent
            chunks = Chunks(
                run,
                session.id,
                agent,
                theirs=theirs,
                named=named,
                since=seq,
                message=message_of(run, joined_at=seq) if joins else None,
            )
            follow = partial(
                service.following.follow_on,
                seat,
                after=Cursor(seq),
                ends=end_of(run),
                current=is_new,
            )
            settled = seq if is_new else (await service.sessions.get(who, session.id)).head.seq
            return ChatStream(
                call,
                chunks,
                follow,
                self.streams,
                session=session.id,
                settled=settled,
                headers=() if is_new else REPLAYED,
                owns=stack.pop_all(),
            )

    async def _receipt(
        self, call: Call, session: SessionId, message: Message, said: UiMessage
    ) -> tuple[Receipt, bool]:
        """Return the receipt of a message, and whether it is new: one id is said once."""
        who, asked = call.who, call.asked
        if call.kept is not None:
            return _receipts.decode(call.kept.split(b" ", 1)[1]), False
        if asked is not None:
            answering = Answering(asked, _kept)
            return await self.service.inbox.speak(who, session, message, answering=answering), True
        if said.id is None or message.before is not None:
            return await self.service.inbox.speak(who, session, message), True
        asked = Asked.by(who, f"chat {session}", said.id or " ", _encode(message.content))
        try:
            kept = await self.service.answered(who, asked, session)
        except Invalid:  # of this id, something else was said before
            before = await answer_to(self.service, who, session, said.id)
            message = replace(message, before=before)
            return await self.service.inbox.speak(who, session, message), True
        if kept is None:
            try:
                answering = Answering(asked, _encode)
                done = await self.service.inbox.speak(who, session, message, answering=answering)
            except Repeated:  # by the other tab, since we looked
                kept = await self.service.answered(who, asked, session)
                assert kept is not None
            else:
                return done, True
        return _receipts.decode(kept), False

    # -- what comes of it --------------------------------------------------------------------

    async def _rest(
        self, call: Call, session: Session, run: RunId, body: NewChat, settled: Seq
    ) -> ASGIApp:
        """Stream what the client has not seen of a run, which may have ended meanwhile."""
        theirs, named = self._tools(session)
        newest = body.all[-1]
        row = await self.service.runs.of_session(call.who, session.id, run)
        chunks = Chunks(
            run,
            session.id,
            row.agent,
            theirs=theirs,
            named=named,
            seen=bodies.seen(body.all),
            shown=bodies.shown(body.all),
            message=newest.id if run_of(newest.id) == run else None,
        )
        after = session.head.base
        if run != session.head.active:
            after, settled = Seq(row.first_seq - 1), row.last_seq or settled
        return self._follow(call, session, chunks, after=after, settled=settled, rest=True)

    def _follow(
        self,
        call: Call,
        session: Session,
        chunks: Chunks,
        *,
        after: Seq,
        settled: Seq,
        rest: bool = False,
    ) -> ChatStream:
        follow = partial(
            self.service.following.follow,
            call.who,
            session.id,
            after=Cursor(after),
            ends=end_of(chunks.run),
        )
        return ChatStream(
            call, chunks, follow, self.streams, session=session.id, settled=settled, rest=rest
        )


def _nothing() -> Invalid:
    wanted = "a message of the user, or answers to what waits"
    told = "nothing is said, and nothing waits for an answer"
    return Invalid(told, fields=[("/messages", wanted)])


def _kept(receipt: Receipt) -> bytes:
    """Return a receipt as the endpoint keeps answers: with a status."""
    return b"202 %b" % _encode(receipt)


def chat_operations(service: Service, streams: OpenStreams) -> Sequence[Operation]:
    """Return the operations of a chat, to be mounted beside the native ones."""
    return table(Chats(service, streams))


def table(do: Chats) -> list[Operation]:
    """Return every operation, in the order of the documentation."""
    return [
        Operation(
            method="POST",
            path="/api/chat",
            name="chat",
            summary="For the AI SDK: say something, or answer what waits; streams a UI message",
            run=do.say,
            body=NewChat,
            headers={"Hostler-Agent": "the agent of a new chat, where the body has none"},
            gives="text/event-stream",
            returns={200: UiFrame},
            streams=True,
            errors=(404, 409, 413, 422, 429),
            tell=naming(tell, {"client_tools": "/tools"}),
        ),
        Operation(
            method="GET",
            path="/api/chat/{session}/stream",
            name="resume_chat",
            summary="For the AI SDK: the UI message that is being made, from its start",
            run=do.watch,
            gives="text/event-stream",
            returns={200: UiFrame, 204: None},
            streams=True,
            errors=(404, 422),
        ),
        Operation(
            method="POST",
            path="/api/chat/{session}/stop",
            name="stop_chat",
            summary="For the AI SDK: cancel the run that is going; safe to repeat",
            run=do.stop,
            keeps=False,
            returns={202: Cancelled},
            errors=(404, 422),
        ),
    ]
