"""Where in a session's log a client's messages are.

Invariant: read through the service, as whoever asks; only asked for what was said before.
"""

from __future__ import annotations

from typing import cast

from hostler.core.errors import Conflict, NotFound
from hostler.core.events import START, Event, JsonObject, Principal, RunId, SessionId, UserSpoke
from hostler.faces.aisdk.bodies import NewChat, UiMessage, message_of, run_of
from hostler.service.cursor import Cursor
from hostler.service.service import Service

PAGE = 1000
UI = "ui"
"""Under which a message's metadata has what the client calls it."""


def labelled(metadata: JsonObject, message: str | None) -> JsonObject:
    """Return the metadata of a message that its client calls so."""
    return metadata if message is None else {**metadata, UI: {"id": message}}


async def taken_back_by(
    service: Service, who: Principal, session: SessionId, body: NewChat, said: UiMessage
) -> RunId | None:
    """Return from which run on a turn takes back what was said; None: it is a new one.

    Raises:
        Conflict: what is said again had joined the message before.
    """
    if body.trigger == "regenerate-message":
        run = run_of(body.message_id)
        if run is not None and body.message_id != message_of(run):
            raise joined()
        if run is None:
            run = await answer_to(service, who, session, said.id)
    else:
        run = await answer_to(service, who, session, body.message_id)
    if run is None:
        return None
    try:
        row = await service.runs.of_session(who, session, run)
    except NotFound:
        return None
    return None if row.started_at is None else run  # nothing of it was ever said to a model


async def answer_to(
    service: Service, who: Principal, session: SessionId, message: str | None
) -> RunId | None:
    """Return the run that answered, last, what the client calls `message`."""
    found: RunId | None = None
    has_joined, first = False, set[RunId]()
    after, more = Cursor(START), message is not None
    while more:
        page, more = await service.following.page(who, session, after=after, limit=PAGE)
        for one in page:
            fact = cast("Event", one).fact
            if isinstance(fact, UserSpoke) and fact.run is not None:
                if fact.metadata.get(UI) == {"id": message}:
                    found, has_joined = fact.run, fact.run in first
                first.add(fact.run)
        if more:
            after = Cursor(cast("Event", page[-1]).seq)
    if has_joined:
        raise joined()
    return found


def joined() -> Conflict:
    """Return what is told of a message that has no answer of its own."""
    return Conflict("this had joined the message before it: say that one again")
