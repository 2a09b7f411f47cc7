"""A house with one of everything that is kept, to be moved, copied and compared."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import anyio
from tests.canaries import master_keys
from tests.receivers import to_loopback
from tests.serving import Client, Json, serving

from hostler.app.endpoints import make_endpoints
from hostler.app.settings import load_settings
from hostler.core.ports import AgentSpec, Delta, Failure, Reply, Request, ToolSpec
from hostler.core.said import UserSaid
from hostler.testing.doubles import ModelDouble, ToolboxDouble, a_call, an_agent
from hostler.vault.vault import SealedVault

ACME = {"Hostler-Tenant": "acme"}
ODD = "an odd title: \ufdd0, naïve, 日本"
DIRECT = """
INSERT INTO direct_calls (tenant, id, principal, provider, model, status, cost, unpriced, asked_at)
VALUES ('acme', 'dir_1', 'p', 'openai', 'm', 'replied', '0.10', 0, 1)
"""
"""What a catalogue of models would have to be set up for."""


def said(request: Request) -> str:
    spoken = [one for one in request.transcript if isinstance(one, UserSaid)]
    return str(spoken[-1].content)


def answer(request: Request) -> Reply:
    if "pay" in said(request) and isinstance(request.transcript[-1], UserSaid):
        return Reply(text="", stop="tools", calls=(a_call("pay"),))
    return Reply(text="seven words of an answer, naïve ones", stop="end")


class Thoughtful(ModelDouble):
    """Thinks for ever, if it is asked to."""

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
        if "think" in said(request):
            yield Delta("text", "hm ")
            await anyio.sleep_forever()
        async for one in ModelDouble.stream(self, request):
            yield one


def an_agent_that(*, is_quick: bool = True) -> AgentSpec:
    tool = ToolSpec(name="pay", description="", parameters={}, approval=True)
    model = ModelDouble(answer) if is_quick else Thoughtful(answer)
    return an_agent(model, tools=ToolboxDouble({"pay": tool}))


@dataclass
class Whole:
    """A house, at rest, and what was made there."""

    file: Path
    vault: SealedVault = field(default_factory=lambda: SealedVault(master_keys()))
    waiting: str = ""
    """A session whose run waits for an approval."""
    going: str = ""
    """One whose run went on when its server was stopped."""
    fork: str = ""
    key: str = ""

    @asynccontextmanager
    async def served(
        self, place: Path | str | None = None, *, is_quick: bool = True
    ) -> AsyncGenerator[Client]:
        """Serve what is there, or what it was moved to."""
        async with serving(
            an_agent_that(is_quick=is_quick),
            file=place or self.file,
            vault=self.vault,
            outbound=to_loopback(),
            endpoints=make_endpoints(load_settings({"data": self.file.parent})),
        ) as client:
            yield client


async def made(client: Client, method: str, path: str, body: Json, **headers: str) -> Json:
    status, told = await client.call(method, path, body, headers={**ACME, **headers})
    assert status < 300, told
    return told


async def a_whole_house(file: Path) -> Whole:
    """Make one of everything, with a server that is stopped in the middle of a run."""
    whole = Whole(file)
    async with whole.served(is_quick=False) as client:
        status, told = await client.call("POST", "/api/tenants", {"id": "acme", "title": ODD})
        assert status == 201, told
        await _beside(whole, client)
        await _sessions(whole, client)
    with closing(sqlite3.connect(file)) as db, db:
        db.execute(DIRECT)
    return whole


async def _beside(whole: Whole, client: Client) -> None:
    key = await made(client, "POST", "/api/keys", {"user": "ann", "role": "member"})
    whole.key = str(key["key"])
    await made(client, "PUT", "/api/secrets/github", {"value": "ghp_0123456789abcdef"})
    await made(client, "POST", "/api/secrets-scrub", {})
    await made(client, "PUT", "/api/endpoints/openai", {"base_url": "https://models.example/v1"})
    await made(client, "POST", "/api/webhooks", {"url": "http://127.0.0.1:9/nobody"})


async def _sessions(whole: Whole, client: Client) -> None:
    first = await _session(client, "hello there", title=ODD, metadata={"of": "acme"})
    runs = (await _get(client, "/api/runs"))["items"]
    run = cast("list[Json]", runs)[0]["id"]
    await made(client, "POST", f"/api/runs/{run}/feedback", {"score": 0.25, "comment": "well"})
    fork = await made(client, "POST", f"/api/sessions/{first}/fork", {})
    whole.fork = str(fork["id"])
    await _speak(client, whole.fork, "and in the fork")
    await made(client, "POST", f"/api/sessions/{first}/shares", {})
    await made(client, "PUT", f"/api/sessions/{first}/members/bob", {"role": "viewer"})
    later: Json = {"content": "later", "at": f"{datetime.now(UTC) + timedelta(days=9):%FT%TZ}"}
    await made(client, "POST", f"/api/sessions/{first}/messages", later)
    whole.waiting = await _session(client, "pay")
    whole.going = str((await made(client, "POST", "/api/sessions", {}))["id"])
    path = f"/api/sessions/{whole.going}/messages"
    await made(client, "POST", path, {"content": "think"}, **{"Idempotency-Key": "once"})
    with anyio.fail_after(10):
        while "model_asked" not in await kinds(client, whole.going):
            await anyio.lowlevel.checkpoint()


async def _session(client: Client, content: str, **about: object) -> str:
    session = str((await made(client, "POST", "/api/sessions", dict(about)))["id"])
    await _speak(client, session, content)
    return session


async def _speak(client: Client, session: str, content: str) -> None:
    path = f"/api/sessions/{session}/messages"
    await made(client, "POST", path, {"content": content}, Prefer="wait=10")


async def _get(client: Client, path: str) -> Json:
    status, told = await client.call("GET", path, headers=ACME)
    assert status == 200, told
    return told


async def kinds(client: Client, session: str) -> list[str]:
    """Return the kinds of a session's facts."""
    page = await _get(client, f"/api/sessions/{session}/events?limit=1000")
    return [str(one["event"]) for one in cast("list[Json]", page["events"])]


async def all_told(client: Client, *, but: str) -> Json:
    """Return what the API tells of everything, of both tenants, but of one session: it goes on."""
    paths = (
        *("/api/tenants", "/api/keys", "/api/secrets", "/api/endpoints", "/api/webhooks"),
        *("/api/sessions", "/api/runs", "/api/search?q=naive", "/api/approvals"),
    )
    told: Json = {}
    for tenant in ({}, ACME):
        for path in paths:
            _, page = await client.call("GET", path, headers=tenant)
            told[f"{tenant} {path}"] = [
                one
                for one in cast("list[Json]", page["items"])
                if but not in (one.get("id"), one.get("session"))
            ]
    for session in (one["id"] for one in cast("list[Json]", told[f"{ACME} /api/sessions"])):
        for of in ("events?limit=1000", "shares", "members"):
            path = f"/api/sessions/{session}/{of}"
            _, told[path] = await client.call("GET", path, headers=ACME)
    return told


def emptied_tables(file: Path) -> set[str]:
    """Return the tables of a file in which nothing is."""
    with closing(sqlite3.connect(file)) as db:
        names = db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        return {
            name
            for (name,) in names
            if not db.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
        }


def names_in(folder: Path, begins: str = "") -> list[str]:
    """Return what is in a folder."""
    return sorted(one.name for one in folder.iterdir() if one.name.startswith(begins))
