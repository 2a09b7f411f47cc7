"""Sending to places that tenants name: one request, one connection, by the egress rules.

No connection is used twice, so none is shared by two tenants, and each request is to an address
that was judged for it.

Invariant: bounded time, no redirect, nothing of an answer but its status and one header.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

import aiohttp

from hostler.beside.webhooks import Posted
from hostler.core.errors import Invalid
from hostler.harness.outbound import Outbound

PATIENCE_S = 15.0
"""From looking the name up to the head of the answer: what Standard Webhooks advises at least."""
_HEADERS = {"Accept-Encoding": "identity", "Connection": "close", "User-Agent": "hostler"}


class Poster:
    """A `beside.webhooks.Post`, for one event loop."""

    def __init__(self, outbound: Outbound, *, patience_s: float = PATIENCE_S) -> None:
        self._outbound, self._patience_s = outbound, patience_s
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, url: str, *, headers: Mapping[str, str], body: bytes) -> Posted:
        try:
            self._outbound.check(url)  # again: the rules may be others than when it was set
            async with asyncio.timeout(self._patience_s):
                response = await self._opened().post(
                    url, data=body, headers=headers, allow_redirects=False
                )
        except TimeoutError:
            return Posted(error=f"no answer within {self._patience_s:g} s")
        except Invalid as error:
            return Posted(error=error.detail)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Posted(error=_told(error))
        try:
            return Posted(response.status, response.headers.get("Retry-After"))
        finally:
            response.close()

    async def aclose(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=self._outbound.connector(keepalive_s=0.0),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=_HEADERS,
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
                trust_env=False,
            )
        return self._session


def _told(error: Exception) -> str:
    """Return what went wrong, without the address: that is the operator's to know."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return "its TLS certificate is not trusted, or it speaks no TLS"
    number = error.errno or 0 if isinstance(error, OSError) else 0
    if isinstance(error, aiohttp.ClientConnectorError):
        return os.strerror(number) if number > 0 else "it cannot be connected to"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection without an answer"
    return f"it gave no answer that is HTTP: {type(error).__name__}"
