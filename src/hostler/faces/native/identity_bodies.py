"""The JSON bodies of tenants, keys and members, in and out, and how records become them.

Invariant: no body but that of a new key has what opens anything.
"""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import asdict

from hostler.core.directory import ApiKey, Grant, Tenant, TenantSettings
from hostler.core.events import JsonObject, Role, Scope
from hostler.faces.http.form import stamp


class NewTenant(Struct, kw_only=True, forbid_unknown_fields=True):
    id: str
    title: str | None = None
    settings: TenantSettings | None = None


class TenantChanges(Struct, kw_only=True, forbid_unknown_fields=True):
    title: str | UnsetType | None = UNSET
    settings: JsonObject | UnsetType = UNSET
    """Those that are to change; null: as the server has it."""


class SettingsView(Struct, kw_only=True):
    """null: as the server has it."""

    most_sessions: int | None
    most_streams: int | None
    most_active_runs: int | None
    retention_days: float | None
    retention_sessions: int | None
    default_agent: str | None
    requests_per_s: float | None
    runs_per_s: float | None


class TenantView(Struct, kw_only=True):
    id: str
    title: str | None
    created_at: str
    settings: SettingsView


class TenantPage(Struct, kw_only=True):
    items: list[TenantView]
    cursor: str | None
    more: bool


class NewApiKey(Struct, kw_only=True, forbid_unknown_fields=True):
    tenant: str | None = None
    """Of which tenant; the operator may say another than their own."""
    user: str | None = None
    role: Role = "member"
    scopes: list[Scope] | None = None
    """null: all that the role has."""
    title: str | None = None
    expires_in_s: float | None = None


class KeyView(Struct, kw_only=True):
    id: str
    tenant: str
    user: str | None
    role: str
    scopes: list[str] | None
    prefix: str
    title: str | None
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    used_at: str | None
    """To the minute."""


class NewKeyView(KeyView, kw_only=True):
    key: str
    """Shown this once."""


class KeyPage(Struct, kw_only=True):
    items: list[KeyView]
    cursor: str | None
    more: bool


class NewMember(Struct, kw_only=True, forbid_unknown_fields=True):
    role: Literal["member", "viewer"] = "member"


class MemberView(Struct, kw_only=True):
    user: str
    session: str
    role: str
    by: str
    at: str


class MemberPage(Struct, kw_only=True):
    items: list[MemberView]
    cursor: str | None
    more: bool


def view_tenant(tenant: Tenant) -> TenantView:
    return TenantView(
        id=tenant.id,
        title=tenant.title,
        created_at=stamp(tenant.created_at),
        settings=SettingsView(**asdict(tenant.settings)),
    )


def view_key(key: ApiKey) -> KeyView:
    return KeyView(
        id=key.id,
        tenant=key.tenant,
        user=key.user,
        role=key.role,
        scopes=None if key.scopes is None else sorted(key.scopes),
        prefix=key.prefix,
        title=key.title,
        created_at=stamp(key.created_at),
        expires_at=_stamp(key.expires_at),
        revoked_at=_stamp(key.revoked_at),
        used_at=_stamp(key.used_at),
    )


def view_new_key(key: ApiKey, text: str) -> NewKeyView:
    return NewKeyView(**asdict(view_key(key)), key=text)


def view_member(grant: Grant) -> MemberView:
    return MemberView(
        user=grant.user, session=grant.session, role=grant.role, by=grant.by, at=stamp(grant.at)
    )


def _stamp(at: float | None) -> str | None:
    return None if at is None else stamp(at)
