"""Conversations: sessions, as OpenAI's clients know them.

Invariant: a conversation has nothing that its session has not.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, cast

from msgspec import Struct
from starlette.types import ASGIApp

from hostler.beside.responses import Echo
from hostler.core.errors import Conflict, NotFound
from hostler.core.events import ConversationEdited, Event, JsonObject, Seq, SessionId
from hostler.core.records import Session
from hostler.core.said import Said
from hostler.faces.http.answers import Answer
from hostler.faces.http.endpoint import Call
from hostler.faces.http.keepsakes import KeepsakesOf
from hostler.faces.responses.asking import echo_of_items
from hostler.faces.responses.bodies import InputItem, Metadata
from hostler.faces.responses.echo import kept
from hostler.faces.responses.finding import facts, locked
from hostler.faces.responses.ids import conversation_id, read_conversation
from hostler.faces.responses.items import conversation, missing, names_of_ours, uncalled
from hostler.faces.responses.known import known
from hostler.faces.responses.listed import of_edit, of_session, removal
from hostler.faces.responses.shown import listed, page
from hostler.service.authorise import authorise
from hostler.service.service import Service
from hostler.service.whence import Cut


class NewConversation(Struct, kw_only=True):
    items: list[InputItem] | None = None
    metadata: Metadata | None = None


class ChangedConversation(Struct, kw_only=True):
    metadata: Metadata


class NewItems(Struct, kw_only=True):
    items: list[InputItem] | None = None


class _Brought(NamedTuple):
    said: Sequence[Said]
    metadata: JsonObject


@dataclass(frozen=True, slots=True)
class Conversations:
    service: Service
    keepsakes: KeepsakesOf

    async def create(self, call: Call) -> ASGIApp:
        body, service = cast("NewConversation", call.body), self.service
        metadata, answering = cast("JsonObject", body.metadata or {}), call.answering(200, _view)
        if not body.items:
            made, _ = await service.sessions.create(
                call.who, metadata=metadata, answering=answering
            )
            return Answer(200, _view(made))
        authorise(call.who, "write", None)
        brought = await self._brought(call, body.items)
        agent = await service.sessions.agent_for(call.who)
        session = service.sessions.new(call.who, agent, metadata=metadata)
        made = await service.editing.begin(
            call.who, session, brought.said, brought.metadata, answering=answering
        )
        return Answer(200, _view(made))

    async def get(self, call: Call) -> ASGIApp:
        return Answer(200, _view(await self._session(call)))

    async def change(self, call: Call) -> ASGIApp:
        body, session = cast("ChangedConversation", call.body), _name(call)
        metadata = cast("JsonObject", body.metadata)
        made = await self.service.sessions.relabel(call.who, session, metadata=metadata)
        return Answer(200, _view(made))

    async def delete(self, call: Call) -> ASGIApp:
        session = _name(call)
        await self.service.sessions.delete(call.who, session)
        name = conversation_id(session)
        return Answer(200, {"id": name, "object": "conversation.deleted", "deleted": True})

    async def items(self, call: Call) -> ASGIApp:
        return Answer(200, page(call, await self._items(call)))

    async def item(self, call: Call) -> ASGIApp:
        name = call.path["item"]
        for one in await self._items(call):
            if one["id"] == name:
                return Answer(200, one)
        raise NotFound(f"Item with id '{name[:100]}' not found.")

    async def add(self, call: Call) -> ASGIApp:
        """Put items at the end, to be read with what is said next."""
        body, session = cast("NewItems", call.body), _name(call)
        await self.service.access.key(call.who, "write", session)
        if not body.items:
            raise missing("items")
        brought = await self._brought(call, body.items)
        answering = call.answering(200, _put)
        with _unlocked():
            event = await self.service.editing.put(
                call.who, session, brought.said, brought.metadata, answering=answering
            )
        return Answer(200, _put(event))

    async def remove(self, call: Call) -> ASGIApp:
        """Take an item out; a call goes with its result."""

        def cut(log: Sequence[Event]) -> tuple[Cut | None, JsonObject]:
            found = removal(log, call.path["item"])
            return found.cut, kept(Echo(taken=tuple(found.items)))

        with _unlocked():
            await self.service.editing.take_out(call.who, _name(call), cut)
        return Answer(200, _view(await self._session(call)))

    async def _brought(self, call: Call, items: Sequence[InputItem]) -> _Brought:
        """Return items as what was said.  Raises Invalid."""
        service, who = self.service, call.who
        replies = await known(service, who, names_of_ours(items))
        said = conversation(items, self.keepsakes(who.tenant), replies, leads=False)
        for one in said.answers:
            raise uncalled(one)
        return _Brought(said.said, kept(echo_of_items(items, said.roles)))

    async def _session(self, call: Call) -> Session:
        return await self.service.sessions.get(call.who, _name(call))

    async def _items(self, call: Call) -> list[JsonObject]:
        events = [
            event
            async for one in facts(self.service, call.who, _name(call), Seq(1), None)
            for event in one
        ]
        return [one.body for one in of_session(events)]


@contextmanager
def _unlocked() -> Generator[None]:
    """Tell of a run that is going as OpenAI does."""
    try:
        yield
    except Conflict as error:
        if error.code == "busy":
            raise locked() from None
        raise


def _put(event: Event) -> JsonObject:
    assert isinstance(event.fact, ConversationEdited)
    items = [one.body for one in of_edit(event, event.fact)]
    return listed(items, len(items))


def _name(call: Call) -> SessionId:
    """Return the session.  Raises NotFound: it cannot be one."""
    name = call.path["conversation"]
    session = read_conversation(name)
    if session is None:
        raise NotFound(f"Conversation with id '{name[:100]}' not found.")
    return session


def _view(session: Session) -> JsonObject:
    return {
        "id": conversation_id(session.id),
        "object": "conversation",
        "created_at": int(session.created_at),
        "metadata": session.metadata,
    }
