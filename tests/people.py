"""People with keys of their own, on a server that a test has started."""

from __future__ import annotations

from contextlib import suppress

from tests.serving import Client, Json
from tests.viewers import ConnectionLost, Frames


async def new_key(client: Client, **wanted: object) -> Json:
    """Make a key as the holder of the client's, and return what was told of it."""
    status, made = await client.call("POST", "/api/keys", wanted)
    assert status == 201, made
    return made


async def somebody(client: Client, user: str, role: str = "member", **more: object) -> Client:
    """Return a client with a new key."""
    made = await new_key(client, user=user, role=role, **more)
    return Client(client.http, client.url, str(made["key"]))


async def exactly(
    client: Client, method: str, path: str, body: bytes | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers without time and size, and the bytes of an answer."""
    headers = {"Authorization": f"Bearer {client.key}"}
    async with client.http.request(
        method, f"{client.url}{path}", data=body, headers=headers
    ) as answer:
        told = {name.lower(): value for name, value in answer.headers.items()}
        told.pop("date", None)
        told.pop("content-length", None)
        return answer.status, told, await answer.read()


async def ended(frames: Frames) -> None:
    """Return when a stream is over, or was cut."""
    with suppress(*ConnectionLost):
        async for _ in frames:
            pass
