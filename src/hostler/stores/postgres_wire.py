"""Connections to PostgreSQL, each given out for one tenant at a time, or for the whole house.

What may be seen is set on the connection itself (`hostler.tenant`, `hostler.house`), where the
policies of row-level security look: so a statement that forgets its tenant sees only what it was
given the connection for.  It is set when that changes, not for each transaction: this is why a
pooler between us and PostgreSQL must give whole sessions.

PostgreSQL cannot hold the character NUL.  It is written as U+FDD0 and `0`, and U+FDD0 (no character
either, says Unicode) as itself and `1`.

Invariant: nobody gets a connection without saying whose rows are meant.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol, TypeVar, cast

import anyio
import asyncpg  # pyright: ignore[reportMissingTypeStubs]  it brings annotations for some of itself

from hostler.core.errors import HostlerError, SetupError, Unavailable
from hostler.core.events import TenantId
from hostler.stores.postgres_sql import asking

T = TypeVar("T")
HOUSE: Final = None
"""In place of a tenant: whoever looks after all of them."""
STATEMENT_S = 60.0
"""After which a statement is not waited for: then the connection is ended, too."""
CONNECT_S = 5.0
"""How long connecting is tried, over and over: a server that restarts is back in two."""
ATTEMPT_S = 2.0
"""Of these tries, what one may take, the last one, too."""
AGAIN_S = 0.1
KEPT_STATEMENTS = 300
"""Prepared, on each connection: all that are used, in all their forms."""
SCHEMA = "hostler"
OLDEST = 14
"""Of the servers that are maintained."""
SETTINGS = {
    "search_path": SCHEMA,
    "client_connection_check_interval": "1s",
    "idle_in_transaction_session_timeout": "60s",
    "lock_timeout": "10s",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
}
"""A statement whose client is gone ends within a second.  Compiling a short statement, or planning it
anew for its values, costs more than it saves."""
FATAL = ("FATAL", "PANIC")
MARK = "\ufdd0"


class Lost(HostlerError):
    """The connection was lost: whether what was asked for was done is not known."""


class Connection(Protocol):
    """What is used of `asyncpg.Connection`."""

    async def execute(self, query: str, *args: object) -> str: ...
    async def fetch(self, query: str, *args: object) -> Sequence[Sequence[object]]: ...
    def is_closed(self) -> bool: ...
    def terminate(self) -> None: ...
    async def close(self, *, timeout: float | None = None) -> None: ...  # noqa: ASYNC109  its own


def told(value: object) -> object:
    """Return a value as it can be sent."""
    if isinstance(value, str):
        if "\0" in value or MARK in value:
            return value.replace(MARK, f"{MARK}1").replace("\0", f"{MARK}0")
    elif isinstance(value, list | tuple):
        return [told(one) for one in cast("Sequence[object]", value)]
    return value


def heard(value: object) -> object:
    """Return a value as it was before it was sent."""
    if isinstance(value, str) and MARK in value:
        return value.replace(f"{MARK}0", "\0").replace(f"{MARK}1", MARK)
    return value


class Wire:
    """A connection, and whose rows it shows."""

    def __init__(self, db: Connection, name: str) -> None:
        self.db, self.name = db, name
        self.whose: TenantId | str | None = "?nobody"
        """As a tenant's name cannot be."""

    async def show(self, whose: TenantId | None) -> None:
        """Show the rows of a tenant, or those of all, from now on."""
        if whose != self.whose:
            self.whose = "?nobody"
            house = "on" if whose is HOUSE else ""
            await self.fetch(
                "SELECT set_config('hostler.tenant', $1, false), set_config('hostler.house', $2, false)",
                told(whose or ""),
                house,
            )
            self.whose = whose

    async def show_till_the_end(self, tenant: TenantId) -> None:
        """Show the rows of a tenant until the transaction ends, and then again those of before."""
        await self.fetch(
            "SELECT set_config('hostler.tenant', $1, true), set_config('hostler.house', '', true)",
            told(tenant),
        )

    async def rows(self, name: str, /, **given: object) -> list[tuple[object, ...]]:
        """Return what a statement finds; of its optional lines, those whose value is not None."""
        return await self.asked(name, given)

    async def asked(
        self,
        name: str,
        given: Mapping[str, object],
        filled: tuple[tuple[str, str], ...] = (),
    ) -> list[tuple[object, ...]]:
        wanted = tuple(one for one, value in given.items() if value is not None)
        text, names = asking(name, wanted, filled)
        return await self.fetched(text, *[given[one] for one in names])

    async def fetched(self, text: str, *args: object) -> list[tuple[object, ...]]:
        """Return what a text finds that is no named statement."""
        found = await self.fetch(text, *map(told, args))
        return [tuple(map(heard, row)) for row in found]

    async def row(self, name: str, /, **given: object) -> tuple[object, ...] | None:
        """Return the first row that a statement finds."""
        found = await self.asked(name, given)
        return found[0] if found else None

    async def run(self, name: str, /, **given: object) -> int:
        """Return how many rows a statement changed."""
        wanted = tuple(one for one, value in given.items() if value is not None)
        text, names = asking(name, wanted)
        done = await self.execute(text, *[told(given[one]) for one in names])
        return int(done.rpartition(" ")[2])

    async def fetch(self, text: str, *args: object) -> Sequence[Sequence[object]]:
        return await self._whole(self.db.fetch(text, *args))

    async def execute(self, text: str, *args: object) -> str:
        return await self._whole(self.db.execute(text, *args))

    async def _whole(self, asked: Awaitable[T]) -> T:
        """Return the answer; a connection of which a part of an answer may be left is ended.

        Raises:
            Lost: there is no telling whether it was done.
        """
        try:
            return await asked
        except asyncpg.PostgresError as error:
            is_lost = isinstance(error, asyncpg.PostgresConnectionError)
            if is_lost or self.db.is_closed() or getattr(error, "severity", "") in FATAL:
                self.db.terminate()
                raise Lost(str(error)) from error
            raise
        except asyncpg.InternalClientError as error:  # of one that ended at a bad moment
            self.db.terminate()
            raise Lost(str(error)) from error
        except asyncpg.InterfaceError as error:
            if self.db.is_closed():
                raise Lost(str(error)) from error
            raise  # it was not even sent
        except (OSError, TimeoutError) as error:
            self.db.terminate()
            raise Lost(str(error) or type(error).__name__) from error
        except (ValueError, TypeError):  # likewise
            raise
        except BaseException:
            self.db.terminate()
            raise


