"""Words as a full-text index of digests holds them: one digest for each word of each tenant.

Invariant: whose words they are is in each digest, so no tenant's query finds another's.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence

from hostler.core.events import TenantId
from hostler.stores.projection import words

MOST_WORDS = 50_000
"""Different ones of one text: PostgreSQL has a megabyte for what an entry of the index holds."""


def digests(tenant: TenantId, text: str) -> Sequence[str]:
    """Return a digest for each word of a text, each once, whatever its case and accents."""
    if not text.isascii():
        parts = unicodedata.normalize("NFD", text)
        text = "".join(one for one in parts if not unicodedata.combining(one))
    found = dict.fromkeys(words(text))
    salt = hashlib.blake2b(tenant.encode(), digest_size=16).digest()
    return [_digest(salt, word) for word in list(found)[:MOST_WORDS]]


def _digest(salt: bytes, word: str) -> str:
    told = word.encode("utf-8", "replace")
    return hashlib.blake2b(told, digest_size=8, key=salt).hexdigest()
