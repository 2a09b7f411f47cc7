"""The order in which keys wait that are due: the more urgent first, and of those, tenants in turn.

It is start-time fair queueing, as in the queue of a fleet (`stores/sql/postgres_jobs.sql`): a key's
tag is that of the one that went last, or one more than that of its tenant's last one, if that is
more.  Who has a thousand in line is before nobody else's first.

Invariant: pure; what it keeps of tenants goes with the last of their keys.
"""

from __future__ import annotations

from heapq import heappop, heappush

from hostler.core.events import RunKey, TenantId


class Turns:
    """The line.  A key that is put in it twice comes out of it twice."""

    def __init__(self) -> None:
        self._line: list[tuple[int, int, int, RunKey]] = []
        self._last: dict[tuple[int, TenantId], int] = {}
        """Tags, of those in line."""
        self._went: dict[int, int] = {}
        """By priority: the tag of the one that went last."""
        self._count = 0

    def __len__(self) -> int:
        return len(self._line)

    def put(self, key: RunKey, priority: int) -> None:
        """Put a key at the end of its tenant's, of this priority."""
        whose = priority, key.tenant
        tag = max(self._went.get(priority, 0), self._last.get(whose, -1) + 1)
        self._last[whose] = tag
        self._count += 1
        heappush(self._line, (-priority, tag, self._count, key))

    def take(self) -> RunKey:
        """Return whose turn it is.  Raises IndexError: nobody's."""
        urgency, tag, _, key = heappop(self._line)
        self._went[-urgency] = tag
        whose = -urgency, key.tenant
        if self._last[whose] == tag:
            del self._last[whose]
        return key
