"""The service as a whole: its nouns, put together from ports.

Invariant: a face holds one of these and nothing else of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hostler.core.errors import Unavailable
from hostler.core.events import TenantId
from hostler.core.ports import AgentSpec, Engine, Signals, Store, World
from hostler.service.follow import Following
from hostler.service.inbox import Inbox
from hostler.service.runs import Runs
from hostler.service.sessions import Sessions


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    agents: Mapping[str, AgentSpec]
    sessions: Sessions
    inbox: Inbox
    following: Following
    runs: Runs
    store: Store
    driving: Callable[[], bool]
    """Whether an engine is serving in this process, or need not be."""

    async def ready(self) -> None:
        """Return if the store answers and runs are driven.  Raises Unavailable if not."""
        await self.store.runs(TenantId(""), session=None, status=None, after="", limit=1)
        if not self.driving():
            raise Unavailable("no engine is serving yet")


def make_service(
    *,
    store: Store,
    engine: Engine,
    signals: Signals,
    agents: Mapping[str, AgentSpec],
    default_agent: str,
    world: World,
    driving: Callable[[], bool] = lambda: True,
) -> Service:
    """Put the verbs together."""
    following = Following(store=store, signals=signals)
    inbox = Inbox(store=store, engine=engine, world=world)
    sessions = Sessions(
        store=store,
        inbox=inbox,
        following=following,
        agents=agents,
        default_agent=default_agent,
        world=world,
    )
    return Service(
        agents=agents,
        sessions=sessions,
        inbox=inbox,
        following=following,
        runs=Runs(store=store, following=following),
        store=store,
        driving=driving,
    )
