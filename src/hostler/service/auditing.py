"""The audit log: what is written into it around the verbs, and the verbs that read it.

Invariant: what is done here and audited has a row, in its own commit where the store writes it;
refusals are written until there are too many, and then counted.  What a client chose of a row is
masked before: a row stays as it is for ever.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from hostler.core.audited import (
    DEED,
    AuditRow,
    Audits,
    ChainHead,
    Deed,
    Entry,
    Wanted,
)
from hostler.core.errors import CallerError, Unavailable
from hostler.core.events import Principal, TenantId
from hostler.core.ports import World
from hostler.core.sealed import Secrets, masked
from hostler.service.authorise import authorise

T = TypeVar("T")
log = logging.getLogger(__name__)

REFUSALS_AT_ONCE = 60
REFUSAL_EVERY_S = 10.0
"""So that whoever guesses at keys for a day fills 5 MB, and not the disk."""
OPERATORS = TenantId("default")
"""Whose log has those of whom nothing is known."""
PAGE = 500
DAY_S = 86_400.0
EVERY_S = 3600.0


@dataclass(slots=True)
class _Refusals:
    """How many refusals of one tenant's may be written now."""

    left: float
    at: float
    unwritten: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Auditing:
    audits: Audits
    world: World
    secrets: Secrets | None = None
    _refusals: dict[str, _Refusals] = field(default_factory=dict[str, _Refusals])

    async def during(self, entry: Entry, doing: Callable[[], Awaitable[T]]) -> T:
        """Return what `doing` returns; what it does has a row then, and so has a refusal."""
        deed = Deed(self._masked(entry))
        try:
            result = await _while_current(deed, doing)
        except CallerError as error:
            if not deed.is_taken:
                await self.refused(deed.entry, error)
            raise
        if not deed.is_taken:
            deed.is_taken = True  # for tasks that outlive this, and still see it
            await self.audits.write(deed.entry)
        return result

    async def refused(self, entry: Entry, error: CallerError) -> None:
        """Write that somebody was refused, unless there are too many of those."""
        unwritten = self._let_in(entry.tenant, by_key=entry.principal != "nobody")
        if unwritten is None:
            return
        details = {**entry.details, "code": error.code}
        if unwritten:
            details["unwritten"] = unwritten
        said = replace(
            entry,
            tenant=entry.tenant or OPERATORS,
            outcome="refused",
            status=error.status,
            details=details,
        )
        try:
            await self.audits.write(self._masked(said))
        except Unavailable as failed:  # the refusal stands, whether or not it can be written
            log.warning("a refusal is not in the audit log: %s", failed)

    def _masked(self, entry: Entry) -> Entry:
        """Return an entry without secrets in the words of a client: of its path and headers."""
        chosen = (entry.object, entry.user, entry.request, entry.details)
        target, user, request, details = masked(self.secrets, entry.tenant, chosen)
        return replace(entry, object=target, user=user, request=request, details=details)

    def _let_in(self, tenant: TenantId, *, by_key: bool) -> int | None:
        """Return how many went unwritten since the last, None if this one goes unwritten."""
        # Who has no key must not be able to crowd out what those with keys were refused.
        name, now = f"{int(by_key)}{tenant}", self.world.clock()
        one = self._refusals.setdefault(name, _Refusals(REFUSALS_AT_ONCE, now))
        gained = max(0.0, now - one.at) / REFUSAL_EVERY_S
        one.left, one.at = min(REFUSALS_AT_ONCE, one.left + gained), now
        if one.left < 1:
            one.unwritten += 1
            return None
        one.left -= 1
        unwritten, one.unwritten = one.unwritten, 0
        return unwritten

    # -- verbs -------------------------------------------------------------------------------

    async def head(self, who: Principal) -> ChainHead:
        """Return the end of the tenant's chain, to be kept elsewhere."""
        authorise(who, "admin", None)
        return await self.audits.head(who.tenant)

    async def list(self, who: Principal, wanted: Wanted, *, limit: int) -> Sequence[AuditRow]:
        """Return rows of the tenant's, newest first."""
        authorise(who, "admin", None)
        return await self.audits.newest(who.tenant, wanted, limit=limit)

    async def export(self, who: Principal, *, after: int) -> AsyncGenerator[bytes, None]:
        """Return the tenant's chain past row `after`, as lines of JSON in pieces."""
        authorise(who, "admin", None)
        return self._pieces(who.tenant, after)

    async def _pieces(self, tenant: TenantId, after: int) -> AsyncGenerator[bytes, None]:
        while rows := await self.audits.rows(tenant, after=after, limit=PAGE):
            yield b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
            after = rows[-1].seq

    # -- retention ---------------------------------------------------------------------------

    async def cut(self, days: float) -> None:
        """Remove what is older than so many days; 0: nothing."""
        if not days:
            return
        # A day at a time: each cut is a row of its own.
        gone = await self.audits.cut(self.world.clock() - days * DAY_S, worth_s=DAY_S)
        if gone:
            log.info("retention removed %d row(s) of the audit log", gone)


async def _while_current(deed: Deed, doing: Callable[[], Awaitable[T]]) -> T:
    token = DEED.set(deed)
    try:
        return await doing()
    finally:
        DEED.reset(token)
