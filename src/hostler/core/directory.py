"""Who there is: tenants, the keys that open them, their endpoints, and who shares which session.

Nothing of this is a fact of a session; it is kept beside the logs, and no log tells it.

Invariant: every row has its tenant, and no row has what opens anything: of a key, only its digest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol, TypeAlias

from msgspec import Struct

from hostler.core.events import Key, PrincipalId, Role, Scope, SessionId, TenantId

DEFAULT = TenantId("default")
"""The tenant that always exists."""
Standing: TypeAlias = Literal["owner", "member", "viewer"]
"""What somebody is to a session: who made it, or with whom it is shared to write or to read."""


class TenantSettings(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is otherwise for one tenant; None: as the server's settings have it."""

    most_sessions: int | None = None
    most_streams: int | None = None
    """Open at once, of each principal."""
    most_active_runs: int | None = None
    """Begun and neither ended nor waiting for somebody."""
    retention_days: float | None = None
    retention_sessions: int | None = None
    default_agent: str | None = None
    requests_per_s: float | None = None
    """Of each principal, over a longer time; 0: no limit."""
    runs_per_s: float | None = None
    """The same of messages that begin runs."""


class Tenant(Struct, frozen=True, kw_only=True):
    id: TenantId
    title: str | None
    created_at: float
    settings: TenantSettings = TenantSettings()


class ApiKey(Struct, frozen=True, kw_only=True):
    """What is kept of a key."""

    tenant: TenantId
    id: str
    user: PrincipalId | None
    """Who is behind it; None: a program, known by the key's id."""
    role: Role
    scopes: frozenset[Scope] | None
    """None: all that the role has."""
    prefix: str
    """The key's first characters, to know it by."""
    digest: str
    """SHA-256 of the key, in hexadecimal digits."""
    title: str | None
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    used_at: float | None = None


class Grant(Struct, frozen=True, kw_only=True):
    """A session that its owner shares with a user."""

    tenant: TenantId
    session: SessionId
    user: PrincipalId
    role: Literal["member", "viewer"]
    by: PrincipalId
    at: float


class Endpoint(Struct, frozen=True, kw_only=True):
    """Where a tenant has a provider's models asked, instead of where the operator does."""

    tenant: TenantId
    provider: str
    base_url: str
    created_at: float
    updated_at: float
    """Unix seconds."""


class Directory(Protocol):
    """Tenants, keys, endpoints and grants.  All methods raise Unavailable when the storage cannot serve now.

    What a method has returned from is kept; the next read by anybody sees it.
    """

    async def create_tenant(self, tenant: Tenant) -> bool:
        """Return False, and change nothing, if there is one of this id."""
        ...

    async def tenant(self, tenant: TenantId) -> Tenant:
        """Return a tenant; `default` is always there.  Raises NotFound."""
        ...

    async def tenants(self, *, after: str, limit: int) -> Sequence[Tenant]:
        """Return tenants by id, past the id `after` ("" for the first)."""
        ...

    async def change_tenant(self, tenant: TenantId, change: Callable[[Tenant], Tenant]) -> Tenant:
        """Set title and settings to what `change` makes of those there are at this moment.

        Nothing comes between, and nothing is changed when `change` raises; it does nothing else.
        Raises NotFound.
        """
        ...

    async def add_key(self, key: ApiKey) -> None:
        """Keep a new key.  Raises NotFound when its tenant is absent."""
        ...

    async def keys(
        self, tenant: TenantId, *, user: PrincipalId | None, after: str, limit: int
    ) -> Sequence[ApiKey]:
        """Return keys, newest first, past the id `after`, revoked ones too; those of `user`."""
        ...

    async def key(self, tenant: TenantId, key: str) -> ApiKey:
        """Return a key.  Raises NotFound."""
        ...

    async def key_of_digest(self, digest: str) -> ApiKey | None:
        """Return the key with this digest, of whatever tenant, also a revoked or expired one."""
        ...

    async def revoke_key(self, tenant: TenantId, key: str, *, at: float) -> None:
        """Mark a key as revoked, unless it was before.  Raises NotFound."""
        ...

    async def touch_keys(self, used: Mapping[tuple[TenantId, str], float]) -> None:
        """Say when keys were last used; never earlier than is known.  Absent ones are fine."""
        ...

    async def endpoints(self) -> Sequence[Endpoint]:
        """Return those of all tenants, by tenant and provider."""
        ...

    async def put_endpoint(self, endpoint: Endpoint) -> None:
        """Keep it in place of the tenant's other one for the provider, whose `created_at` stays.

        Raises NotFound when its tenant is absent.
        """
        ...

    async def drop_endpoint(self, tenant: TenantId, provider: str) -> bool:
        """Remove it; return whether it was there."""
        ...

    async def grant(self, grant: Grant) -> None:
        """Share a session, or share it otherwise.  Raises NotFound for an absent session."""
        ...

    async def ungrant(self, key: Key, user: PrincipalId) -> None:
        """Share it with them no more.  Absent ones are fine.  Grants go with their session."""
        ...

    async def grants(self, key: Key) -> Sequence[Grant]:
        """Return with whom a session is shared, by user."""
        ...

    async def standing(self, key: Key, user: PrincipalId) -> Standing | None:
        """Return what a user is to a session; None for nothing, and for an absent session."""
        ...
