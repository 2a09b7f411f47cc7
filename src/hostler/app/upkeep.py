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
from hostler.service.delivering import Delivering
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
    """Return what sees that runs go on, and keeps the load and the tables small."""
    looked = partial(reconcile.reconcile, service.store, engine)
    kept = partial(keep.once, service.sessions.forgetting, world)
    cut = partial(service.auditing.cut, keep.audit_days)
    return (
        *_sending(service, world),
        service.inbox.admission.watch,
        partial(again_and_again, "looking for unfinished runs", looked, reconcile.EVERY_S),
        partial(again_and_again, "retention", kept, retention.EVERY_S),
        partial(again_and_again, "retention of the audit log", cut, auditing.EVERY_S),
        partial(
            again_and_again, "tidying of deliveries", partial(_tidy, service), deliveries.EVERY_S
        ),
        partial(again_and_again, "noting the use of keys", service.keys.note_use, keys.NOTED_S),
    )


def _sending(service: Service, world: World) -> Sequence[Work]:
    """Return what sends to webhooks, if this process does."""
    out = service.webhooks.outgoing
    if out is None or out.post is None:
        return ()
    return (Delivering(out.rows, out.post, out.vault, world).serve,)


async def _tidy(service: Service) -> None:
    await service.deliveries.tidy()
    await service.webhooks.tidy()
