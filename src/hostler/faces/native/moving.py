"""Moving a session's run to another node, over HTTP."""

from __future__ import annotations

from starlette.types import ASGIApp

from hostler.core.events import SessionId
from hostler.faces.http.answers import Answer
from hostler.faces.http.endpoint import Call, Operation
from hostler.service.moving import Moved
from hostler.service.service import Service


def move_operations(service: Service) -> list[Operation]:
    """Return the operation."""

    async def move(call: Call) -> ASGIApp:
        moved = await service.moving.move(call.who, SessionId(call.path["session"]))
        return Answer(202, moved)

    return [
        Operation(
            method="POST",
            path="/api/sessions/{session}/move",
            name="move_session",
            summary="Have the session's run go on on another node, from its next step; where there is "
            "none, it goes on where it is.  A repeat asks once more, so an idempotency key has nothing to do here",
            run=move,
            returns={202: Moved},
            errors=(403, 404, 409),
            keeps=False,
        )
    ]
