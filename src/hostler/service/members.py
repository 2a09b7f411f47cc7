"""With whom a session is shared, by name: members write in it, viewers read it.

Invariant: only who may decide about a session says who else may see it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from hostler.core.directory import Directory, Grant
from hostler.core.errors import Invalid
from hostler.core.events import Key, Principal, PrincipalId, SessionId, TenantId
from hostler.core.ports import World
from hostler.core.store import Store
from hostler.service.authorise import Access
from hostler.service.keys import check_user

MOST_GRANTS = 1000
"""Of one session: whom everybody may see belongs into a list of roles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    store: Store
    directory: Directory
    access: Access
    world: World
    removed: list[Callable[[TenantId, PrincipalId, SessionId], None]] = field(
        default_factory=list[Callable[[TenantId, PrincipalId, SessionId], None]]
    )
    """Told who may see a session no more, or less of it, to cut what they have open."""

    async def list(self, who: Principal, session: SessionId) -> Sequence[Grant]:
        """Return with whom a session is shared, by user.  Raises NotFound."""
        return await self.directory.grants(await self._key(who, session))

    async def add(
        self,
        who: Principal,
        session: SessionId,
        user: str,
        *,
        role: Literal["member", "viewer"] = "member",
    ) -> Grant:
        """Share a session with a user, or change how.

        Raises:
            NotFound: no such session.
            Invalid: no user's name; its owner; or it is shared with as many as may be.
        """
        key = await self._key(who, session)
        name = check_user(user)
        there = await self.directory.grants(key)
        if await self.directory.standing(key, name) == "owner":
            raise Invalid("it is theirs", fields=[("/user", "somebody else than the owner")])
        before = next((one for one in there if one.user == name), None)
        if before is None and len(there) >= MOST_GRANTS:
            told = f"it is shared with {MOST_GRANTS:,} users, which is all there may be"
            raise Invalid(told, fields=[("/user", "one of those, or a share link")])
        grant = Grant(
            tenant=key.tenant,
            session=key.session,
            user=name,
            role=role,
            by=who.id,
            at=self.world.clock(),
        )
        await self.directory.grant(grant)
        self.access.forget(*key)
        if before is not None and before.role != role:
            self._tell(key.tenant, name, session)
        return grant

    async def remove(self, who: Principal, session: SessionId, user: str) -> None:
        """Share it with them no more, and end what they have open; safe to repeat.

        Raises:
            NotFound: no such session.
        """
        key = await self._key(who, session)
        there = await self.directory.grants(key)
        await self.directory.ungrant(key, PrincipalId(user))
        self.access.forget(*key)
        if any(one.user == user for one in there):  # nobody else sees it by leave of its owner
            self._tell(key.tenant, PrincipalId(user), session)

    async def _key(self, who: Principal, session: SessionId) -> Key:
        key = await self.access.key(who, "admin", session)
        await self.store.head(key)
        return key

    def _tell(self, tenant: TenantId, user: PrincipalId, session: SessionId) -> None:
        for tell in self.removed:
            tell(tenant, user, session)
