"""What nodes of a fleet tell each other of keys that are limited.

    limited: which limit, for how long, when, and a seal

Which limit it is, is said by a mark that only nodes of this fleet can make, or read: there is no
key on the bus, and nothing that a key could be guessed by.  A seal keeps whoever can write to the
bus from shutting a key; one that is said again later than `SKEW_S` is not heard.

Invariant: what is told may be lost, and whoever did not hear it is refused once itself.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol
from weakref import WeakValueDictionary

from hostler.core.news import ALONE, Nodes

LIMITED = "limited"
"""The kind of what is told."""
SKEW_S = 60.0
"""Clocks of nodes differ by less, and a message takes less."""
LONGEST_S = 3_600.0
MOST_EARLY = 1_000
"""Marks kept of limits that nobody has met here."""
_NUMBER = re.compile(r"[0-9]{1,12}\.[0-9]{3}")


class Shuts(Protocol):
    """A limit, as other nodes see it."""

    def shut(self, wait_s: float) -> None: ...


class LimitNews:
    """One node's ears and voice."""

    def __init__(
        self,
        key: bytes | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`key`: what all nodes have; without it nobody is understood."""
        self._key = key or secrets.token_bytes(32)
        self._clock, self._now = clock, now
        self._nodes: Nodes = ALONE
        self.peers: Callable[[], int] = _none
        """How many other nodes there are."""
        self._limits = WeakValueDictionary[str, Shuts]()
        self._early = OrderedDict[str, float]()

    def join(self, nodes: Nodes, peers: Callable[[], int]) -> None:
        """Tell these from now on, and hear them."""
        self._nodes, self.peers = nodes, peers
        nodes.on(LIMITED, self.hear)

    def mark(self, key: str | None) -> str:
        """Return what tells keys of a provider apart, and tells nothing else of them."""
        return self._made("key", key or "")[:16]

    def keep(self, name: str, limit: Shuts) -> None:
        """Let a limit hear what others meet, as long as it is there."""
        mark = self._made("limit", name)
        self._limits[mark] = limit
        until = self._early.pop(mark, None)
        if until is not None and (left_s := until - self._clock()) > 0:
            limit.shut(left_s)

    def tell(self, name: str, wait_s: float) -> None:
        """Let the other nodes know that a limit is shut."""
        said = (self._made("limit", name), f"{wait_s:.3f}", f"{self._now():.3f}")
        self._nodes.tell(LIMITED, *said, self._made("seal", *said))

    def hear(self, words: Sequence[str]) -> None:
        """Take in what a node said; or whoever else can write to the bus."""
        if len(words) != 4:  # a newer build's
            return
        *said, seal = words
        mark, wait, at = said
        if not _is_same(self._made("seal", *said), seal):
            return
        if not (_NUMBER.fullmatch(wait) and _NUMBER.fullmatch(at)):
            return
        if abs(self._now() - float(at)) > SKEW_S:
            return
        wait_s, limit = min(float(wait), LONGEST_S), self._limits.get(mark)
        if limit is not None:
            limit.shut(wait_s)
            return
        self._early[mark] = self._clock() + wait_s
        self._early.move_to_end(mark)
        if len(self._early) > MOST_EARLY:
            self._early.popitem(last=False)

    def _made(self, use: str, *words: str) -> str:
        said = "\0".join((use, *words)).encode(errors="replace")
        return hmac.new(self._key, said, hashlib.sha256).hexdigest()[:32]


def _is_same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode(errors="replace"))


def _none() -> int:
    return 0
