"""A model behind breakers: a provider that is down is not asked, and a key that is limited neither.

    Breaking.stream ──▶ the key's limit? ──▶ the provider's outage? ──▶ the model

There are two, because two things fail: a provider, with all its models; and the right of a key to
ask for one model, which leaves other models as they are, those of an agent's chain among them.

Invariant: what is refused here costs no connection, and is a `Failure` that says how long to wait;
nothing is asked twice.
"""

from __future__ import annotations

import hashlib
import secrets
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
_SALT = secrets.token_bytes(16)
"""Of this process: what is made of a key with it says nothing to anybody else."""


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


class Breaking:
    """A `core.ports.Model` that stands before another one."""

    def __init__(
        self, model: Model, breakers: Breakers, *, place: str, key: Callable[[str], str | None]
    ) -> None:
        """`place`: where it is asked; with its key, what an outage is about."""
        self.provider, self.name = model.provider, model.name
        self._model, self._breakers, self._key = model, breakers, key
        self._trouble: FaultCode = "unavailable"
        self._place = place.partition("?")[0].rpartition("@")[2]  # what may be a secret is left out

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
        """See `core.ports.Model`."""
        whose = f"{self.provider} {self._place} {_mark(self._key_of(request.tenant))}"
        limit = self._breakers.of("rate_limit", f"{whose} {self.name}").enter()
        if isinstance(limit, int | float):
            yield self._refused("rate_limit", "limits this key", limit)
            return
        outage = self._breakers.of("model", whose).enter()
        if isinstance(outage, int | float):
            limit.left()
            yield self._refused(self._trouble, "failed too often", outage)
            return
        heard, asked = False, self._model.stream(request)
        del request  # and with it the transcript, which was only lent
        try:
            async with aclosing(asked) as parts:
                async for part in parts:
                    if not isinstance(part, Delta):
                        self._judge(part, limit, outage)
                    elif not heard:  # it lives, whenever this answer may end
                        heard = True
                        outage.worked()
                    yield part
        finally:
            limit.left()
            outage.left()

    def _key_of(self, tenant: str) -> str | None:
        try:
            return self._key(tenant)
        except SetupError:  # the model will say so itself
            return None

    def _judge(self, last: Reply | Failure, limit: Passage, outage: Passage) -> None:
        code = last.code if isinstance(last, Failure) else None
        if isinstance(last, Failure) and code in OUTAGE and last.again:
            # Who is refused meanwhile waits as long as who was told this.
            self._trouble = "overloaded" if code == "overloaded" else "unavailable"
            outage.failed(last.retry_after_s)
            return
        outage.worked()
        if isinstance(last, Reply):
            limit.worked()
        elif code == "rate_limit" and last.again:
            limit.failed(last.retry_after_s, shut=last.retry_after_s is not None)

    def _refused(self, code: FaultCode, why: str, wait_s: float) -> Failure:
        said = f"{self.provider} {why}, and is not asked for another {wait_s:.1f} s"
        return Failure(code=code, message=said, again=True, retry_after_s=wait_s)


def _mark(key: str | None) -> str:
    """Return what tells keys apart, and tells nothing else of them."""
    return hashlib.blake2b((key or "").encode(), key=_SALT, digest_size=4).hexdigest()
