"""Reading anew what this process remembers, when another one has changed it.

Nodes tell each other, and that may be lost: so each looks at the numbers in the storage, too.

Invariant: what was changed anywhere is read here within `EVERY_S` and the time that reading takes,
as long as the storage can be read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import anyio

from hostler.beside.shared import CHANGED, Shared
from hostler.core.news import Nodes

EVERY_S = 2.0
Reread = Callable[[], Awaitable[object]]


@dataclass(slots=True)
class Rereading:
    """`reads`: how each of what is remembered is read anew."""

    shared: Shared
    reads: Mapping[str, Reread]
    _seen: dict[str, int] = field(default_factory=dict[str, int])
    _alone: anyio.Lock = field(default_factory=anyio.Lock)
    _rung: anyio.Event = field(default_factory=anyio.Event)

    def join(self, nodes: Nodes) -> None:
        """Tell the other nodes what is changed here, and look when they do."""
        self.shared.listen(lambda what: nodes.tell(CHANGED, what))
        nodes.on(CHANGED, self._ring)

    async def look(self) -> None:
        """Read what has changed since it was read; the first time, all.  Raises Unavailable."""
        async with self._alone:
            numbers = await self.shared.changes()
            for what, read in self.reads.items():
                number = numbers.get(what, 0)
                if self._seen.get(what) != number:
                    await read()
                    self._seen[what] = number

    async def wait(self) -> None:
        """Return when it is time to look again."""
        with anyio.move_on_after(EVERY_S):
            await self._rung.wait()
        self._rung = anyio.Event()

    def _ring(self, words: Sequence[str]) -> None:
        del words
        self._rung.set()
