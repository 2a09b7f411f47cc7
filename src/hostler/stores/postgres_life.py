"""That this process lives: a connection that holds locks, by which others see it.

PostgreSQL lets go of them when the connection ends, so the dead hold none.

Invariant: what is done by these locks is safe without them; they only say whose turn it is.
"""

from __future__ import annotations

import logging

import anyio

from hostler.core.errors import HostlerError, SetupError
from hostler.stores.postgres_rebuild import recover
from hostler.stores.postgres_schema import is_guarded
from hostler.stores.postgres_wire import HOUSE, Lost, Wire, connect

log = logging.getLogger(__name__)

SEEN_S = 5.0
"""How often it is looked whether the connection still is there."""


class Life:
    """Begins with `begin`; `go_on` holds the locks again where the connection was lost."""

    def __init__(self, url: str, holder: int, *, drives: bool) -> None:
        self._url, self._holder, self._drives = url, holder, drives
        self._wire: Wire | None = None

    async def begin(self, now_us: int) -> None:
        """Live from now on, and end what the dead have left.

        Raises:
            SetupError: another process drives the runs of this database.
            Unavailable: it cannot be reached.
        """
        self._wire = await self._hold()
        if not await is_guarded(self._wire):
            log.warning(
                "the role of the database URL is a superuser or passes row-level security: tenants "
                "are kept apart by this program alone; give it a role of its own"
            )
        await self._wire.show(HOUSE)
        await recover(self._wire, now_us)

    async def go_on(self) -> None:
        """Hold the locks until cancelled."""
        while True:
            await anyio.sleep(SEEN_S)
            try:
                if self._wire is None:
                    self._wire = await self._hold()
                await self._wire.execute("SELECT 1")
            except (Lost, HostlerError) as error:
                log.warning("this process cannot be seen in the database: %s", error)
                self._wire = None

    def end(self) -> None:
        if self._wire is not None:
            self._wire.db.terminate()

    async def _hold(self) -> Wire:
        wire = await connect(self._url)
        await wire.rows("hold", holder=self._holder)
        if self._drives:
            ((is_ours,),) = await wire.rows("drive")
            if not is_ours:
                wire.db.terminate()
                raise SetupError(
                    "another server has this database: one process drives its runs.  Stop that one "
                    "first, or give this one another database"
                )
        return wire
