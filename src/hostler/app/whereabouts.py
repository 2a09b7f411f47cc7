"""Where the server is that somebody here means, and the key to it.

Invariant: nothing is asked over the network, and nothing is made.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

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


def is_ours(settings: Settings, url: str | None) -> bool:
    """Whether this is the server that is meant here, or one on this machine."""
    if url is None or url.rstrip("/") == server_url(settings).rstrip("/"):
        return True
    try:
        return urlsplit(url).hostname in LOOPBACK
    except ValueError:
        return False


def known_key(settings: Settings, *, url: str | None = None) -> str | None:
    """Return the key that was given, or is in the data folder: that one opens no other server.

    `url`: where it is to be shown, if that is not where `settings` say.
    """
    if settings.given_key is not None:
        return settings.given_key
    if not is_ours(settings, url):
        return None
    try:
        return key_file(settings.data).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
