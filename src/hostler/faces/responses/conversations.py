"""Conversations: sessions, as OpenAI's clients know them.

Invariant: a conversation has nothing that its session has not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from msgspec import Struct
from starlette.types import ASGIApp

from hostler.core.errors import Invalid, NotFound
from hostler.core.events import JsonObject, Seq, SessionId
from hostler.core.records import Session
from hostler.faces.http.answers import Answer
from hostler.faces.http.endpoint import Call
from hostler.faces.responses.bodies import Metadata
from hostler.faces.responses.finding import facts
from hostler.faces.responses.ids import conversation_id, read_conversation
from hostler.faces.responses.shown import of_session, page
from hostler.service.service import Service

NO_ITEMS = (
    "send these items with the next response in this conversation: it reads them, and keeps them"
)


class NewConversation(Struct, kw_only=True):
    items: list[JsonObject] | None = None
    metadata: Metadata | None = None


class ChangedConversation(Struct, kw_only=True):
    metadata: Metadata


class NewItems(Struct, kw_only=True):
    items: list[JsonObject] | None = None


@dataclass(frozen=True, slots=True)
class Conversations:
    service: Service

    async def create(self, call: Call) -> ASGIApp:
        body = cast("NewConversation", call.body)
        if body.items:
            raise Invalid(NO_ITEMS, fields=[("/items", NO_ITEMS)])
        made, _ = await self.service.sessions.create(
            call.who, metadata=cast("JsonObject", body.metadata or {})
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
        await self.service.access.key(call.who, "write", _name(call))
        raise Invalid(NO_ITEMS, fields=[("/items", NO_ITEMS)])

    async def remove(self, call: Call) -> ASGIApp:
        await self.service.access.key(call.who, "write", _name(call))
        await self.item(call)
        told = "what was said stays: delete the conversation, or go on from an earlier response"
        raise Invalid(told, fields=[("/item_id", told)])

    async def _session(self, call: Call) -> Session:
        return await self.service.sessions.get(call.who, _name(call))

    async def _items(self, call: Call) -> list[JsonObject]:
        events = [
            event
            async for one in facts(self.service, call.who, _name(call), Seq(1), None)
            for event in one
        ]
        return of_session(events)


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
