"""Direct calls: a client asks a model itself, with no agent, no session and no log.

    may they? ─▶ a row that is open ─▶ the model, its answer masked ─▶ the row's end ─▶ the answer's

Invariant: no model is asked before its row is kept, each row that is kept ends once, before the
client reads the end, and nothing is asked twice.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeAlias

import anyio
from anyio.lowlevel import checkpoint_if_cancelled
from msgspec.structs import replace

from hostler.core.errors import NotFound, SetupError
from hostler.core.events import Principal, TenantId
from hostler.core.ledger import DirectCall, may_have_cost
from hostler.core.ports import Catalog, Delta, Failure, Model, Reply, Request, World
from hostler.core.sealed import Part, Secrets, masked
from hostler.core.store import Store
from hostler.service.authorise import authorise
from hostler.service.limits import check_label
from hostler.service.rates import Rates

log = logging.getLogger(__name__)

MOST_TOLD = 20
"""Models that a refusal names."""
LONGEST_TOLD = 200
"""Characters of a name that it repeats."""
Told: TypeAlias = Callable[[DirectCall], None]
WAITS_S = 2.0
"""For its turn, where a key is limited: a client that is told when to come back does so."""
CUT_SHORT = Failure(code="truncated", message="the stream just ended", again=True)


class NoModels:
    """A `core.ports.Catalog` of none."""

    def names(self) -> Sequence[str]:
        return ()

    def find(self, name: str) -> None:
        del name


def _nobody(call: DirectCall) -> None:
    del call


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """What may be asked, and who hears of it."""

    catalog: Catalog = field(default_factory=NoModels)
    told: Told = _nobody
    """Is told of each call that has ended; must not block or raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Direct:
    store: Store
    rates: Rates
    world: World
    models: Models = field(default_factory=Models)
    secrets: Secrets | None = None

    def names(self, who: Principal) -> Sequence[str]:
        """Return the models that there are, as `provider:model`; there may be more that fit a pattern."""
        authorise(who, "read", None)
        return self.models.catalog.names()

    def find(self, who: Principal, name: str) -> Model:
        """Return a model, by its whole name, or by one that only one provider's model has.

        Raises:
            NotFound: it may not be asked, or cannot be opened (`model_not_found`); says what may be.
        """
        authorise(who, "read", None)
        told = name[:LONGEST_TOLD]
        try:
            found = self.models.catalog.find(name)
        except SetupError as error:
            log.warning("the model %r cannot be opened: %s", told, error)
            wrong = f"the model {told} cannot be opened here; the server's log says why"
            raise NotFound(wrong, code="model_not_found") from error
        if found is None:
            raise NotFound(f"there is no model {told}; {self._there_is()}", code="model_not_found")
        return found

    async def ask(
        self, who: Principal, model: Model, request: Request, *, purpose: str | None = None
    ) -> AsyncGenerator[Delta | Reply | Failure, None]:
        """Yield what a model answers; its `Reply` or `Failure` comes last, when its row is kept.

        All begins when the first part is asked for: what is refused is refused there.  Whoever
        closes this before its end ends the question, too; close it (`aclosing`), or its row ends late.

        Raises:
            Forbidden: they may not write, or may see one session alone.
            Invalid: the purpose is no label.
            TooMany: so much was asked of late (`rate`).
            Unavailable: the row cannot be kept.
        """
        authorise(who, "write", None)
        check_label("/purpose", purpose)
        self.rates.take(who, "runs")
        call = self._opened(who, model, purpose)
        parts = self._masked(model, replace(request, tenant=who.tenant, waits_s=WAITS_S))
        del request  # and with it the transcript, which was only lent
        last, is_asked, is_kept = CUT_SHORT, False, False
        await self._keep(call)
        try:
            await checkpoint_if_cancelled()
            is_asked = True
            async with aclosing(parts):
                async for part in parts:
                    if not isinstance(part, Delta):
                        last = part
                        break
                    if call.first_token_s is None:
                        call.first_token_s = self._since(call)
                    yield part
            _end(call, last)
            await self._keep_end(call)
            is_kept = True
        finally:
            if not is_kept:
                if call.status == "open":
                    call.status, call.unpriced = "dropped", is_asked
                await self._keep_end(call)
        yield last

    def _opened(self, who: Principal, model: Model, purpose: str | None) -> DirectCall:
        return DirectCall(
            tenant=who.tenant,
            id=self.world.mint("dir"),
            principal=who.id,
            provider=model.provider,
            # A pattern lets clients choose the name.
            model=masked(self.secrets, who.tenant, model.name),
            asked_at=self.world.clock(),
            purpose=masked(self.secrets, who.tenant, purpose),
        )

    def _masked(self, model: Model, request: Request) -> AsyncGenerator[Part, None]:
        mask = None if self.secrets is None else self.secrets.mask(TenantId(request.tenant))
        parts = model.stream(request)
        return parts if mask is None else mask.stream(parts)

    def _since(self, call: DirectCall) -> float:
        return round(max(0.0, self.world.clock() - call.asked_at), 6)

    async def _keep(self, call: DirectCall) -> None:
        """Keep a row; who is cancelled meanwhile learns that when it is known to be kept."""
        with anyio.CancelScope(shield=True):
            await self.store.ledger.keep_direct(call)

    async def _keep_end(self, call: DirectCall) -> None:
        call.ended_at = self.world.clock()
        await self._keep(call)
        self.models.told(call)

    def _there_is(self) -> str:
        names = self.models.catalog.names()
        if not names:
            return "none has a name here"
        more = ", …" if len(names) > MOST_TOLD else ""
        return f"there is {', '.join(names[:MOST_TOLD])}{more}"


def _end(call: DirectCall, last: Reply | Failure) -> None:
    call.usage = last.usage
    if isinstance(last, Reply):
        call.status = "replied"
    else:
        call.status, call.error_type, call.error_message = "failed", last.code, last.message
    call.unpriced = may_have_cost(call.status, call.usage)
