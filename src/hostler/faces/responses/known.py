"""Replies of ours that a request names by their items, and sends nothing else of.

Invariant: read through the service, as whoever asks; what was deleted is like what is not there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import NamedTuple

import msgspec

from hostler.beside.responses import echo_of
from hostler.core.errors import NotFound
from hostler.core.events import (
    ConversationEdited,
    ModelReplied,
    Principal,
    RunId,
    RunWithdrawn,
    Seq,
    SessionId,
)
from hostler.core.records import RunRow
from hostler.faces.responses.attempt import Attempt
from hostler.faces.responses.bodies import InputItem
from hostler.faces.responses.echo import About
from hostler.faces.responses.finding import facts, found_at, read, told
from hostler.faces.responses.ids import read_item
from hostler.faces.responses.items import Told
from hostler.faces.responses.writer import Writer
from hostler.service.service import Service

NEAR = 50
"""Facts after a question to a model among which its reply is."""


class _Gone(NamedTuple):
    """What was deleted in a session, as far as it stands past some place."""

    after: Seq
    responses: frozenset[tuple[RunId, Seq]]
    items: frozenset[str]


async def known(service: Service, who: Principal, names: Sequence[str]) -> Mapping[str, Told]:
    """Return the replies of ours that items of a request are of, by the ids of the items."""
    return await _Looking(service, who).all(names)


class _Looking:
    def __init__(self, service: Service, who: Principal) -> None:
        self._service, self._who = service, who
        self._replies = dict[tuple[RunId, Seq], Told | None]()
        self._gone = dict[SessionId, _Gone]()

    async def all(self, names: Sequence[str]) -> Mapping[str, Told]:
        found = dict[str, Told]()
        for name in names:
            item = read_item(name)
            assert item is not None
            mark = (item.run, item.asked)
            if mark not in self._replies:
                self._replies[mark] = await self._reply(*mark)
            reply = self._replies[mark]
            if reply is not None and all(name not in one.items for one in self._gone.values()):
                found[name] = reply
        return found

    async def _reply(self, run: RunId, asked: Seq) -> Told | None:
        service, who = self._service, self._who
        try:
            row = await service.runs.find(who, run)
            events = await read(service, who, row.session, after=asked, limit=NEAR)
            if await self._is_gone(row, asked):
                return None
        except NotFound:
            return None
        for event in events:
            fact = event.fact
            if isinstance(fact, ModelReplied) and fact.run == run and fact.seen == asked:
                return _told(run, asked, fact)
        return None

    async def _is_gone(self, row: RunRow, asked: Seq) -> bool:
        """Whether the response that a question is in was deleted, after the end of its run."""
        if row.last_seq is None:
            return False
        gone = self._gone.get(row.session)
        if gone is None or gone.after > row.last_seq:
            gone = self._gone[row.session] = await self._deleted(row.session, row.last_seq)
        for run, since in gone.responses:
            if run == row.id and since <= asked:
                response = await found_at(self._service, self._who, row, since)
                if asked <= (await told(self._service, self._who, response)).last:
                    return True
        return False

    async def _deleted(self, session: SessionId, after: Seq) -> _Gone:
        responses, items = set[tuple[RunId, Seq]](), set[str]()
        pages = facts(self._service, self._who, session, Seq(after + 1), None)
        async with aclosing(pages):
            async for page in pages:
                for event in page:
                    fact = event.fact
                    if isinstance(fact, RunWithdrawn) and fact.run is not None:
                        responses.add((fact.run, fact.since))
                    elif isinstance(fact, ConversationEdited):
                        echo = echo_of(fact.metadata)
                        items.update(() if echo is None else echo.taken)
        return _Gone(after, frozenset(responses), frozenset(items))


def _told(run: RunId, asked: Seq, fact: ModelReplied) -> Told:
    writer = Writer(
        About(id="", created_at=0, model=""), tail=run.removeprefix("run_"), after=math.inf
    )
    attempt = Attempt(writer, asked, names=None)
    attempt.catch_up(fact)
    attempt.replied(fact)
    attempt.close_calls(fact.calls)
    items = {
        str(one["id"]): msgspec.convert(one, InputItem) for one in writer.output if _is_told(one)
    }
    return Told(items, fact.replay, fact.thinking)


def _is_told(body: Mapping[str, object]) -> bool:
    return body["type"] in ("message", "reasoning", "function_call", "custom_tool_call")
