"""Writes that depend on where a session stands.

Invariant: what is written was decided on the head as it is; nothing came between.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from hostler.core.errors import Moved, Unavailable
from hostler.core.events import Fact, Key
from hostler.core.head import Head
from hostler.core.records import Appended, Once
from hostler.core.store import Store

TRIES = 50
"""How often a write that depends on the head is tried against a log that keeps moving."""


async def by_head(
    store: Store,
    key: Key,
    facts: Callable[[Head], Awaitable[Sequence[Fact]]],
    *,
    once: Once | None = None,
) -> Appended:
    """Write what `facts` says to the head as it is; nothing may come between.

    Raises:
        Unavailable: the log kept moving.
        NotFound: no such session.
    """
    for _ in range(TRIES):
        head = await store.head(key)
        written = await facts(head)
        if not written and once is None:
            return Appended([], head)
        try:
            return await store.append(key, written, expected=head.seq, once=once)
        except Moved:
            continue
    raise Unavailable("the session is written to faster than this could be decided")
