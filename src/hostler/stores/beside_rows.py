"""Tenants, keys, endpoints, grants, secrets and the audit log as rows: the same in every database.

Invariant: pure; a row that was made here is read here as what it was made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import msgspec

from hostler.core.audited import AuditRow, Detail, stamp
from hostler.core.directory import ApiKey, Endpoint, Grant, Standing, Tenant, TenantSettings
from hostler.core.sealed import Named, SealedSecret
from hostler.stores.log_rows import Row
from hostler.stores.times import to_seconds, to_us

_settings = msgspec.json.Decoder(TenantSettings)
_details = msgspec.json.Decoder(dict[str, Detail])
_names = ApiKey.__struct_fields__


def tenant_row(tenant: Tenant) -> Row:
    return (tenant.id, tenant.title, to_us(tenant.created_at), to_json(tenant.settings))


def key_row(key: ApiKey) -> Row:
    return (
        key.tenant,
        key.id,
        key.user,
        key.role,
        None if key.scopes is None else to_json(sorted(key.scopes)),
        key.prefix,
        key.digest,
        key.title,
        to_us(key.created_at),
        to_us(key.expires_at),
        to_us(key.revoked_at),
        to_us(key.used_at),
    )


def endpoint_row(endpoint: Endpoint) -> Row:
    times = (to_us(endpoint.created_at), to_us(endpoint.updated_at))
    return (endpoint.tenant, endpoint.provider, endpoint.base_url, *times)


def grant_row(grant: Grant) -> Row:
    who = (grant.tenant, grant.session, grant.user)
    return (*who, grant.role, grant.by, to_us(grant.at))


def secret_row(secret: SealedSecret) -> Row:
    about = secret.about
    times = (to_us(about.created_at), to_us(about.updated_at))
    return (about.tenant, about.name, about.kind, secret.sealed, secret.data_key, *times)


def audit_row(row: AuditRow, at_us: int) -> Row:
    return (
        row.tenant,
        row.seq,
        at_us,
        row.action,
        row.principal,
        row.user,
        row.kind,
        row.object,
        row.outcome,
        row.status,
        row.request,
        row.address,
        to_json(row.details),
        row.previous,
        row.hash,
    )


def to_audit(values: Sequence[object]) -> AuditRow:
    """Return what a row of `audit` says."""
    fields = dict(zip(AuditRow.__struct_fields__, values, strict=True))
    fields["at"] = stamp(cast("int", fields["at"]))
    fields["details"] = _details.decode(cast("str", fields["details"]))
    return msgspec.convert(fields, AuditRow)


def standing_of(user: str, owner: object, role: object) -> Standing | None:
    """Return what a user is to a session of this owner, who gave them this role."""
    return "owner" if owner == user else msgspec.convert(role, Standing | None)


def to_tenant(row: Sequence[object]) -> Tenant:
    tenant, title, created_at, settings = row
    return msgspec.convert(
        {
            "id": tenant,
            "title": title,
            "created_at": to_seconds(created_at),
            "settings": _settings.decode(str(settings)),
        },
        Tenant,
    )


def to_key(row: Sequence[object]) -> ApiKey:
    values: dict[str, object] = dict(zip(_names, row, strict=True))
    if values["scopes"] is not None:
        values["scopes"] = msgspec.json.decode(str(values["scopes"]))
    for name in ("created_at", "expires_at", "revoked_at", "used_at"):
        values[name] = to_seconds(values[name])
    return msgspec.convert(values, ApiKey)


def to_endpoint(row: Sequence[object]) -> Endpoint:
    *values, created_at, updated_at = row
    times = (to_seconds(created_at), to_seconds(updated_at))
    named = dict(zip(Endpoint.__struct_fields__, [*values, *times], strict=True))
    return msgspec.convert(named, Endpoint)


def to_grant(row: Sequence[object]) -> Grant:
    *values, at = row
    named = dict(zip(Grant.__struct_fields__, [*values, to_seconds(at)], strict=True))
    return msgspec.convert(named, Grant)


def to_json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def to_secret(row: Sequence[object]) -> SealedSecret:
    tenant, name, kind, sealed, data_key, created_us, updated_us = row
    times = {
        "created_at": to_seconds(created_us),
        "updated_at": to_seconds(updated_us),
    }
    about = msgspec.convert({"tenant": tenant, "name": name, "kind": kind, **times}, Named)
    return SealedSecret(about=about, sealed=cast("bytes", sealed), data_key=cast("str", data_key))
