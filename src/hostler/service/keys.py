"""API keys: made, listed, revoked; and who comes with one.

A key is `hk_`, eight hexadecimal digits to know it by, and 256 bits of chance:

    hk_3f9c2a10_Zk1…

Invariant: a key is shown once, when it is made; what is kept tells only whether one is right.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from hmac import compare_digest

from msgspec.structs import replace

from hostler.core.audited import about
from hostler.core.directory import ApiKey, Directory
from hostler.core.errors import Forbidden, Invalid, NotFound, Unauthorised
from hostler.core.events import Principal, PrincipalId, Role, Scope, TenantId
from hostler.core.ports import World
from hostler.service.authorise import authorise, confine
from hostler.service.limits import check_labels
from hostler.service.tenants import Tenants

FORM = re.compile(r"hk_[0-9a-f]{8}_[A-Za-z0-9_-]{43}", re.ASCII)
SECRET_BYTES = 32
USER = re.compile(r"[!-.0-~]{1,128}", re.ASCII)
"""Printable and without a slash: it stands in paths."""
RESERVED = re.compile(r"admin|nobody|(key_|share:).*", re.ASCII)
"""What principals are called that are no users."""
LONGEST_S = 10 * 365 * 86_400
REMEMBERED_S = 5.0
"""How long a key that was looked up is known.  Revoking forgets it in this process at once, and on
nodes that hear of it; others are late by this much."""
MOST_REMEMBERED = 10_000
NOTED_S = 60.0
"""How often their use is written down: what a crash takes is a minute of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """What somebody wants a key to be."""

    user: str | None = None
    role: Role = "member"
    scopes: Sequence[Scope] | None = None
    title: str | None = None
    expires_in_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Somebody who came with a key."""

    who: Principal
    until: float | None
    """Unix seconds."""


@dataclass(slots=True)
class Keys:
    directory: Directory
    tenants: Tenants
    world: World
    revoked: list[Callable[[str], None]] = field(default_factory=list[Callable[[str], None]])
    """Told which key was revoked, to cut what is open with it."""
    open_with: list[Callable[[], Collection[tuple[TenantId, str]]]] = field(
        default_factory=list[Callable[[], Collection[tuple[TenantId, str]]]]
    )
    """Say with which keys something is open."""
    _known: dict[str, tuple[ApiKey, float]] = field(default_factory=dict[str, tuple[ApiKey, float]])
    _used: dict[tuple[TenantId, str], float] = field(
        default_factory=dict[tuple[TenantId, str], float]
    )
    _changes: int = 0

    async def create(
        self, who: Principal, wanted: NewKey, *, tenant: str | None = None
    ) -> tuple[ApiKey, str]:
        """Make a key; return it, and its text, which nobody can find out again.

        Raises:
            Forbidden: the key would open what `who` may not.
            Invalid: a user, role or time that cannot be.
            NotFound: no such tenant.
        """
        authorise(who, "admin", None, "keys")
        _check_wanted(who, wanted)
        of = await self.tenants.acting(who, tenant)
        prefix = f"hk_{secrets.token_hex(4)}"
        text, now = f"{prefix}_{secrets.token_urlsafe(SECRET_BYTES)}", self.world.clock()
        key = ApiKey(
            tenant=of.tenant,
            id=self.world.mint("key"),
            user=None if wanted.user is None else PrincipalId(wanted.user),
            role=wanted.role,
            scopes=None if wanted.scopes is None else frozenset(wanted.scopes),
            prefix=prefix,
            digest=digest_of(text),
            title=wanted.title,
            created_at=now,
            expires_at=None if wanted.expires_in_s is None else now + wanted.expires_in_s,
        )
        about("key", key.id, of=key.tenant, role=key.role, user=key.user)
        await self.directory.add_key(key)
        return key, text

    async def list(self, who: Principal, *, after: str, limit: int) -> Sequence[ApiKey]:
        """Return the tenant's keys, newest first; to a member their own."""
        is_admin = _of_all(who)
        found = await self.directory.keys(
            who.tenant, user=None if is_admin else who.id, after=after, limit=limit
        )
        return [self._with_use(key) for key in found]

    async def own(self, who: Principal) -> ApiKey | None:
        """Return the key that `who` came with, if it was one."""
        confine(who, None)
        return None if who.key is None else await self.directory.key(who.tenant, who.key)

    async def revoke(self, who: Principal, key: str) -> None:
        """End a key, and what is open with it; safe to repeat.

        Raises:
            NotFound: there is none, or `who` may not know of it.
        """
        is_admin = _of_all(who)
        there = await self.directory.key(who.tenant, key)
        if not is_admin and there.id != who.key and there.user != who.id:
            raise NotFound(f"no key {key}")
        await self.directory.revoke_key(who.tenant, key, at=self.world.clock())
        self._changes += 1
        self._known.pop(there.digest, None)
        for tell in self.revoked:
            tell(key)

    def forget(self, words: Sequence[str]) -> None:
        """Look anew for a key that another node ended: its id is all the words."""
        self._changes += 1
        for digest in [one for one, (key, _) in self._known.items() if (key.id,) == tuple(words)]:
            del self._known[digest]

    async def forget_all(self) -> None:
        """Look anew for all, and cut what is open with those that another process has ended."""
        self._changes += 1
        self._known.clear()
        for tenant, key in {one for listed in self.open_with for one in listed()}:
            if await self._is_revoked(tenant, key):
                for tell in self.revoked:
                    tell(key)

    async def _is_revoked(self, tenant: TenantId, key: str) -> bool:
        try:
            return (await self.directory.key(tenant, key)).revoked_at is not None
        except NotFound:
            return True

    async def holder(self, text: str) -> Holder:
        """Return who comes with a key.

        Raises:
            Unauthorised: it expired, was revoked, or never was.
        """
        key, now = await self._find(text), self.world.clock()
        is_over = key is not None and key.expires_at is not None and key.expires_at <= now
        if key is None or key.revoked_at is not None or is_over:
            raise Unauthorised("this key has expired, was revoked, or never was")
        self._used[key.tenant, key.id] = now
        who = Principal(
            id=key.user or PrincipalId(key.id),
            tenant=key.tenant,
            role=key.role,
            user=key.user,
            scopes=key.scopes,
            key=key.id,
        )
        return Holder(who=who, until=key.expires_at)

    async def note_use(self) -> None:
        """Write down when keys were used, all of them in one commit."""
        if not self._used:
            return
        used, self._used = self._used, {}
        try:
            await self.directory.touch_keys(used)
        except BaseException:
            self._used = used | self._used  # with what was used meanwhile
            raise

    async def _find(self, text: str) -> ApiKey | None:
        if not FORM.fullmatch(text):
            return None
        digest = digest_of(text)
        found, until = self._known.get(digest, (None, 0.0))
        now = self.world.clock()
        if found is not None and now < until:
            return found
        while True:
            changes = self._changes
            found = await self.directory.key_of_digest(digest)
            if changes == self._changes:  # or this key may have been revoked meanwhile
                break
        if found is None or not compare_digest(found.digest, digest):
            return None
        self._known.pop(digest, None)
        self._known[digest] = found, now + REMEMBERED_S
        if len(self._known) > MOST_REMEMBERED:
            del self._known[next(iter(self._known))]
        return found

    def _with_use(self, key: ApiKey) -> ApiKey:
        return replace(key, used_at=self._used.get((key.tenant, key.id), key.used_at))


