"""What had been said in a session up to some place of its log.

Invariant: read off the log alone, and changes nothing.
"""

from __future__ import annotations

from hostler.core.events import Principal, Seq, SessionId
from hostler.core.state import State, fold
from hostler.core.store import Store
from hostler.service.authorise import Access
from hostler.service.log import pages_of


async def state_at(
    store: Store, access: Access, who: Principal, session: SessionId, at: Seq
) -> State:
    """Return what the log up to `at` implies.  Raises NotFound."""
    key = await access.key(who, "read", session)
    state = State()
    async for events in pages_of(store, key, upto=at):
        fold(state, events)
    return state