class Wires:
    """Some connections, kept open.  Made with a `url`, ended with `close`."""

    def __init__(self, url: str, *, most: int) -> None:
        self._url, self._free = url, deque[Wire]()
        self._turn = anyio.Semaphore(most)

    async def take(self, whose: TenantId | None) -> Wire:
        """Return a connection that shows the rows of a tenant; it has to be given back.

        Raises:
            Unavailable: there is none to be had now.
        """
        await self._turn.acquire()
        try:
            while True:
                wire = self._kept(whose) or await connect(self._url)
                try:
                    await wire.show(whose)
                except Lost:
                    continue  # it was lost while nobody used it
                return wire
        except asyncpg.PostgresError as error:
            self._turn.release()
            raise unavailable(error) from error
        except BaseException:
            self._turn.release()
            raise

    def give(self, wire: Wire) -> None:
        """Take a connection back."""
        if not wire.db.is_closed():
            self._free.append(wire)
        self._turn.release()

    async def close(self) -> None:
        while self._free:
            await self._free.pop().db.close(timeout=1.0)

    def _kept(self, whose: TenantId | None) -> Wire | None:
        """Return one that is open, if there is one that shows the same rows already."""
        self._free = deque(wire for wire in self._free if not wire.db.is_closed())
        for at, wire in enumerate(self._free):
            if wire.whose == whose:
                del self._free[at]
                return wire
        return self._free.popleft() if self._free else None

    async def reading(self, whose: TenantId | None, read: Callable[[Wire], Awaitable[T]]) -> T:
        """Return what is read; once more if the connection was lost.  Raises Unavailable."""
        lost = 0
        while True:
            wire = await self.take(whose)
            try:
                return await read(wire)
            except Lost as error:
                lost += 1
                if lost > 2:
                    raise unavailable(error) from error
            except asyncpg.PostgresError as error:
                raise unavailable(error) from error
            finally:
                self.give(wire)


_connect = cast("Callable[..., Awaitable[Connection]]", asyncpg.connect)  # pyright: ignore[reportUnknownMemberType]


async def connect(url: str, *, patience_s: float | None = None) -> Wire:
    """Return a new connection, which shows nobody's rows yet.

    Raises:
        SetupError: the URL, name or password is wrong, or the server is too old.
        Unavailable: it cannot be reached, for longer than that.
    """
    patience_s = CONNECT_S if patience_s is None else patience_s
    until, name = time.monotonic() + patience_s, f"hostler {secrets.token_hex(8)}"
    while True:
        try:
            made = await _connect(
                url,
                timeout=ATTEMPT_S,
                command_timeout=STATEMENT_S,
                statement_cache_size=KEPT_STATEMENTS,
                max_cached_statement_lifetime=0,
                server_settings={**SETTINGS, "application_name": name},
            )
            return Wire(made, name)
        except REFUSED as error:
            raise SetupError(f"PostgreSQL refuses: {error}") from error
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            if time.monotonic() > until:
                raise unavailable(error) from error
        await anyio.sleep(AGAIN_S)


REFUSED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ClientConfigurationError,
    asyncpg.UndefinedObjectError,
    asyncpg.CantChangeRuntimeParamError,
)


def unavailable(error: Exception) -> Exception:
    """Return what to tell callers of trouble with the database; what they gave is their own."""
    if isinstance(error, asyncpg.DataError):
        return error
    return Unavailable(f"the database cannot serve now: {error or type(error).__name__}")
