"""The page on limits: the numbers in the code that a user can run into."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, cast

from docs.build.markdown import page, table
from docs.build.source import Undocumented, constants

from hostler.app import house, keys, server
from hostler.core import decide, loop, shown
from hostler.engine import reconcile
from hostler.faces.http import endpoint, entry, open_streams
from hostler.faces.native import awaited, doctor
from hostler.harness import repair, toolbox
from hostler.models import exchange
from hostler.service import admission, follow, once, shares
from hostler.service import limits as sent
from hostler.signals import presence
from hostler.signals import watcher as signals
from hostler.tools import function
from hostler.tools import python as sandbox

INTRO = """
Every number here is read from the code when this page is made. What is over a limit of a request
is refused with 413 or 422, too many at once with 409 or 429, and nothing of it is stored.
"""
HELD = {
    "LONGEST_TEXT": "Text of one message",
    "MOST_PARTS": "Parts of one message",
    "LARGEST_METADATA": "Metadata of a session or a message, as JSON",
    "LONGEST_TITLE": "Title of a session",
    "LONGEST_LABEL": "Purpose of a run, key of a rating",
    "LONGEST_COMMENT": "Comment of a rating",
    "MOST_CLIENT_TOOLS": "Client tools of a session",
    "LARGEST_CLIENT_TOOL": "One of them, as JSON",
    "MOST_SAID": "Messages of a history that a message brings",
    "MOST_STOPS": "Texts at which an answer ends",
    "LONGEST_STOPS": "All of them together",
    "MOST_SESSIONS": "Sessions of a tenant",
    "MOST_STREAMS": "Open streams and sockets of one principal",
    "MOST_SHARES": "Share links of a session",
    "MOST_WEBHOOKS": "Webhooks of a tenant",
    "LONGEST_WEBHOOK_URL": "URL of a webhook",
    "LARGEST_ARCHIVE": "A session that is imported",
    "LARGEST_ARCHIVE_LINE": "One fact in it",
}
"""What the constants of `service/limits.py` are about; they say themselves why they are so."""
UNITS = {"Characters": "characters", "Bytes": "bytes", "Levels": "levels"}


class Limit(NamedTuple):
    what: str
    value: float | tuple[float, ...]
    unit: str = ""


DAY_S = 86_400
PATIENCE = exchange.Patience()
BOUNDS = exchange.Bounds()
LIMITS = decide.Limits()
GROUPS: dict[str, list[Limit]] = {
    "Requests": [
        Limit("Body of a request", endpoint.LARGEST_BODY, "bytes"),
        Limit("Nesting of JSON that is kept", sent.DEEPEST, "levels"),
        Limit("Longest `Prefer: wait=N` and `wait=N`", awaited.LONGEST_WAIT_S, "s"),
        Limit("Shortest admin key", keys.SHORTEST_KEY, "characters"),
        Limit("`Idempotency-Key`", once.LONGEST_KEY, "characters"),
        Limit("Life of a socket ticket", entry.TICKET_S, "s"),
        Limit("Life of a share link", shares.LONGEST_S / DAY_S, "days"),
        Limit("Ticks of `GET /api/doctor/stream`", doctor.MOST_TICKS),
    ],
    "Streams": [
        Limit("Silence before a comment keeps a stream open", follow.QUIET_S, "s"),
        Limit(
            "Frames kept for a client that falls behind; then it is served from the log",
            signals.LARGEST_BACKLOG,
        ),
        Limit(
            "A client that takes nothing for so long is cut; it comes back with its cursor",
            open_streams.SLOW_S,
            "s",
        ),
        Limit("Between two pings of a socket", server.PING_S, "s"),
        Limit("`typing` is shown for", presence.TYPING_S, "s"),
        Limit("Time for requests in flight when the server stops", server.DRAIN_S, "s"),
    ],
    "Runs": [
        Limit("Runs driven at once by one server", house.SLOTS),
        Limit("Active runs above which new work is refused", admission.MOST_ACTIVE),
        Limit("Runs that wait in one session", sent.LONGEST_QUEUE),
        Limit("Calls in one reply; the others are answered with an error", sent.MOST_CALLS),
        Limit("A wait for an approval or a client", decide.MOST_WAIT_S / DAY_S, "days"),
        Limit("Steps of a run, unless the agent says otherwise", LIMITS.max_steps),
        Limit("Calls of one model for one step, the first included", LIMITS.attempts),
        Limit(
            "The same, while it limits the rate of requests or is overloaded", decide.MOST_LIMITED
        ),
        Limit("One model is waited for in one step", LIMITS.wait_s, "s"),
        Limit(
            "A longer wait than this is not waited if the chain has another model",
            decide.IMPATIENT_S,
            "s",
        ),
        Limit("Longest waits between them, unless the provider says how long", loop.BACKOFF_S, "s"),
        Limit("Equal calls with equal results in a row: stuck", LIMITS.stuck_after),
        Limit("Replies in a row that say nothing: stuck", decide.EMPTY_AFTER),
        Limit("Steps in a row in which every call failed: stuck", decide.FAILED_AFTER),
        Limit("Steps in a row that failed with one error: stuck", decide.SAME_ERROR_AFTER),
        Limit("Claims in a row without progress, above which it is poisoned", decide.MAX_CLAIMS),
        Limit("Between two looks for runs that nobody drives", reconcile.EVERY_S, "s"),
    ],
    "Tools": [
        Limit(
            "Output that a model gets to read; the rest is in a file",
            toolbox.LIMIT_CHARS,
            "characters",
        ),
        Limit("Output that is kept in that file", toolbox.LARGEST_FILE_CHARS, "characters"),
        Limit("Arguments", repair.LARGEST_TEXT, "characters"),
        Limit("Nesting of arguments", repair.DEEPEST, "levels"),
        Limit("What a tool shows: one part, as JSON", shown.LARGEST_SHOWN, "bytes"),
        Limit("What a tool shows: all parts of one call", shown.LARGEST_OF_CALL, "bytes"),
        Limit("What a tool shows: parts of one call", shown.MOST_OF_CALL),
        Limit("Calls that only read, side by side", loop.READERS),
        Limit("Calls of one tool in threads, side by side", function.THREADS),
        Limit("`python`: time for one call", sandbox.DURATION_S, "s"),
        Limit("`python`: memory for one call", sandbox.MEMORY_BYTES, "bytes"),
        Limit("`python`: calls side by side", sandbox.WORKERS),
    ],
    "Models": [
        Limit("Connecting", PATIENCE.connect_s, "s"),
        Limit("From the question to the first event", PATIENCE.first_byte_s, "s"),
        Limit("Between two events", PATIENCE.idle_s, "s"),
        Limit("One reply", exchange.LARGEST_REPLY, "characters"),
        Limit("One event of a stream", BOUNDS.event_bytes, "bytes"),
        Limit("All of an answer", BOUNDS.body_bytes, "bytes"),
    ],
}


def limits() -> str:
    """Return the page."""
    parts = ["## What a client may send or hold", table(["what", "limit", "why"], _held())]
    for name, group in GROUPS.items():
        parts += [f"## {name}", table(["what", "limit"], ([one.what, _told(one)] for one in group))]
    return page("Limits", INTRO, *parts)


def _held() -> Iterator[list[str]]:
    """Yield a row for each constant of `service/limits.py`.  Raises Undocumented."""
    said = {name: text for name, text in constants(sent).items() if not name.startswith("_")}
    for name in sorted(set(said) ^ set(HELD)):
        raise Undocumented(f"{name}: service/limits.py and docs/build/limits.py do not agree")
    for name, what in HELD.items():
        first, _, why = said[name].partition(": ")
        unit = next((unit for word, unit in UNITS.items() if first.startswith(word)), "")
        value = cast("float", getattr(sent, name))
        yield [what, _told(Limit(what, value, unit)), _sentence(why)]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _told(limit: Limit) -> str:
    if limit.unit == "bytes":
        assert not isinstance(limit.value, tuple)
        return _size(limit.value)
    several = limit.value if isinstance(limit.value, tuple) else (limit.value,)
    return f"{', '.join(map(_number, several))} {limit.unit}"


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:,}"


def _size(value: float) -> str:
    return f"{value / (1 << 20):g} MiB" if value >= 1 << 20 else f"{value / (1 << 10):g} KiB"
