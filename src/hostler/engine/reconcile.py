"""Rings for runs that nobody drives: after a start, and after anything that lost a job.

Invariant: idempotent; ringing for a run that is being driven is avoided, and harmless.
"""

from __future__ import annotations

import logging

import anyio

from hostler.core.errors import Unavailable
from hostler.core.ports import Engine, Job
from hostler.core.store import Store

log = logging.getLogger(__name__)

EVERY_S = 10.0


async def reconcile(store: Store, engine: Engine) -> int:
    """Enqueue every unfinished run without a live job; return how many."""
    rung = 0
    for key in await store.unfinished():
        if not engine.is_live(key):
            await engine.enqueue(Job(key))
            rung += 1
    return rung


async def keep_reconciling(store: Store, engine: Engine, *, every_s: float = EVERY_S) -> None:
    """Reconcile at once and then again and again, until cancelled."""
    while True:
        try:
            rung = await reconcile(store, engine)
        except Unavailable as error:
            log.warning("cannot look for unfinished runs: %s", error)
        else:
            if rung:
                log.info("rang for %d unfinished run(s)", rung)
        await anyio.sleep(every_s)
