"""The audit log over HTTP: pages, the file, and the head to keep elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import Struct
from starlette.types import ASGIApp

from hostler.core.audited import ACTIONS, AuditRow, ChainHead, Wanted
from hostler.core.errors import Invalid
from hostler.faces.http.answers import Answer
from hostler.faces.http.endpoint import Call, Operation, number
from hostler.faces.http.open_streams import OpenStreams
from hostler.faces.native.file_stream import JSONL, FileStream
from hostler.faces.native.times import FORMS, time_of
from hostler.service.service import Service

MOST = 999_999_999


class AuditPage(Struct, kw_only=True):
    items: list[AuditRow]
    cursor: str | None
    more: bool


@dataclass(frozen=True, slots=True)
class AuditOperations:
    """The handlers."""

    service: Service
    streams: OpenStreams

    async def list(self, call: Call) -> ASGIApp:
        limit = number(call, "limit", default=100, most=1000)
        after = number(call, "after", default=0, most=MOST, least=0)
        wanted = Wanted(
            after=after or None,
            since=time_of(call, "from"),
            until=time_of(call, "to"),
            action=_action(call),
            principal=call.query.get("principal"),
        )
        found = await self.service.auditing.list(call.who, wanted, limit=limit + 1)
        shown = found[:limit]
        cursor = str(shown[-1].seq) if shown else None
        return Answer(200, {"items": shown, "cursor": cursor, "more": len(found) > limit})

    async def export(self, call: Call) -> ASGIApp:
        after = number(call, "after", default=0, most=MOST, least=0)
        await self.streams.check(call.who, self.service.tenants)
        pieces = await self.service.auditing.export(call.who, after=after)
        name = f"audit-{after + 1}.jsonl"
        return FileStream(call=call, streams=self.streams, name=name, pieces=pieces)

    async def head(self, call: Call) -> ASGIApp:
        return Answer(200, await self.service.auditing.head(call.who))


def audit_operations(do: AuditOperations) -> list[Operation]:
    """Return the operations on the audit log."""
    return [
        Operation(
            method="GET",
            path="/api/audit",
            name="list_audit",
            summary="Who did what, newest first",
            run=do.list,
            query={
                "after": f"the last `seq` of the page before: 0 to {MOST}",
                "limit": "1 to 1000, default 100",
                "from": f"{FORMS}: not before this time",
                "to": f"{FORMS}: before this time",
                "action": "only this action, such as `key.create`",
                "principal": "only of this principal",
            },
            returns={200: AuditPage},
            errors=(403, 422),
        ),
        Operation(
            method="GET",
            path="/api/audit/export",
            name="export_audit",
            summary="The audit log as a file: every row in its order, a line each, with its hash",
            run=do.export,
            audited="audit.export",
            query={"after": f"0 to {MOST}: only rows past this `seq`, to go on where a file ended"},
            returns={200: str},
            gives=JSONL,
            errors=(403, 422),
        ),
        Operation(
            method="GET",
            path="/api/audit/head",
            name="audit_head",
            summary="The last row's number and hash: kept elsewhere, they show a log that was cut",
            run=do.head,
            returns={200: ChainHead},
            errors=(403,),
        ),
    ]


def _action(call: Call) -> str | None:
    action = call.query.get("action")
    if action is not None and action not in ACTIONS:
        wanted = f"one of: {', '.join(ACTIONS)}"
        raise Invalid(f"there is no action {action!r}", fields=[("action", wanted)])
    return action
