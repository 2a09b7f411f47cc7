"""Headers as they come and go: joined when they come, added when an answer begins.

Invariant: what is sent twice is joined, never picked from: who picks can be made to pick wrongly.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

from starlette.types import Message, Send

from hostler.core.events import Principal
from hostler.service.rates import POLICIES, Policy, Rate, Rates

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]

_NAMES = {policy: policy.encode() for policy in POLICIES}


class Joined(dict[str, str]):
    """The headers of a request by name."""

    __slots__ = ("twice",)

    def __init__(self, by_name: Mapping[str, str], twice: frozenset[str] = frozenset()) -> None:
        super().__init__(by_name)
        self.twice = twice
        """Names of those that were sent more than once."""


def joined(raw: Sequence[tuple[bytes, bytes]]) -> Joined:
    """Return the headers of a request by name (RFC 9110 section 5.3)."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in raw}
    if len(headers) == len(raw):
        return Joined(headers)
    several: dict[str, str] = {}
    twice = set[str]()
    for name, value in raw:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        if key in several:
            twice.add(key)
            text = f"{several[key]}, {text}"
        several[key] = text
    return Joined(several, frozenset(twice))


def adding(send: Send, headers: Headers) -> Send:
    """Return a way to send that adds headers to the answer."""

    # No coroutine of its own: a streamed token passes here too.
    def sending(message: Message) -> Awaitable[None]:
        if message["type"].endswith(".response.start"):
            message = {**message, "headers": [*message.get("headers", ()), *headers]}
        return send(message)

    return sending


def standing(rates: Rates, who: Principal) -> Headers:
    """Return how often `who` may still ask (draft-ietf-httpapi-ratelimit-headers-10).

    Nothing for those who have no limit.
    """
    known = rates.standing(who)
    if not known:
        return ()
    left = b", ".join(
        [b'"%b";r=%d;t=%d' % (_NAMES[one.policy], one.left, one.full_in_s) for one in known]
    )
    told = _policies(tuple([(one.policy, one.rate) for one in known]))
    return (told, (b"ratelimit", left))


@lru_cache(maxsize=256)
def _policies(known: Sequence[tuple[Policy, Rate]]) -> tuple[bytes, bytes]:
    told = (b'"%b";q=%d;w=%d' % (_NAMES[one], rate.burst, rate.window_s) for one, rate in known)
    return b"ratelimit-policy", b", ".join(told)
