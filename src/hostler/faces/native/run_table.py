"""Runs as data over HTTP: lists, one run, what it cost, what was thought of it, sums.

Invariant: as in `table` and `operations`: an entry is one method on one path, and calls one verb.
"""

from __future__ import annotations

import base64
import binascii
import time
from dataclasses import dataclass
from typing import cast, get_args

import msgspec
from msgspec import Struct
from msgspec.structs import asdict
from starlette.types import ASGIApp

from hostler.core.errors import Invalid
from hostler.core.events import RunId, RunStatus
from hostler.core.ledger import By, RunFilter, Spent
from hostler.faces.http.answers import Answer, page
from hostler.faces.http.endpoint import Call, Operation, number, one_of
from hostler.faces.http.form import encode, stamp
from hostler.faces.native import bodies, views
from hostler.faces.native.times import FORMS, time_of
from hostler.service.costs import Costs
from hostler.service.marks import Mark
from hostler.service.service import Service

DAYS = 30
"""Of usage, when nothing is said."""
GROUPS = get_args(By)
STATUSES = ("queued", "running", *get_args(RunStatus))
_group = msgspec.json.Decoder(list[str])


class NewFeedback(Struct, kw_only=True, forbid_unknown_fields=True):
    score: float
    """-1, or from 0 to 1."""
    comment: str | None = None
    key: str | None = None
    """What is rated; without it, the run as a whole."""


class UsageView(Struct, kw_only=True):
    by: dict[str, str]
    """What these sums are of: a value for each word in `by`."""
    runs: int
    """That asked a model."""
    calls: int
    """Of models, failed ones included."""
    failed_calls: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    cost: str | None
    """US dollars, of the calls whose cost is known; null when none is."""
    unpriced_calls: int
    """That may have cost something, and what is not known."""


class UsagePage(Struct, kw_only=True):
    items: list[UsageView]
    cursor: str | None
    more: bool
    start: str
    end: str


def run_operations(service: Service) -> list[Operation]:
    """Return the operations on runs."""
    return table(RunOperations(service))


def table(do: RunOperations) -> list[Operation]:
    """Return the operations, in the order of the documentation."""
    times = {"from": f"{FORMS}: from then on", "to": "as `from`: earlier than that"}
    pages = {"after": "the last id of the page before", "limit": "1 to 1000, default 100"}
    return [
        Operation(
            method="GET",
            path="/api/runs",
            name="list_runs",
            summary="Runs, newest first",
            run=do.list_runs,
            query={
                **pages,
                "session": "only of this session",
                "status": f"one of: {', '.join(STATUSES)}",
                "agent": "only of this agent",
                "user": "only of this principal: who spoke first in it",
                "purpose": "only with this purpose",
                **times,
            },
            returns={200: bodies.RunPage},
            errors=(422,),
        ),
        Operation(
            method="GET",
            path="/api/runs/{run}",
            name="get_run",
            summary="A run with its model calls, its tool calls and what was thought of it",
            run=do.get_run,
            returns={200: bodies.RunDetailView},
            errors=(404,),
        ),
        Operation(
            method="GET",
            path="/api/runs/{run}/costs",
            name="get_costs",
            summary="What in a run cost what, and what each prompt was made of",
            run=do.get_costs,
            returns={200: Costs},
            errors=(404,),
        ),
        Operation(
            method="POST",
            path="/api/runs/{run}/feedback",
            name="give_feedback",
            summary="Say how good a run was; the last word of a principal on a key holds",
            run=do.give_feedback,
            body=NewFeedback,
            returns={200: bodies.FeedbackView},
            errors=(403, 404, 422),
        ),
        Operation(
            method="GET",
            path="/api/usage",
            name="usage",
            summary="Tokens and cost of the model calls of some time",
            run=do.usage,
            query={
                "from": f"{FORMS}; default {DAYS} days before `to`",
                "to": "as `from`; default now",
                "by": f"what to sum by, comma between: {', '.join(GROUPS)}; default tenant",
                "after": "the cursor of the page before",
                "limit": "1 to 1000, default 100",
            },
            returns={200: UsagePage},
            errors=(422,),
        ),
    ]


@dataclass(frozen=True, slots=True)
class RunOperations:
    """The handlers."""

    service: Service

    async def list_runs(self, call: Call) -> ASGIApp:
        limit = number(call, "limit", default=100, most=1000)
        found = await self.service.runs.list(
            call.who,
            session=call.query.get("session"),
            status=one_of(call, "status", STATUSES),
            after=call.query.get("after", ""),
            limit=limit + 1,
            only=RunFilter(
                agent=call.query.get("agent"),
                principal=call.query.get("user"),
                purpose=call.query.get("purpose"),
                since=time_of(call, "from"),
                before=time_of(call, "to"),
            ),
        )
        return page([views.view_run(one) for one in found], limit)

    async def get_run(self, call: Call) -> ASGIApp:
        detail = await self.service.runs.get(call.who, _run(call))
        return Answer(200, views.view_detail(detail))

    async def get_costs(self, call: Call) -> ASGIApp:
        return Answer(200, await self.service.runs.costs(call.who, _run(call)))

    async def give_feedback(self, call: Call) -> ASGIApp:
        body = cast("NewFeedback", call.body)
        mark = Mark(score=body.score, key=body.key, comment=body.comment)
        rating = await self.service.runs.rate(
            call.who, _run(call), mark, answering=call.answering(200, views.view_feedback)
        )
        return Answer(200, views.view_feedback(rating))

    async def usage(self, call: Call) -> ASGIApp:
        limit = number(call, "limit", default=100, most=1000)
        before = time_of(call, "to")
        before = time.time() if before is None else before
        since = time_of(call, "from")
        since = before - DAYS * 86_400 if since is None else since
        by = _groups(call)
        found = await self.service.runs.usage(
            call.who, by, since=since, before=before, after=_after(call, by), limit=limit + 1
        )
        shown, more = found[:limit], len(found) > limit
        page = UsagePage(
            items=[_usage(one) for one in shown],
            cursor=_cursor(shown[-1]) if shown else None,
            more=more,
            start=stamp(since),
            end=stamp(before),
        )
        return Answer(200, page)


def _run(call: Call) -> RunId:
    return RunId(call.path["run"])


def _groups(call: Call) -> list[By]:
    asked = (call.query.get("by") or "tenant").split(",")
    if len(set(asked)) < len(asked) or not set(asked) <= set(GROUPS):
        wanted = f"some of {', '.join(GROUPS)}, each once, with commas between"
        raise Invalid(f"by must be {wanted}", fields=[("by", wanted)])
    return cast("list[By]", asked)


def _cursor(last: Spent) -> str:
    return base64.urlsafe_b64encode(encode(list(last.by.values()))).decode().rstrip("=")


def _after(call: Call, by: list[By]) -> list[str]:
    text = call.query.get("after", "")
    if not text:
        return []
    try:
        group = _group.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (msgspec.DecodeError, binascii.Error, ValueError):
        group = []
    if len(group) != len(by):
        wanted = "the cursor of a page with the same `by`"
        raise Invalid(f"after must be {wanted}", fields=[("after", wanted)])
    return group


def _usage(spent: Spent) -> UsageView:
    values = asdict(spent)
    values["by"] = dict(spent.by)
    values["cost"] = None if spent.cost is None else f"{spent.cost:f}"
    return UsageView(**values)
