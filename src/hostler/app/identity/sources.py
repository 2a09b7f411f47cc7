"""Where keys of issuers come from: a URL, a discovery document, a file.

Invariant: a limit on time and on size; no redirect is followed, and nothing but https is read from
other machines.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import anyio.to_thread
import msgspec
from msgspec import Struct

from hostler.app.identity.jwks import Failed
from hostler.app.identity.settings import check_url

TIMEOUT_S = 5.0
LARGEST = 512 * 1024
"""Bytes: a hundred keys with certificates have less."""
URL_EVERY_S = 300.0
"""A key that was withdrawn is good for so long at most."""
FILE_EVERY_S = 2.0
_DISCOVERY = "/.well-known/openid-configuration"


class _Discovered(Struct):
    issuer: str
    jwks_uri: str


async def fetch(url: str, *, timeout_s: float = TIMEOUT_S) -> bytes:
    """Return what is at a URL.

    Raises:
        Failed: it is not there in time, or is too large, or has moved.
    """
    try:
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=timeout_s),
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            ) as http,
            http.get(url, allow_redirects=False) as answer,
        ):
            if answer.status != 200:
                raise Failed(f"{url} answered {answer.status}")
            body = b""
            async for piece in answer.content.iter_chunked(64 * 1024):
                body += piece
                if len(body) > LARGEST:
                    raise Failed(f"{url} has more than {LARGEST} bytes")
            return body
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        raise Failed(f"{url}: {type(error).__name__} {error}") from error


@dataclass(slots=True)
class FromUrl:
    url: str
    timeout_s: float = TIMEOUT_S
    every_s: float = URL_EVERY_S

    async def __call__(self) -> bytes | None:
        return await fetch(self.url, timeout_s=self.timeout_s)


@dataclass(slots=True)
class FromDiscovery:
    """Asks the issuer where its keys are (OpenID Connect Discovery 1.0 section 4), each time."""

    issuer: str
    timeout_s: float = TIMEOUT_S
    every_s: float = URL_EVERY_S

    async def __call__(self) -> bytes | None:
        body = await fetch(self.issuer.rstrip("/") + _DISCOVERY, timeout_s=self.timeout_s)
        try:
            found = msgspec.json.decode(body, type=_Discovered)
            check_url(found.jwks_uri)
        except (ValueError, RecursionError) as error:
            raise Failed(f"the discovery document of {self.issuer} is wrong: {error}") from error
        if found.issuer != self.issuer:  # section 4.3: else one issuer could speak for another
            raise Failed(f"the discovery document of {self.issuer} is of {found.issuer!r}")
        return await fetch(found.jwks_uri, timeout_s=self.timeout_s)


@dataclass(slots=True)
class FromFile:
    file: Path
    every_s: float = FILE_EVERY_S
    _seen: tuple[int, int, int] | None = field(default=None, init=False)

    async def __call__(self) -> bytes | None:
        return await anyio.to_thread.run_sync(self._read)

    def _read(self) -> bytes | None:
        try:
            with self.file.open("rb") as file:
                stat = os.fstat(file.fileno())
                seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
                if seen == self._seen:
                    return None
                body = file.read(LARGEST + 1)
        except OSError as error:
            raise Failed(f"{self.file}: {error.strerror}") from error
        if len(body) > LARGEST:
            raise Failed(f"{self.file} has more than {LARGEST} bytes")
        self._seen = seen
        return body
