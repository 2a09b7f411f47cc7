"""What is done again and again while a house is open.

Invariant: a storage that cannot serve now puts this off, and ends nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import TypeAlias

import anyio

from hostler.core.errors import Unavailable
from hostler.core.ports import Engine, World
from hostler.engine import reconcile
from hostler.service import auditing, deliveries, keys, retention
from hostler.service.delivering import LOOK_BESIDE_S, LOOK_S, Delivering
from hostler.service.rereading import Reread, Rereading
from hostler.service.retention import Keep
from hostler.service.service import Service

log = logging.getLogger(__name__)

Work: TypeAlias = Callable[[], Coroutine[object, object, None]]


async def again_and_again(what: str, do: Callable[[], Awaitable[object]], every_s: float) -> None:
    """Do it at once and then every `every_s` seconds, until cancelled."""
    while True:
        try:
            await do()
        except Unavailable as error:
            log.warning("%s comes later: %s", what, error)
        await anyio.sleep(every_s)


def upkeep(service: Service, engine: Engine, keep: Keep, world: World) -> Sequence[Work]:
    """Return what sees that runs go on, keeps the load and the tables small, and memory true."""
    looked = partial(reconcile.reconcile, service.store, engine)
    kept = partial(keep.once, service.sessions.forgetting, world)
    cut = partial(service.auditing.cut, keep.audit_days)
    return (
        *_sending(service, world),
        *_remembering(service),
        service.inbox.admission.watch,
        partial(again_and_again, "looking for unfinished runs", looked, reconcile.EVERY_S),
        partial(again_and_again, "retention", kept, retention.EVERY_S),
        partial(again_and_again, "retention of the audit log", cut, auditing.EVERY_S),
        partial(
            again_and_again, "tidying of deliveries", partial(_tidy, service), deliveries.EVERY_S
        ),
        partial(again_and_again, "noting the use of keys", service.keys.note_use, keys.NOTED_S),
    )


def _remembering(service: Service) -> Sequence[Work]:
    """Return what reads anew what other processes have changed, if there may be any."""
    if service.shared is None:
        return ()
    endpoints = service.endpoints.endpoints
    reads: dict[str, Reread] = {
        "tenants": service.tenants.forget,
        "endpoints": partial(endpoints.open, service.endpoints.directory),
        "keys": service.keys.forget_all,
    }
    if service.webhooks.outgoing is not None:  # there is a vault
        reads["secrets"] = service.webhooks.outgoing.reread
    rereading = Rereading(service.shared, reads)
    rereading.join(service.nodes)
    return (partial(_reread, rereading),)


async def _reread(rereading: Rereading) -> None:
    while True:
        try:
            await rereading.look()
        except Unavailable as error:
            log.warning("what others have changed is read later: %s", error)
        await rereading.wait()


def _sending(service: Service, world: World) -> Sequence[Work]:
    """Return what sends to webhooks, if this process does."""
    out = service.webhooks.outgoing
    if out is None or out.post is None:
        return ()
    look_s = LOOK_BESIDE_S if out.is_shared else LOOK_S
    return (Delivering(out.rows, out.post, out.vault, world, look_s, out.reread).serve,)


async def _tidy(service: Service) -> None:
    await service.deliveries.tidy()
    await service.webhooks.tidy()