def check_user(user: str, pointer: str = "/user") -> PrincipalId:
    """Return a user's name.  Raises Invalid."""
    if not USER.fullmatch(user) or RESERVED.fullmatch(user):
        wanted = "1 to 128 printable ASCII characters, none of them a space or a slash"
        raise Invalid("this cannot be a user's name", fields=[(pointer, wanted)])
    return PrincipalId(user)


def _of_all(who: Principal) -> bool:
    """Whether `who` decides about all keys of the tenant; if not, about their own."""
    authorise(who, "read" if who.role == "member" else "admin", None, "keys")
    return who.role == "admin"


def _check_wanted(who: Principal, wanted: NewKey) -> None:
    if wanted.user is not None:
        check_user(wanted.user)
    check_labels(wanted.title, None)
    lifetime = wanted.expires_in_s
    if lifetime is not None and not 0 < lifetime <= LONGEST_S:
        told = f"more than 0 and at most {LONGEST_S} seconds"
        raise Invalid(f"expires_in_s must be {told}", fields=[("/expires_in_s", told)])
    if wanted.scopes is not None and not wanted.scopes:
        raise Invalid("a key of no scope opens nothing", fields=[("/scopes", "one at least")])
    if who.scopes is not None and (
        wanted.scopes is None or not who.scopes.issuperset(wanted.scopes)
    ):
        raise Forbidden("a key cannot have a scope that yours has not", code="scope")


def digest_of(text: str) -> str:
    """Return what is kept of a key, or of a link's token."""
    # 256 bits of chance need no salt and no slow hash: there is nothing to guess.
    return hashlib.sha256(text.encode()).hexdigest()
