"""Who did what: a chain of entries per tenant, in which each row seals the one before it.

A row's hash is SHA-256 over its own canonical JSON, `previous` (the hash of the row before)
included, so nothing can be changed, removed or moved without breaking all that follows.  What was
cut off at the end shows against a head that was kept elsewhere.

Invariant: a row names who, what and how it ended; no secret and nothing that was said is in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal, Protocol, TypeAlias

import msgspec
from msgspec import Struct
from msgspec.structs import asdict, replace

from hostler.core.events import PrincipalId, TenantId

Detail: TypeAlias = str | int | bool | None
Outcome: TypeAlias = Literal["done", "refused"]

FIRST = "0" * 64
"""What the first row of a chain has in place of a hash before it."""
LONGEST = 256
"""Characters of one value of an entry; ids, names and reasons are shorter."""
MOST_DETAILS = 12
CUT = "audit.cut"
REFUSED = "access.refused"
ACTIONS: Mapping[str, str] = {
    "session.delete": "removed a session and its log",
    "session.export": "took a session away as a file",
    "session.import": "made a session of a file",
    "share.create": "made a link that anybody can read a session with",
    "share.revoke": "ended such a link",
    "approval.answer": "allowed or denied a call of a tool",
    "tenant.create": "made a tenant",
    "tenant.change": "changed a tenant's settings",
    "key.create": "made an API key",
    "key.revoke": "revoked an API key",
    "grant.set": "let a user see or use a session",
    "grant.remove": "took that away again",
    "secret.set": "stored a secret",
    "secret.remove": "removed a secret",
    "secret.rotate": "wrapped the secrets in another master key",
    "secret.scrub": "masked a value in what was stored",
    "endpoint.set": "had a provider's models asked elsewhere",
    "endpoint.remove": "took that back",
    "webhook.create": "had a place told what happens",
    "webhook.change": "changed a webhook, or switched it off or on",
    "webhook.remove": "removed a webhook",
    "webhook.rotate": "gave a webhook another secret",
    "webhook.test": "had a webhook tried out",
    "webhook.replay": "had an event sent to a webhook again",
    "audit.export": "took the audit log away as a file",
    CUT: "retention removed the oldest rows of this log",
    REFUSED: "was not let in, or lacked the right, where nothing more can be said",
}
"""Everything that can be done here and is audited, with what it means."""


class Entry(Struct, frozen=True, kw_only=True):
    """What somebody did, before it has its place in a chain."""

    tenant: TenantId
    action: str
    """One of `ACTIONS`."""
    principal: PrincipalId
    user: str = ""
    """Who is behind the principal's key, where that is known."""
    kind: str = ""
    """Of what it was done to: `session`, `key`, …"""
    object: str = ""
    """Its id."""
    outcome: Outcome = "done"
    status: int = 0
    """What was answered, as HTTP says it; 0 where nobody was answered."""
    request: str = ""
    address: str = ""
    """Where the request came from."""
    details: Mapping[str, Detail] = {}


class AuditRow(Struct, frozen=True, kw_only=True):
    """An entry in its place."""

    tenant: TenantId
    seq: int
    """1, 2, 3, … per tenant, without holes."""
    at: str
    """RFC 3339, with microseconds."""
    action: str
    principal: PrincipalId
    user: str
    kind: str
    object: str
    outcome: Outcome
    status: int
    request: str
    address: str
    details: dict[str, Detail]
    previous: str
    """The hash of the row before; of the first one, zeros."""
    hash: str
    """SHA-256 of this row as JSON without `hash`: keys sorted, no spaces, UTF-8 as it is."""


class ChainHead(Struct, frozen=True, kw_only=True):
    """The end of a tenant's chain: what to keep elsewhere."""

    tenant: TenantId
    seq: int
    """0 for a chain without rows."""
    hash: str


class Wanted(Struct, frozen=True, kw_only=True):
    """Which rows are asked for; None: whatever it is."""

    after: int | None = None
    since: float | None = None
    """Unix seconds, included."""
    until: float | None = None
    """Unix seconds, not included."""
    action: str | None = None
    principal: str | None = None


