"""How things are said in one line, on whatever they are shown.

Invariant: nothing that a model or a tool says reaches a terminal as a command to it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from hostler.app.terminal.story import Called, Over, Trouble
from hostler.core.events import JsonObject

SHORT = 60
"""Characters of arguments, and of what came of them."""
MARK = {"ok": "✓", "error": "✗", "denied": "✗", "cancelled": "■", "unknown": "?"}

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_REASONS = {
    "model_error": "the model gave no reply",
    "step_limit": "it reached its limit of steps",
    "budget": "its budget is used up",
    "stuck": "it made the same call again and again",
    "poisoned": "the server died in it too often",
}


def printable(text: str) -> str:
    """Return a text without control characters but line ends and tabs."""
    return _CONTROLS.sub("", text)


def brief(text: str, room: int = SHORT) -> str:
    """Return a text on one line of at most `room` characters."""
    line = " ".join(printable(text[: 4 * room]).split())
    return line if len(line) <= room and len(text) <= 4 * room else f"{line[: room - 1]}…"


def arguments_of(arguments: JsonObject) -> str:
    """Return arguments as `name="value", …`, as far as there is room."""
    encoded = (f"{name}={msgspec.json.encode(value).decode()}" for name, value in arguments.items())
    return brief(", ".join(encoded))


def call_of(called: Called) -> str:
    """Return a call with what came of it."""
    mark, outcome = MARK.get(called.outcome, "?"), called.outcome
    what = brief(called.output) or outcome
    told = what if outcome in ("ok", "error") else f"{outcome}: {what}"
    took = "" if called.took_s is None else f" · {seconds(called.took_s)}"
    return f"{mark} {brief(called.name)}({arguments_of(called.arguments)}) → {told}{took}"


def trouble_of(trouble: Trouble) -> str:
    """Return what went wrong with a model, and what is done about it."""
    wait_s = trouble.retry_after_s
    then = "" if wait_s is None else f"; asking again in {seconds(wait_s)}"
    return f"the model gave no reply ({trouble.code}: {brief(trouble.message, 200)}){then}"


def end_of(over: Over) -> str:
    """Return how a run ended and what it took."""
    took = [] if over.took_s is None else [seconds(over.took_s)]
    if over.status == "failed":
        return " · ".join([f"failed: {why(over)}", *took])
    if over.status == "cancelled":
        because = f" ({brief(over.reason)})" if over.reason else ""
        return " · ".join([f"cancelled{because}", *took])
    return " · ".join([*took, *_used(over.usage)])


def why(over: Over) -> str:
    """Return why a run failed."""
    reason = over.reason or "no reason given"
    return _REASONS.get(reason, brief(reason, 200))


def seconds(s: float) -> str:
    """Return a duration as a person reads it."""
    if s < 9.95:
        return f"{s:.1f} s"
    minutes, rest = divmod(round(s), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _used(usage: JsonObject) -> Sequence[str]:
    tokens, cost = f"{_count(usage, 'input')} in, {_count(usage, 'output')} out", usage.get("cost")
    return [tokens] if cost is None or float(str(cost)) == 0 else [tokens, f"${cost}"]


def _count(usage: JsonObject, which: str) -> str:
    return f"{int(str(usage.get(f'{which}_tokens') or 0)):,}"
