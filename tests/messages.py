"""The Messages face in tests: the vendor's own client on a server of ours, and raw events."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, cast

from anthropic import AsyncAnthropic
from anthropic.types import Message
from tests.serving import Client, Json

MODEL = "p:m"
ASKED: Json = {"model": MODEL, "max_tokens": 99, "messages": [{"role": "user", "content": "hi"}]}


@asynccontextmanager
async def vendors(client: Client) -> AsyncGenerator[AsyncAnthropic]:
    """Yield the vendor's client, which asks our server."""
    made = AsyncAnthropic(base_url=client.url, api_key=client.key, max_retries=0)
    async with made as anthropic:
        yield anthropic


class Final(Protocol):
    async def get_final_message(self) -> Message: ...


async def ask(anthropic: AsyncAnthropic, body: Json, *, streams: bool) -> Message:
    """Ask with the vendor's client, which puts a stream together itself."""
    if not streams:
        create = cast("Callable[..., Awaitable[Message]]", anthropic.messages.create)
        return await create(**body)
    open_ = cast("Callable[..., AbstractAsyncContextManager[Final]]", anthropic.messages.stream)
    async with open_(**body) as stream:
        return await stream.get_final_message()


async def events(client: Client, body: Json | None = None) -> list[Json]:
    """Return the events of a stream, as they are on the wire."""
    asked = {**ASKED, "stream": True, **(body or {})}
    headers = {"x-api-key": client.key}
    async with client.http.post(f"{client.url}/v1/messages", json=asked, headers=headers) as answer:
        told = await answer.text()
    assert answer.status == 200, told
    found = list[Json]()
    for frame in told.split("\n\n")[:-1]:
        kind, data = frame.split("\n")
        one = cast("Json", json.loads(data.removeprefix("data: ")))
        assert kind == f"event: {one['type']}"
        found.append(one)
    return found


async def refused(client: Client, body: object = None, **headers: str) -> tuple[int, Json]:
    """Return status and error of a question that is refused."""
    status, told = await client.call("POST", "/v1/messages", body or ASKED, headers=headers)
    assert told["type"] == "error", told
    return status, cast("Json", told["error"])