class Audits(Protocol):
    """The chains.  A store's own writes take the entry of the current `Deed` along themselves."""

    async def write(self, entry: Entry) -> AuditRow:
        """Put an entry at the end of its tenant's chain; durable when this returns."""
        ...

    async def head(self, tenant: TenantId) -> ChainHead: ...
    async def newest(self, tenant: TenantId, wanted: Wanted, *, limit: int) -> Sequence[AuditRow]:
        """Return rows, newest first, with a `seq` below `wanted.after`."""
        ...

    async def rows(self, tenant: TenantId, *, after: int, limit: int) -> Sequence[AuditRow]:
        """Return rows as they stand in the chain, with a `seq` over `after`."""
        ...

    async def cut(self, before: float, *, worth_s: float) -> int:
        """Remove what is older than `before` (Unix seconds) from the beginning of each chain.

        A row `audit.cut` names the last row that went and its hash, in the same commit.  Nothing
        is cut off a chain whose first row is not `worth_s` older than `before`.  Return how many
        rows went.
        """
        ...


class Deed:
    """What a request is about to do; the store that writes it takes the entry into its commit."""

    __slots__ = ("entry", "is_taken")

    def __init__(self, entry: Entry) -> None:
        self.entry, self.is_taken = entry, False

    @contextmanager
    def taking(self) -> Generator[Entry]:
        """Yield the entry to whoever writes; an exception means that nothing was written."""
        self.is_taken = True
        try:
            yield self.entry
        except BaseException:
            self.is_taken = False
            raise


DEED: ContextVar[Deed | None] = ContextVar("DEED", default=None)
"""What the request that this runs for is about to do.  Why it is not an argument:
docs/decisions/0023."""


def about(kind: str | None = None, object: str | None = None, **details: Detail) -> None:  # noqa: A002  the column's name
    """Say more of the current deed, before it is written; does nothing where there is none."""
    deed = DEED.get()
    if deed is not None and not deed.is_taken:
        entry = deed.entry
        deed.entry = replace(
            entry,
            kind=entry.kind if kind is None else kind,
            object=entry.object if object is None else object,
            details={**entry.details, **details},
        )


@contextmanager
def leading_up() -> Generator[None]:
    """Within, what is written only leads up to the deed, and does not take its entry along."""
    token = DEED.set(None)
    try:
        yield
    finally:
        DEED.reset(token)


# -- the chain ---------------------------------------------------------------------------------

_canonical = msgspec.json.Encoder(order="sorted")


def seal(entry: Entry, *, seq: int, at_us: int, previous: str) -> AuditRow:
    """Return the row that an entry becomes after the row whose hash is `previous`."""
    details = {
        _bounded(name): _bounded(value) if isinstance(value, str) else value
        for name, value in list(entry.details.items())[:MOST_DETAILS]
    }
    row = AuditRow(
        tenant=entry.tenant,
        seq=seq,
        at=stamp(at_us),
        action=entry.action,
        principal=PrincipalId(_bounded(entry.principal)),
        user=_bounded(entry.user),
        kind=entry.kind,
        object=_bounded(entry.object),
        outcome=entry.outcome,
        status=entry.status,
        request=_bounded(entry.request),
        address=_bounded(entry.address),
        details=details,
        previous=previous,
        hash="",
    )
    return replace(row, hash=hash_of(row))


def hash_of(row: AuditRow) -> str:
    """Return what a row's `hash` has to be."""
    fields = asdict(row)
    del fields["hash"]
    return hashlib.sha256(_canonical.encode(fields)).hexdigest()


def stamp(at_us: int) -> str:
    """Return a time as a row has it."""
    at = datetime.fromtimestamp(at_us // 1_000_000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at_us % 1_000_000:06d}Z"


def _bounded(text: str) -> str:
    """Return text as every JSON library writes it alike: no control characters, no surrogates."""
    plain = text[:LONGEST].encode("utf-8", "replace").decode()
    return "".join(one if one.isprintable() else "?" for one in plain)
