"""What becomes of a call before it begins: refused, put before a person, or begun.

    check ▸ cap ▸ approval ▸ ToolStarted

A call that needs an approval is asked about with the arguments it would run with; what is
approved is run with these, or with those that the approver gave, which are checked again.

Invariant: pure, but for what the toolbox says; no call begins without passing here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TypeAlias

from msgspec.structs import replace

from hostler.core.decide import MOST_CALLS, Limits, deadline
from hostler.core.events import (
    ApprovalAsked,
    JsonObject,
    ToolCall,
    ToolFinished,
    ToolStarted,
)
from hostler.core.ports import Toolbox
from hostler.core.state import Run, State

LATE = "Not run: nobody answered the request for approval in time."
CHANGED = "Not run: the tool that was approved is not here any more."
CROWDED = f"Not run: a reply may make {MOST_CALLS} calls. Make the others in the next one."

Gated: TypeAlias = ToolStarted | ToolFinished | ApprovalAsked


def admit(
    state: State, r: Run, calls: Iterable[ToolCall], tools: Toolbox, limits: Limits, *, now: float
) -> list[Gated]:
    """Return for each call what is to be written about it."""
    called, admitted = dict(r.called), list[Gated]()
    crowd = {call.id for call in r.asked[MOST_CALLS:]}
    for call in calls:
        if call.id in crowd:
            fact = ToolFinished(run=r.id, call=call.id, outcome="error", output=CROWDED)
        else:
            fact = _decided(r, call, tools) if call.id in r.gated else tools.check(call, r.id)
        if isinstance(fact, ToolStarted):
            cap = limits.tool_caps.get(fact.name)
            if cap is not None and called.get(fact.name, 0) >= cap:
                told = f"Not run: {fact.name} may be called {cap} time(s) in a run, and was."
                fact = _denied(r, call, told)
            else:
                called[fact.name] = called.get(fact.name, 0) + 1
                fact = _asked(state, r, fact, tools, limits, now)
        admitted.append(fact)
    return admitted


def digest(name: str, arguments: JsonObject) -> str:
    """Return what an approval is bound to: SHA-256 of `[name, arguments]` as compact JSON, sorted."""
    text = json.dumps([name, arguments], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _asked(
    state: State, r: Run, started: ToolStarted, tools: Toolbox, limits: Limits, now: float
) -> ToolStarted | ApprovalAsked:
    if (
        started.call not in r.given
        and started.name not in state.approved
        and tools.needs_approval(started)
    ):
        return ApprovalAsked(
            run=r.id,
            call=started.call,
            name=started.name,
            arguments=started.arguments,
            digest=digest(started.name, started.arguments),
            expires_at=_until(now + limits.approval_s, r, limits),
        )
    client_s = tools.client_s(started)
    if client_s is None:
        return started
    return replace(started, expires_at=_until(now + client_s, r, limits))


def _until(seconds: float, r: Run, limits: Limits) -> datetime:
    """Return the end of a wait: the run's own, and a moment, if that is before it.

    A parked run is woken by its first wait that is over, so its time has to be one.
    """
    return _at(min(seconds, deadline(r, limits) + 0.001))


def _decided(r: Run, call: ToolCall, tools: Toolbox) -> ToolStarted | ToolFinished:
    asked, given = r.gated[call.id], r.given.get(call.id)
    if given is None:
        return _denied(r, call, LATE)
    if given.decision == "deny":
        return _denied(r, call, f"Denied by {given.principal}{_because(given.reason)}")
    arguments = asked.arguments if given.arguments is None else given.arguments
    checked = tools.check(ToolCall(id=call.id, name=asked.name, arguments=arguments), r.id)
    if isinstance(checked, ToolFinished):
        return checked  # a restart came between, with other tools or other rules
    if checked.name != asked.name:
        return _denied(r, call, CHANGED)
    if given.arguments is None:  # what was shown, to the letter
        return ToolStarted(run=r.id, call=call.id, name=asked.name, arguments=arguments)
    return checked


def _because(reason: str | None) -> str:
    return f": {reason}" if reason else "."


def _denied(r: Run, call: ToolCall, told: str) -> ToolFinished:
    return ToolFinished(run=r.id, call=call.id, outcome="denied", output=told)


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
