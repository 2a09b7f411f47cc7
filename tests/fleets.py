"""Nodes of a fleet in one process, and the servers between them, which tests start and stop."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import anyio
from tests.programs import free_port, needed

from hostler.core.store import Store
from hostler.signals import words
from hostler.signals.fleet import FleetSignals
from hostler.signals.local import LocalSignals
from hostler.signals.wire import Down, Ears, Wire


@dataclass
class PrivateRedis:
    """A Redis of one test's own, which it may kill."""

    folder: Path
    port: int = field(default_factory=free_port)
    _running: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self._running = subprocess.Popen(
            [
                *(needed("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--save", "", "--appendonly", "no", "--dir", str(self.folder)),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with anyio.fail_after(10):
            while True:
                try:
                    stream = await anyio.connect_tcp("127.0.0.1", self.port)
                except OSError:
                    await anyio.lowlevel.checkpoint()
                else:
                    await stream.aclose()
                    return

    def kill(self) -> None:
        if self._running is not None:
            self._running.kill()
            self._running.wait()
            self._running = None

    def pause(self) -> None:
        """Let it answer nothing, with its connections open."""
        assert self._running is not None
        self._running.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._running is not None
        self._running.send_signal(signal.SIGCONT)


@asynccontextmanager
async def a_redis(folder: Path) -> AsyncGenerator[PrivateRedis]:
    """Start a Redis, and kill it in the end."""
    redis = PrivateRedis(folder)
    await redis.start()
    try:
        yield redis
    finally:
        redis.kill()


class Hub:
    """What wires in this process are plugged into: channels, and who listens."""

    def __init__(self) -> None:
        self.wires = list[HubWire]()

    def wire(self) -> HubWire:
        wire = HubWire(self)
        self.wires.append(wire)
        return wire

    def say(self, channel: str, data: bytes) -> None:
        """Let all hear it who listen."""
        for wire in self.wires:
            if wire.ears is not None and channel in wire.standing:
                wire.ears.heard(channel, data)


class HubWire:
    """A wire without a network, which can be cut and held up."""

    limit_bytes = 256_000
    join_s = 0.0

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.ears: Ears | None = None
        self.wanted, self.standing = dict[str, None](), set[str]()
        self.goes = anyio.Event()
        self.goes.set()
        self.sent = list[tuple[str, bytes]]()

    def subscribe(self, channel: str) -> None:
        self.wanted[channel] = None
        if self.ears is not None:
            self.standing.add(channel)
            self.ears.stands(channel)

    def unsubscribe(self, channel: str) -> None:
        self.wanted.pop(channel, None)
        self.standing.discard(channel)

    async def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        await self.goes.wait()
        if self.ears is None:
            raise Down("it is cut")
        for channel, data in messages:
            self.sent.append((channel, data))
            self.hub.say(channel, data)

    async def serve(self, ears: Ears) -> None:
        self.plug(ears)
        await anyio.sleep_forever()

    def plug(self, ears: Ears) -> None:
        self.ears = ears
        for channel in list(self.wanted):
            self.subscribe(channel)

    def cut(self) -> Ears:
        """Carry nothing until it is plugged in again."""
        ears, self.ears = self.ears, None
        assert ears is not None
        self.standing.clear()
        ears.down()
        return ears


@asynccontextmanager
async def a_node(
    wire: Wire, fleet: str, store: Store | None = None
) -> AsyncGenerator[FleetSignals]:
    """Yield a node that is up; `store`: where it reads what it missed."""
    signals = FleetSignals(LocalSignals(), wire, fleet=fleet)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(signals.serve, None if store is None else store.read)
        await until(lambda: signals.is_up)
        yield signals
        tasks.cancel_scope.cancel()


async def acquainted(hub: Hub) -> None:
    """Wait until all nodes of a hub know each other, and have told each other so."""
    reread = words.encode(words.Reread())

    def all_told() -> bool:
        return all(any(reread in data for _, data in wire.sent) for wire in hub.wires)

    await until(all_told)


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so: what only another program can make so."""
    with anyio.fail_after(10):
        while not is_so():
            await anyio.lowlevel.checkpoint()


def a_name() -> str:
    """Return the name of a fleet that nobody else has."""
    return f"test-{uuid4().hex[:12]}"
