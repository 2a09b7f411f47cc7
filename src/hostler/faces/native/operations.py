"""What each operation of the native API does.

Invariant: a handler reads its call, calls one verb of the service and shapes the answer.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar, cast, get_args

import msgspec
from starlette.types import ASGIApp

from hostler.core.errors import CallerError, Invalid, NotFound
from hostler.core.events import CallId, Event, Policy, SessionId
from hostler.core.head import Status
from hostler.core.news import Attendance
from hostler.faces.http import form
from hostler.faces.http.answers import Answer, page, problem
from hostler.faces.http.endpoint import REPLAYED, VERSION, Call, Caller, number, one_of
from hostler.faces.http.entry import TICKET_S, Tickets
from hostler.faces.http.open_streams import OpenStreams
from hostler.faces.http.streaming import Follow
from hostler.faces.native import bodies, views, wire
from hostler.faces.native.awaited import LONGEST_WAIT_S, Awaited, prefers_wait
from hostler.faces.native.doctor import LONGEST_EVERY_MS, MOST_TICKS, Ticks
from hostler.faces.native.file_stream import FileStream
from hostler.faces.native.schedule import schedule
from hostler.faces.native.stream import EventStream
from hostler.faces.native.turns import Turns
from hostler.service.authorise import authorise
from hostler.service.cursor import Cursor
from hostler.service.follow import Ends, Seat, any_end, end_of, never
from hostler.service.inbox import Message, Receipt
from hostler.service.limits import check_depth
from hostler.service.runs import Waiting
from hostler.service.scraping import UNMEASURED, Scraping
from hostler.service.service import Service
from hostler.service.shares import viewer_id
from hostler.service.waits import Decision

T = TypeVar("T")
_UPGRADE = problem(
    CallerError("this is a WebSocket: ask with `Upgrade: websocket`", code="upgrade_required"),
    status=426,
    headers=((b"upgrade", b"websocket"), (b"connection", b"upgrade")),
)
STREAM = "text/event-stream"
ASKED = ("open", "allow", "deny", "closed")
"""What may have become of a request for approval."""
_receipts = msgspec.json.Decoder(Receipt)


@dataclass(frozen=True, slots=True)
class Operations:
    """The handlers, on one service and its open streams."""

    service: Service
    streams: OpenStreams
    tickets: Tickets
    scraping: Scraping = UNMEASURED
    imports: Turns = field(default_factory=Turns)

    async def create_session(self, call: Call) -> ASGIApp:
        body = cast("bodies.NewSession", call.body)
        session, is_new = await self.service.sessions.create(
            call.who,
            agent=body.agent,
            title=body.title,
            metadata=body.metadata,
            id=body.id,
            client_tools=body.client_tools,
            answering=call.answering(201, views.view_session),
            finding=call.answering(200, views.view_session),
        )
        return Answer(201 if is_new else 200, views.view_session(session))

    async def list_sessions(self, call: Call) -> ASGIApp:
        limit = number(call, "limit", default=100, most=1000)
        found = await self.service.sessions.list(
            call.who,
            agent=call.query.get("agent"),
            status=one_of(call, "status", get_args(Status)),
            after=call.query.get("after", ""),
            limit=limit + 1,
        )
        return page([views.view_session(one) for one in found], limit)

    async def get_session(self, call: Call) -> ASGIApp:
        session = await self.service.sessions.get(call.who, _session(call))
        view = views.view_session(session)
        view.watching = len(await self.service.following.present(call.who, session.id))
        return Answer(200, view)

    async def label_session(self, call: Call) -> ASGIApp:
        body = cast("bodies.Labels", call.body)
        session = await self.service.sessions.relabel(
            call.who, _session(call), title=body.title, metadata=body.metadata
        )
        return Answer(200, views.view_session(session))

    async def delete_session(self, call: Call) -> ASGIApp:
        await self.service.sessions.delete(call.who, _session(call))
        return Answer(204)

    async def speak(self, call: Call) -> ASGIApp:
        body = cast("bodies.NewMessage", call.body)
        bodies.check_message(body)
        session = _session(call)
        policy = body.policy or await self.service.sessions.policy(call.who, session)
        message = bodies.message_of(body, policy)
        if body.at is not None:
            return await schedule(self.service, call, message, body.at)
        wait_s = prefers_wait(call)
        streams = STREAM in call.headers.get("accept", "")
        replayed = () if call.kept is None else REPLAYED
        if streams or wait_s:
            await self.streams.check(call.who, self.service.tenants)
        if not streams and not wait_s:
            return Answer(202, await self._receipt(call, session, message), replayed)
        with ExitStack() as stack:
            seat = stack.enter_context(await self.service.following.watch(call.who, session))
            receipt = await self._receipt(call, session, message)
            after = Cursor.parse(receipt.cursor)
            if streams:
                ends, current = end_of(receipt.run), call.kept is None
                follow = partial(
                    self.service.following.follow_on, seat, after=after, ends=ends, current=current
                )
                first = wire.sse_frame(receipt.cursor, "receipt", form.encode(receipt))
                return EventStream(
                    call, follow, self.streams, first=first, headers=replayed, owns=stack.pop_all()
                )
            return Awaited(
                call,
                self.streams,
                partial(self._ended, call, seat, receipt, wait_s),
                cut=partial(self._so_far, call, Answer(202, receipt, replayed)),
                owns=stack.pop_all(),
            )

    async def _ended(self, call: Call, seat: Seat, receipt: Receipt, wait_s: int) -> ASGIApp:
        """Wait for what becomes of a message."""
        ended = await self.service.runs.wait(
            seat,
            receipt.run,
            after=Cursor.parse(receipt.cursor),
            timeout_s=wait_s,
            current=call.kept is None,
            joined=receipt.policy in ("steer", "coalesce"),
        )
        replayed = () if call.kept is None else REPLAYED
        applied = ((b"preference-applied", b"wait=%d" % wait_s), *replayed)
        if isinstance(ended, Waiting):
            return Answer(202, views.view_waiting(receipt, ended), applied)
        return Answer(202, receipt, applied) if ended is None else Answer(200, ended, applied)

    async def _so_far(self, call: Call, answer: Answer) -> ASGIApp:
        """Answer somebody whose wait was cut, if they may still see the session."""
        await self.service.access.key(call.who, "read", _session(call))
        return answer

    async def _receipt(self, call: Call, session: SessionId, message: Message) -> Receipt:
        """Return the receipt of a message that is new, or that was sent before."""
        if call.kept is not None:
            return _receipts.decode(call.kept.split(b" ", 1)[1])
        return await self.service.inbox.speak(
            call.who, session, message, answering=call.answering(202, _same)
        )

    async def cancel(self, call: Call) -> ASGIApp:
        body = cast("bodies.NewCancel", call.body)
        done = await self.service.inbox.cancel(
            call.who,
            _session(call),
            body.reason,
            run=body.run,
            answering=call.answering(202, _same),
        )
        return Answer(202, done)

    async def approve(self, call: Call) -> ASGIApp:
        body = cast("bodies.NewDecision", call.body)
        check_depth("/arguments", body.arguments)
        decision = Decision(
            verdict=body.decision,
            arguments=body.arguments,
            reason=body.reason,
            remember=body.remember,
            digest=body.digest,
        )
        event = await self.service.waits.approve(
            call.who, _session(call), _call(call), decision, answering=call.answering(200, _fact)
        )
        return Answer(200, wire.data_of(event))

    async def list_approvals(self, call: Call) -> ASGIApp:
        limit = number(call, "limit", default=100, most=1000)
        found = await self.service.waits.list(
            call.who,
            session=call.query.get("session"),
            status=one_of(call, "status", ASKED) if "status" in call.query else "open",
            after=call.query.get("after", ""),
            limit=limit + 1,
        )
        return page([views.view_approval(one) for one in found], limit, mark="call")

    async def answer(self, call: Call) -> ASGIApp:
        body = cast("bodies.NewResult", call.body)
        check_depth("/output", body.output)
        output = body.output if isinstance(body.output, str) else form.encode(body.output).decode()
        event = await self.service.waits.answer(
            call.who,
            _session(call),
            _call(call),
            output=output,
            is_error=body.is_error,
            answering=call.answering(200, _fact),
        )
        return Answer(200, wire.data_of(event))

    async def fork(self, call: Call) -> ASGIApp:
        body = cast("bodies.NewFork", call.body)
        session = await self.service.sessions.fork(
            call.who,
            _session(call),
            at=body.at,
            title=body.title,
            answering=call.answering(201, views.view_session),
        )
        return Answer(201, views.view_session(session))

    async def export(self, call: Call) -> ASGIApp:
        session = _session(call)
        await self.streams.check(call.who, self.service.tenants)
        pieces = await self.service.archive.export(call.who, session)
        return FileStream(call=call, streams=self.streams, name=f"{session}.jsonl", pieces=pieces)

    async def restore(self, call: Call) -> ASGIApp:
        pieces, name = call.pieces, call.query.get("id")
        assert pieces is not None
        async with self.imports.one():
            session = await self.service.archive.restore(call.who, pieces, id=name)
        return Answer(201, views.view_session(session))

    async def storage(self, call: Call) -> ASGIApp:
        limit = number(call, "limit", default=20, most=1000)
        found = await self.service.sessions.storage(call.who, limit=limit)
        return Answer(200, views.view_storage(found))

    async def read_events(self, call: Call) -> ASGIApp:
        session = _session(call)
        if STREAM not in call.headers.get("accept", ""):
            return await self._page(call, session)
        until_end = call.query.get("until") == "run_end"
        if until_end:
            head = (await self.service.sessions.get(call.who, session)).head
            after = await self._after(call, session)
            if head.active is None and after.seq >= head.seq:
                return Answer(204)
        follow = await self.follow(call, ends=any_end if until_end else never)
        return EventStream(call, follow, self.streams, attendance=await self.attendance(call))

    async def follow(self, call: Call, *, ends: Ends = never) -> Follow:
        """Return the events past the call's cursor, then what is new.

        Raises:
            NotFound, Malformed: before the first of them.
        """
        session = _session(call)
        await self.streams.check(call.who, self.service.tenants)
        after = await self._after(call, session)
        await self.service.following.check(call.who, session, after)
        return partial(self.service.following.follow, call.who, session, after=after, ends=ends)

    async def attendance(self, call: Call) -> AbstractContextManager[Attendance] | None:
        """Return the seat of a caller who wants to see who watches, and to be seen."""
        if call.query.get("presence") != "true":
            return None
        return await self.service.following.attend(call.who, _session(call))

    async def _after(self, call: Call, session: SessionId) -> Cursor:
        text = call.headers.get("last-event-id") or call.query.get("after") or "0"
        if text != "now":
            return Cursor.parse(text)
        return Cursor((await self.service.sessions.get(call.who, session)).head.seq)

    async def _page(self, call: Call, session: SessionId) -> ASGIApp:
        limit = number(call, "limit", default=100, most=1000)
        wait_s = number(call, "wait", default=0, most=LONGEST_WAIT_S, least=0)
        after = await self._after(call, session)
        deltas = call.query.get("deltas") == "true"

        async def read() -> ASGIApp:
            items, more = await self.service.following.page(
                call.who, session, after=after, limit=limit, wait_s=wait_s, deltas=deltas
            )
            cursor = Cursor.after(items[-1]) if items else after
            return Answer(200, wire.json_page(items, str(cursor), more=more))

        if not wait_s:
            return await read()
        await self.streams.check(call.who, self.service.tenants)
        await self.service.following.check(call.who, session, after)
        nothing = Answer(200, wire.json_page([], str(after), more=False))
        return Awaited(call, self.streams, read, cut=partial(self._so_far, call, nothing))

    async def open_socket(self, call: Call) -> ASGIApp:
        await self.service.sessions.get(call.who, _session(call))
        return _UPGRADE

    async def give_ticket(self, call: Call) -> ASGIApp:
        authorise(call.who, "read", None)
        ticket = await self.tickets.give(Caller(call.who, call.until))
        return Answer(201, bodies.Ticket(ticket=ticket, expires_in_s=TICKET_S))

    async def type_in(self, call: Call) -> ASGIApp:
        await self.service.following.typing(call.who, _session(call))
        return Answer(204)

    async def share(self, call: Call) -> ASGIApp:
        body = cast("bodies.NewShare", call.body)
        share, token = await self.service.shares.share(
            call.who, _session(call), expires_in_s=body.expires_in_s
        )
        return Answer(201, views.view_new_share(share, token))

    async def list_shares(self, call: Call) -> ASGIApp:
        found = await self.service.shares.list(call.who, _session(call))
        return page([views.view_share(one) for one in found], len(found))

    async def revoke_share(self, call: Call) -> ASGIApp:
        share = call.path["share"]
        await self.service.shares.revoke(call.who, _session(call), share)
        self.streams.revoke(viewer_id(share))
        return Answer(204)

    async def tick(self, call: Call) -> ASGIApp:
        count = number(call, "n", default=20, most=MOST_TICKS)
        every_ms = number(call, "every_ms", default=100, most=LONGEST_EVERY_MS)
        await self.streams.check(call.who, self.service.tenants)
        return Ticks(call, self.streams, count, every_ms)

    async def list_agents(self, call: Call) -> ASGIApp:
        del call
        agents = sorted(self.service.agents.values(), key=lambda agent: agent.name)
        return page([views.view_agent(one) for one in agents], len(agents))

    async def get_agent(self, call: Call) -> ASGIApp:
        agent = self.service.agents.get(call.path["agent"])
        if agent is None:
            raise NotFound(f"no agent {call.path['agent']}")
        return Answer(200, views.view_agent(agent))

    async def search(self, call: Call) -> ASGIApp:
        words = call.query.get("q", "")
        if not words.strip():
            raise Invalid("say what to search for", fields=[("q", "at least one word")])
        limit = number(call, "limit", default=20, most=100)
        found = await self.service.sessions.search(call.who, words, limit=limit)
        seen = [bodies.HitView(**hit._asdict()) for hit in found]
        return Answer(200, {"items": seen, "cursor": None, "more": False})

    async def capabilities(self, call: Call) -> ASGIApp:
        del call
        about = bodies.Capabilities(
            version=VERSION,
            policies=list(get_args(Policy)),
            transports=["request", "chunked", "sse", "long-poll", "websocket"],
        )
        return Answer(200, about)

    async def alive(self, call: Call) -> ASGIApp:
        del call
        return Answer(200, bodies.Health(status="ok"))

    async def ready(self, call: Call) -> ASGIApp:
        del call
        await self.service.ready()
        return Answer(200, bodies.Health(status="ok"))


def _session(call: Call) -> SessionId:
    return SessionId(call.path["session"])


def _call(call: Call) -> CallId:
    return CallId(call.path["call"])


def _same(result: T) -> T:
    return result


def _fact(event: Event) -> msgspec.Raw:
    return msgspec.Raw(wire.data_of(event))
