"""Models that are asked where their tenant says, each tenant's apart from all others'.

    Placed.stream ──▶ an endpoint of this tenant's? ──▶ no: the operator's model
                              │
                              └──▶ yes: a model of theirs, on connections and limits of their own

What is kept for a tenant and a provider is one `_Kept`; one that was not asked for a while goes, and
so does the one that was longest not asked when there are too many.

Invariant: nothing here has a key or a header of the operator's, and no connection is used for two
tenants.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeAlias

import anyio

from hostler.app.providers import table
from hostler.app.settings import EgressRules, Settings
from hostler.core.errors import SetupError
from hostler.core.events import TenantId
from hostler.core.ports import Delta, Failure, Model, Reply, Request
from hostler.harness.egress import Egress
from hostler.harness.key_limits import KeyLimits
from hostler.harness.limit_news import LimitNews
from hostler.harness.outbound import Outbound
from hostler.models.transport import Aiohttp, Guard
from hostler.service.endpoints import Endpoints

MOST = 200
"""Kept while nobody uses them; each has a few connections at most, and these for a minute."""
IDLE_S = 300.0
MOST_MODELS = 100
"""Of one tenant and provider."""


def egress_guard(rules: EgressRules) -> Outbound:
    """Return what judges where models may be asked.  Raises SetupError: rules that cannot be read."""
    egress = Egress(allow=rules.allow, deny=rules.deny, ports=rules.ports)
    return Outbound(egress, in_clear=False)


def make_endpoints(settings: Settings) -> Endpoints:
    """Return the endpoints of an installation, to be opened.  Raises SetupError."""
    return Endpoints(table(settings.providers), check=egress_guard(settings.egress).check)


@dataclass(slots=True)
class _Kept:
    """What a tenant's models of one provider share, at one URL."""

    url: str
    transport: Aiohttp
    limits: KeyLimits
    models: dict[str, Model] = field(default_factory=dict[str, Model])
    users: int = 0
    used_at: float = 0.0


Open: TypeAlias = Callable[[str, Aiohttp, KeyLimits], Model]
"""Makes a model at a base URL."""


class Elsewhere:
    """What is open for tenants."""

    def __init__(
        self,
        endpoints: Endpoints,
        guard: Guard,
        *,
        most: int = MOST,
        news: LimitNews | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.endpoints, self._guard = endpoints, guard
        self._most, self._clock, self._news = most, clock, news
        self._kept = OrderedDict[tuple[TenantId, str], _Kept]()
        self._replaced = list[_Kept]()
        """At URLs that are a tenant's no more, by questions that began before."""
        self._look_at = 0.0

    @property
    def open(self) -> int:
        """How many are kept, those in use among them."""
        return len(self._kept) + len(self._replaced)

    async def stream(
        self, request: Request, provider: str, url: str, *, name: str, make: Open
    ) -> AsyncGenerator[Delta | Reply | Failure, None]:
        """Ask a model at a URL for a tenant; see `core.ports.Model`."""
        kept = self._take((TenantId(request.tenant), provider), url)
        try:
            if name not in kept.models:
                if len(kept.models) >= MOST_MODELS:  # where a pattern lets clients choose names
                    del kept.models[next(iter(kept.models))]
                kept.models[name] = make(url, kept.transport, kept.limits)
            asked = kept.models[name].stream(request)
            del request  # and with it the transcript, which was only lent
            async with aclosing(asked) as parts:
                async for part in parts:
                    yield part
        except SetupError as error:
            told = f"{provider} is not asked: {error}"
            yield Failure(code="invalid_request", message=told, again=False)
        finally:
            kept.users -= 1
            kept.used_at = self._clock()
            with anyio.CancelScope(shield=True):
                await self._close_idle()

    async def aclose(self) -> None:
        for one in (*self._kept.values(), *self._replaced):
            await one.transport.aclose()
        self._kept.clear()
        self._replaced.clear()

    def _take(self, whose: tuple[TenantId, str], url: str) -> _Kept:
        kept = self._kept.get(whose)
        if kept is None or kept.url != url:
            if kept is not None:
                self._replaced.append(kept)
            kept = self._kept[whose] = _Kept(
                url, Aiohttp(guard=self._guard), KeyLimits(news=self._news)
            )
        self._kept.move_to_end(whose)
        kept.users += 1
        return kept

    async def _close_idle(self) -> None:
        now, gone = self._clock(), [one for one in self._replaced if not one.users]
        self._replaced = [one for one in self._replaced if one.users]
        too_many = len(self._kept) - self._most
        if too_many > 0 or now >= self._look_at:
            self._look_at = now + IDLE_S / 10
            for whose, one in list(self._kept.items()):
                if not one.users and (too_many > 0 or one.used_at <= now - IDLE_S):
                    gone.append(self._kept.pop(whose))
                    too_many -= 1
        for one in gone:
            await one.transport.aclose()


@dataclass(frozen=True, slots=True)
class Placed:
    """A `core.ports.Model` that stands before one of the operator's."""

    own: Model
    elsewhere: Elsewhere
    make: Open

    @property
    def provider(self) -> str:
        return self.own.provider

    @property
    def name(self) -> str:
        return self.own.name

    def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
        """See `core.ports.Model`."""
        found = self.elsewhere.endpoints.find(TenantId(request.tenant), self.provider)
        if found is None:
            return self.own.stream(request)
        return self.elsewhere.stream(
            request, self.provider, found.base_url, name=self.name, make=self.make
        )
