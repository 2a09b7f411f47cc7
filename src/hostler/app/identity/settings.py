"""What an operator says about issuers and proxies.

Invariant: what is not said is refused: no audience, no trusted address and no tenant is guessed.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Algorithm: TypeAlias = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]  # fmt: skip
ALGORITHMS: tuple[Algorithm, ...] = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
)  # fmt: skip
"""All of them are signed with a key that we do not have: never `none`, never a shared secret."""
Role: TypeAlias = Literal["admin", "member", "viewer"]
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
NAME = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?"
"""Of tenants and issuers."""


class Mapped(BaseModel):
    """What tokens and headers mean here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default_tenant: str | None = Field(default=None, pattern=f"^{NAME}$")
    """Tenant of those who come without one; without it, they are refused."""
    roles: dict[str, Role] = {}
    """From their words to ours: `{ "ops-team" = "admin" }`; of several, the one with most rights."""
    default_role: Role | Literal["none"] = "member"
    """Role of those with none that is in `roles`; `none` refuses them."""


class Jwt(Mapped):
    """An issuer of tokens (JWT, OpenID Connect)."""

    issuer: str
    """`iss` of its tokens, to the letter."""
    audience: tuple[str, ...] = Field(min_length=1)
    """One of these must be in `aud`."""
    name: str | None = Field(default=None, pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")
    """In front of its users (`NAME:USER`); needed when there are several issuers."""
    jwks_url: str | None = None
    """Where its keys are; without this and `jwks_file`, its discovery document says so."""
    jwks_file: Path | None = None
    """Or the file they are in, which is read again when it changes."""
    algorithms: tuple[Algorithm, ...] = Field(default=ALGORITHMS, min_length=1)
    """Signatures that are accepted; by default all that need no shared secret."""
    user_claim: str = "sub"
    """Where the user is in a token; with dots for what is inside, also below."""
    tenant_claim: str | None = None
    """Where the tenant is."""
    roles_claim: str | None = None
    """Where roles or groups are: a list, or words with spaces between."""
    scopes_claim: str | None = None
    """Where scopes are; without it, a token may do all that its role may."""

    @field_validator("audience", mode="before")
    @classmethod
    def _one_is_a_list(cls, given: object) -> object:
        return (given,) if isinstance(given, str) else given

    @field_validator("issuer", "jwks_url")
    @classmethod
    def _is_safe(cls, url: str | None) -> str | None:
        if url is not None:
            check_url(url)
        return url

    @model_validator(mode="after")
    def _has_one_place(self) -> Jwt:
        if self.jwks_url is not None and self.jwks_file is not None:
            raise ValueError("give jwks_url or jwks_file, not both")
        if self.tenant_claim is None and self.default_tenant is None:
            raise ValueError("give tenant_claim or default_tenant: a token has to be of a tenant")
        return self


class Proxy(Mapped):
    """A proxy in front that says who calls."""

    trusted: tuple[str, ...] = Field(min_length=1)
    """Addresses and networks it connects from: `10.0.0.5`, `10.1.0.0/16`. From anywhere else its
    headers mean nothing."""
    user_header: str = "X-Forwarded-User"
    """The header with the user."""
    tenant_header: str | None = None
    """The header with the tenant."""
    roles_header: str | None = None
    """The header with roles or groups, with commas between."""

    @field_validator("trusted")
    @classmethod
    def _are_networks(cls, trusted: tuple[str, ...]) -> tuple[str, ...]:
        for one in trusted:
            if ip_network(one).prefixlen == 0:
                raise ValueError(f"{one} would trust everybody")
        return trusted

    @model_validator(mode="after")
    def _has_a_tenant(self) -> Proxy:
        if self.tenant_header is None and self.default_tenant is None:
            raise ValueError("give tenant_header or default_tenant: a user has to be of a tenant")
        return self

    @property
    def networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(ip_network(one) for one in self.trusted)

    @property
    def headers(self) -> frozenset[str]:
        """Return the names of its headers, as HTTP has them here: in small letters."""
        named = (self.user_header, self.tenant_header, self.roles_header)
        return frozenset(one.lower() for one in named if one is not None)


class Identity(BaseModel):
    """Who is let in beside those with a key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    jwt: tuple[Jwt, ...] = ()
    """Issuers of tokens, each a `[[identity.jwt]]`."""
    proxy: Proxy | None = None
    """`[identity.proxy]`: a proxy that is trusted to say who calls; off unless it is there."""

    @model_validator(mode="after")
    def _are_told_apart(self) -> Identity:
        for what in ("issuer", "name"):
            said = [getattr(one, what) for one in self.jwt]
            if len(said) != len(set(said)):
                raise ValueError(f"each issuer needs another {what}")
        if len(self.jwt) > 1 and None in [one.name for one in self.jwt]:
            raise ValueError("of several issuers each needs a name: they may have equal users")
        return self


def check_url(url: str) -> None:
    """Return if what is read there can be believed.

    Raises:
        ValueError: it is not https, and not on this machine.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOOPBACK):
        raise ValueError("it must begin with https://: who can change the keys can be anybody")
    if not parts.hostname or parts.username is not None or parts.fragment:
        raise ValueError("it must be a plain URL")
