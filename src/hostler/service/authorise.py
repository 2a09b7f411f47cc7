"""Who may do what: asked first by every verb of the service.

    read    see a session: its labels, its log, who watches
    write   speak in it, answer for it, make one, relabel it, type in it
    admin   decide about it: delete it, share it; without a session, about the whole tenant

A role has rights: an admin all of them, a viewer may read, and a member has those that their
standing to a session gives (its owner, or one of those it is shared with).  A key's scopes take
away from that:

    sessions:read    sessions, their events and labels, approvals, search, what they take
    sessions:write   make, fork, import, label; speak, cancel, approve, answer, type
    sessions:admin   delete; links, and users to share with
    runs:read        runs with their calls
    keys:admin       keys
    tenant:admin     whatever else is decided about a tenant

Invariant: a session that is not the caller's looks like one that is absent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from hostler.core.directory import Directory, Standing
from hostler.core.errors import Forbidden, NotFound
from hostler.core.events import Key, Principal, PrincipalId, Role, Scope, SessionId, TenantId

Right: TypeAlias = Literal["read", "write", "admin"]
Noun: TypeAlias = Literal["sessions", "runs", "keys", "tenant"]
ALL: frozenset[Right] = frozenset(get_args(Right))
RIGHTS: Mapping[Role, frozenset[Right]] = {
    "admin": ALL,
    "member": frozenset({"read", "write"}),
    "viewer": frozenset({"read"}),
}
"""On the tenant as a whole: of lists, a member sees what they may see."""
RIGHTS_OF: Mapping[Standing, frozenset[Right]] = {
    "owner": ALL,
    "member": frozenset({"read", "write"}),
    "viewer": frozenset({"read"}),
}
"""Of a member, on one session."""
SCOPES: frozenset[Scope] = frozenset(get_args(Scope))
_SCOPE_OF: Mapping[Noun, Scope] = {
    "runs": "runs:read",
    "keys": "keys:admin",
    "tenant": "tenant:admin",
}
REMEMBERED_S = 2.0
"""How long a member's standing is remembered.  What this process changes holds here at once;
nodes that do not hear of it are late by this much."""
MOST_REMEMBERED = 50_000


def authorise(
    who: Principal, right: Right, session: SessionId | None, of: Noun | None = None
) -> None:
    """Return if `who` has the right; on all that they may see when `session` is None.

    On one session, this alone lets every member in: `Access.key` looks whose it is.

    Raises:
        NotFound: `who` may see another session alone.
        Forbidden: `who` has not this right.
    """
    confine(who, session)
    if session is None or who.role != "member":
        _check(right, RIGHTS[who.role], who.role)
    if who.scopes is None:
        return
    if of is None and session is None and right == "admin":
        of = "tenant"
    scope = _SCOPE_OF.get(of or "sessions", f"sessions:{right}")
    if scope not in who.scopes:
        raise Forbidden(f"this key has not the scope {scope}", code="scope")


def authorise_operator(who: Principal, refusal: str) -> None:
    """Return if `who` runs this installation, and may administer.

    An admin of a tenant does not, whatever the tenant is called.

    Raises:
        Forbidden: they do not, which `refusal` says in words; or as `authorise`.
    """
    authorise(who, "admin", None)
    if not who.is_operator:
        raise Forbidden(refusal)


def confine(who: Principal, session: SessionId | None) -> None:
    """Return unless `who` may see one session alone, and this is elsewhere.  Raises as `authorise`."""
    if who.only is not None and session != who.only:
        if session is None:
            raise Forbidden("this key opens one session and nothing else")
        raise NotFound(f"no session {session}")


def seen_by(who: Principal) -> PrincipalId | None:
    """Return by whom what a list shows must be seen; None: it shows all of the tenant."""
    return who.id if who.role == "member" else None


def _check(right: Right, rights: frozenset[Right], what: str) -> None:
    if right not in rights:
        to = "administer" if right == "admin" else right
        raise Forbidden(f"a {what} may not do this: it takes the right to {to}")


@dataclass(slots=True)
class Access:
    """What members are to sessions: one indexed read, remembered for a moment.

    Whoever sees all of the tenant costs nothing here.
    """

    directory: Directory | None = None
    """None: nothing is shared with anybody, and nobody is a member."""
    clock: Callable[[], float] = time.monotonic
    _known: dict[Key, dict[PrincipalId, tuple[Standing, float]]] = field(
        default_factory=dict[Key, dict[PrincipalId, tuple[Standing, float]]]
    )
    _changes: int = 0

    async def key(
        self, who: Principal, right: Right, session: SessionId, of: Noun = "sessions"
    ) -> Key:
        """Return the key of a session on which `who` has the right.

        Raises:
            NotFound: it is not theirs; or absent, if they are a member (others learn that later).
            Forbidden: they have not this right.
        """
        authorise(who, right, session, of)
        key = Key(who.tenant, session)
        if who.role == "member":
            standing = await self._standing(key, who.id)
            if standing is None:
                raise NotFound(f"no session {session}")
            _check(right, RIGHTS_OF[standing], f"{standing} of this session")
        return key

    async def sees(self, who: Principal, session: SessionId) -> bool:
        """Whether a session is there for `who`; others than members learn later that it is absent.

        Raises:
            Forbidden: `who` may read nothing at all.
        """
        try:
            await self.key(who, "read", session)
        except NotFound:
            return False
        return True

    def forget(self, tenant: TenantId, session: SessionId) -> None:
        """Look anew: who may see a session has changed, or it is gone."""
        self._changes += 1
        self._known.pop(Key(tenant, session), None)

    def forget_told(self, words: Sequence[str]) -> None:
        """As `forget`, after another node: tenant, user and session."""
        if len(words) == 3:
            self.forget(TenantId(words[0]), SessionId(words[2]))

    async def _standing(self, key: Key, user: PrincipalId) -> Standing | None:
        standing, until = self._known.get(key, {}).get(user, (None, 0.0))
        if standing is not None and self.clock() < until:
            return standing
        if self.directory is None:
            return None
        while True:
            changes, until = self._changes, self.clock() + REMEMBERED_S
            standing = await self.directory.standing(key, user)
            if changes == self._changes:  # or what was read may be what was before the change
                break
        if standing is not None:
            if len(self._known) >= MOST_REMEMBERED:
                self._known.pop(next(iter(self._known)))
            self._known.setdefault(key, {})[user] = standing, until
        return standing
