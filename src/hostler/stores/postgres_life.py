"""That this process lives: a connection that holds locks, by which others see it.

PostgreSQL lets go of them when the connection ends, so the dead hold none.

Invariant: what is done by these locks is safe without them; they only say whose turn it is.
"""

from __future__ import annotations

import logging
import os
import socket
from importlib.metadata import version

import anyio

from hostler.core.errors import HostlerError
from hostler.stores.postgres_rebuild import recover
from hostler.stores.postgres_schema import is_guarded
from hostler.stores.postgres_wire import HOUSE, Lost, Wire, connect

log = logging.getLogger(__name__)

SEEN_S = 5.0
"""How often it is looked whether the connection still is there."""
NAME_BYTES = 63
"""PostgreSQL keeps so many of what a connection calls itself."""
BUILD = version("hostler")
"""Read once: it is in files, and the event loop does not wait for those."""


def seen_as() -> str:
    """Return what others see of this process: that it is ours, its build, and where it is."""
    where = f"{socket.gethostname()}-{os.getpid()}"
    told = f"hostler {BUILD} {where}".encode("ascii", "replace")
    return told[:NAME_BYTES].decode()


class Life:
    """Begins with `begin`; `go_on` holds the locks again where the connection was lost."""

    def __init__(self, url: str, holder: int) -> None:
        self._url, self._holder = url, holder
        self._wire: Wire | None = None

    async def begin(self, now_us: int) -> None:
        """Live from now on, and end what the dead have left.

        Raises:
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
        await wire.fetch("SELECT set_config('application_name', $1, false)", seen_as())
        await wire.rows("hold", holder=self._holder)
        return wire
