"""`hostler verify isolation`: the matrix of `testing.isolation_matrix` against a server that runs.

Invariant: prints what it found and ends with 1 if that is anything; leaves two empty tenants.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import anyio
import click
import msgspec

from hostler.app.settings import load_settings
from hostler.app.terminal.reach import perform
from hostler.app.whereabouts import known_key
from hostler.core.errors import SetupError
from hostler.core.events import JsonObject
from hostler.testing.isolation_answers import Report
from hostler.testing.isolation_matrix import ACTORS, verify_isolation
from hostler.testing.isolation_world import Told

FOUND = 1
"""Exit status when something is not isolated."""
ANSWERS_WITHIN_S = 20.0
TRIES = 30
BUSY = (429, 503)
REFUSED = (400, 401, 403, 404)
OPEN = 101
CLOSES_WITHIN_S = 0.2
"""What is accepted only to be closed with a reason is closed by then."""
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "aXNvbGF0aW9uLWNoZWNrLg==",
}
"""Asks for a WebSocket like a page would: to read the body of a refusal."""


@dataclass(frozen=True, slots=True)
class HttpWire:
    """A server over HTTP, as `testing.isolation_world.Wire`."""

    http: aiohttp.ClientSession
    url: str

    async def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Told:
        told = Told(503, {}, "")
        for _ in range(TRIES):
            began = time.perf_counter()
            async with self.http.request(
                method, self.url + path, headers=headers, data=body, allow_redirects=False
            ) as answer:
                text = await answer.text()
                told = Told(answer.status, answer.headers, text, time.perf_counter() - began)
            if told.status not in BUSY:
                return told
            await anyio.sleep(float(told.headers.get("Retry-After", "1")))
        raise SetupError(f"the server at {self.url} has too much to do: {told.body[:200]}")

    async def talk(
        self, path: str, *, headers: Mapping[str, str], says: Sequence[JsonObject]
    ) -> Told:
        try:
            async with self.http.ws_connect(self.url + path, headers=headers) as socket:
                for one in says:
                    await socket.send_str(msgspec.json.encode(one).decode())
                answers = [await _answer(socket) for _ in says]
                if not says:
                    with anyio.move_on_after(CLOSES_WITHIN_S):
                        await socket.receive()
                        return Told(socket.close_code or OPEN, {}, "")
                return Told(OPEN, {}, "\n".join(answers))
        except aiohttp.WSServerHandshakeError as error:
            if error.status not in REFUSED or "ticket=" in path:  # which is good once
                return Told(error.status, error.headers or {}, error.message)
            return await self.ask("GET", path, headers={**headers, **UPGRADE})


async def _answer(socket: aiohttp.ClientWebSocketResponse) -> str:
    """Return the next answer; frames of the session are passed over."""
    while True:
        message = await socket.receive()
        if message.type is not aiohttp.WSMsgType.TEXT:
            return f"closed with {socket.close_code}"
        if '"re":' in (text := str(message.data)):
            return text


@asynccontextmanager
async def open_wire(url: str) -> AsyncGenerator[HttpWire]:
    """Yield a way to a server.  Raises SetupError: there is none."""
    timeout = aiohttp.ClientTimeout(total=ANSWERS_WITHIN_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as http:
            yield HttpWire(http, url.rstrip("/"))
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise SetupError(f"the server at {url} does not answer: {error}") from error


def isolation(*, url: str | None, only: Sequence[str], **flags: object) -> None:
    """Verify that tenants, members and guests see what is theirs, and nothing else."""
    settings = load_settings({"url": url, **flags})
    key, where = known_key(settings), url or settings.url
    if where is None or key is None:
        raise SetupError(
            "say which server, and with --admin-key or HOSTLER_ADMIN_KEY its admin key"
        )

    async def work() -> int:
        async with open_wire(where) as wire:
            return show(await verify_isolation(wire, key, only=only))

    perform(work)


def show(report: Report) -> int:
    """Print the matrix; return the exit status."""
    names = list(dict.fromkeys(cell.operation for cell in report.cells))
    width = max(map(len, names), default=0)
    click.echo(f"{'':{width}}  {'  '.join(ACTORS)}")
    for name in names:
        mine = [cell for cell in report.cells if cell.operation == name]
        marks = [_mark([c.fault for c in mine if c.actor == one]) for one in ACTORS]
        row = "  ".join(f"{mark:{len(one)}}" for mark, one in zip(marks, ACTORS, strict=True))
        click.echo(f"{name:{width}}  {row}".rstrip())
    found = report.findings
    click.echo(
        f"\n{len(report.cells)} cells, {len(found)} findings; what is foreign took at most "
        f"{report.slowest:.1f} times as long as what is absent"
    )
    for cell in found:
        where = " ".join(part for part in (cell.operation, cell.parameter, cell.actor) if part)
        click.echo(f"{where}: {cell.fault}", err=True)
    return FOUND if found else 0


def _mark(faults: Sequence[str | None]) -> str:
    """Return how a row and a column meet: nothing asked, how often right, or wrong."""
    if not faults:
        return "-"
    return "WRONG" if any(faults) else f"ok {len(faults)}"
