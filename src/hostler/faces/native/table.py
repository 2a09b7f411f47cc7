"""The native API as a table: what is served, and what OpenAPI is made from.

Invariant: one entry is one method on one path; nothing is served that is not here.
"""

from __future__ import annotations

from starlette.types import ASGIApp

from hostler.core.events import JsonObject
from hostler.faces.native import bodies
from hostler.faces.native.http import Answer, Call, Operation
from hostler.faces.native.openapi import openapi
from hostler.faces.native.operations import Operations
from hostler.service.inbox import Cancelled, Receipt
from hostler.service.runs import Ended


def table(do: Operations) -> list[Operation]:
    """Return every operation, in the order of the documentation."""

    async def document(call: Call) -> ASGIApp:
        del call
        return Answer(200, openapi(table(do)))

    pages = {"after": "the last id of the page before", "limit": "1 to 1000, default 100"}
    session, events = "/api/sessions/{session}", "/api/sessions/{session}/events"
    return [
        Operation(
            method="POST",
            path="/api/sessions",
            name="create_session",
            summary="Make a session; with an id, make it or find it again",
            run=do.create_session,
            body=bodies.NewSession,
            returns={201: bodies.SessionView, 200: bodies.SessionView},
            errors=(409, 422),
        ),
        Operation(
            method="GET",
            path="/api/sessions",
            name="list_sessions",
            summary="Sessions, newest first",
            run=do.list_sessions,
            query={**pages, "agent": "only of this agent", "status": "idle, queued or running"},
            returns={200: bodies.SessionPage},
            errors=(422,),
        ),
        Operation(
            method="GET",
            path=session,
            name="get_session",
            summary="One session",
            run=do.get_session,
            returns={200: bodies.SessionView},
            errors=(404,),
        ),
        Operation(
            method="PATCH",
            path=session,
            name="label_session",
            summary="Set the title, the metadata or both",
            run=do.label_session,
            body=bodies.Labels,
            returns={200: bodies.SessionView},
            errors=(404, 422),
        ),
        Operation(
            method="DELETE",
            path=session,
            name="delete_session",
            summary="Cancel what is going, then remove the session and its log",
            run=do.delete_session,
            returns={204: None},
            errors=(404,),
        ),
        Operation(
            method="POST",
            path=f"{session}/messages",
            name="speak",
            summary="Say something; the answer is a receipt, a stream or the end of the run",
            run=do.speak,
            body=bodies.NewMessage,
            headers={
                "Accept": "text/event-stream: stream until the run ends",
                "Prefer": "wait=N, up to 300: answer when the run ends within N seconds",
            },
            returns={202: Receipt, 200: Ended},
            streams=True,
            errors=(404, 409, 413, 422),
        ),
        Operation(
            method="POST",
            path=f"{session}/cancel",
            name="cancel",
            summary="Ask for the active run to end; safe to repeat",
            run=do.cancel,
            body=bodies.NewCancel,
            returns={202: Cancelled},
            errors=(404, 422),
        ),
        Operation(
            method="GET",
            path=events,
            name="read_events",
            summary="Events past a cursor: a page, or a stream that goes on",
            run=do.read_events,
            query={
                "after": "a cursor; `now` skips history",
                "until": "run_end: close after the next end of a run",
                "limit": "of a page: 1 to 1000, default 100",
                "wait": "of a page: seconds to wait for something new, up to 300",
                "deltas": "of a page: true includes text in flight",
            },
            headers={
                "Accept": "text/event-stream: follow",
                "Last-Event-ID": "a cursor; wins over `after`",
            },
            returns={200: bodies.EventPage, 204: None},
            streams=True,
            errors=(400, 404, 422),
        ),
        Operation(
            method="GET",
            path="/api/runs",
            name="list_runs",
            summary="Runs, newest first",
            run=do.list_runs,
            query={**pages, "session": "only of this session", "status": "only in this status"},
            returns={200: bodies.RunPage},
            errors=(422,),
        ),
        Operation(
            method="GET",
            path="/api/runs/{run}",
            name="get_run",
            summary="A run with its model calls and tool calls",
            run=do.get_run,
            returns={200: bodies.RunDetailView},
            errors=(404,),
        ),
        Operation(
            method="GET",
            path="/api/search",
            name="search",
            summary="Where words were said, newest first",
            run=do.search,
            query={"q": "words, all of which must be there", "limit": "1 to 100, default 20"},
            returns={200: bodies.HitPage},
            errors=(422,),
        ),
        Operation(
            method="GET",
            path="/api/agents",
            name="list_agents",
            summary="The agents served here",
            run=do.list_agents,
            returns={200: bodies.AgentPage},
        ),
        Operation(
            method="GET",
            path="/api/agents/{agent}",
            name="get_agent",
            summary="One agent",
            run=do.get_agent,
            returns={200: bodies.AgentView},
            errors=(404,),
        ),
        Operation(
            method="GET",
            path="/api/me",
            name="me",
            summary="Who the key belongs to",
            run=do.me,
            returns={200: bodies.Me},
        ),
        Operation(
            method="GET",
            path="/api/capabilities",
            name="capabilities",
            summary="What this server can do",
            run=do.capabilities,
            returns={200: bodies.Capabilities},
        ),
        Operation(
            method="GET",
            path="/openapi.json",
            name="document",
            summary="This document",
            run=document,
            returns={200: JsonObject},
        ),
        Operation(
            method="GET",
            path="/healthz",
            name="alive",
            summary="Whether the process answers",
            run=do.alive,
            returns={200: bodies.Health},
            public=True,
        ),
        Operation(
            method="GET",
            path="/readyz",
            name="ready",
            summary="Whether the store answers and runs are driven",
            run=do.ready,
            returns={200: bodies.Health},
            public=True,
        ),
    ]
