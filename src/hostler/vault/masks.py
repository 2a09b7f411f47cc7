"""The values that are to be masked, tenant by tenant, and what masks them.

What masks is made aside, in a thread where somebody can wait for it, and takes the old one's place
when it is whole.  All of it is bounded: the values of a tenant, and the masks that are ready.

Invariant: a value that is kept is masked for its tenant and for the operator; so are the newest of
those that are kept no more, which what is still running may say.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TypeAlias

from ahocorasick_rs import BytesAhoCorasick, Implementation
from anyio import to_thread

from hostler.core.events import TenantId
from hostler.core.sealed import SHORTEST
from hostler.vault.forms import anchors, forms
from hostler.vault.masker import Masker, covered

MOST_LEARNT = 100
MOST_LEARNT_BYTES = 1 << 17
"""Of a tenant's values that are not kept as secrets.  The oldest goes for a new one: nothing runs
any more that had it, while a refusal would stop whoever changes a key every hour."""
READY_BYTES = 1 << 29
"""For masks that are ready: of 40 tenants with a thousand keys each, or of 400 with a few."""
Whose: TypeAlias = TenantId | None
"""None: the operator, whose values are masked for all tenants."""


class Masks:
    """Usable from any thread."""

    def __init__(self) -> None:
        self._kept: dict[Whose, dict[str, str]] = {}
        """Values by name."""
        self._learnt: dict[Whose, dict[str, str]] = {}
        """Names by value, the oldest first: values that are kept elsewhere, or were kept."""
        self._ready: dict[Whose, Masker | None] = {}
        self._ready_bytes = 0
        self._anchors: dict[Whose, frozenset[bytes]] = {}
        self._overview: _Overview | None = None
        self._changes = Counter[Whose]()
        self._lock = threading.Lock()
        """Held for moments, never while something is made."""

    def of(self, tenant: Whose) -> Masker | None:
        """Return what masks for a tenant; None when there is nothing to mask."""
        whose = tenant if tenant in self._kept or tenant in self._learnt else None
        try:
            return self._ready[whose]
        except KeyError:
            return self._make(whose)

    def hide(self, text: str) -> str:
        """Return the text as the operator may read it: no value of any tenant is in it."""
        overview = self._overview or self._look_over()
        masks = [self.of(whose) for whose in overview.whose(text)]
        # Of all at once: the value of one tenant may be the beginning of another's.
        return covered(text, sorted(hit for one in masks if one for hit in one.found(text)))

    def learn(self, whose: Whose, name: str, value: str) -> None:
        """Mask a value from now on; whoever asks next waits until what masks it is made."""
        with self._lock:
            if not self._is_news(whose, value):
                return
            self._remember(whose, name, value)
            self._overview = None
            for one in [*self._ready] if whose is None else [whose]:
                self._discard(one)

    async def cover(self, tenant: TenantId, name: str, value: str) -> None:
        """As `learn`, and wait here until it is made."""
        with self._lock:
            if not self._is_news(tenant, value):
                return
            self._remember(tenant, name, value)
        await self.renew(tenant)

    def keep(self, tenant: TenantId, name: str, value: str | None) -> None:
        """Take `value` for what is kept under the name; None: nothing is.

        A new one is masked when `renew` has returned.  What was there is masked as before.
        """
        with self._lock:
            kept = self._kept.setdefault(tenant, {})
            before = kept.pop(name, None)
            if value is not None:
                kept[name] = value
                self._learnt.get(tenant, {}).pop(value, None)
            self._changed(tenant)
            if before is not None and before not in kept.values():
                self._remember(tenant, name, before)

    async def renew(self, tenant: TenantId) -> None:
        """Make anew what masks for a tenant and for the operator, while the old one still does."""
        await to_thread.run_sync(self._make, tenant)
        await to_thread.run_sync(self._look_over)

    async def open(self) -> None:
        """Begin anew with what is kept now; what `hide` needs for every line is made here."""
        with self._lock:
            self._ready.clear()
            self._ready_bytes = 0
        await to_thread.run_sync(self._look_over)

    # -- under the lock --------------------------------------------------------------------------

    def _is_news(self, whose: Whose, value: str) -> bool:
        there = value in self._learnt.get(whose, {}) or value in self._kept.get(whose, {}).values()
        return len(value.strip()) >= SHORTEST and not there

    def _remember(self, whose: Whose, name: str, value: str) -> None:
        learnt = self._learnt.setdefault(whose, {})
        learnt[value] = name
        self._changed(whose)
        if whose is None:  # as many as the operator gives
            return
        size = sum(len(one.encode()) for one in learnt)
        while len(learnt) > MOST_LEARNT or size > MOST_LEARNT_BYTES:
            oldest = next(iter(learnt))
            size -= len(oldest.encode())
            del learnt[oldest]

    def _changed(self, whose: Whose) -> None:
        self._changes[whose] += 1
        self._anchors.pop(whose, None)

    def _discard(self, whose: Whose) -> None:
        gone = self._ready.pop(whose, None)
        self._ready_bytes -= 0 if gone is None else gone.bytes_taken

    def _own(self, whose: Whose) -> list[tuple[str, str]]:
        learnt = ((name, value) for value, name in self._learnt.get(whose, {}).items())
        return [*self._kept.get(whose, {}).items(), *learnt]

    # -- made without it -------------------------------------------------------------------------

    def _make(self, whose: Whose) -> Masker | None:
        while True:
            with self._lock:
                at = self._changes[whose], self._changes[None]
                values = self._own(whose) + ([] if whose is None else self._own(None))
            made = Masker(values) if values else None
            with self._lock:
                if at != (self._changes[whose], self._changes[None]):
                    continue  # or it would be of what was
                self._discard(whose)
                self._ready[whose] = made
                self._ready_bytes += 0 if made is None else made.bytes_taken
                while self._ready_bytes > READY_BYTES and len(self._ready) > 1:
                    self._discard(next(iter(self._ready)))
                return made

    def _look_over(self) -> _Overview:
        while True:
            with self._lock:
                at, found = self._changes.total(), dict(self._anchors)
                left = {*self._kept, *self._learnt} - {*found}
                values = {whose: self._own(whose) for whose in left}
            for whose, own in values.items():
                found[whose] = frozenset(anchors({one for _, value in own for one in forms(value)}))
            made = _Overview(found)
            with self._lock:
                if at != self._changes.total():
                    continue
                self._anchors, self._overview = found, made
                return made


class _Overview:
    """Tells from a few bytes of each value whose may be in a text: small, whoever has how many."""

    def __init__(self, anchors_of: dict[Whose, frozenset[bytes]]) -> None:
        owners: dict[bytes, list[Whose]] = {}
        for whose, found in anchors_of.items():
            for anchor in found:
                owners.setdefault(anchor, []).append(whose)
        self._owners = list(owners.values())
        self._anchors = BytesAhoCorasick(list(owners), implementation=Implementation.ContiguousNFA)

    def whose(self, text: str) -> set[Whose]:
        data = text.encode("utf-8", "replace")
        hits = self._anchors.find_matches_as_indexes(data, overlapping=True)
        return {whose for which, _, _ in hits for whose in self._owners[which]}
