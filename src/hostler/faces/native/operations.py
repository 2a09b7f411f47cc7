"""What each operation of the native API does.

Invariant: a handler reads its call, calls one verb of the service and shapes the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import cast, get_args

import anyio
from starlette.types import ASGIApp

from hostler.core.errors import Invalid, NotFound
from hostler.core.events import Event, Key, Policy, RunId, SessionId
from hostler.core.ports import Piece
from hostler.faces.native import bodies, wire
from hostler.faces.native.http import VERSION, Answer, Call, number
from hostler.faces.native.stream import EventStream, OpenStreams
from hostler.service.cursor import Cursor
from hostler.service.follow import any_end, end_of, never
from hostler.service.inbox import Message
from hostler.service.service import Service

LONGEST_WAIT_S = 300
STREAM = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Operations:
    """The handlers, on one service and its open streams."""

    service: Service
    streams: OpenStreams

    async def create_session(self, call: Call) -> ASGIApp:
        body = cast("bodies.NewSession", call.body)
        bodies.check_depth("/metadata", body.metadata)
        session, is_new = await self.service.sessions.create(
            call.who, agent=body.agent, title=body.title, metadata=body.metadata, id=body.id
        )
        return Answer(201 if is_new else 200, bodies.view_session(session))

    async def list_sessions(self, call: Call) -> ASGIApp:
        limit = number(call, "limit", default=100, most=1000)
        found = await self.service.sessions.list(
            call.who,
            agent=call.query.get("agent"),
            status=call.query.get("status"),
            after=call.query.get("after", ""),
            limit=limit + 1,
        )
        return _page([bodies.view_session(one) for one in found], limit)

    async def get_session(self, call: Call) -> ASGIApp:
        session = await self.service.sessions.get(call.who, _session(call))
        return Answer(200, bodies.view_session(session))

    async def label_session(self, call: Call) -> ASGIApp:
        body = cast("bodies.Labels", call.body)
        bodies.check_depth("/metadata", body.metadata)
        session = await self.service.sessions.relabel(
            call.who, _session(call), title=body.title, metadata=body.metadata
        )
        return Answer(200, bodies.view_session(session))

    async def delete_session(self, call: Call) -> ASGIApp:
        await self.service.sessions.delete(call.who, _session(call))
        return Answer(204)

    async def speak(self, call: Call) -> ASGIApp:
        body = cast("bodies.NewMessage", call.body)
        bodies.check_message(body)
        session = _session(call)
        policy = body.policy or await self.service.sessions.policy(call.who, session)
        message = Message(content=body.content, policy=policy, metadata=body.metadata)
        wait_s = _prefers_wait(call)
        streams = STREAM in call.headers.get("accept", "")
        if not streams and not wait_s:
            receipt = await self.service.inbox.speak(call.who, session, message)
            return Answer(202, receipt)
        key = Key(call.who.tenant, session)
        with ExitStack() as stack:
            watch = stack.enter_context(self.service.following.watch(key))
            receipt = await self.service.inbox.speak(call.who, session, message)
            after = Cursor.parse(receipt.cursor)
            if streams:
                batches = self.service.following.follow_on(
                    key, watch, after=after, ends=end_of(receipt.run), current=True
                )
                first = wire.sse_frame(receipt.cursor, "receipt", wire.encode(receipt))
                return EventStream(batches, self.streams, first=first, owns=stack.pop_all())
            ended = await self.service.runs.wait(
                key, watch, receipt.run, after=after, timeout_s=wait_s
            )
        applied = ((b"preference-applied", b"wait=%d" % wait_s),)
        return Answer(202, receipt, applied) if ended is None else Answer(200, ended, applied)

    async def cancel(self, call: Call) -> ASGIApp:
        body = cast("bodies.NewCancel", call.body)
        done = await self.service.inbox.cancel(call.who, _session(call), body.reason)
        return Answer(202, done)

    async def read_events(self, call: Call) -> ASGIApp:
        key = Key(call.who.tenant, _session(call))
        head = (await self.service.sessions.get(call.who, key.session)).head
        text = call.headers.get("last-event-id") or call.query.get("after") or "0"
        after = Cursor(head.seq) if text == "now" else Cursor.parse(text)
        if STREAM not in call.headers.get("accept", ""):
            return await self._page(call, key, after)
        until_end = call.query.get("until") == "run_end"
        if until_end and head.active is None and after.seq >= head.seq:
            return Answer(204)
        await self.service.following.check(key, after)
        ends = any_end if until_end else never
        batches = self.service.following.follow(key, after=after, ends=ends)
        return EventStream(batches, self.streams)

    async def _page(self, call: Call, key: Key, after: Cursor) -> ASGIApp:
        limit = number(call, "limit", default=100, most=1000)
        wait_s = number(call, "wait", default=0, most=LONGEST_WAIT_S, least=0)
        items: Sequence[Event | Piece] = await self.service.following.page(
            key, after=after, limit=limit + 1
        )
        deltas = call.query.get("deltas") == "true"
        if not items and (wait_s or deltas):
            items = await self._first(key, after, wait_s, deltas=deltas)
        shown, more = items[:limit], len(items) > limit
        cursor = Cursor.after(shown[-1]) if shown else after
        return Answer(200, wire.json_page(shown, str(cursor), more=more))

    async def _first(
        self, key: Key, after: Cursor, wait_s: int, *, deltas: bool
    ) -> Sequence[Event | Piece]:
        """Return what comes first within `wait_s`, if anything does."""
        with anyio.move_on_after(wait_s or 0.05):
            async for batch in self.service.following.follow(key, after=after):
                wanted = [item for item in batch if deltas or isinstance(item, Event)]
                if wanted:
                    return wanted
        return []

    async def list_runs(self, call: Call) -> ASGIApp:
        limit = number(call, "limit", default=100, most=1000)
        found = await self.service.runs.list(
            call.who,
            session=call.query.get("session"),
            status=call.query.get("status"),
            after=call.query.get("after", ""),
            limit=limit + 1,
        )
        return _page([bodies.view_run(one) for one in found], limit)

    async def get_run(self, call: Call) -> ASGIApp:
        detail = await self.service.runs.get(call.who, RunId(call.path["run"]))
        return Answer(200, bodies.view_detail(detail))

    async def list_agents(self, call: Call) -> ASGIApp:
        del call
        agents = sorted(self.service.agents.values(), key=lambda agent: agent.name)
        return _page([bodies.view_agent(one) for one in agents], len(agents))

    async def get_agent(self, call: Call) -> ASGIApp:
        agent = self.service.agents.get(call.path["agent"])
        if agent is None:
            raise NotFound(f"no agent {call.path['agent']}")
        return Answer(200, bodies.view_agent(agent))

    async def search(self, call: Call) -> ASGIApp:
        words = call.query.get("q", "")
        if not words.strip():
            raise Invalid("say what to search for", fields=[("q", "at least one word")])
        limit = number(call, "limit", default=20, most=100)
        found = await self.service.sessions.search(call.who, words, limit=limit)
        views = [
            bodies.HitView(session=hit.session, seq=hit.seq, kind=hit.kind, snippet=hit.snippet)
            for hit in found
        ]
        return Answer(200, {"items": views, "cursor": None, "more": False})

    async def me(self, call: Call) -> ASGIApp:
        return Answer(200, bodies.Me(id=call.who.id, tenant=call.who.tenant, role=call.who.role))

    async def capabilities(self, call: Call) -> ASGIApp:
        del call
        about = bodies.Capabilities(
            version=VERSION,
            policies=list(get_args(Policy)),
            transports=["request", "chunked", "sse", "long-poll"],
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


def _page(items: Sequence[object], limit: int) -> Answer:
    shown, more = items[:limit], len(items) > limit
    cursor = getattr(shown[-1], "id", None) if shown else None
    return Answer(200, {"items": shown, "cursor": cursor, "more": more})


def _prefers_wait(call: Call) -> int:
    """Return the seconds of `Prefer: wait=N` (RFC 7240), 0 without it."""
    for preference in call.headers.get("prefer", "").split(","):
        name, _, value = preference.strip().partition("=")
        if name.lower() == "wait" and value.isdigit():
            return min(int(value), LONGEST_WAIT_S)
    return 0
