"""What a message may do besides saying something: take back what was said, and bring tools, a
history and terms.

Invariant: a conversation is taken back where no run is going, and to where a run of it began.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hostler.core.errors import Conflict, Invalid, SetupError, TooLarge
from hostler.core.events import (
    ClientTool,
    Key,
    RunId,
    SessionRewound,
    ToolCall,
    UserSpoke,
)
from hostler.core.head import Head
from hostler.core.memory import remember
from hostler.core.ports import AgentSpec
from hostler.core.said import ModelSaid, Said, ToolSaid
from hostler.core.state import fold, size_of
from hostler.core.store import Store
from hostler.core.terms import Terms, Wanted
from hostler.service.limits import (
    LARGEST_CLIENT_TOOL,
    LONGEST_STOPS,
    LONGEST_TEXT,
    MOST_SAID,
    MOST_STOPS,
    check_client_tools,
    check_content,
    check_depth,
    check_size,
)


async def taken_back(
    store: Store, key: Key, head: Head, before: RunId, spoke: UserSpoke
) -> SessionRewound:
    """Return the fact that takes back what was said since a run began, for who says `spoke`.

    Raises:
        Conflict: a run is going (`busy`), or that one is not part of the conversation (`taken_back`).
    """
    if head.active is not None:
        raise Conflict("a run is going: stop it, or wait for its end", code="busy")
    recall = await store.recall(key)
    if before not in fold(remember(recall.past), recall.events).begun:
        raise Conflict(f"{before} is no part of the conversation (any more)", code="taken_back")
    return SessionRewound(run=None, before=before, principal=spoke.principal)


async def brought(
    store: Store,
    agents: Mapping[str, AgentSpec],
    key: Key,
    tools: Sequence[ClientTool],
    *,
    agent: str | None = None,
) -> tuple[ClientTool, ...] | None:
    """Return the tools that a message brings; None if the session has them.

    `agent`: who answers it, where that is not the session's.

    Raises:
        Invalid: the agent cannot have them beside its own.
    """
    session = await store.session(key)
    if agent is None and session.client_tools == tuple(tools):
        return None
    found = agents.get(agent or session.agent)
    if found is not None:
        check_tools(found, tools)
    else:
        check_client_tools(tools)
    return None if session.client_tools == tuple(tools) else tuple(tools)


def check_terms(terms: Terms | None, agents: Mapping[str, AgentSpec]) -> None:
    """Refuse terms that no run can be held to.

    Raises:
        Invalid: there is no such agent, or a number or a schema is none.
        TooLarge: too much is said.
    """
    if terms is None:
        return
    if terms.agent is not None and terms.agent not in agents:
        wanted = "the name of an agent that is served here"
        raise Invalid("there is no such agent", fields=[("/agent", wanted)])
    if len(terms.instructions or "") > LONGEST_TEXT:
        raise TooLarge(f"the instructions are over {LONGEST_TEXT:,} characters")
    check_wanted(terms.wanted)


def check_wanted(wanted: Wanted) -> None:
    """Refuse wishes that cannot be kept.  Raises Invalid."""
    if wanted.json_schema is not None:
        check_depth("/json_schema", wanted.json_schema)
        check_size("/json_schema", wanted.json_schema, LARGEST_CLIENT_TOOL)
    for name, value in (("temperature", wanted.temperature), ("top_p", wanted.top_p)):
        if value is not None and not math.isfinite(value):
            raise Invalid(f"{name} is no number", fields=[(f"/{name}", "a number")])
    if len(wanted.stop) > MOST_STOPS or sum(map(len, wanted.stop)) > LONGEST_STOPS:
        told = f"at most {MOST_STOPS}, of {LONGEST_STOPS} characters together"
        raise Invalid("these are too many places to stop at", fields=[("/stop", told)])


def check_history(history: Sequence[Said]) -> None:
    """Refuse a history that no model can be shown.

    Raises:
        Invalid: a call has not exactly one answer, right after the reply that made it.
        TooLarge: it is too long.
    """
    size, open_ = 0, list[ToolCall]()
    for place, said in enumerate(history):
        size += size_of(said)
        if isinstance(said, ToolSaid):
            if not open_ or said.call.id != open_.pop(0).id:
                raise _open(place)
            continue
        if open_:
            raise _open(place)
        if isinstance(said, ModelSaid):
            open_ = [*said.calls]
            for call in said.calls:
                check_depth(f"/history/{place}", call.arguments)
        else:
            check_content(said.content)
    if open_:
        raise _open(len(history))
    if size > LONGEST_TEXT or len(history) > MOST_SAID:
        told = f"{LONGEST_TEXT:,} characters in {MOST_SAID:,} messages are allowed"
        raise TooLarge(f"the history is too long: {told}")


def _open(place: int) -> Invalid:
    wanted = "after each reply, one answer to each of its calls, in their order"
    return Invalid("a call is left open", fields=[(f"/history/{place}", wanted)])


def check_tools(agent: AgentSpec, tools: Sequence[ClientTool]) -> None:
    """Refuse clients' tools that an agent cannot have beside its own.  Raises Invalid."""
    check_client_tools(tools)
    wanted = "tools with a schema each, and names of their own"
    own = agent.tools
    taken = {spec.name for spec in own.specs} & {tool.name for tool in tools}
    if taken:
        told = f"the agent has tools of these names: {', '.join(sorted(taken))}"
        raise Invalid(told, fields=[("/client_tools", wanted)])
    try:
        own.with_clients(tools)
    except SetupError as error:
        raise Invalid(str(error), fields=[("/client_tools", wanted)]) from error
