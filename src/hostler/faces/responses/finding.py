"""Where in the logs the responses are, and what they tell of their requests.

Invariant: read through the service, as whoever asks; what is not theirs is like what is not there.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

from hostler.beside.responses import Echo, echo_of, read_response, response_id
from hostler.core.errors import Conflict, Malformed, NotFound
from hostler.core.events import (
    ApprovalGiven,
    ClientTool,
    Event,
    Principal,
    RunId,
    RunWithdrawn,
    Seq,
    SessionId,
    ToolFinished,
    UserSpoke,
)
from hostler.core.records import RunRow, Session
from hostler.core.terms import NO_TERMS
from hostler.faces.responses.echo import About, digest
from hostler.faces.responses.telling import Part, Teller
from hostler.faces.responses.writer import Writer
from hostler.service.cursor import Cursor
from hostler.service.service import Service

PAGE = 1000
NEAR = 50
"""Facts after a question to a model among which its reply is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a response is, and what it tells of its request."""

    part: Part
    about: About

    def teller(self, *, sse: bool = True, after: float = -1) -> Teller:
        """Return what tells it, up to its end; `after`: only events past this number."""
        tail = self.part.run.removeprefix("run_")
        return Teller(self.part, Writer(self.about, tail=tail, sse=sse, after=after))


@dataclass(frozen=True, slots=True, kw_only=True)
class Found(Place):
    """A response that was asked for."""

    session: Session
    row: RunRow

    @property
    def is_kept(self) -> bool:
        """Whether its client may ask for it again."""
        return self.about.echo.store


async def find(service: Service, who: Principal, id_: str) -> Found:
    """Return a response.  Raises NotFound."""
    named = read_response(id_)
    if named is None:
        raise absent(id_)
    try:
        row = await service.runs.find(who, named.run)
        found = await found_at(service, who, row, named.since)
    except NotFound:
        raise absent(id_) from None
    if await _withdrawn(service, who, found.session, row, found.part.since):
        raise absent(id_)
    return found


async def found_at(service: Service, who: Principal, row: RunRow, since: Seq | None) -> Found:
    """Return what begins at a place of a run, given out or not; None: its first response.

    Raises:
        NotFound: nothing does.
    """
    session = await service.sessions.get(who, row.session)
    is_first = since is None or since == row.first_seq
    begun = await _asked(service, who, row, None if is_first else since)
    spoke, begins, at = begun.spoke, begun.since, begun.at
    tools = await _tools(service, who, session, spoke, begins)
    place = placed(spoke, row.id, begins, at, tools=tools, first=is_first, agent=row.agent)
    part = place.part if begun.is_asked else replace(place.part, answers=0)
    return Found(part=part, about=place.about, session=session, row=row)


def placed(
    spoke: UserSpoke,
    run: RunId,
    since: Seq,
    at: float,
    *,
    tools: Sequence[ClientTool],
    first: bool,
    agent: str = "",
) -> Place:
    """Return the response that a message asked for; `first`: of its run."""
    known_ = echo_of(spoke.metadata)
    echo = known_ or Echo()
    part = Part(run=run, since=since, splits=known_ is not None, answers=echo.answers)
    about = About(
        id=response_id(run, None if first else since),
        created_at=int(at),
        model=echo.model or model_of(agent),
        echo=echo,
        terms=spoke.terms or NO_TERMS,
        tools=tools,
    )
    return Place(part=part, about=about)


def absent(id_: str) -> NotFound:
    return NotFound(f"Response with id '{id_[:100]}' not found.")


def locked() -> Conflict:
    told_ = "Another process is currently operating on this conversation."
    return Conflict(told_, code="conversation_locked")


def model_of(agent: str) -> str:
    """Return what clients call who answers."""
    return agent if ":" in agent else f"agent:{agent}"


class _Begun(NamedTuple):
    """With what a response begins."""

    spoke: UserSpoke
    since: Seq
    at: float
    is_asked: bool = True
    """False: not with the message, but with an answer that came later, in another protocol."""


async def _asked(service: Service, who: Principal, row: RunRow, since: Seq | None) -> _Begun:
    """Return with what a response begins.  Raises NotFound."""
    at, last = row.first_seq if since is None else since, row.last_seq
    if at < row.first_seq or (last is not None and at > last):
        raise NotFound("it begins nowhere")
    (event,) = await read(service, who, row.session, after=at - 1, limit=1)
    fact = event.fact
    if fact.run != row.id:
        raise NotFound("it begins nowhere")
    if isinstance(fact, UserSpoke):
        if since is None or echo_of(fact.metadata) is not None:
            return _Begun(fact, at, event.at)
    elif isinstance(fact, ApprovalGiven | ToolFinished):  # answered in another protocol
        async with aclosing(facts(service, who, row.session, row.first_seq, at)) as pages:
            before = [
                one.fact
                async for page in pages
                for one in page
                if isinstance(one.fact, UserSpoke) and one.fact.run == row.id
            ]
        ours = [one for one in before if echo_of(one.metadata) is not None]
        if ours:
            return _Begun(ours[-1], at, event.at, is_asked=False)
    raise NotFound("it begins nowhere")


async def _withdrawn(
    service: Service, who: Principal, session: Session, row: RunRow, since: Seq
) -> bool:
    """Whether a response was deleted, which is written after the end of its run."""
    end = row.last_seq
    if end is None or session.head.seq <= end:
        return False
    async with aclosing(facts(service, who, session.id, Seq(end + 1), None)) as pages:
        async for page in pages:
            for event in page:
                fact = event.fact
                if isinstance(fact, RunWithdrawn) and (fact.run, fact.since) == (row.id, since):
                    return True
    return False


async def _tools(
    service: Service,
    who: Principal,
    session: Session,
    spoke: UserSpoke,
    since: Seq,
) -> Sequence[ClientTool]:
    """Return the tools that a request brought."""
    echo = echo_of(spoke.metadata)
    if spoke.client_tools is not None:
        return spoke.client_tools
    if echo is None or digest(session.client_tools) == echo.tools:
        return session.client_tools
    found: Sequence[ClientTool] = ()
    if echo.tools:  # the session has others by now
        async with aclosing(facts(service, who, session.id, Seq(1), since)) as pages:
            async for page in pages:
                for event in page:
                    brought = event.fact.client_tools if isinstance(event.fact, UserSpoke) else None
                    found = found if brought is None else brought
    return found


async def read(
    service: Service, who: Principal, session: SessionId, *, after: int, limit: int
) -> list[Event]:
    """Return events past a position.  Raises NotFound: there are none."""
    try:
        page = await service.following.page(who, session, after=Cursor(Seq(after)), limit=limit)
    except Malformed:
        raise NotFound("the log does not go that far") from None
    if not page.items:
        raise NotFound("nothing is there")
    return [cast("Event", one) for one in page.items]


async def facts(
    service: Service, who: Principal, session: SessionId, first: Seq, upto: Seq | None
) -> AsyncGenerator[list[Event], None]:
    """Yield the log from `first` on, up to `upto` or its end."""
    after, more = Cursor(Seq(first - 1)), True
    while more:
        items, more = await service.following.page(who, session, after=after, limit=PAGE)
        events = [cast("Event", one) for one in items]
        if not events:
            return
        after = Cursor(events[-1].seq)
        if upto is not None and after.seq >= upto:
            yield [one for one in events if one.seq <= upto]
            return
        yield events


async def told(service: Service, who: Principal, found: Found) -> Teller:
    """Return a response as far as it is written."""
    teller = found.teller(after=math.inf)
    teller.begin()
    row = found.row
    pages = facts(service, who, found.session.id, found.part.since, row.last_seq)
    async with aclosing(pages):
        async for page in pages:
            for event in page:
                teller.take(event)
                if teller.is_over:
                    return teller
    return teller
