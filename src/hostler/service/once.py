"""Writes that clients may send twice: an `Idempotency-Key`, and the answer that is kept for it.

Invariant: a write and its kept answer are one commit; what was refused is not kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from hostler.core.errors import Invalid
from hostler.core.events import Principal
from hostler.core.records import Appended, Once
from hostler.core.store import Store

T = TypeVar("T")
LONGEST_KEY = 256


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that has an idempotency key."""

    scope: str
    digest: str

    @classmethod
    def by(cls, who: Principal, what: str, key: str, body: bytes) -> Asked:
        """Return a request by `who` for `what` (method and path).

        Raises:
            Invalid: the key is empty or too long.
        """
        key = key.strip().strip('"')
        if not 0 < len(key) <= LONGEST_KEY:
            wanted = f"1 to {LONGEST_KEY} characters"
            raise Invalid(
                f"Idempotency-Key must have {wanted}", fields=[("Idempotency-Key", wanted)]
            )
        scope = hashlib.sha256(f"{who.id}\n{what}\n{key}".encode("utf-8", "replace"))
        return cls(scope.hexdigest(), hashlib.sha256(body).hexdigest())

    async def answered(self, store: Store, who: Principal) -> bytes | None:
        """Return the answer that was kept for the same request; None when it is new.

        Raises:
            Invalid: the key was used for another body (`key_reused`).
        """
        kept = await store.kept(who.tenant, self.scope)
        if kept is None:
            return None
        if kept.digest != self.digest:
            raise Invalid("this Idempotency-Key was used with another body", code="key_reused")
        return kept.answer


@dataclass(frozen=True, slots=True)
class Answering(Generic[T]):
    """How to keep a verb's result as an answer."""

    asked: Asked
    write: Callable[[T], bytes]

    def once(self, result: Callable[[Appended], T]) -> Once:
        """Return what goes with the write, given how the result follows from it."""

        def answer(appended: Appended) -> bytes:
            return self.write(result(appended))

        return Once(self.asked.scope, self.asked.digest, answer)


def once_of(answering: Answering[T] | None, result: Callable[[Appended], T]) -> Once | None:
    """Return `answering.once(result)`, or None without an idempotency key."""
    return None if answering is None else answering.once(result)
