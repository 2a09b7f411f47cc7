"""Who calls: by the admin key or another, by a share link, or by a ticket for one socket.

Invariant: a ticket is good once, for a minute; a secret in a URL opens one session or one socket.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
from msgspec import Struct

from hostler.beside.shared import Shared
from hostler.core.errors import Unauthorised
from hostler.core.events import Principal
from hostler.faces.http.endpoint import Caller
from hostler.faces.http.headers import Joined
from hostler.service.keys import Keys, digest_of
from hostler.service.shares import Shares, is_token
from hostler.service.tenants import Tenants

TICKET_S = 60
TICKET = re.compile(r"ht_[A-Za-z0-9_-]{43}", re.ASCII)


class Way(Protocol):
    async def __call__(self, headers: Joined, peer: str | None) -> Caller | None:
        """Return who calls; None: this way was not taken.  `peer`: the address of the socket.

        Raises Unauthorised: it was, and does not lead in.
        """
        ...


@dataclass(frozen=True, slots=True)
class Ways:
    """Ways to say who one is beside keys and share links, tried in order."""

    tried: Sequence[Way] = ()
    hidden: frozenset[str] = frozenset()
    """Headers that mean something to a way alone: nobody else gets to see them."""


class Gate(Protocol):
    def __call__(self, headers: Mapping[str, str]) -> Principal | None:
        """Return who the operator is, if the key is theirs; None if it may be another key.

        Raises Unauthorised when there is none.
        """
        ...


class _Holder(Struct, frozen=True):
    """Who asked for a ticket, as others keep it."""

    who: Principal
    until: float | None


_holder = msgspec.json.Decoder(_Holder)


@dataclass(frozen=True, slots=True)
class Tickets:
    """Tickets that are good in this process or, with `shared`, in all that have the storage."""

    clock: Callable[[], float] = time.time
    shared: Shared | None = None
    _kept: dict[str, tuple[Caller, float]] = field(default_factory=dict[str, tuple[Caller, float]])

    async def give(self, caller: Caller) -> str:
        now, ticket = self.clock(), f"ht_{secrets.token_urlsafe(32)}"
        if self.shared is not None:
            holder = msgspec.json.encode(_Holder(caller.who, caller.until))
            await self.shared.keep_ticket(
                caller.who.tenant, digest_of(ticket), holder, until=now + TICKET_S
            )
            return ticket
        for old in [one for one, (_, until) in self._kept.items() if until <= now]:
            del self._kept[old]
        self._kept[ticket] = (caller, now + TICKET_S)
        return ticket

    async def take(self, ticket: str) -> Caller:
        """Return whose ticket it is; it is good no more.

        Raises:
            Unauthorised: it was used, is too old, or is none.
        """
        caller, until = await self._taken(ticket)
        if caller is None or until <= self.clock():
            raise Unauthorised("this ticket was used, is older than a minute, or never was")
        return caller

    async def _taken(self, ticket: str) -> tuple[Caller | None, float]:
        if self.shared is None:
            return self._kept.pop(ticket, (None, 0.0))
        if not TICKET.fullmatch(ticket):
            return None, 0.0
        found = await self.shared.take_ticket(digest_of(ticket))
        if found is None:
            return None, 0.0
        holder = _holder.decode(found[0])
        return Caller(holder.who, holder.until), found[1]


@dataclass(frozen=True, slots=True)
class Entrance:
    """Keys, share links and other ways, for every operation; tickets, for sockets.

    The operator says with `Hostler-Tenant` in which tenant they act.
    """

    gate: Gate
    shares: Shares
    keys: Keys
    tenants: Tenants
    tickets: Tickets = field(default_factory=Tickets)
    ways: Ways = field(default_factory=Ways)

    async def __call__(self, headers: Joined, query: Mapping[str, str], peer: str | None) -> Caller:
        key = headers.get("x-api-key")
        if key is not None and "authorization" not in headers:
            headers["authorization"] = f"Bearer {key}"  # as clients of Anthropic's API send it
        caller = await self._caller(headers, query, peer)
        self._hide(headers)
        if not caller.who.is_operator:  # so that the limits of the tenant are known
            await self.tenants.settings_of(caller.who.tenant)
        return caller

    async def _caller(self, headers: Joined, query: Mapping[str, str], peer: str | None) -> Caller:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            token = query.get("share", "")
            if token and not is_token(token):
                raise Unauthorised("this is no share link")
        if is_token(token.strip()):
            viewer = await self.shares.holder(token.strip())
            return Caller(viewer.who, viewer.until)
        for way in self.ways.tried:
            caller = await way(headers, peer)
            if caller is not None:
                return caller
        who, until = self.gate(headers), None
        if who is None:
            holder = await self.keys.holder(token.strip())
            who, until = holder.who, holder.until
        tenant = headers.get("hostler-tenant")
        return Caller(who if tenant is None else await self.tenants.acting(who, tenant), until)

    async def for_socket(
        self, headers: Joined, query: Mapping[str, str], peer: str | None
    ) -> Caller:
        """As for any operation, or by ticket."""
        ticket = query.get("ticket")
        if ticket is None:
            return await self(headers, query, peer)
        self._hide(headers)
        return await self.tickets.take(ticket)

    def _hide(self, headers: Joined) -> None:
        for name in self.ways.hidden:
            headers.pop(name, None)
