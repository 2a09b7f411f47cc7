"""Connections that obey the egress rules: looked up here, judged here, and opened to what was judged.

    URL ▸ check ▸ one look-up ▸ every address judged ▸ a socket to one of them ▸ judged once more

A name is looked up once for each connection and the connection goes to what was judged, so that a
name that means something else a moment later changes nothing.  `Host` and the name in TLS stay the
name's.  The last gate stands where the socket is made: no way to a connection goes around it.

Invariant: nothing is connected to that was not judged here; no proxy is used, and who follows a
redirect comes here again.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from typing import TypeAlias

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from hostler.core.errors import Invalid
from hostler.harness.egress import Address, Egress, Target, plain, refusal

log = logging.getLogger(__name__)

_KEPT_BY_NAME = 1_024
"""Addresses that are open only because of a name they were found under."""
Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""From a name and a port to its addresses.  Raises OSError."""


async def by_system(host: str, port: int) -> Sequence[str]:
    """Look a name up as all programs of this machine do."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


class Outbound:
    """Opens what `Egress` admits; the guard that `models.transport` takes."""

    def __init__(
        self, egress: Egress, *, resolve: Resolve = by_system, in_clear: bool = True
    ) -> None:
        """`in_clear`: see `Egress.check`; without it, for what is sent a key."""
        self._egress, self._resolve, self._in_clear = egress, resolve, in_clear

    def check(self, url: str) -> Target:
        """See `Egress.check`."""
        return self._egress.check(url, in_clear=self._in_clear)

    def connector(self, *, keepalive_s: float) -> aiohttp.TCPConnector:
        """Return a connector, for one event loop, that goes nowhere else."""
        door = _Door(self._egress, self._resolve)
        return aiohttp.TCPConnector(
            resolver=door,
            socket_factory=door.socket,
            use_dns_cache=False,  # an answer is judged for the connection it is for
            limit=0,
            keepalive_timeout=keepalive_s,
        )


class _Door(AbstractResolver):
    def __init__(self, egress: Egress, resolve: Resolve) -> None:
        self._egress, self._look_up = egress, resolve
        self._by_name: dict[tuple[Address, int], None] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name, all of them admitted.  Raises Invalid, OSError."""
        del family
        try:
            found = await self._look_up(host, port)
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                raise
            raise refusal(plain(host), port) from error
        addresses = [ip_address(one) for one in found]
        try:
            self._egress.admit(host, port, addresses)
        except Invalid:
            log.info("egress: %s:%d is refused; it is %s", host, port, found)
            raise
        for address in addresses:
            if not self._egress.may("", port, address):
                if len(self._by_name) >= _KEPT_BY_NAME:
                    del self._by_name[next(iter(self._by_name))]
                self._by_name[address, port] = None
        return [_result(host, port, address) for address in addresses]

    def socket(self, info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
        """Return a socket for an address.  Raises PermissionError: it was not admitted."""
        family, kind, protocol, _, place = info
        name, number = place[:2]
        address, port = ip_address(str(name)), int(str(number))
        if (address, port) not in self._by_name and not self._egress.may("", port, address):
            raise PermissionError(f"egress: {address} was not admitted")
        return socket.socket(family, kind, protocol)

    async def close(self) -> None:
        self._by_name.clear()


def _result(host: str, port: int, address: Address) -> ResolveResult:
    return ResolveResult(
        hostname=host,
        host=str(address),
        port=port,
        family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
        proto=0,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )
