"""Rings for runs that nobody drives: after a start, and after anything that lost a job.

Invariant: idempotent; ringing for a run that is being driven is avoided, and harmless.
"""

from __future__ import annotations

import logging

from hostler.core.ports import Engine
from hostler.core.store import Store

log = logging.getLogger(__name__)

EVERY_S = 10.0


async def reconcile(store: Store, engine: Engine) -> int:
    """Enqueue every unfinished run without a live job; return how many."""
    unfinished = {job.key: job for job in await store.unfinished()}
    rung = await engine.idle([*unfinished]) if unfinished else ()
    for key in rung:
        await engine.enqueue(unfinished[key])
    if rung:
        log.info("rang for %d unfinished run(s)", len(rung))
    return len(rung)
