"""Endpoints of tenants: where they have the models of a provider asked, instead of the operator's.

Whoever asks a model looks here at each call, so that a change is seen by the next one.

Invariant: a tenant sees and sets its own alone, and no more of what the operator has than the names
of their providers.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
from msgspec.structs import replace

from hostler.core.directory import Directory, Endpoint
from hostler.core.errors import Invalid, NotFound
from hostler.core.events import Principal, TenantId
from hostler.core.ports import World
from hostler.core.sealed import Secrets, masked
from hostler.service.authorise import authorise

LONGEST = 2_048
"""Characters of a URL, as most programs that read one have it."""


def anywhere(url: str) -> None:
    """Judge no URL: for a house whose providers have no names."""
    del url


class Endpoints:
    """Those of all tenants, as this process knows them: read, and then changed here.

    Where others have the storage, too, they are read anew when one of them changed some.
    """

    def __init__(
        self, providers: Collection[str] = (), *, check: Callable[[str], object] = anywhere
    ) -> None:
        """`providers`: whose models can be asked elsewhere.  `check`: raises Invalid for a URL."""
        self.providers, self.check = frozenset(providers), check
        self._known: dict[tuple[TenantId, str], Endpoint] = {}
        self._changing = anyio.Lock()

    async def open(self, directory: Directory) -> None:
        """Read what is kept."""
        async with self._changing:
            found = await directory.endpoints()
            self._known = {(one.tenant, one.provider): one for one in found}

    def find(self, tenant: TenantId, provider: str) -> Endpoint | None:
        """Return where a tenant has a provider's models asked; None: where the operator has."""
        return self._known.get((tenant, provider))

    def of(self, tenant: TenantId) -> Sequence[Endpoint]:
        """Return a tenant's, by provider."""
        found = [one for (of, _), one in self._known.items() if of == tenant]
        return sorted(found, key=lambda one: one.provider)

    async def put(self, directory: Directory, endpoint: Endpoint) -> tuple[Endpoint, bool]:
        """Keep an endpoint, then know it; return it, and whether there was none.

        Raises NotFound when its tenant is absent.
        """
        async with self._kept_is_known():
            there = self.find(endpoint.tenant, endpoint.provider)
            if there is not None:
                endpoint = replace(endpoint, created_at=there.created_at)
            await directory.put_endpoint(endpoint)
            self._known[endpoint.tenant, endpoint.provider] = endpoint
        return endpoint, there is None

    async def drop(self, directory: Directory, tenant: TenantId, provider: str) -> bool:
        """Remove an endpoint; return whether it was there."""
        async with self._kept_is_known():
            was_there = await directory.drop_endpoint(tenant, provider)
            self._known.pop((tenant, provider), None)
        return was_there

    @asynccontextmanager
    async def _kept_is_known(self) -> AsyncGenerator[None]:
        """Let one change end before the next one, and also when whoever asked for it is gone."""
        async with self._changing:
            with anyio.CancelScope(shield=True):
                yield


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantEndpoints:
    endpoints: Endpoints
    directory: Directory
    world: World
    secrets: Secrets | None = None

    async def list(self, who: Principal) -> Sequence[Endpoint]:
        """Return the tenant's endpoints, by provider."""
        authorise(who, "admin", None)
        return self.endpoints.of(who.tenant)

    async def put(self, who: Principal, provider: str, *, base_url: str) -> tuple[Endpoint, bool]:
        """Have a provider's models asked at a URL; return the endpoint, and whether it is new.

        Raises:
            NotFound: this server has no such provider.
            Invalid: the URL is none, may not be connected to, or has a secret in it.
        """
        authorise(who, "admin", None)
        if provider not in self.endpoints.providers:
            raise NotFound(f"no provider {provider}")
        if (wrong := self._wrong(who.tenant, base_url)) is not None:
            raise Invalid(wrong, fields=[("/base_url", wrong)])
        now = self.world.clock()
        endpoint = Endpoint(
            tenant=who.tenant,
            provider=provider,
            base_url=base_url,
            created_at=now,
            updated_at=now,
        )
        return await self.endpoints.put(self.directory, endpoint)

    async def remove(self, who: Principal, provider: str) -> None:
        """Have a provider's models asked where the operator does again.  Raises NotFound."""
        authorise(who, "admin", None)
        if not await self.endpoints.drop(self.directory, who.tenant, provider):
            raise NotFound(f"no endpoint for {provider}")

    def _wrong(self, tenant: TenantId, url: str) -> str | None:
        """Return what is wrong with a URL."""
        if len(url) > LONGEST:
            return f"a base URL has at most {LONGEST} characters"
        if "#" in url:
            return "a base URL has no fragment: it would not be sent"
        if masked(self.secrets, tenant, url) != url:
            return "a base URL has no secret in it; a key goes where keys are kept"
        try:
            self.endpoints.check(url)
        except Invalid as error:
            return error.detail
        return None
