"""Tenants: made and changed by the operator, and what is otherwise for each.

Settings are looked up when somebody needs them, and remembered for a moment.

Invariant: a tenant knows of itself alone; only the operator learns which others there are.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import msgspec
from msgspec.structs import replace

from hostler.core.directory import Directory, Tenant, TenantSettings
from hostler.core.errors import Conflict, Forbidden, Invalid, NotFound
from hostler.core.events import JsonObject, Principal, TenantId
from hostler.core.ports import AgentSpec, World
from hostler.service.authorise import authorise, confine
from hostler.service.limits import check_labels
from hostler.service.rates import check_per_s

ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)
REMEMBERED_S = 10.0
"""Other processes on the same storage look sooner whether anything was changed (`rereading`)."""
MOST_REMEMBERED = 10_000
PAGE = 1000


@dataclass(slots=True)
class Tenants:
    directory: Directory
    world: World
    agents: Mapping[str, AgentSpec]
    _known: dict[TenantId, tuple[Tenant, float]] = field(
        default_factory=dict[TenantId, tuple[Tenant, float]]
    )
    _changes: int = 0

    async def create(
        self,
        who: Principal,
        *,
        tenant: str,
        title: str | None = None,
        settings: TenantSettings | None = None,
    ) -> Tenant:
        """Make a tenant.

        Raises:
            Forbidden: `who` is not the operator.
            Conflict: there is one of this id (`exists`).
            Invalid: an id of another form, or settings that cannot be.
        """
        _authorise_operator(who)
        if not ID.fullmatch(tenant):
            raise Invalid("the id has another form", fields=[("/id", f"a match of ^{ID.pattern}$")])
        check_labels(title, None)
        settings = settings or TenantSettings()
        self._check(settings)
        now = self.world.clock()
        made = Tenant(id=TenantId(tenant), title=title, created_at=now, settings=settings)
        if not await self.directory.create_tenant(made):
            raise Conflict(f"there is a tenant {tenant}", code="exists")
        return made

    async def list(self, who: Principal, *, after: str, limit: int) -> Sequence[Tenant]:
        """Return tenants by id: to the operator all, to others their own."""
        if who.is_operator:
            authorise(who, "admin", None)
            return await self.directory.tenants(after=after, limit=limit)
        authorise(who, "read", None, "tenant")
        own = await self.directory.tenant(who.tenant)
        return [own] if own.id > after else []

    async def get(self, who: Principal, tenant: str) -> Tenant:
        """Return a tenant.  Raises NotFound, also for another one than one's own."""
        authorise(who, "read", None, "tenant")
        if tenant != who.tenant and not who.is_operator:
            raise NotFound(f"no tenant {tenant}")
        return await self.directory.tenant(TenantId(tenant))

    async def change(
        self,
        who: Principal,
        tenant: str,
        *,
        title: str | msgspec.UnsetType | None = msgspec.UNSET,
        settings: JsonObject | msgspec.UnsetType = msgspec.UNSET,
    ) -> Tenant:
        """Set the title; of the settings, those that are named (null: as the server has it).

        Raises:
            NotFound: no such tenant, or not one's own.
            Forbidden: `who` is not the operator.
            Invalid: settings that cannot be.
        """
        there = await self.get(who, tenant)
        _authorise_operator(who)
        if title is not msgspec.UNSET:
            check_labels(title, None)

        def changed(there: Tenant) -> Tenant:
            if title is not msgspec.UNSET:
                there = replace(there, title=title)
            if settings is not msgspec.UNSET:
                there = replace(there, settings=_merged(there.settings, settings))
                self._check(there.settings)
            return there

        made = await self.directory.change_tenant(there.id, changed)
        self._changes += 1
        self._known.pop(there.id, None)
        return made

    async def acting(self, who: Principal, tenant: str | None) -> Principal:
        """Return `who` as they act in another tenant, which only the operator does.

        Raises:
            NotFound: there is no such tenant, or it is not theirs.
        """
        if tenant is None or tenant == who.tenant:
            return who
        confine(who, None)
        if not who.is_operator or not ID.fullmatch(tenant):
            raise NotFound(f"no tenant {tenant}")
        return replace(who, tenant=(await self._tenant(TenantId(tenant))).id)

    async def settings_of(self, tenant: TenantId) -> TenantSettings:
        """Return what is otherwise for a tenant."""
        return (await self._tenant(tenant)).settings

    def known_settings(self, tenant: TenantId) -> TenantSettings | None:
        """Return what `settings_of` last found, None when it was not asked of late."""
        known = self._known.get(tenant)
        return None if known is None else known[0].settings

    async def exists(self, tenant: TenantId) -> bool:
        """Whether there is such a tenant."""
        try:
            await self._tenant(tenant)
        except NotFound:
            return False
        return True

    async def every(self) -> AsyncGenerator[Tenant]:
        """Yield every tenant, for what is done for all of them."""
        after = ""
        while page := await self.directory.tenants(after=after, limit=PAGE):
            for tenant in page:
                yield tenant
            after = page[-1].id

    async def forget(self) -> None:
        """Look anew for all: another process has changed some."""
        self._changes += 1
        self._known.clear()

    async def _tenant(self, tenant: TenantId) -> Tenant:
        known, until = self._known.get(tenant, (None, 0.0))
        now = self.world.clock()
        if known is not None and now < until:
            return known
        while True:
            changes = self._changes
            found = await self.directory.tenant(tenant)
            if changes == self._changes:  # or this may be what was before the change
                break
        self._known.pop(tenant, None)
        self._known[tenant] = found, now + REMEMBERED_S
        if len(self._known) > MOST_REMEMBERED:
            del self._known[next(iter(self._known))]
        return found

    def _check(self, settings: TenantSettings) -> None:
        for name in settings.__struct_fields__:
            value = getattr(settings, name)
            if isinstance(value, int | float) and not 0 <= value <= 2**53:
                raise Invalid(f"{name} cannot be {value}", fields=[(f"/settings/{name}", "≥ 0")])
        for name in ("requests_per_s", "runs_per_s"):
            try:
                check_per_s(getattr(settings, name) or 0)
            except ValueError as error:
                at = f"/settings/{name}"
                raise Invalid(f"{name} must be {error}", fields=[(at, str(error))]) from error
        agent = settings.default_agent
        if agent is not None and self.agents and agent not in self.agents:
            wanted = "the name of an agent that is served here"
            told = f"there is no agent named {agent!r}"
            raise Invalid(told, fields=[("/settings/default_agent", wanted)])


def _authorise_operator(who: Principal) -> None:
    authorise(who, "admin", None)
    if not who.is_operator:
        raise Forbidden("only the operator, with the admin key, decides about tenants")


def _merged(settings: TenantSettings, changes: JsonObject) -> TenantSettings:
    """Return the settings with changes.  Raises Invalid."""
    unknown = changes.keys() - set(TenantSettings.__struct_fields__)
    if unknown:
        name = min(unknown)
        known = ", ".join(TenantSettings.__struct_fields__)
        raise Invalid(f"there is no setting {name!r}", fields=[("/settings", f"some of: {known}")])
    now = cast("JsonObject", msgspec.to_builtins(settings))
    try:
        return msgspec.convert({**now, **changes}, TenantSettings)
    except msgspec.ValidationError as error:
        raise Invalid(str(error), fields=[("/settings", str(error))]) from error
