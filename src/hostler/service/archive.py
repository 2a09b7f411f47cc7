"""Sessions as files: one line about the session, then one for each fact.

    {"hostler": 1, "session": {…}, "events": 2}
    {"seq": 1, "at": "2026-11-21T12:00:00.000001Z", "fact": {"kind": "user_spoke", …}}
    {"seq": 2, "at": …

A fork's file has its whole history, so it can be read without its parent.

Invariant: what is imported was checked to the last fact, and is at rest: nothing in it runs on.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import anyio.lowlevel
import msgspec
from msgspec import Struct

from hostler.core.audited import about
from hostler.core.errors import Conflict, Invalid, TooLarge
from hostler.core.events import (
    START,
    ClientTool,
    Event,
    JsonObject,
    Key,
    Principal,
    SessionId,
    Unknown,
)
from hostler.core.ports import AgentSpec, World
from hostler.core.records import Session
from hostler.core.sealed import Mask, Secrets, masked
from hostler.core.store import Store
from hostler.service.archive_checks import check_agent
from hostler.service.archived import UNREADABLE, Restored
from hostler.service.authorise import Access, authorise
from hostler.service.limits import (
    LARGEST_ARCHIVE_LINE,
    check_labels,
)
from hostler.service.room import Room
from hostler.service.sessions import ID
from hostler.service.times import moment, seconds
from hostler.service.turns import check_tools

VERSION = 1
PAGE = 500
LINES_AT_ONCE = 200
"""Of an import, before others have a turn."""


class _About(Struct, kw_only=True):
    """The session's labels, as they were."""

    id: str
    agent: str
    title: str | None = None
    metadata: JsonObject = {}
    client_tools: tuple[ClientTool, ...] = ()
    created_at: datetime


class _Header(Struct, kw_only=True):
    hostler: int
    session: _About
    events: int
    """How many lines follow: a file that was cut is not taken for a whole one."""


_header = msgspec.json.Decoder(_Header)
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    store: Store
    agents: Mapping[str, AgentSpec]
    default_agent: str
    world: World
    room: Room
    access: Access = field(default_factory=Access)
    secrets: Secrets | None = None

    async def export(self, who: Principal, session: SessionId) -> AsyncGenerator[bytes, None]:
        """Return the session's file, in pieces, as the log is now.

        Raises:
            NotFound: there is no such session; in the middle, when it is deleted meanwhile.
        """
        key = await self.access.key(who, "write", session)
        return self._pieces(key, await self.store.session(key))

    async def _pieces(self, key: Key, session: Session) -> AsyncGenerator[bytes, None]:
        mask = None if self.secrets is None else self.secrets.mask(key.tenant)
        session = masked(self.secrets, key.tenant, session)
        about = _About(
            id=session.id,
            agent=session.agent,
            title=session.title,
            metadata=session.metadata,
            client_tools=session.client_tools,
            created_at=moment(session.created_at),
        )
        end = session.head.seq
        yield _encode(_Header(hostler=VERSION, session=about, events=end)) + b"\n"
        after = START
        while after < end:
            events = await self.store.read(key, after=after, limit=min(PAGE, end - after))
            yield b"".join(_written(event, mask) for event in events)
            after = events[-1].seq

    async def restore(
        self,
        who: Principal,
        pieces: AsyncIterable[bytes],
        *,
        id: str | None = None,  # noqa: A002
    ) -> Session:
        """Make a session of a file; what was open in it is closed, with facts of its own.

        Raises:
            Invalid: it is no such file, or damaged; says in which line.
            Conflict: there is a session with this id, or another that has one of the runs.
            TooLarge: a line is too long.
        """
        authorise(who, "write", None)
        session, log = None, Restored()
        async for number, line in _lines(pieces):
            try:
                if session is None:
                    header = _read_header(line)
                    session, log.length = self._session(who, header.session, id), header.events
                else:
                    log.take(session.id, line)
                    if number % LINES_AT_ONCE == 0:
                        await anyio.lowlevel.checkpoint()
            except Invalid as error:
                raise _at_line(number, error) from error
        if session is None:
            raise _at_line(1, Invalid("there is nothing in it"))
        if log.head.seq != log.length:
            told = f"it was cut: {log.head.seq} of {log.length} events are there"
            raise _at_line(log.head.seq + 2, Invalid(told))
        log.close(session.id, self.world.clock())
        about("session", session.id, events=log.length)
        async with self.room.one(who.tenant):
            if not await self.store.restore(session, log.events):
                raise Conflict(f"{session.id} is here already", code="exists")
        return await self.store.session(Key(who.tenant, session.id))

    def _session(self, who: Principal, about: _About, new_id: str | None) -> Session:
        name = SessionId(new_id or about.id)
        if not ID.fullmatch(name):
            wanted = f"a match of ^{ID.pattern}$"
            raise Invalid("the id has another form", fields=[("/session/id", wanted)])
        check_agent(about.agent)
        check_labels(about.title, about.metadata)
        agent = self.agents.get(about.agent) or self.agents.get(self.default_agent)
        if agent is not None:  # a house that only stores serves none
            check_tools(agent, about.client_tools)
        session = Session(
            tenant=who.tenant,
            id=name,
            agent=about.agent,
            principal=who.id,
            created_at=seconds(about.created_at),
            updated_at=self.world.clock(),  # retention counts from here
            title=about.title,
            metadata=about.metadata,
            client_tools=about.client_tools,
        )
        return masked(self.secrets, who.tenant, session)


def _read_header(line: bytes) -> _Header:
    try:
        header = _header.decode(line)
    except UNREADABLE as error:
        raise Invalid(f"this is no session's first line: {error}") from error
    if header.hostler != VERSION:
        raise Invalid(f"the file is of version {header.hostler}; this build reads {VERSION}")
    return header


async def _lines(pieces: AsyncIterable[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    """Yield the lines with their numbers.  Raises TooLarge."""
    number, rest = 0, list[bytes]()
    size = 0
    async for piece in pieces:
        *whole, last = piece.split(b"\n")
        for end in whole:
            number += 1
            yield number, b"".join((*rest, end))
            rest, size = [], 0
        rest.append(last)
        size += len(last)
        if size > LARGEST_ARCHIVE_LINE:
            raise TooLarge(f"line {number + 1} is over {LARGEST_ARCHIVE_LINE} bytes")
    if size:
        yield number + 1, b"".join(rest)


def _at_line(number: int, error: Invalid) -> Invalid:
    return Invalid(
        f"line {number}: {error.detail}",
        code="bad_archive",
        fields=error.fields,
        more={"line": number},
    )


def _written(event: Event, mask: Mask | None) -> bytes:
    raw = event.raw
    if mask is not None and not isinstance(event.fact, Unknown):
        raw = mask.fact(event.fact, raw)[1]  # what became a secret after it was said
    at = f"{moment(event.at):%Y-%m-%dT%H:%M:%S.%f}Z"
    return b'{"seq":%d,"at":"%b","fact":%b}\n' % (event.seq, at.encode(), raw)
