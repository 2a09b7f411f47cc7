"""The service as a whole: its nouns, put together from ports.

Invariant: a face holds one of these and nothing else of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hostler.core.errors import Unavailable
from hostler.core.events import Principal, TenantId
from hostler.core.news import Signals
from hostler.core.ports import (
    AgentSpec,
    Engine,
    Store,
    World,
)
from hostler.service.admission import Admission, Begins
from hostler.service.archive import Archive
from hostler.service.authorise import authorise
from hostler.service.follow import Following
from hostler.service.inbox import Inbox
from hostler.service.once import Asked
from hostler.service.retention import Forgetting
from hostler.service.room import Room
from hostler.service.runs import Runs
from hostler.service.sessions import Sessions
from hostler.service.shares import Shares
from hostler.service.waits import Waits


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    agents: Mapping[str, AgentSpec]
    sessions: Sessions
    inbox: Inbox
    following: Following
    runs: Runs
    shares: Shares
    waits: Waits
    archive: Archive
    admit: Callable[[Begins], None]
    """Returns if new work may begin; raises Unavailable (`overloaded`) if not."""
    store: Store
    driving: Callable[[], bool]
    """Whether an engine is serving in this process, or need not be."""

    async def answered(self, who: Principal, asked: Asked) -> bytes | None:
        """Return the answer to a request that was made before; see `Asked.answered`."""
        authorise(who, "write", who.only)
        return await asked.answered(self.store, who)

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
    admission: Admission | None = None,
    forgetting: Forgetting | None = None,
    room: Room | None = None,
) -> Service:
    """Put the verbs together; without `admission`, all work is let in."""
    admission, room = admission or Admission(), room or Room(store)
    following = Following(store=store, signals=signals)
    inbox = Inbox(store=store, engine=engine, world=world, admission=admission)
    forgetting = forgetting or Forgetting(store=store, signals=signals)
    sessions = Sessions(
        store=store,
        inbox=inbox,
        following=following,
        agents=agents,
        default_agent=default_agent,
        world=world,
        forgetting=forgetting,
        room=room,
    )
    return Service(
        agents=agents,
        sessions=sessions,
        inbox=inbox,
        following=following,
        shares=Shares(store=store, world=world),
        runs=Runs(store=store, following=following),
        waits=Waits(store=store, engine=engine, agents=agents, world=world),
        archive=Archive(
            store=store, agents=agents, default_agent=default_agent, world=world, room=room
        ),
        admit=admission.check,
        store=store,
        driving=driving,
    )
