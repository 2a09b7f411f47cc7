"""The figures of a server, for whoever may see them.

Invariant: figures are of the whole server and name no tenant, session or user; still they are the
operator's, so who may read one session may not read them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from hostler.core.errors import NotFound
from hostler.core.events import Principal
from hostler.service.authorise import authorise_operator

Scrape: TypeAlias = Callable[[str], Awaitable[tuple[bytes, str]]]
"""From what the caller accepts to the text and its media type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scraping:
    scrape: Scrape | None = None
    """None: nothing is measured here."""
    is_open: bool = False
    """Anybody may ask, without a key."""

    async def metrics(self, who: Principal, accept: str) -> tuple[bytes, str]:
        """Return all figures as text, and its media type.

        Raises:
            Forbidden: the caller does not run this installation.
            NotFound: nothing is measured.
        """
        if not self.is_open:
            authorise_operator(who, "figures are of the installation, not of a tenant")
        if self.scrape is None:
            raise NotFound("metrics are off")
        return await self.scrape(accept)


UNMEASURED = Scraping()
