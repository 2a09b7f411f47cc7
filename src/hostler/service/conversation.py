"""Conversations as clients send them that carry all of it, and what they end with.

Invariant: pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hostler.core.events import CallId, ClientTool, JsonObject, RunId
from hostler.core.said import Content, ModelSaid, Part, Said, TextPart, ToolSaid, UserSaid
from hostler.core.terms import Terms
from hostler.service.waits import Result

ANSWERED_WITHIN_S = 30 * 86_400.0
"""How long clients have for the result of a call: they cannot say it, and mostly take seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """What a client sends: all of it."""

    agent: str
    said: Sequence[Said]
    """With exactly one answer to each call, right after the reply that made it; calls have the ids
    that the client knows."""
    terms: Terms
    client_tools: Sequence[ClientTool] = ()
    label: JsonObject = field(default_factory=dict[str, object])
    """The metadata of the session, if one is made."""


class Results(NamedTuple):
    """What a conversation ends with, if a run waits for it."""

    run: RunId
    answers: Mapping[CallId, Result]
    content: Content
    """What is said after them."""


def results_of(said: Sequence[Said], made_by: Mapping[CallId, RunId]) -> Results | None:
    """Return what answers the last reply's calls, if one run made all of them."""
    said, after = [*said], list[UserSaid]()
    while said and isinstance(last := said[-1], UserSaid):
        after.insert(0, last)
        said.pop()
    answers = dict[CallId, Result]()
    while said and isinstance(last := said[-1], ToolSaid):
        answers[last.call.id] = Result(output=last.output, is_error=last.failed)
        said.pop()
    runs = {made_by.get(call) for call in answers}
    if len(runs) != 1 or not (said and isinstance(said[-1], ModelSaid)):
        return None
    (run,) = runs
    return None if run is None else Results(run, answers, _joined(after))


def _joined(said: Sequence[UserSaid]) -> Content:
    """Return what several messages say, as one."""
    if len(said) == 1:
        return said[0].content
    parts = list[Part]()
    for one in said:
        own = one.content
        parts += [TextPart(text=own)] if isinstance(own, str) else own
    return tuple(parts) if parts else ""
