"""Clients that follow a session on one transport, are cut, and come back with their cursor."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeAlias, cast

import aiohttp
import anyio
import msgspec
from tests.serving import Client

from hostler.core.ports import Delta, Reply, Request


class Seen(msgspec.Struct):
    """A frame, its data as it came."""

    id: str = ""
    event: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")


class _Page(msgspec.Struct):
    events: list[Seen]
    cursor: str
    more: bool


class _Said(msgspec.Struct):
    attempt: str
    part: str
    text: str


Frames: TypeAlias = AsyncGenerator[Seen, None]
Transport: TypeAlias = Callable[[Client, str, str], Frames]


async def by_sse(client: Client, session: str, cursor: str) -> Frames:
    path = f"{client.url}/api/sessions/{session}/events"
    headers = {"Authorization": f"Bearer {client.key}", "Accept": "text/event-stream"}
    async with client.http.get(path, headers={**headers, "Last-Event-ID": cursor}) as answer:
        await _check(answer)
        fields: dict[str, bytes] = {}
        async for line in answer.content:
            name, _, value = line.rstrip(b"\n").partition(b": ")
            if name:
                fields[name.decode()] = value
            elif "data" in fields:
                cursor = fields["id"].decode()
                yield Seen(cursor, fields["event"].decode(), msgspec.Raw(fields["data"]))
                fields = {}


async def _check(answer: aiohttp.ClientResponse) -> None:
    """Raises ConnectionError: a node is going, or what stands before it found none."""
    if answer.status in (502, 503):
        raise ConnectionError(answer.status)
    assert answer.status == 200, await answer.text()


async def by_socket(client: Client, session: str, cursor: str) -> Frames:
    url = f"{client.url}/api/sessions/{session}/socket?after={cursor}"
    headers = {"Authorization": f"Bearer {client.key}"}
    async with client.http.ws_connect(url, headers=headers) as socket:
        async for message in socket:
            yield msgspec.json.decode(cast("str", message.data), type=Seen)


async def by_long_poll(client: Client, session: str, cursor: str) -> Frames:
    async for seen in _pages(client, session, cursor, {"wait": "5", "deltas": "true"}):
        yield seen


async def by_requests(client: Client, session: str, cursor: str) -> Frames:
    """Ask again and again, for facts alone."""
    async for seen in _pages(client, session, cursor, {"limit": "3"}):
        yield seen


async def _pages(client: Client, session: str, cursor: str, query: Mapping[str, str]) -> Frames:
    url = f"{client.url}/api/sessions/{session}/events"
    headers = {"Authorization": f"Bearer {client.key}"}
    while True:
        params = {**query, "after": cursor}
        async with client.http.get(url, params=params, headers=headers) as answer:
            await _check(answer)
            page = msgspec.json.decode(await answer.read(), type=_Page)
        for seen in page.events:
            yield seen
        assert page.cursor == (page.events[-1].id if page.events else cursor)
        cursor = page.cursor


TRANSPORTS: dict[str, Transport] = {
    "sse": by_sse,
    "socket": by_socket,
    "long poll": by_long_poll,
    "requests": by_requests,
}
MID_MESSAGE = ("sse", "socket", "long poll")
"""Those that see text before it is a fact."""


@dataclass
class Viewer:
    """What one client has on its screen, and how far it has seen."""

    transports: Sequence[Transport]
    cuts: Sequence[int] = ()
    """Frames before each cut; with each it takes the next transport."""
    cursor: str = "0"
    facts: list[bytes] = field(default_factory=list[bytes])
    kinds: list[str] = field(default_factory=list[str])
    texts: dict[str, str] = field(default_factory=dict[str, str])
    """By attempt, as streamed."""
    ends: int = 0
    news: anyio.Event = field(default_factory=anyio.Event)

    @property
    def text(self) -> str:
        """What the last attempt has said, as it was streamed."""
        return [*self.texts.values()][-1] if self.texts else ""

    def see(self, seen: Seen) -> None:
        self.cursor = seen.id
        if seen.event == "delta":
            said = msgspec.json.decode(bytes(seen.data), type=_Said)
            self.texts[said.attempt] = self.texts.get(said.attempt, "") + said.text
        else:
            self.facts.append(bytes(seen.data))
            self.kinds.append(seen.event)
            self.ends += seen.event == "run_ended"
        self.news.set()
        self.news = anyio.Event()

    async def watch(
        self, client: Client, session: str, until: Callable[[Viewer], bool] = lambda v: v.ends > 0
    ) -> None:
        """Follow until there is nothing more to see, cut and coming back."""
        for place, cut in enumerate((*self.cuts, 10**9)):
            transport = self.transports[place % len(self.transports)]
            count = 0
            async with aclosing(transport(client, session, self.cursor)) as frames:
                async for seen in frames:
                    self.see(seen)
                    count += 1
                    if until(self):
                        return
                    if count > cut:
                        break

    async def comes_to(self, wanted: Callable[[Viewer], bool]) -> None:
        while not wanted(self):
            await self.news.wait()


@dataclass
class Speaker:
    """A model that says one word each time it is let, then replies when it is let."""

    words: Sequence[str]
    provider: str = "gated"
    name: str = "gated"
    gate: anyio.Semaphore = field(default_factory=lambda: anyio.Semaphore(0))

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply, None]:
        assert request.transcript
        for word in self.words:
            await self.gate.acquire()
            yield Delta("text", word)
        await self.gate.acquire()
        yield Reply(text="".join(self.words), stop="end")

    def let(self, count: int = 1) -> None:
        for _ in range(count):
            self.gate.release()


def some_cuts(seed: int) -> list[int]:
    """Return where to cut: first after `seed` frames, then anywhere."""
    chance = random.Random(seed)
    return [seed, *(chance.randrange(4) for _ in range(chance.randrange(4)))]


async def say(client: Client, session: str, content: str = "hello") -> None:
    path = f"/api/sessions/{session}/messages"
    status, receipt = await client.call("POST", path, {"content": content})
    assert status == 202, receipt


ConnectionLost = (aiohttp.ClientError, ConnectionError)
