"""Who may do what: asked first by every verb of the service.

    read    see a session: its labels, its log, who watches
    write   speak in it, answer for it, make one, relabel it, type in it
    admin   decide about it: delete it, share it

Invariant: a session that is not the caller's looks like one that is absent.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from hostler.core.errors import Forbidden, NotFound
from hostler.core.events import Key, Principal, SessionId

Right: TypeAlias = Literal["read", "write", "admin"]
RIGHTS: dict[str, frozenset[Right]] = {
    "admin": frozenset({"read", "write", "admin"}),
    "viewer": frozenset({"read"}),
}


def authorise(who: Principal, right: Right, session: SessionId | None) -> None:
    """Return if `who` has the right; on all sessions of the tenant when `session` is None.

    Raises:
        NotFound: `who` may see another session alone.
        Forbidden: `who` has not this right.
    """
    if who.only is not None and session != who.only:
        if session is None:
            raise Forbidden("this key opens one session and nothing else")
        raise NotFound(f"no session {session}")
    if right not in RIGHTS[who.role]:
        raise Forbidden(f"a {who.role} may not do this: it takes the right to {_to(right)}")


def key_of(who: Principal, right: Right, session: SessionId) -> Key:
    """Return the key of a session on which `who` has the right.  Raises as `authorise`."""
    authorise(who, right, session)
    return Key(who.tenant, session)


def _to(right: Right) -> str:
    return "administer" if right == "admin" else right
