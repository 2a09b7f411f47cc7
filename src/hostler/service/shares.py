"""Links with which anybody may read one session, until they expire or are revoked.

Invariant: a token is shown once, when it is made; what is kept tells only whether one is right.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from hostler.core.audited import about
from hostler.core.errors import Conflict, Invalid, Unauthorised
from hostler.core.events import Principal, PrincipalId, SessionId
from hostler.core.ports import World
from hostler.core.records import Share
from hostler.core.store import Store
from hostler.service.authorise import Access
from hostler.service.keys import digest_of
from hostler.service.limits import MOST_SHARES

TOKEN = re.compile(r"hs_[A-Za-z0-9_-]{43}", re.ASCII)
TOKEN_BYTES = 32
LONGEST_S = 365 * 86_400
DEFAULT_S = 7 * 86_400


def is_token(text: str) -> bool:
    """Whether this is meant as a link's token."""
    return text.startswith("hs_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewer:
    """Somebody who came with a link."""

    who: Principal
    until: float
    """Unix seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    store: Store
    world: World
    access: Access

    async def share(
        self, who: Principal, session: SessionId, *, expires_in_s: float = DEFAULT_S
    ) -> tuple[Share, str]:
        """Make a link; return it, and its token, which nobody can find out again.

        Raises:
            NotFound: no such session.
            Invalid: it would expire at once, or hardly ever.
            Conflict: there are as many as there may be (`too_many_shares`).
        """
        key = await self.access.key(who, "admin", session)
        if not 0 < expires_in_s <= LONGEST_S:
            wanted = f"more than 0 and at most {LONGEST_S} seconds"
            raise Invalid(f"expires_in_s must be {wanted}", fields=[("/expires_in_s", wanted)])
        if len(await self.store.shares(key)) >= MOST_SHARES:
            told = f"the session has {MOST_SHARES} links, which is all there may be: remove some"
            raise Conflict(told, code="too_many_shares")
        token, now = f"hs_{secrets.token_urlsafe(TOKEN_BYTES)}", self.world.clock()
        share = Share(
            tenant=key.tenant,
            id=self.world.mint("shr"),
            session=key.session,
            digest=digest_of(token),
            principal=who.id,
            created_at=now,
            expires_at=now + expires_in_s,
        )
        about("share", share.id, session=session, expires_in_s=round(expires_in_s))
        await self.store.share(share)
        return share, token

    async def list(self, who: Principal, session: SessionId) -> Sequence[Share]:
        """Return the session's links, oldest first, expired ones too.  Raises NotFound."""
        key = await self.access.key(who, "admin", session)
        await self.store.head(key)
        return await self.store.shares(key)

    async def revoke(self, who: Principal, session: SessionId, share: str) -> None:
        """Remove a link; safe to repeat.  Raises NotFound for an absent session."""
        key = await self.access.key(who, "admin", session)
        await self.store.head(key)
        await self.store.unshare(key, share)

    async def holder(self, token: str) -> Viewer:
        """Return who comes with a token.

        Raises:
            Unauthorised: the link expired, was revoked, or never was.
        """
        found = await self.store.shared(digest_of(token)) if TOKEN.fullmatch(token) else None
        if found is None or found.expires_at <= self.world.clock():
            raise Unauthorised("this link has expired, was revoked, or never was")
        who = Principal(
            id=viewer_id(found.id), tenant=found.tenant, role="viewer", only=found.session
        )
        return Viewer(who=who, until=found.expires_at)


def viewer_id(share: str) -> PrincipalId:
    """Return who all those are who come with a link."""
    return PrincipalId(f"share:{share}")
