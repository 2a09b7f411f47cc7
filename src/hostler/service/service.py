"""The service as a whole: its nouns, put together from ports.

Invariant: a face holds one of these and nothing else of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, TypeAlias

from hostler.beside.shared import Shared
from hostler.core.audited import Audits
from hostler.core.directory import Directory
from hostler.core.errors import Unavailable
from hostler.core.events import Principal, RunKey, SessionId, TenantId
from hostler.core.news import ALONE, MOVED, REVOKED, UNSHARED, Nodes, Signals
from hostler.core.ports import AgentSpec, Engine, World
from hostler.core.sealed import masked
from hostler.core.store import Store
from hostler.service.admission import Admission, Begins
from hostler.service.archive import Archive
from hostler.service.auditing import Auditing
from hostler.service.authorise import Access, authorise
from hostler.service.carried import Carried
from hostler.service.deliveries import TenantDeliveries
from hostler.service.direct import Direct, Models
from hostler.service.editing import Editing
from hostler.service.endpoints import Endpoints, TenantEndpoints
from hostler.service.follow import Following
from hostler.service.inbox import Inbox
from hostler.service.keys import Keys
from hostler.service.members import Members
from hostler.service.moving import Moving
from hostler.service.once import Asked
from hostler.service.opening import Opening
from hostler.service.rates import Rates
from hostler.service.resuming import Resuming
from hostler.service.retention import Forgetting
from hostler.service.room import Room, Running
from hostler.service.runs import Runs
from hostler.service.schedule import Schedule
from hostler.service.scraping import UNMEASURED, Scraping
from hostler.service.secrets import Sealing, TenantSecrets
from hostler.service.sessions import Sessions
from hostler.service.shares import Shares
from hostler.service.tenants import Tenants
from hostler.service.waits import Waits
from hostler.service.webhooks import TenantWebhooks

Hide: TypeAlias = Callable[[TenantId, str], str]


class Here(NamedTuple):
    """This process, as one of those that may share a log."""

    unready: Callable[[], str | None] = lambda: None
    """Returns why it cannot take new work; None if it can."""
    send_away: Callable[[RunKey], bool] = lambda _: False
    """Leaves a run to the others, if it is driven here; returns whether it is."""


HERE = Here()


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    agents: Mapping[str, AgentSpec]
    sessions: Sessions
    inbox: Inbox
    schedule: Schedule
    following: Following
    runs: Runs
    shares: Shares
    waits: Waits
    resuming: Resuming
    carried: Carried
    editing: Editing
    direct: Direct
    archive: Archive
    auditing: Auditing
    tenants: Tenants
    keys: Keys
    members: Members
    access: Access
    secrets: TenantSecrets
    endpoints: TenantEndpoints
    webhooks: TenantWebhooks
    deliveries: TenantDeliveries
    moving: Moving
    admit: Callable[[Begins], None]
    """Returns if new work may begin; raises Unavailable (`overloaded`) if not."""
    rates: Rates
    store: Store
    hide: Hide
    """Takes a tenant's secrets out of a text that was not stored."""
    here: Here
    scraping: Scraping = UNMEASURED
    nodes: Nodes = ALONE
    shared: Shared | None = None
    """How processes on one storage hear of each other; None: this one has it alone."""

    async def answered(
        self, who: Principal, asked: Asked, session: SessionId | None = None
    ) -> bytes | None:
        """Return the answer to a request that was made before; see `Asked.answered`."""
        if session is None:
            authorise(who, "write", who.only)
        else:
            await self.access.key(who, "write", session)
        return await asked.answered(self.store, who)

    async def ready(self) -> None:
        """Return if new work may come: the store answers, and this process does its part.

        Raises:
            Unavailable: it may not; says why.
        """
        if (why := self.here.unready()) is not None:
            raise Unavailable(why)
        await self.store.runs(TenantId(""), session=None, status=None, after="", limit=1)


