"""The ways to say who one is that the settings name, opened: keys fetched and kept fresh.

Invariant: an issuer that cannot be reached keeps nobody out but its own users, and no server from
starting.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio

from hostler.app.identity.claims import Exists, everywhere
from hostler.app.identity.jwks import Keys, Source
from hostler.app.identity.proxy import TrustedProxy
from hostler.app.identity.settings import Identity, Jwt
from hostler.app.identity.sources import FromDiscovery, FromFile, FromUrl
from hostler.app.identity.tokens import Issuer, Tokens
from hostler.faces.http.entry import Way, Ways


@asynccontextmanager
async def open_identity(said: Identity, *, exists: Exists = everywhere) -> AsyncGenerator[Ways]:
    """Yield the ways beside keys and share links.

    `exists`: asked once for each new token, and for each request through a proxy.
    """
    issuers = [Issuer(one, Keys(source_of(one))) for one in said.jwt]
    tried: list[Way] = [Tokens(issuers, exists=exists)] if issuers else []
    hidden = frozenset[str]()
    if said.proxy is not None:
        tried.append(TrustedProxy(said.proxy, exists=exists))
        hidden = said.proxy.headers
    async with anyio.create_task_group() as tasks:
        for issuer in issuers:
            tasks.start_soon(issuer.keys.keep_fresh)
        yield Ways(tried, hidden)
        tasks.cancel_scope.cancel()


def source_of(said: Jwt) -> Source:
    """Return where an issuer's keys are."""
    if said.jwks_file is not None:
        return FromFile(said.jwks_file)
    return FromDiscovery(said.issuer) if said.jwks_url is None else FromUrl(said.jwks_url)
