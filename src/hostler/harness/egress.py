"""Where connections may go that a tenant asks for: the rules, and no connection.

    URL ──check──▶ host, port ──(resolver)──▶ addresses ──may──▶ these, or a refusal

An address is judged by what it reaches, not by how it is spelt: a host is a plain name, a dotted
quad or an IPv6 address, and every other spelling is refused rather than understood.  What is
public is listed for IPv6, where most is not, and what is not is listed for IPv4, where most is.
What an operator names (`allow`) is open, what they close (`deny`) is closed, and the addresses at
which clouds hand out credentials open only to their own address.

Invariant: no I/O; a refusal never says what a name resolves to, which only the log does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TypeAlias

from hostler.core.errors import Invalid, SetupError

Address: TypeAlias = IPv4Address | IPv6Address
_PORTS = {"http": 80, "https": 443}
_LONGEST_URL = 8_192
_LONGEST_NAME = 253
_READABLE = re.compile(r"[!-\[\]-~]+", re.ASCII)
"""Printable, without `\\`, which some parsers take for `/`, and without what some drop."""
_PARTS = re.compile(r"(?P<scheme>[a-z]+)://(?P<place>[^/?#]*)", re.IGNORECASE | re.ASCII)
_PLACE = re.compile(
    r"(?P<host>\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::(?P<port>[0-9]{1,5}))?", re.IGNORECASE | re.ASCII
)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
"""A last label like this makes a host an IPv4 address (WHATWG URL, 3.5)."""
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)

_CLOSED_NAMES = ("localhost", "localdomain", "local", "internal", "intranet", "home.arpa", "onion")
"""RFC 6761, RFC 6762, RFC 8375, and what networks call their own; refused before they are looked up."""
_CLOSED_V4 = tuple(
    map(
        IPv4Network,
        (
            *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
            *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24"),
            *("192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
            *("224.0.0.0/4", "240.0.0.0/4"),
        ),
    )
)
"""IANA's registry of special addresses, and multicast; with the clouds' below."""
_OPEN_V6 = IPv6Network("2000::/3")
"""All that is routed today."""
_CLOSED_V6 = tuple(
    map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))
)  # protocols' own (Teredo among them), examples, 6to4, examples
_NAT64 = IPv6Network("64:ff9b::/96")
METADATA: frozenset[Address] = frozenset(
    map(
        ip_address,
        (
            "169.254.169.254",  # AWS, GCP, Azure, and most others
            "169.254.170.2",  # AWS: credentials of containers
            "169.254.170.23",  # AWS: credentials of pods
            "169.254.42.42",  # Scaleway
            "100.100.100.200",  # Alibaba
            "192.0.0.192",  # Oracle
            "168.63.129.16",  # Azure, an address like any other
            "fd00:ec2::254",  # AWS
            "fd00:ec2::23",  # AWS: credentials of pods
            "fd20:ce::254",  # GCP
        ),
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a URL names."""

    scheme: str
    host: str
    """Lower case, without brackets and without a last dot."""
    port: int
    address: Address | None
    """Of a host that is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One of what an operator lists: a network or a name, on one port or on all."""

    network: IPv4Network | IPv6Network | None = None
    name: str = ""
    """Begins with a dot: all names that end so."""
    port: int | None = None

    def names(self, host: str, port: int) -> bool:
        if not self.name or self.port not in (None, port):
            return False
        return host.endswith(self.name) if self.name[0] == "." else host == self.name

    def holds(self, address: Address, port: int) -> bool:
        return (
            self.network is not None
            and self.port in (None, port)
            and address.version == self.network.version
            and address in self.network
        )

    @property
    def is_one(self) -> bool:
        return self.network is not None and self.network.num_addresses == 1


class Egress:
    """The rules of one server."""

    def __init__(
        self, *, allow: Iterable[str] = (), deny: Iterable[str] = (), ports: Iterable[int] = ()
    ) -> None:
        """Read the lists; `ports`: those that are open, all without any.

        Raises:
            SetupError: an entry is neither a network nor a host, with a port or without.
        """
        self._allow = tuple(_entry("allow", one) for one in allow)
        self._deny = tuple(_entry("deny", one) for one in deny)
        self._ports = frozenset(ports)

    def check(self, url: str, *, in_clear: bool = True) -> Target:
        """Return what `url` names, as far as that can be told without looking a name up.

        `in_clear`: http will do; without it, only for what `allow` names as the URL does.

        Raises:
            Invalid: connections may not go there; says what was refused, and how it is allowed.
        """
        target = _target(url)
        host, port = target.host, target.port
        if target.scheme == "http" and not in_clear and not self._is_named(target):
            raise Invalid(
                f"{place_of(host, port)} is connected to over https only; if http should do there, "
                "the operator of this server adds it to `allow` under [egress]"
            )
        if target.address is not None:
            self.admit(host, port, [target.address])
            return target
        by_name = any(one.names(host, port) for one in self._allow)
        closed = any(host == name or host.endswith(f".{name}") for name in _CLOSED_NAMES)
        if (closed and not by_name) or self._is_shut(host, port):
            raise refusal(host, port)
        return target

    def admit(self, host: str, port: int, addresses: Sequence[Address]) -> None:
        """Take all that a name resolves to, or nothing of it.

        Raises:
            Invalid: there are none, or connections may not go to one of them.
        """
        host = plain(host)
        if not addresses or not all(self.may(host, port, one) for one in addresses):
            raise refusal(host, port)

    def may(self, host: str, port: int, address: Address) -> bool:
        """Whether connections may go to an address of this name."""
        forms = _forms(address)
        if self._is_shut(host, port) or any(
            one.holds(form, port) for one in self._deny for form in forms
        ):
            return False
        secret = not METADATA.isdisjoint(forms)
        for one in self._allow:
            held = any(one.holds(form, port) for form in forms)
            if (held and one.is_one) or (not secret and (held or one.names(host, port))):
                return True
        return not secret and all(map(_is_public, forms))

    def _is_named(self, target: Target) -> bool:
        forms = () if target.address is None else _forms(target.address)
        return any(
            one.names(target.host, target.port)
            or any(one.holds(form, target.port) for form in forms)
            for one in self._allow
        )

    def _is_shut(self, host: str, port: int) -> bool:
        """Whether the name or the port is closed, wherever it leads."""
        if any(one.names(host, port) for one in self._deny):
            return True
        if port == 0:
            return True
        named = any(one.port == port for one in self._allow)
        return bool(self._ports) and port not in self._ports and not named