def make_service(
    *,
    store: Store,
    audits: Audits,
    directory: Directory,
    engine: Engine,
    signals: Signals,
    agents: Mapping[str, AgentSpec],
    default_agent: str,
    world: World,
    here: Here = HERE,
    admission: Admission | None = None,
    forgetting: Forgetting | None = None,
    rates: Rates | None = None,
    scraping: Scraping | None = None,
    sealing: Sealing | None = None,
    endpoints: Endpoints | None = None,
    models: Models | None = None,
) -> Service:
    """Put the verbs together; without `admission`, all work is let in, without `rates`, at once."""
    admission, access, rates = admission or Admission(), Access(directory), rates or Rates()
    tenants, vault = Tenants(directory, world, agents), None if sealing is None else sealing.vault
    rates.settings_of = tenants.known_settings
    inbox = Inbox(
        store=store,
        engine=engine,
        world=world,
        admission=admission,
        access=access,
        running=Running(store, tenants.settings_of),
        rates=rates,
        agents=agents,
    )
    forgetting = forgetting or Forgetting(store=store, signals=signals)
    sessions = Sessions(
        store=store,
        inbox=inbox,
        following=Following(store=store, signals=signals, access=access),
        agents=agents,
        default_agent=default_agent,
        world=world,
        forgetting=replace(forgetting, tenants=tenants, access=access),
        room=Room(store, settings_of=tenants.settings_of),
        tenants=tenants,
        access=access,
        secrets=vault,
    )
    known, made, models = endpoints or Endpoints(), scraping or UNMEASURED, models or Models()
    direct = Direct(store=store, rates=rates, world=world, models=models, secrets=vault)
    return _service(sessions, direct, audits, sealing, made, endpoints=known, here=here)


def join(service: Service, nodes: Nodes, *, shared: Shared | None = None) -> Service:
    """Return a service that hears what other nodes end, and whose faces can tell them."""
    nodes.on(REVOKED, service.keys.forget)
    nodes.on(UNSHARED, service.access.forget_told)
    nodes.on(MOVED, service.moving.heard)
    moving = replace(service.moving, nodes=nodes)
    return replace(service, nodes=nodes, shared=shared, moving=moving)


def _service(
    sessions: Sessions,
    direct: Direct,
    audits: Audits,
    sealing: Sealing | None,
    scraping: Scraping,
    *,
    endpoints: Endpoints,
    here: Here,
) -> Service:
    """Return all the verbs, which share what the sessions and their inbox have."""
    of, inbox = sessions, sessions.inbox
    store, world, access = of.store, of.world, of.access
    waits = _waits(sessions)
    outgoing = None if sealing is None else sealing.outgoing
    resuming = Resuming(inbox=inbox, waits=waits)
    return Service(
        agents=of.agents,
        sessions=sessions,
        inbox=inbox,
        schedule=Schedule(inbox=inbox),
        following=of.following,
        direct=direct,
        shares=Shares(store=store, world=world, access=access),
        runs=Runs(store=store, following=of.following, agents=of.agents),
        waits=waits,
        resuming=resuming,
        carried=Carried(opening=Opening(sessions=sessions), resuming=resuming),
        editing=Editing(sessions=sessions),
        archive=_archive(sessions),
        secrets=TenantSecrets(sealing=sealing, signals=of.following.signals, world=world),
        endpoints=_endpoints(sessions, endpoints),
        webhooks=TenantWebhooks(outgoing=outgoing, world=world),
        deliveries=TenantDeliveries(outgoing=outgoing, world=world),
        auditing=Auditing(audits=audits, world=world, secrets=of.secrets),
        tenants=of.tenants,
        keys=Keys(of.tenants.directory, of.tenants, world),
        moving=Moving(store=store, access=access, nodes=ALONE, send_away=here.send_away),
        members=Members(store=store, directory=of.tenants.directory, access=access, world=world),
        access=access,
        admit=inbox.admission.check,
        rates=inbox.rates,
        store=store,
        hide=partial(masked, of.secrets),
        here=here,
        scraping=scraping,
    )


def _waits(of: Sessions) -> Waits:
    return Waits(
        store=of.store,
        engine=of.inbox.engine,
        agents=of.agents,
        world=of.world,
        access=of.access,
        secrets=of.secrets,
    )


def _endpoints(of: Sessions, known: Endpoints) -> TenantEndpoints:
    return TenantEndpoints(
        endpoints=known,
        directory=of.tenants.directory,
        world=of.world,
        secrets=of.secrets,
    )


def _archive(of: Sessions) -> Archive:
    return Archive(
        store=of.store,
        agents=of.agents,
        default_agent=of.default_agent,
        world=of.world,
        room=of.room,
        access=of.access,
        secrets=of.secrets,
    )
