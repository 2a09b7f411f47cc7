"""A body that does not come is waited for no longer than a while, and few large ones at a time."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Iterator
from urllib.parse import urlsplit

import anyio
import pytest
from starlette.types import Message
from tests.serving import Client, Serve, quick

from hostler.core.errors import Malformed, Unavailable
from hostler.faces.http import incoming
from hostler.faces.http.incoming import PACE, pieces_of
from hostler.faces.native.turns import MOST_IMPORTS, Turns
from hostler.testing.doubles import an_agent

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "SLOW_S", 0.2)


def coming(
    pieces: Iterable[bytes], every_s: float, *, last: bytes | None = None
) -> Callable[[], Awaitable[Message]]:
    """Return what is called for the body: it comes piece by piece; without a `last`, it stops."""
    left: Iterator[bytes] = iter(pieces)

    async def receive() -> Message:
        piece = next(left, None)
        with anyio.move_on_after(math.inf if piece is None and last is None else every_s):
            await anyio.Event().wait()
        body = last if piece is None else piece
        return {"type": "http.request", "body": body, "more_body": piece is not None}

    return receive


@pytest.mark.parametrize("sent", [[], [b"x"], [b"x"] * 20, [b"x" * PACE, b"x", b"x"]], ids=len)
async def test_a_body_that_comes_too_slowly_is_given_up(sent: list[bytes]) -> None:
    with anyio.fail_after(5), pytest.raises(Malformed) as refused:
        async for _ in pieces_of({}, coming(sent, 0.05), 10 * PACE):
            pass
    assert refused.value.code == "slow_body"


async def test_a_large_body_may_take_its_time_as_long_as_it_comes() -> None:
    sent = [b"x" * PACE] * 6
    with anyio.fail_after(5):
        got = [one async for one in pieces_of({}, coming(sent, 0.1, last=b"."), 10 * PACE)]
    assert got == [*sent, b"."]


@pytest.mark.parametrize("path", ["/api/sessions", "/api/sessions/import"])
async def test_a_client_that_stops_in_its_body_is_told_and_its_connection_closed(
    serve: Serve, path: str
) -> None:
    async with serve(an_agent(quick())) as client:
        with anyio.fail_after(5):
            told = await half_sent(client, path)
        assert told.startswith(b"HTTP/1.1 400")
        assert b"connection: close" in told.lower()
        assert b'"slow_body"' in told
        assert (await client.call("POST", "/api/sessions", {}))[0] == 201


async def half_sent(client: Client, path: str) -> bytes:
    """Send half of a request; return all that is answered until the server closes."""
    at = urlsplit(client.url)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {at.netloc}\r\nAuthorization: Bearer {client.key}\r\n"
        "Content-Length: 100\r\n\r\n{"
    )
    told = b""
    async with await anyio.connect_tcp(str(at.hostname), int(at.port or 0)) as stream:
        await stream.send(head.encode())
        try:
            while True:
                told += await stream.receive()
        except anyio.EndOfStream:
            return told


async def test_so_many_imports_go_at_a_time_and_the_next_one_is_told_to_come_back() -> None:
    turns, busy, done = Turns(longest_s=0.05), anyio.Semaphore(0), anyio.Event()

    async def one() -> None:
        async with turns.one():
            busy.release()
            await done.wait()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for _ in range(MOST_IMPORTS):
                tasks.start_soon(one)
            for _ in range(MOST_IMPORTS):
                await busy.acquire()
            with pytest.raises(Unavailable):
                async with turns.one():
                    pass
            done.set()
        async with turns.one():
            pass