def refusal(host: str, port: int) -> Invalid:
    """Return what is told of a place: the same whether it has no address or a forbidden one."""
    return Invalid(
        f"{place_of(host, port)} has no address that connections from here may go to; "
        f"if it should, the operator of this server adds it to `allow` under [egress]"
    )


def place_of(host: str, port: int) -> str:
    """Return a host and a port as a URL has them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def plain(host: str) -> str:
    """Return a host as the rules have it."""
    return host.lower().removeprefix("[").removesuffix("]").removesuffix(".")


def _target(url: str) -> Target:
    if len(url) > _LONGEST_URL or not _READABLE.fullmatch(url):
        raise Invalid("a URL is printable ASCII without spaces and backslashes (xn--… for others)")
    parts = _PARTS.match(url)
    scheme = parts["scheme"].lower() if parts else ""
    if parts is None or scheme not in _PORTS:
        raise Invalid("a URL begins with http:// or https://")
    if "@" in parts["place"]:
        raise Invalid("a URL has no user name and no password; a key goes where keys are kept")
    place = _PLACE.fullmatch(parts["place"])
    if place is None:
        raise Invalid("a URL's host is a name, a dotted IPv4 address or an IPv6 address in [ ]")
    host, port = plain(place["host"]), int(place["port"] or _PORTS[scheme])
    if port > 65_535:
        raise Invalid("a port is at most 65535")
    return Target(scheme=scheme, host=host, port=port, address=_literal(place["host"], host))


def _literal(spelt: str, host: str) -> Address | None:
    """Return the address that a host is; None for a name.  Raises Invalid: it is neither."""
    labels = host.split(".")
    try:
        if spelt[0] == "[":
            return IPv6Address(host)
        if _NUMBER.fullmatch(labels[-1]):
            return IPv4Address(host)
    except ValueError:
        raise Invalid(f"{spelt} is no address: write IPv4 as four decimal numbers") from None
    if len(host) > _LONGEST_NAME or not all(map(_LABEL.fullmatch, labels)):
        raise Invalid(f"{spelt[:_LONGEST_NAME]} is no name of a host")
    return None


def _forms(address: Address) -> tuple[Address, ...]:
    """Return the address, or those that it stands for."""
    if isinstance(address, IPv4Address):
        return (address,)
    if (mapped := address.ipv4_mapped) is not None:
        return (mapped,)
    if address.scope_id is not None:
        return (IPv6Address("fe80::"),)  # of one link, whatever it says
    low = IPv4Address(int(address) & 0xFFFF_FFFF)
    if address in _NAT64:
        return (low,)
    if (int(address) >> 32) & 0xFDFF_FFFF == 0x5EFE:  # ISATAP (RFC 5214)
        return (address, low)
    return (address,)


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in one for one in _CLOSED_V4)
    return address in _OPEN_V6 and not any(address in one for one in _CLOSED_V6)


def _entry(of: str, text: str) -> _Entry:
    wrong = SetupError(
        f"[egress] {of}: {text!r} is none of 10.0.0.0/8, 10.0.0.5:8080, [fd00::1]:8080, "
        "host.example, host.example:8080 and *.example"
    )
    text = text.strip().lower()
    try:
        return _Entry(network=ip_network(text))
    except ValueError:
        pass  # a name, or with a port
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit():
        host, port = text, ""
    number = int(port) if port else None
    if number is not None and not 0 < number <= 65_535:
        raise wrong
    try:
        return _Entry(network=ip_network(plain(host)), port=number)
    except ValueError:
        pass  # a name
    name = plain(host.removeprefix("*."))
    if not all(map(_LABEL.fullmatch, name.split("."))) or _NUMBER.fullmatch(name.split(".")[-1]):
        raise wrong
    return _Entry(name=f".{name}" if host.startswith("*.") else name, port=number)
