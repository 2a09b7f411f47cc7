"""From what somebody else says of a caller to a principal of ours.

Invariant: what is not of the expected form is refused, never mended: a wrong tenant is somebody
else's data.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias, cast, get_args

from hostler.app.identity.settings import NAME, Mapped, Role
from hostler.core.errors import HostlerError, Invalid
from hostler.core.events import Principal, Scope, TenantId
from hostler.service.keys import check_user

MOST_ROLES = 1000
"""Groups in one token: directories have been seen to put hundreds in."""
_RANKS: Sequence[Role] = ("admin", "member", "viewer")
_TENANT = re.compile(NAME, re.ASCII)
SCOPES: tuple[Scope, ...] = get_args(Scope)


Exists: TypeAlias = Callable[[TenantId], Awaitable[bool]]
"""Whether there is such a tenant."""


async def everywhere(tenant: TenantId) -> bool:
    """Say that there is every tenant."""
    del tenant
    return True


class Refused(HostlerError):
    """What was shown is not accepted.  The text is for the operator's log alone."""


def claim(claims: object, path: str) -> object:
    """Return what is at a path with dots, None when nothing is.

    Names may have dots themselves (`https://example.org/tenant`): the whole path is tried as one
    name first, then each way to divide it.
    """
    if not isinstance(claims, dict):
        return None
    fields = cast("dict[str, object]", claims)
    if path in fields:
        return fields[path]
    for at, letter in enumerate(path):
        if letter == "." and path[:at] in fields:
            found = claim(fields[path[:at]], path[at + 1 :])
            if found is not None:
                return found
    return None


def words(value: object) -> Sequence[str]:
    """Return a list of words, which may come as one text with spaces.  Raises Refused."""
    if value is None:
        return ()
    if isinstance(value, str):
        return value.split()
    if isinstance(value, list):
        several = cast("list[object]", value)
        if len(several) <= MOST_ROLES and all(isinstance(one, str) for one in several):
            return cast("list[str]", several)
    raise Refused("roles or scopes are neither a list of texts nor a text")


def principal(
    rules: Mapped,
    *,
    user: object,
    tenant: object,
    roles: Sequence[str],
    scopes: Sequence[str] | None = None,
    issuer: str | None = None,
) -> Principal:
    """Return who that is here; `issuer` goes in front of the user.

    Raises:
        Refused: there is no user, no tenant or no role, or one of them is no such thing.
    """
    if not isinstance(user, str):
        raise Refused("there is no user, or it is no text")
    tenant = rules.default_tenant if tenant is None else tenant
    if not isinstance(tenant, str) or not _TENANT.fullmatch(tenant):
        raise Refused("there is no tenant, or it is no name of one")
    named = user if issuer is None else f"{issuer}:{user}"
    try:
        found = check_user(named)
    except Invalid as error:
        raise Refused(f"{error.detail}: {error.fields[0][1]}") from error
    return Principal(
        id=found,
        tenant=TenantId(tenant),
        role=_role(rules.roles, roles, rules.default_role),
        user=named,
        scopes=None if scopes is None else frozenset(one for one in SCOPES if one in scopes),
    )


def _role(meaning: Mapping[str, Role], said: Sequence[str], default: str) -> Role:
    meant = {meaning[one] for one in said if one in meaning}
    for role in _RANKS:
        if role in meant or (not meant and role == default):
            return role
    raise Refused("it has no role here")
