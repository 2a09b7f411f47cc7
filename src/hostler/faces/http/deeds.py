"""What a request is about to do, as an entry of the audit log.

Invariant: nothing of a body and no credential is in an entry; of the path, the ids are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.types import Scope

from hostler.core.audited import REFUSED, Entry
from hostler.core.events import Principal
from hostler.core.ports import mint

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
"""What a client or a proxy may call a request; others get a name of ours."""


def entry_of(
    who: Principal,
    path: Mapping[str, str],
    headers: Mapping[str, str],
    address: str,
    *,
    action: str | None = None,
    status: int = 0,
) -> Entry:
    """Return the entry of a request; without an `action`, of a refusal."""
    names = list(path)
    kind = names[-1] if names else (action or "").partition(".")[0]
    given = headers.get("x-request-id", "")
    return Entry(
        tenant=who.tenant,
        action=action or REFUSED,
        principal=who.id,
        user=getattr(who, "user", None) or "",
        kind=kind,
        object=path[names[-1]] if names else "",
        status=status,
        request=given if REQUEST_ID.fullmatch(given) else mint("req"),
        address=address,
        details={name: path[name] for name in names[:-1]},
    )


def address_of(scope: Scope) -> str:
    """Return where a request came from, as the connection says."""
    client: tuple[str, int] | None = scope.get("client")
    return "" if client is None else client[0]
