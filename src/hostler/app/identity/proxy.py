"""A proxy in front that has asked who somebody is, and says so in headers.

Invariant: the address of the socket decides, and nothing that can be sent.  From elsewhere the
headers mean nothing, and nobody behind this module gets to see them.
"""

from __future__ import annotations

import logging
from ipaddress import IPv6Address, ip_address

from hostler.app.identity.claims import Exists, Refused, everywhere, principal
from hostler.app.identity.settings import Proxy
from hostler.core.errors import Unauthorised
from hostler.core.events import Principal
from hostler.faces.http.endpoint import Caller
from hostler.faces.http.headers import Joined

log = logging.getLogger(__name__)

MOST_PEERS = 4096
"""Addresses whose standing is remembered: parsing one costs as much as all else here."""


class TrustedProxy:
    """A way to say who one is: headers, on connections from addresses the operator listed.

    Mounted in another application, the address is the one that its server tells.
    """

    def __init__(self, said: Proxy, *, exists: Exists = everywhere) -> None:
        self._said, self._exists = said, exists
        self._networks = said.networks
        self._headers, self._user = said.headers, said.user_header.lower()
        self._tenant = None if said.tenant_header is None else said.tenant_header.lower()
        self._roles = None if said.roles_header is None else said.roles_header.lower()
        self._peers: dict[str, bool] = {}

    async def __call__(self, headers: Joined, peer: str | None) -> Caller | None:
        """Return whom the proxy names; None if it names nobody, or there is no proxy.

        A bearer key or token that came along goes first: it says more than the proxy knows.

        Raises:
            Unauthorised: the proxy says something that is not accepted.
        """
        user = headers.get(self._user)
        if user is None or peer is None or not self._is_trusted(peer):
            return None
        if headers.get("authorization", "")[:7].lower() == "bearer ":
            return None
        try:
            return Caller(await self._named(user, headers))
        except Refused as why:
            log.warning("what the proxy %s says of a caller is refused: %s", peer, why)
            raise Unauthorised("who you are was not said as it has to be") from None

    async def _named(self, user: str, headers: Joined) -> Principal:
        # One of them may be the client's own, which the proxy passed on beside what it says.
        if twice := self._headers & headers.twice:
            raise Refused(f"sent more than once: {', '.join(sorted(twice))}")
        if "," in user:  # as others than us join them
            raise Refused("the user was named twice")
        tenant = None if self._tenant is None else headers.get(self._tenant)
        roles = "" if self._roles is None else headers.get(self._roles, "")
        who = principal(
            self._said,
            user=user,
            tenant=tenant,
            roles=[role for one in roles.split(",") if (role := one.strip())],
        )
        if not await self._exists(who.tenant):
            raise Refused(f"there is no tenant {who.tenant}")
        return who

    def _is_trusted(self, peer: str) -> bool:
        known = self._peers.get(peer)
        if known is None:
            if len(self._peers) >= MOST_PEERS:
                self._peers.clear()
            known = self._peers[peer] = self._look_up(peer)
        return known

    def _look_up(self, peer: str) -> bool:
        try:
            address = ip_address(peer)
        except ValueError:  # a Unix socket, a test client
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)
