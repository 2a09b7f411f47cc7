"""A model behind breakers: a provider that is down is not asked, and a key that is limited neither.

    Breaking.stream ──▶ the key's limit, its line ──▶ the provider's outage? ──▶ the model

There are two, because two things fail: a provider, with all its models; and the right of a key to
ask for one model, which leaves other models as they are, those of an agent's chain among them.

Invariant: what is refused here costs no connection, and is a `Failure` that says how long to wait;
nothing is asked twice.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol

from hostler.core.errors import SetupError
from hostler.core.ports import Delta, Failure, FaultCode, Model, Reply, Request

OUTAGE: frozenset[FaultCode] = frozenset(
    {
        *("overloaded", "server", "unavailable", "truncated"),
        *("timeout_connect", "timeout_first_byte", "timeout_idle"),
    }
)
"""What a provider in trouble answers; the others are about the question or the key."""


class Passage(Protocol):
    """Leave to ask once."""

    def worked(self) -> None: ...
    def failed(self, wait_s: float | None = None, *, shut: bool = False) -> None: ...
    def left(self) -> None:
        """Last, whatever was said before; alone: nothing is known."""
        ...


class Breaker(Protocol):
    def enter(self) -> Passage | float:
        """Return leave to ask, or for how many seconds there is none."""
        ...


class Breakers(Protocol):
    """Where breakers are kept (`harness.breakers`)."""

    def of(self, kind: str, name: str) -> Breaker: ...


class Room(Protocol):
    """Leave to ask once, with a key for a model."""

    def worked(self) -> None:
        """The provider took the question."""
        ...

    def refused(self, wait_s: float | None = None) -> None:
        """It limits the key, and says for how long, or does not."""
        ...

    def left(self) -> None:
        """Last, whatever was said before; alone: nothing is known."""
        ...


class KeyLimit(Protocol):
    async def enter(self, tenant: str, session: str, waits_s: float | None) -> Room | float:
        """Return leave to ask, perhaps after a while in line, or for how many seconds there is none.

        `session`: one that comes back keeps its turn; empty: it will not.  `waits_s`: how long to
        stand in line at most; None: as long as is good for a run.
        """
        ...


class KeyLimits(Protocol):
    """Where limits of keys are kept (`harness.key_limits`), and breakers beside them."""

    @property
    def breakers(self) -> Breakers: ...
    def mark(self, key: str | None) -> str:
        """Return what tells keys apart, and tells nothing else of them."""
        ...

    def of(self, name: str, at_once: int | None = None) -> KeyLimit: ...


class Breaking:
    """A `core.ports.Model` that stands before another one."""

    def __init__(
        self,
        model: Model,
        limits: KeyLimits,
        *,
        place: str,
        key: Callable[[str], str | None],
        at_once: int | None = None,
    ) -> None:
        """`place`: where it is asked; with its key, what an outage is about.

        `at_once`: so many questions with one key may be in flight, in all nodes together.
        """
        self.provider, self.name = model.provider, model.name
        self._model, self._limits, self._key, self._at_once = model, limits, key, at_once
        self._trouble: FaultCode = "unavailable"
        self._place = place.partition("?")[0].rpartition("@")[2]  # what may be a secret is left out

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
        """See `core.ports.Model`."""
        key, session = self._key_of(request.tenant), request.session
        whose = f"{self.provider} {self._place} {self._limits.mark(key)}"
        limit = self._limits.of(f"{whose} {self.name}", self._at_once)
        if request.waits_s is not None:  # whoever waits for so short a time does not come back
            session = ""
        room = await limit.enter(request.tenant, session, request.waits_s)
        if isinstance(room, int | float):
            yield self._refused("rate_limit", "limits this key", room)
            return
        outage = self._limits.breakers.of("model", whose).enter()
        if isinstance(outage, int | float):
            room.left()
            yield self._refused(self._trouble, "failed too often", outage)
            return
        heard, asked = False, self._model.stream(request)
        del request  # and with it the transcript, which was only lent
        try:
            async with aclosing(asked) as parts:
                async for part in parts:
                    if not isinstance(part, Delta):
                        self._judge(part, room, outage)
                    elif not heard:  # it lives, whenever this answer may end
                        heard = True
                        outage.worked()
                        room.worked()
                    yield part
        finally:
            room.left()
            outage.left()

    def _key_of(self, tenant: str) -> str | None:
        try:
            return self._key(tenant)
        except SetupError:  # the model will say so itself
            return None

    def _judge(self, last: Reply | Failure, room: Room, outage: Passage) -> None:
        code = last.code if isinstance(last, Failure) else None
        if isinstance(last, Failure) and code in OUTAGE and last.again:
            # Who is refused meanwhile waits as long as who was told this.
            self._trouble = "overloaded" if code == "overloaded" else "unavailable"
            outage.failed(last.retry_after_s)
            return
        outage.worked()
        if isinstance(last, Reply):
            room.worked()
        elif code == "rate_limit" and last.again:
            room.refused(last.retry_after_s)

    def _refused(self, code: FaultCode, why: str, wait_s: float) -> Failure:
        said = f"{self.provider} {why}, and is not asked for another {wait_s:.1f} s"
        return Failure(code=code, message=said, again=True, retry_after_s=wait_s)
