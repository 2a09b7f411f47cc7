"""The bus over Redis: its pub/sub, and nothing that is kept.

Two connections: what is said on one is in order, and one that listens may say nothing else.

Invariant: nothing but PUBLISH, SUBSCRIBE, UNSUBSCRIBE and PING is asked of Redis.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Protocol, cast

import anyio
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from hostler.core.errors import SetupError
from hostler.signals.wire import Down, Ears, connected, lasting, told

LIMIT_BYTES = 256_000
JOIN_S = 0.01
CONNECT_S = 2.0
SILENT_S = 5.0
"""After this much silence, a connection is asked whether it lives; after twice as much it does not."""
TROUBLE = (RedisError, OSError, TimeoutError)


class Connection(Protocol):
    """What is used of `redis.asyncio.Connection`."""

    async def connect(self) -> None: ...
    async def disconnect(self, nowait: bool = False) -> None: ...  # noqa: FBT001, FBT002  its own
    def pack_commands(self, commands: Iterable[Iterable[str | bytes]]) -> list[bytes]: ...
    async def send_packed_command(self, command: list[bytes]) -> None: ...
    async def read_response(self, *, timeout: float | None = None) -> object:  # noqa: ASYNC109  its own
        """Return None after so many seconds without an answer."""
        ...


class RedisWire:
    """See `hostler.signals.wire.Wire`."""

    limit_bytes = LIMIT_BYTES

    def __init__(self, url: str, *, join_s: float = JOIN_S) -> None:
        """Raises SetupError: that is no URL of a Redis."""
        self.join_s = join_s
        try:
            self._pool = ConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType]
                url,
                protocol=2,
                retry=Retry(NoBackoff(), 0),
                socket_connect_timeout=CONNECT_S,
                socket_timeout=None,
                driver_info=None,  # to tell its version, it would read files on the event loop
            )
        except ValueError as error:
            raise SetupError(f"redis: {error}") from error
        self._wanted = dict[str, None]()
        self._mouth: Connection | None = None
        self._changes = dict[str, bytes]()
        """Channels to listen on, or no more, since somebody last said so to Redis."""
        self._changed = anyio.Event()

    def subscribe(self, channel: str) -> None:
        self._wanted[channel] = None
        self._change(channel, b"SUBSCRIBE")

    def unsubscribe(self, channel: str) -> None:
        self._wanted.pop(channel, None)
        self._change(channel, b"UNSUBSCRIBE")

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        mouth = self._mouth
        if mouth is None:
            raise Down("it is not connected")
        try:
            with anyio.fail_after(SILENT_S):
                await mouth.send_packed_command(
                    mouth.pack_commands((b"PUBLISH", *one) for one in messages)
                )
                for _ in messages:
                    await mouth.read_response()
        except TROUBLE as error:
            self._mouth = None
            await _closed(mouth)
            raise Down(told(error)) from error
        except BaseException:
            self._mouth = None  # an answer may be left, which would be taken for the next one
            await _closed(mouth)
            raise

    async def serve(self, ears: Ears) -> None:
        await lasting(lambda: self._listen(ears), ears.down, "Redis")

    async def _listen(self, ears: Ears) -> None:
        try:
            with anyio.fail_after(2 * CONNECT_S):
                made = [self._connection(), self._connection()]
                for one in made:
                    await one.connect()
        except TROUBLE as error:
            raise Down(told(error)) from error
        ear, mouth = made
        self._mouth = mouth
        self._changes = dict.fromkeys(self._wanted, b"SUBSCRIBE")
        try:
            async with connected() as tasks:
                tasks.start_soon(self._say_changes, ear)
                await self._hear(ear, ears)
        finally:
            self._mouth = None
            with anyio.CancelScope(shield=True):
                await _closed(ear)
                await _closed(mouth)

    async def _hear(self, ear: Connection, ears: Ears) -> None:
        while True:
            kind, channel, data = await self._next(ear)
            if kind == b"message":
                ears.heard(channel.decode("utf-8", "replace"), data)
            elif kind == b"subscribe":
                ears.stands(channel.decode("utf-8", "replace"))
            if self._mouth is None:
                raise Down("what was said was not taken")

    async def _next(self, ear: Connection) -> tuple[bytes, bytes, bytes]:
        asked = False
        while True:
            try:
                answer = await ear.read_response(timeout=SILENT_S)
            except TROUBLE as error:
                raise Down(told(error)) from error
            if answer is None:
                if asked:
                    raise Down("it is silent")
                asked = True
                await _send(ear, [(b"PING",)])
                continue
            if isinstance(answer, list) and len(cast("list[object]", answer)) == 3:
                kind, channel, data = cast("list[object]", answer)
                if isinstance(kind, bytes) and isinstance(channel, bytes):
                    return kind, channel, data if isinstance(data, bytes) else b""
            asked = False

    async def _say_changes(self, ear: Connection) -> None:
        while True:
            changes, self._changes = self._changes, {}
            self._changed = anyio.Event()
            if changes:
                await _send(ear, [(verb, channel) for channel, verb in changes.items()])
            await self._changed.wait()

    def _change(self, channel: str, verb: bytes) -> None:
        self._changes.pop(channel, None)
        self._changes[channel] = verb
        self._changed.set()

    def _connection(self) -> Connection:
        return cast("Connection", self._pool.make_connection())  # pyright: ignore[reportUnknownMemberType]


async def _send(ear: Connection, commands: Sequence[tuple[bytes | str, ...]]) -> None:
    try:
        with anyio.fail_after(SILENT_S):
            await ear.send_packed_command(ear.pack_commands(commands))
    except TROUBLE as error:
        raise Down(told(error)) from error


async def _closed(one: Connection) -> None:
    with contextlib.suppress(*TROUBLE):
        await one.disconnect(nowait=True)
