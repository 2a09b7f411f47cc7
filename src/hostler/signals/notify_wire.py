"""The bus over PostgreSQL's LISTEN and NOTIFY, for fleets without Redis.

Each NOTIFY is a commit, and takes a lock of the whole cluster until it is on disk: so what is said
is said rarely, many messages at once, and messages are short.  Two connections: one listens, one
speaks.

Invariant: no transaction is open while nothing is said, and no table is touched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, cast

import anyio
import asyncpg  # pyright: ignore[reportMissingTypeStubs]  it brings annotations for some of itself

from hostler.signals.wire import Down, Ears, connected, lasting, told

LIMIT_BYTES = 7_900
"""PostgreSQL takes less than 8,000."""
JOIN_S = 0.1
CONNECT_S = 2.0
SILENT_S = 5.0
SAY = "SELECT pg_notify(c, p) FROM unnest($1::text[], $2::text[]) WITH ORDINALITY u(c, p, n) ORDER BY n"
TROUBLE = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # "another operation is in progress", if it ends at a bad moment
    OSError,
    TimeoutError,
)
Hear = Callable[[object, int, str, str], None]


class Connection(Protocol):
    """What is used of `asyncpg.Connection`."""

    async def execute(self, query: str, *args: object) -> str: ...
    async def add_listener(self, channel: str, callback: Hear) -> None: ...
    async def remove_listener(self, channel: str, callback: Hear) -> None: ...
    def add_termination_listener(self, callback: Callable[[object], None]) -> None: ...
    def terminate(self) -> None: ...


_connect = cast("Callable[..., Awaitable[Connection]]", asyncpg.connect)  # pyright: ignore[reportUnknownMemberType]


class NotifyWire:
    """See `hostler.signals.wire.Wire`."""

    limit_bytes = LIMIT_BYTES

    def __init__(self, url: str, *, join_s: float = JOIN_S) -> None:
        self.join_s, self._url = join_s, url
        self._wanted = dict[str, None]()
        self._mouth: Connection | None = None
        self._changed = anyio.Event()

    def subscribe(self, channel: str) -> None:
        self._wanted[channel] = None
        self._changed.set()

    def unsubscribe(self, channel: str) -> None:
        self._wanted.pop(channel, None)
        self._changed.set()

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        mouth = self._mouth
        if mouth is None:
            raise Down("it is not connected")
        channels, texts = [one for one, _ in messages], [data.decode() for _, data in messages]
        try:
            with anyio.fail_after(SILENT_S):
                await mouth.execute(SAY, channels, texts)
        except TROUBLE as error:
            self._mouth = None
            mouth.terminate()
            raise Down(told(error)) from error

    async def serve(self, ears: Ears) -> None:
        await lasting(lambda: self._listen(ears), ears.down, "PostgreSQL")

    async def _listen(self, ears: Ears) -> None:
        ear, mouth = await self._open(), None
        try:
            mouth = self._mouth = await self._open()
            ended = anyio.Event()
            for one in (ear, mouth):
                one.add_termination_listener(lambda _: ended.set())
            async with connected() as tasks:
                tasks.start_soon(self._follow_changes, ear, ears)
                await ended.wait()
                raise Down("the connection ended")
        finally:
            self._mouth = None
            for one in (ear, mouth):
                if one is not None:
                    with contextlib.suppress(*TROUBLE):
                        one.terminate()

    async def _open(self) -> Connection:
        try:
            return await _connect(
                self._url,
                timeout=CONNECT_S,
                command_timeout=SILENT_S,
                server_settings={"application_name": "hostler bus"},
            )
        except TROUBLE as error:
            raise Down(told(error)) from error

    async def _follow_changes(self, ear: Connection, ears: Ears) -> None:
        """Listen on what is wanted, and ask from time to time whether the connection lives."""
        there = dict[str, Hear]()
        while True:
            self._changed = anyio.Event()
            try:
                await self._match(ear, ears, there)
                with anyio.move_on_after(SILENT_S) as silence:
                    await self._changed.wait()
                if silence.cancelled_caught:
                    await ear.execute("SELECT 1")
            except TROUBLE as error:
                raise Down(told(error)) from error

    async def _match(self, ear: Connection, ears: Ears, there: dict[str, Hear]) -> None:
        for channel in [one for one in there if one not in self._wanted]:
            await ear.remove_listener(channel, there.pop(channel))
        for channel in [one for one in self._wanted if one not in there]:
            if channel not in self._wanted:  # it was not wanted for long
                continue
            hear = there[channel] = _hearing(ears)
            await ear.add_listener(channel, hear)
            if channel in self._wanted:
                ears.stands(channel)


def _hearing(ears: Ears) -> Hear:
    def hear(_: object, pid: int, channel: str, payload: str) -> None:
        del pid
        ears.heard(channel, payload.encode())

    return hear
