"""Secrets, as the rest of the system meets them: rows that say nothing, and what keeps values out.

Invariant: a value leaves the vault for whoever uses it, for one use; no row, fact or view has one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Literal, Protocol, TypeAlias, TypeVar

from msgspec import Struct

from hostler.core.events import Fact, PrincipalId, TenantId
from hostler.core.ports import Delta, Failure, Reply

T = TypeVar("T")
Purpose: TypeAlias = Literal["model", "tool", "webhook"]
Part: TypeAlias = Delta | Reply | Failure
SHORTEST, LONGEST = 8, 16_384
"""Characters of a value.  Less would be found in ordinary text, and could be guessed anyway."""


class Named(Struct, frozen=True, kw_only=True):
    """What may be told of a secret."""

    tenant: TenantId
    name: str
    kind: Purpose
    created_at: float
    updated_at: float
    """Unix seconds."""


class SealedSecret(Struct, frozen=True, kw_only=True):
    """A row of `secrets`."""

    about: Named
    sealed: bytes
    data_key: str
    """Which of the tenant's data keys opens it."""


class DataKey(Struct, frozen=True, kw_only=True):
    """A row of `data_keys`: what seals a tenant's secrets, wrapped by a master key."""

    tenant: TenantId
    id: str
    wrapped: bytes
    wrapped_by: str
    """Names the master key; tells nothing of it."""


class Scrubbed(Struct, frozen=True, kw_only=True):
    """What a scrub has changed."""

    tenant: TenantId
    id: str
    at: float
    principal: PrincipalId
    facts: int
    rows: int
    """Of the tables beside the log: labels, approvals, kept answers and such."""
    unread: int = 0
    """Facts that this build cannot read, and so left as they are."""
    files: int = 0
    sessions: tuple[str, ...] = ()
    """Whose facts were changed, the first thousand of them."""


class SealedRows(Protocol):
    """Where sealed secrets are kept; all methods raise Unavailable when it cannot serve now."""

    async def secrets(self) -> Sequence[SealedSecret]:
        """Return those of all tenants, by tenant and name."""
        ...

    async def data_keys(self) -> Sequence[DataKey]:
        """Return those of all tenants, by tenant and id."""
        ...

    async def put(self, secret: SealedSecret, key: DataKey | None) -> None:
        """Write a secret over what had its name, with the new data key it may need, in one commit.

        What had the name keeps its `created_at`.
        """
        ...

    async def drop(self, tenant: TenantId, name: str) -> bool:
        """Remove a secret; return whether it was there."""
        ...

    async def rewrap(self, keys: Sequence[DataKey]) -> None:
        """Write the wrapped forms of data keys that are there, in one commit."""
        ...

    async def scrub(self, tenant: TenantId, mask: Mask, done: Scrubbed) -> Scrubbed:
        """Mask what is stored: log, search index and what else of the tenant holds free text.

        Facts keep their positions, kinds and times, and no word or id of ours is masked.  A cut
        leaves a part of it done, and it may be done again.  Return `done` with its counts; it is
        kept, too.

        Raises:
            Unavailable: all is masked, but storage still holds old text; do it again later.
        """
        ...


class Mask(Protocol):
    """Knows the values of one tenant and of the operator, and puts `[secret:NAME]` in their place."""

    def text(self, text: str) -> str: ...
    def value(self, value: T) -> T:
        """Return JSON, a fact or another struct with every text in it masked."""
        ...

    def fact(self, fact: Fact, raw: bytes) -> tuple[Fact, bytes]:
        """Return a fact and its JSON; nearly always the same two, after one look at `raw`."""
        ...

    def json(self, raw: bytes) -> bytes: ...
    def stream(self, parts: AsyncGenerator[Part, None]) -> AsyncGenerator[Part, None]:
        """Yield a model's answer masked, however it was cut; the joined text is the masked text.

        What may be the beginning of a value is held back until it is known not to be one.
        """
        ...


class Secrets(Protocol):
    """What is known of secrets where they are used and written about."""

    def mask(self, tenant: TenantId) -> Mask | None:
        """Return what masks for a tenant; None when there is nothing to mask.  From any thread."""
        ...

    def find(self, tenant: TenantId, name: str) -> str | None:
        """Return a tenant's secret, for one use.

        Raises:
            SetupError: it is there and cannot be opened; says which, and nothing of it.
        """
        ...


class Vault(Secrets, Protocol):
    """Secrets, to be administered.  All methods raise SetupError when the master key is missing."""

    def named(self, tenant: TenantId) -> Sequence[Named]:
        """Return what may be told of a tenant's secrets, by name."""
        ...

    async def put(self, tenant: TenantId, name: str, kind: Purpose, value: str) -> Named:
        """Seal and keep a value; what was under the name is gone.

        Raises:
            Conflict: there are as many as masking can bear (`too_many_secrets`).
        """
        ...

    async def drop(self, tenant: TenantId, name: str) -> bool: ...
    async def cover(self, tenant: TenantId, name: str, value: str) -> None:
        """Mask a value that is not kept here, from when this returns, as one of the latest."""
        ...

    async def rotate(self) -> int:
        """Wrap the data keys of all tenants with the newest master key; return how many were.

        May be cut anywhere and done again.
        """
        ...


def masked(secrets: Secrets | None, tenant: TenantId, value: T) -> T:
    """Return a value without what is secret to the tenant."""
    mask = None if secrets is None else secrets.mask(tenant)
    return value if mask is None else mask.value(value)
