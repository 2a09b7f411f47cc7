"""The models and agents that may be asked, as OpenAI lists them; to clients of Anthropic, as Anthropic does.

Invariant: what is listed can be asked by that name; more may be, where the operator has patterns.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import ASGIApp

from hostler.core.errors import Invalid
from hostler.core.events import JsonObject
from hostler.faces.http.agents import PREFIX, agent_of
from hostler.faces.http.answers import Answer
from hostler.faces.http.endpoint import Call, number
from hostler.service.service import Service

MOST = 1000
LONG_AGO = "1970-01-01T00:00:00Z"
"""What Anthropic tells where it is not known since when there is a model."""


class ModelLists:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def all(self, call: Call) -> ASGIApp:
        agents = [f"{PREFIX}{name}" for name in self._service.agents]
        names = [*agents, *self._service.direct.names(call.who)]
        if _is_of_anthropic(call):
            return Answer(200, _page(names, call))
        return Answer(200, {"object": "list", "data": [_openai(name) for name in names]})

    async def one(self, call: Call) -> ASGIApp:
        name, view = call.path["model"], _anthropic if _is_of_anthropic(call) else _openai
        if (agent := agent_of(name)) is not None:
            self._service.carried.find(call.who, agent)
        else:
            found = self._service.direct.find(call.who, name)
            name = f"{found.provider}:{found.name}"
        return Answer(200, view(name))


def _is_of_anthropic(call: Call) -> bool:
    return "anthropic-version" in call.headers


def _openai(name: str) -> JsonObject:
    owner = name.partition(":")[0]
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}


def _anthropic(name: str) -> JsonObject:
    shown = name.partition(":")[2]
    return {"type": "model", "id": name, "display_name": shown, "created_at": LONG_AGO}


def _page(names: Sequence[str], call: Call) -> JsonObject:
    """Return the page that is asked for, as Anthropic's lists are paged."""
    limit = number(call, "limit", default=20, most=MOST)
    after, before = call.query.get("after_id"), call.query.get("before_id")
    for name, given in (("after_id", after), ("before_id", before)):
        if given is not None and given not in names:
            raise Invalid(f"{name} is no model", fields=[(name, "the id of a model")])
    if after is not None:
        names = names[names.index(after) + 1 :]
    shown = names[:limit]
    if before is not None:
        names = names[: names.index(before)]
        shown = names[-limit:]
    return {
        "data": [_anthropic(name) for name in shown],
        "first_id": shown[0] if shown else None,
        "last_id": shown[-1] if shown else None,
        "has_more": len(shown) < len(names),
    }
