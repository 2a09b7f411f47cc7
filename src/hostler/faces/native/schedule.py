"""Operations on messages that are said later.

Invariant: a handler reads its call, calls one verb of the service and shapes the answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import msgspec
from msgspec import Struct
from starlette.types import ASGIApp

from hostler.core.events import InputId, JsonObject, Policy, Priority, SessionId
from hostler.core.said import Content
from hostler.faces.http.answers import Answer
from hostler.faces.http.endpoint import REPLAYED, Call, Operation
from hostler.faces.http.form import stamp
from hostler.service.inbox import Message
from hostler.service.schedule import Scheduled, ScheduledReceipt
from hostler.service.service import Service

PATH = "/api/sessions/{session}/scheduled"


class ScheduledView(Struct, kw_only=True):
    """A message that is still to be said."""

    input: str
    session: str
    seq: int
    """Where the log has it."""
    due_at: str
    content: Content
    policy: Policy
    user: str
    """Who says it."""
    metadata: JsonObject
    purpose: str | None
    priority: Priority


class ScheduledPage(Struct, kw_only=True):
    items: list[ScheduledView]
    cursor: str | None
    more: bool


async def schedule(service: Service, call: Call, message: Message, at: datetime) -> ASGIApp:
    """Answer who says something for later: with a receipt, whatever they would wait for."""
    if call.kept is not None:
        return Answer(202, msgspec.Raw(call.kept.split(b" ", 1)[1]), REPLAYED)
    session = SessionId(call.path["session"])
    receipt = await service.schedule.speak(
        call.who, session, message, at, answering=call.answering(202, _same)
    )
    return Answer(202, receipt)


@dataclass(frozen=True, slots=True)
class _Handlers:
    service: Service

    async def list(self, call: Call) -> ASGIApp:
        found = await self.service.schedule.list(call.who, SessionId(call.path["session"]))
        return Answer(200, ScheduledPage(items=[*map(_view, found)], cursor=None, more=False))

    async def withdraw(self, call: Call) -> ASGIApp:
        session, name = SessionId(call.path["session"]), InputId(call.path["input"])
        await self.service.schedule.withdraw(call.who, session, name)
        return Answer(204)


def table(service: Service) -> list[Operation]:
    """Return the operations, in the order of the documentation."""
    do = _Handlers(service)
    return [
        Operation(
            method="GET",
            path=PATH,
            name="list_scheduled",
            summary="The messages that are still to be said, the next one first",
            run=do.list,
            returns={200: ScheduledPage},
            errors=(404,),
        ),
        Operation(
            method="DELETE",
            path=f"{PATH}/{{input}}",
            name="withdraw_scheduled",
            summary="Have a message not said; one that was said is not found",
            run=do.withdraw,
            returns={204: None},
            errors=(404,),
        ),
    ]


def _same(receipt: ScheduledReceipt) -> ScheduledReceipt:
    return receipt


def _view(one: Scheduled) -> ScheduledView:
    return ScheduledView(
        input=one.input,
        session=one.session,
        seq=one.seq,
        due_at=stamp(one.due_at.timestamp()),
        content=one.content,
        policy=one.policy,
        user=one.principal,
        metadata=one.metadata,
        purpose=one.purpose,
        priority=one.priority,
    )
