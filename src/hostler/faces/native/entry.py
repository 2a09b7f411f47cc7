"""Who calls: by a key, by a share link, or by a ticket for one socket.

Invariant: a ticket is good once, for a minute; a secret in a URL opens one session or one socket.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from hostler.core.errors import Unauthorised
from hostler.core.events import Principal
from hostler.faces.native.http import Caller
from hostler.service.shares import Shares, is_token

TICKET_S = 60


class Gate(Protocol):
    def __call__(self, headers: Mapping[str, str]) -> Principal:
        """Return whose key it is.  Raises Unauthorised."""
        ...


@dataclass(frozen=True, slots=True)
class Tickets:
    """Tickets that are good in this process."""

    clock: Callable[[], float] = time.monotonic
    _kept: dict[str, tuple[Caller, float]] = field(default_factory=dict[str, tuple[Caller, float]])

    def give(self, caller: Caller) -> str:
        now = self.clock()
        for old in [one for one, (_, until) in self._kept.items() if until <= now]:
            del self._kept[old]
        ticket = f"ht_{secrets.token_urlsafe(32)}"
        self._kept[ticket] = (caller, now + TICKET_S)
        return ticket

    def take(self, ticket: str) -> Caller:
        """Return whose ticket it is; it is good no more.

        Raises:
            Unauthorised: it was used, is too old, or is none.
        """
        caller, until = self._kept.pop(ticket, (None, 0.0))
        if caller is None or until <= self.clock():
            raise Unauthorised("this ticket was used, is older than a minute, or never was")
        return caller


@dataclass(frozen=True, slots=True)
class Entrance:
    """Keys and share links, for every operation; tickets, for sockets."""

    gate: Gate
    shares: Shares
    tickets: Tickets = field(default_factory=Tickets)

    async def __call__(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Caller:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            token = query.get("share", "")
            if token and not is_token(token):
                raise Unauthorised("this is no share link")
        if is_token(token.strip()):
            viewer = await self.shares.holder(token.strip())
            return Caller(viewer.who, viewer.until)
        return Caller(self.gate(headers))

    async def for_socket(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Caller:
        """As for any operation, or by ticket."""
        ticket = query.get("ticket")
        return await self(headers, query) if ticket is None else self.tickets.take(ticket)
