"""The page on limits: the numbers in the code that a user can run into."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from docs.build.markdown import page, table

from hostler.app import house, keys, server
from hostler.core import decide, loop
from hostler.engine import reconcile
from hostler.faces.native import bodies, http, operations
from hostler.harness import repair, toolbox
from hostler.models import exchange
from hostler.service import follow
from hostler.signals import local as signals
from hostler.tools import function
from hostler.tools import python as sandbox

INTRO = """
Every number here is read from the code when this page is made. What is over a limit of a request
is refused with 413 or 422, and nothing of it is stored.
"""


class Limit(NamedTuple):
    what: str
    value: float | tuple[float, ...]
    unit: str = ""


PATIENCE = exchange.Patience()
BOUNDS = exchange.Bounds()
LIMITS = decide.Limits()
GROUPS: dict[str, list[Limit]] = {
    "Requests": [
        Limit("Body of a request", http.LARGEST_BODY, "bytes"),
        Limit("Nesting of metadata", bodies.DEEPEST, "levels"),
        Limit("Longest `Prefer: wait=N` and `wait=N`", operations.LONGEST_WAIT_S, "s"),
        Limit("Shortest admin key", keys.SHORTEST_KEY, "characters"),
    ],
    "Streams": [
        Limit("Silence before a comment keeps a stream open", follow.QUIET_S, "s"),
        Limit(
            "Frames kept for a client that falls behind; then it is served from the log",
            signals.LARGEST_BACKLOG,
        ),
        Limit("Time for requests in flight when the server stops", server.DRAIN_S, "s"),
    ],
    "Runs": [
        Limit("Runs driven at once by one server", house.SLOTS),
        Limit("Steps of a run, unless the agent says otherwise", LIMITS.max_steps),
        Limit("Calls of one model for one step, the first included", LIMITS.attempts),
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
    parts: list[str] = []
    for name, group in GROUPS.items():
        parts += [f"## {name}", table(["what", "limit"], ([one.what, _told(one)] for one in group))]
    return page("Limits", INTRO, *parts)


def _told(limit: Limit) -> str:
    how = _size if limit.unit == "bytes" else _number
    several = limit.value if isinstance(limit.value, tuple) else (limit.value,)
    unit = "MiB" if limit.unit == "bytes" else limit.unit
    return f"{', '.join(map(how, several))} {unit}"


def _number(value: float) -> str:
    return f"{Decimal(str(value)).normalize():,f}"


def _size(value: float) -> str:
    return f"{value / (1 << 20):g}"
