"""Where the server is that somebody here means, and the key to it.

Invariant: nothing is asked over the network, and nothing is made.
"""

from __future__ import annotations

from pathlib import Path

from hostler.app.keys import key_file
from hostler.app.settings import LOOPBACK, Settings


def server_url(settings: Settings) -> str:
    """Return where the server is."""
    if settings.url is not None:
        return settings.url
    host = settings.host if settings.host in LOOPBACK else "127.0.0.1"
    scheme = "https" if settings.tls_cert else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{settings.port}"


def own_cert(settings: Settings) -> Path | None:
    """Return the certificate of the server here; one that is elsewhere has to prove itself."""
    return settings.tls_cert if settings.url is None else None


def known_key(settings: Settings) -> str | None:
    """Return the key that was given, or is in the data folder."""
    if settings.given_key is not None:
        return settings.given_key
    try:
        return key_file(settings.data).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
