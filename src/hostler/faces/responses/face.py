"""OpenAI's Responses as operations, to be mounted by `app`.

A face is translation only: what may be asked, by whom and how often, the service says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack, aclosing, suppress
from dataclasses import dataclass
from functools import partial
from typing import cast

import anyio
import msgspec
from msgspec import Struct
from starlette.types import ASGIApp

from hostler.beside.responses import response_id
from hostler.core.errors import Forbidden, Invalid
from hostler.core.events import Event, JsonObject, RunId, Seq, SessionId, ToolFinished, UserSpoke
from hostler.core.news import Piece
from hostler.core.ports import Model
from hostler.faces.http.answers import Answer
from hostler.faces.http.direct import Answering
from hostler.faces.http.endpoint import REPLAYED, Call, number
from hostler.faces.http.keepsakes import KeepsakesOf
from hostler.faces.http.open_streams import OpenStreams
from hostler.faces.responses.asking import asked, input_of, previous_of, request_of
from hostler.faces.responses.bodies import NewResponse
from hostler.faces.responses.echo import About
from hostler.faces.responses.finding import Found, absent, facts, find, placed, told
from hostler.faces.responses.items import conversation, missing, uncalled
from hostler.faces.responses.shown import of_request, page, result_of
from hostler.faces.responses.speaking import Speaking, Spoken, id_of, is_model, who_answers
from hostler.faces.responses.stream import Sent, Source
from hostler.faces.responses.telling import Teller
from hostler.faces.responses.words import Words
from hostler.service.authorise import authorise
from hostler.service.cursor import Cursor
from hostler.service.follow import Seat, end_of
from hostler.service.service import Service


class _Named(Struct):
    id: str


_named = msgspec.json.Decoder(_Named).decode
MOST_EVENTS = 2**53
"""The largest number that all JSON has."""


@dataclass(frozen=True, slots=True)
class Responses:
    """The handlers, on one service and its open streams."""

    service: Service
    streams: OpenStreams
    keepsakes: KeepsakesOf

    async def create(self, call: Call) -> ASGIApp:
        """Answer a request: with a model alone, or in a session."""
        body, who = cast("NewResponse", call.body), call.who
        authorise(who, "write", None)  # so that nobody else learns what there is
        agent = who_answers(self.service, who, body)
        await self.streams.check(who, self.service.tenants)
        if call.kept is not None:
            return await self._again(call, body, call.kept)
        if is_direct(body) and is_model(agent, self.service.agents):
            return self._direct(call, body, self.service.direct.find(who, agent))
        if body.background and body.store is False:
            told_ = "background responses are stored: leave `store` out"
            raise Invalid(told_, fields=[("/store", told_)])
        with ExitStack() as owns:
            speaking = Speaking(
                service=self.service,
                who=who,
                body=body,
                agent=agent,
                keepsakes=self.keepsakes(who.tenant),
                owns=owns,
                call=call,
            )
            spoken, seat = await speaking.say()
            if body.background and not body.stream:
                name = id_of(spoken.receipt, spoken.is_resumed)
                found = await find(self.service, who, name)
                return Answer(200, _begun(found.teller(after=math.inf)))
            source = self._source(call, spoken, seat, owns.pop_all())
            return Sent(call, self.streams, source, streamed=bool(body.stream))

    async def _again(self, call: Call, body: NewResponse, kept: bytes) -> ASGIApp:
        """Answer a request that was made before with the response that it made."""
        found = await find(self.service, call.who, _named(kept.split(b" ", 1)[1]).id)
        if body.background and not body.stream:
            return Answer(200, _begun(found.teller(after=math.inf)), REPLAYED)
        source, streamed = self._kept(call, found, after=-1), bool(body.stream)
        return Sent(call, self.streams, source, streamed=streamed, headers=REPLAYED)

    def _kept(self, call: Call, found: Found, *, after: float) -> Source:
        """Return where a response that is in the log comes from."""
        since, session = found.part.since, found.session.id
        follow = partial(
            self.service.following.follow,
            call.who,
            session,
            after=Cursor(Seq(since - 1)),
            ends=end_of(found.row.id),
        )
        return Source(session=session, follow=follow, begin=_from(found.teller(after=after), since))

    def _direct(self, call: Call, body: NewResponse, model: Model) -> ASGIApp:
        keepsakes, direct = self.keepsakes(call.who.tenant), self.service.direct
        said = conversation(input_of(body), keepsakes, {})
        for one in said.answers:
            raise uncalled(one)
        if not said.said:
            raise missing("input")
        asking = asked(body, said.lead)
        echo = previous_of(call, asking.echo)
        about = About(
            id=response_id(RunId(direct.world.mint("run"))),
            created_at=int(direct.world.clock()),
            model=f"{model.provider}:{model.name}",
            echo=echo,
            terms=asking.terms,
            tools=asking.tools,
        )
        parts = direct.ask(call.who, model, request_of(asking, said.said, call.who))
        words = Words(about, keepsakes, direct.world.clock)
        return Answering(call, self.streams, parts, words, streamed=bool(body.stream))

    def _source(self, call: Call, spoken: Spoken, seat: Seat, owns: ExitStack) -> Source:
        """Return where what was just asked for comes from."""
        receipt, asking = spoken.receipt, spoken.asked
        run, since = receipt.run, receipt.seq
        follow = partial(
            self.service.following.follow_on,
            seat,
            after=Cursor(Seq(since - 1)),
            ends=end_of(run),
            current=True,
        )

        def begin(item: Event | Piece) -> Teller | None:
            if not isinstance(item, Event) or not isinstance(item.fact, UserSpoke):
                return None
            if item.seq != since:
                return None
            # As the log has it: what is secret is masked there.
            brought = item.fact.client_tools
            tools = asking.tools if brought is None else brought
            first = not spoken.is_resumed
            teller = placed(item.fact, run, since, item.at, tools=tools, first=first).teller()
            teller.begin()
            return teller

        left = None
        if not asking.echo.background and call.asked is None:  # who has a key comes back with it
            left = partial(self._left, call, receipt.session, run)
        return Source(session=receipt.session, follow=follow, begin=begin, owns=owns, left=left)

    async def _end(self, call: Call, found: Found, reason: str) -> None:
        """Cancel the run of a response, and wait for its end, but not for long."""
        session, run, service = found.session.id, found.row.id, self.service
        done = await service.inbox.cancel(call.who, session, reason, run=run)
        if done.seq is not None:
            with anyio.move_on_after(CANCEL_WAIT_S):
                after, ends = Cursor(done.seq), end_of(run)
                async for _ in service.following.follow(call.who, session, after=after, ends=ends):
                    pass

    async def _left(self, call: Call, session: SessionId, run: RunId) -> None:
        """Cancel a run whose client said that it would wait, and did not."""
        with anyio.CancelScope(shield=True):
            await self.service.inbox.cancel(call.who, session, "disconnected", run=run)

    async def get(self, call: Call) -> ASGIApp:
        """Return a response as it is now, or stream it from any number on."""
        found = await find(self.service, call.who, call.path["response"])
        if not found.is_kept:
            raise absent(call.path["response"])
        if call.query.get("stream") not in ("true", "1"):
            return Answer(200, (await told(self.service, call.who, found)).now())
        after = number(call, "starting_after", default=-1, most=MOST_EVENTS, least=0)
        await self.streams.check(call.who, self.service.tenants)
        return Sent(call, self.streams, self._kept(call, found, after=after), streamed=True)

    async def delete(self, call: Call) -> ASGIApp:
        """Have a response given out no more; what nothing else is said in goes with it."""
        name, who, service = call.path["response"], call.who, self.service
        found = await find(service, who, name)
        if not found.is_kept:
            raise absent(name)
        await service.access.key(who, "write", found.session.id)
        if found.row.last_seq is None:
            await self._end(call, found, "deleted")
        session = await service.sessions.get(who, found.session.id)
        head, is_gone = session.head, False
        made_for_it = found.row.first_seq == 1 and found.about.echo.conversation is None
        if made_for_it and found.part.splits and head.seq == head.base and head.active is None:
            row = await service.runs.find(who, found.row.id)
            with suppress(Forbidden):
                if row.last_seq == head.seq:
                    await service.sessions.delete(who, session.id)
                    is_gone = True
        if not is_gone:
            await service.runs.withdraw(who, found.row.id, found.part.since)
        return Answer(200, {"id": name, "object": "response.deleted", "deleted": True})

    async def items(self, call: Call) -> ASGIApp:
        """List what a request brought."""
        name, who = call.path["response"], call.who
        found = await find(self.service, who, name)
        if not found.is_kept:
            raise absent(name)
        part, made = found.part, list[JsonObject]()
        pages = facts(self.service, who, found.session.id, part.since, found.row.last_seq)
        async with aclosing(pages):
            async for events in pages:
                for event in events:
                    fact = event.fact
                    if event.seq == part.since and isinstance(fact, UserSpoke):
                        brought = of_request(found.about, part.run, event.seq, fact)
                        made += [item for item, _ in brought]
                    elif event.seq <= part.since + part.answers and isinstance(fact, ToolFinished):
                        made.insert(
                            event.seq - part.since - 1, result_of(part.run, event.seq, fact)
                        )
                break
        return Answer(200, page(call, made))

    async def cancel(self, call: Call) -> ASGIApp:
        """End a response in the background; return it as it is then."""
        name, who = call.path["response"], call.who
        found = await find(self.service, who, name)
        if not found.is_kept:
            raise absent(name)
        await self.service.access.key(who, "write", found.session.id)
        if not found.about.echo.background:
            told_ = "Only responses created with background=true can be cancelled."
            raise Invalid(told_, fields=[("/response_id", told_)])
        end = await told(self.service, who, found)
        if end.is_over:
            return Answer(200, end.now())
        await self._end(call, found, "cancelled")
        found = await find(self.service, who, name)
        return Answer(200, (await told(self.service, who, found)).now())


CANCEL_WAIT_S = 5.0
"""How long a cancel is waited for; then the response is told as it is."""


def is_direct(body: NewResponse) -> bool:
    """Whether nothing of a request is to be kept, or follows what was."""
    follows = body.previous_response_id is not None or body.conversation is not None
    return body.store is False and not body.background and not follows


def _begun(teller: Teller) -> JsonObject:
    teller.begin()
    return teller.now()


def _from(teller: Teller, since: Seq) -> Callable[[Event | Piece], Teller | None]:
    """Return what begins to tell at the fact that the response begins with."""

    def begin(item: Event | Piece) -> Teller | None:
        if not isinstance(item, Event) or item.seq < since:
            return None
        teller.begin()
        return teller

    return begin
