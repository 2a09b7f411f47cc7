"""What a message may do besides saying something: take back what was said, and bring tools.

Invariant: a conversation is taken back where no run is going, and to where a run of it began.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hostler.core.errors import Conflict, Invalid, SetupError
from hostler.core.events import ClientTool, Key, RunId, SessionRewound, UserSpoke
from hostler.core.head import Head
from hostler.core.memory import remember
from hostler.core.ports import AgentSpec
from hostler.core.state import fold
from hostler.core.store import Store
from hostler.service.limits import check_client_tools


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
    store: Store, agents: Mapping[str, AgentSpec], key: Key, tools: Sequence[ClientTool]
) -> tuple[ClientTool, ...] | None:
    """Return the tools that a message brings; None if the session has them.

    Raises:
        Invalid: its agent cannot have them beside its own.
    """
    session = await store.session(key)
    if session.client_tools == tuple(tools):
        return None
    if session.agent in agents:
        check_tools(agents[session.agent], tools)
    else:
        check_client_tools(tools)
    return tuple(tools)


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
