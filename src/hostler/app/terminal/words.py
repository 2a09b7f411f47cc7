"""How things are said in one line, on whatever they are shown.

Invariant: nothing that a model or a tool says reaches a terminal as a command to it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from hostler.app.terminal.items import (
    Called,
    Decided,
    Elsewhere,
    Over,
    Question,
    Shows,
    Trouble,
    Wait,
    Wants,
)
from hostler.core.events import JsonObject

SHORT = 60
"""Characters of arguments, and of what came of them."""
LINK = 2000
"""Of a link: one that is cut leads nowhere."""
WHOLE = 10_000
"""Characters of arguments that somebody has to judge."""
MARK = {"ok": "✓", "error": "✗", "denied": "✗", "cancelled": "■", "unknown": "?"}

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_TURNS = re.compile("[\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
"""What is not seen, or makes what follows look as if it stood elsewhere."""
_REASONS = {
    "model_error": "the model gave no reply",
    "wait_too_long": "its model asks for a longer wait than the run has time for",
    "step_limit": "it reached its limit of steps",
    "budget": "its budget is used up",
    "unanswered": "no client answered a call in time",
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


def in_full(arguments: JsonObject) -> str:
    """Return arguments as somebody reads them who answers for them: all, and nothing hidden."""
    lines = list[str]()
    for name, value in arguments.items():
        if isinstance(value, str) and "\n" in value.strip("\n"):
            lines += [f"{name}:", *(f"  {line}" for line in value.strip("\n").split("\n"))]
        else:
            lines.append(f"{name}: {msgspec.json.encode(value).decode()}")
    text = printable(_TURNS.sub(lambda found: f"\\u{ord(found[0]):04x}", "\n".join(lines)))
    left = len(text) - WHOLE
    return text if left <= 0 else f"{text[:WHOLE]}…\n({left:,} more characters)"


def wait_of(wait: Wait) -> str:
    """Return in a line what a run waits for."""
    match wait:
        case Wants(name=name, arguments=arguments):
            return f"an approval of {brief(name)}({arguments_of(arguments)})"
        case Question(question=question):
            return f"an answer to: {brief(question)}"
        case Elsewhere(name=name, arguments=arguments):
            return f"another client to answer {brief(name)}({arguments_of(arguments)})"


def asked_of(wait: Wait) -> tuple[str, str]:
    """Return what somebody is asked, and what there is to know for an answer."""
    match wait:
        case Wants():
            return f"{brief(wait.who)} wants to run {brief(wait.name)}", in_full(wait.arguments)
        case Question():
            about = [f"{n}. {brief(one, 500)}" for n, one in enumerate(wait.options, 1)]
            if wait.schema is not None:
                about.append(
                    f"(it must fit {brief(msgspec.json.encode(wait.schema).decode(), 500)})"
                )
            return f"{brief(wait.who)} asks", "\n".join([printable(wait.question), *about])
        case Elsewhere():
            return f"waiting for {wait_of(wait)}", ""


def decided_of(decided: Decided) -> str:
    """Return how a request for an approval was answered, and by whom."""
    how = "allowed" if decided.decision == "allow" else "denied"
    more = " in this session, from now on" if decided.is_remembered else ""
    edited = "" if decided.arguments is None else f", with {arguments_of(decided.arguments)}"
    return f"{brief(decided.name)} was {how} by {brief(decided.principal)}{edited}{more}"


def shown_of(shows: Shows) -> str:
    """Return what a tool shows, in a line."""
    part = shows.part
    if part["type"] == "data":
        value = msgspec.json.encode(part["value"]).decode()
        return f"· {brief(str(part['name']))}: {brief(value)}"
    where = part.get("url") or part.get("media_type") or ""
    called = [brief(str(part.get(name) or "")) for name in ("type", "title", "name")]
    return " ".join(filter(None, ["·", *called, brief(str(where), LINK)]))


def call_of(called: Called) -> str:
    """Return a call with what came of it."""
    mark, outcome = MARK.get(called.outcome, "?"), called.outcome
    what = brief(called.output) or outcome
    told = what if outcome in ("ok", "error") else f"{outcome}: {what}"
    took = "" if called.took_s is None else f" · {seconds(called.took_s)}"
    by = "" if called.principal is None else f" · by {brief(called.principal)}"
    return f"{mark} {brief(called.name)}({arguments_of(called.arguments)}) → {told}{by}{took}"


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
