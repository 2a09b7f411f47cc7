"""Secrets of a tenant: set, listed without values, removed; scrubbed from what was written before.

Invariant: a value goes in and never comes out: no verb returns one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, get_args

from msgspec.structs import replace

from hostler.core.errors import Conflict, Invalid, NotFound, SetupError
from hostler.core.events import Key, Principal, SessionId, TenantId
from hostler.core.news import Signals
from hostler.core.ports import World
from hostler.core.sealed import LONGEST, SHORTEST, Named, Purpose, Scrubbed, SealedRows, Vault
from hostler.service.authorise import authorise, authorise_operator
from hostler.service.webhooks import Outgoing

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}", re.ASCII)
KINDS: tuple[Purpose, ...] = get_args(Purpose)


class Files(Protocol):
    """What is kept of sessions outside of the store."""

    async def scrub(self, tenant: TenantId, mask: Callable[[str], str]) -> int:
        """Mask the tenant's files; return how many were changed."""
        ...


class Sealing(NamedTuple):
    """What the verbs work with."""

    vault: Vault
    rows: SealedRows
    files: Files | None = None
    outgoing: Outgoing | None = None
    """What webhooks are kept and signed with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantSecrets:
    """Without `sealing`, this house keeps none: each verb is a Conflict (`no_vault`)."""

    sealing: Sealing | None
    signals: Signals
    world: World

    async def list(self, who: Principal) -> Sequence[Named]:
        """Return the names, kinds and times of the tenant's secrets, by name."""
        authorise(who, "admin", None)
        return self._opened().vault.named(who.tenant)

    async def put(
        self, who: Principal, name: str, *, value: str, kind: Purpose | None = None
    ) -> tuple[Named, bool]:
        """Keep a value under a name; return what may be told of it, and whether it is new.

        Without `kind`, it is what the name says before a colon, or `tool`.

        Raises:
            Invalid: the name has another form, or the value could not be masked.
            Conflict: there are as many as there may be, or as much (`too_many_secrets`).
        """
        authorise(who, "admin", None)
        vault = self._opened().vault
        _check_name(name)
        _check_value(value, name)
        there = {one.name for one in vault.named(who.tenant)}
        try:
            named = await vault.put(who.tenant, name, kind or _kind_of(name), value)
        except SetupError as error:
            raise Conflict(str(error), code="no_master_key") from error
        return named, name not in there

    async def remove(self, who: Principal, name: str) -> None:
        """Remove a secret; what was written with its mark keeps it.  Raises NotFound."""
        authorise(who, "admin", None)
        if not await self._opened().vault.drop(who.tenant, name):
            raise NotFound(f"no secret {name}")

    async def rotate(self, who: Principal) -> int:
        """Wrap the data keys of all tenants with the newest master key; return how many were.

        Raises:
            Forbidden: the caller does not run this installation.
            Conflict: the keys cannot be read, or one that is needed is gone (`no_master_key`).
        """
        authorise_operator(who, "master keys are of the installation, not of a tenant")
        try:
            return await self._opened().vault.rotate()
        except SetupError as error:
            raise Conflict(str(error), code="no_master_key") from error

    async def scrub(self, who: Principal, *, value: str | None = None) -> Scrubbed:
        """Mask what was written before its value was known, of the tenant; return what changed.

        A `value` that is no secret here is masked as `[secret:scrubbed]` from now on, too, since
        what runs now may have it in memory: until this server stops, or a hundred later ones were
        scrubbed or replaced.  Those who watch a session that changed read it again.

        Raises:
            Invalid: the value could not be masked.
        """
        authorise(who, "admin", None)
        vault, rows, kept_files, _ = self._opened()
        tenant = who.tenant
        if value is not None:
            _check_value(value, "scrubbed")
            await vault.cover(tenant, "scrubbed", value)
        done = Scrubbed(
            tenant=tenant,
            id=self.world.mint("scr"),
            at=self.world.clock(),
            principal=who.id,
            facts=0,
            rows=0,
            files=0,
        )
        mask = vault.mask(tenant)
        if mask is None:
            return done
        files = 0 if kept_files is None else await kept_files.scrub(tenant, mask.text)
        done = await rows.scrub(tenant, mask, replace(done, files=files))
        for session in done.sessions:
            self.signals.lost(Key(tenant, SessionId(session)))
        return done

    def _opened(self) -> Sealing:
        if self.sealing is None:
            raise Conflict("this house keeps no secrets", code="no_vault")
        return self.sealing


def _kind_of(name: str) -> Purpose:
    """Return what a name says before a colon, or `tool`."""
    for one in KINDS:
        if name.startswith(f"{one}:"):
            return one
    return "tool"


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        wanted = f"a match of ^{NAME.pattern}$"
        raise Invalid("the name has another form", fields=[("name", wanted)])


def _check_value(value: str, name: str) -> None:
    wanted = f"{SHORTEST} to {LONGEST} characters, and no part of a mark"
    is_long = len(value.strip()) >= SHORTEST and len(value) <= LONGEST
    try:
        value.encode()
    except UnicodeEncodeError:
        is_long = False
    # A mark in which a value is found would be masked again, and never the same.
    if not is_long or "[secret:" in value or value.strip() in f"[secret:{name}]":
        raise Invalid("a value that could not be masked is not kept", fields=[("/value", wanted)])
