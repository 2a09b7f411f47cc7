"""Nobody learns what is not theirs: the matrix of all operations, and that it sees what is wrong."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

import anyio
import pytest
from tests.canaries import master_keys
from tests.serving import KEY, Client, Serve, serving
from tests.terminals import environment

from hostler.app.endpoints import make_endpoints
from hostler.app.measuring import measuring
from hostler.app.settings import load_settings
from hostler.app.terminal.verifying import HttpWire, open_wire
from hostler.core.directory import Endpoint
from hostler.core.events import Key, Principal, SessionId, TenantId
from hostler.core.ports import AgentSpec, Reply
from hostler.faces.http import endpoint
from hostler.faces.http.endpoint import Caller
from hostler.faces.http.entry import Tickets
from hostler.faces.native.socket import VERBS
from hostler.service.authorise import Access, Noun, Right, authorise
from hostler.service.endpoints import Endpoints
from hostler.service.scraping import Scraping
from hostler.stores.sqlite import SqliteStore
from hostler.testing.doubles import ModelDouble, an_agent
from hostler.testing.isolation import (
    POLICIES,
    SOCKET_PLAIN,
    SOCKET_VERBS,
    operations,
    unknown,
)
from hostler.testing.isolation_answers import Report
from hostler.testing.isolation_matrix import verify_isolation
from hostler.testing.isolation_world import HERE, Told
from hostler.vault.vault import SealedVault

pytestmark = pytest.mark.anyio
T = TypeVar("T")
Change = Callable[[str, str, Told], Told]


def quick() -> AgentSpec:
    return an_agent(ModelDouble(lambda _: Reply(text="fine", stop="end")))


@dataclass(frozen=True, slots=True)
class Bent(HttpWire):
    """A server whose answers are another's, but for those that are bent."""

    change: Change = field(default=lambda _method, _path, told: told)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Told:
        told = await HttpWire.ask(self, method, path, headers=headers, body=body)
        return self.change(method, path, told)


async def bent(client: Client, only: str, change: Change) -> list[str]:
    """Return what the matrix finds in a server that is bent."""
    report = await verify_isolation(Bent(client.http, client.url, change), KEY, only=[only])
    return [f"{cell.parameter} {cell.actor}: {cell.fault}" for cell in report.findings]


# -- the server --------------------------------------------------------------------------------


@pytest.mark.timeout(120)
async def test_nothing_tells_whether_what_is_not_theirs_is_there(tmp_path: Path) -> None:
    agent, vault = quick(), SealedVault(master_keys())
    endpoints = make_endpoints(load_settings({"data": tmp_path}))
    async with (
        measuring({agent.name: agent}, version="1") as look,
        serving(
            agent, file=tmp_path / "log.db", observing=look, vault=vault, endpoints=endpoints
        ) as client,
        open_wire(client.url) as wire,
    ):
        report = await verify_isolation(wire, KEY)

        assert report.findings == []
        assert len({cell.operation for cell in report.cells}) >= len(POLICIES)
        for tenant in ("isolation-a", "isolation-b"):
            head = {"Hostler-Tenant": tenant}
            _, left = await client.call("GET", "/api/sessions", headers=head)
            _, keys = await client.call("GET", "/api/keys", headers=head)
            kept, secrets = await client.call("GET", "/api/secrets", headers=head)
            _, places = await client.call("GET", "/api/endpoints", headers=head)
            assert (left["items"], kept, secrets["items"]) == ([], 200, [])
            assert places["items"] == []
            assert (await client.call("GET", "/api/webhooks", headers=head))[1]["items"] == []
            revoked = [one["revoked_at"] for one in cast("list[dict[str, str]]", keys["items"])]
            assert all(revoked)


async def test_the_table_knows_each_operation_and_verb_and_none_that_is_gone(serve: Serve) -> None:
    async with serve(quick()) as client:
        found = list(operations(await client.get("/openapi.json")))

    assert {one.name: unknown(one) for one in found if unknown(one)} == {}
    assert {one.name for one in found} == set(POLICIES)
    for one in found:
        assert set(POLICIES[one.name].ids) | POLICIES[one.name].plain <= one.parameters
    assert {*VERBS, "ping"} == {*SOCKET_VERBS} | SOCKET_PLAIN


async def test_what_is_foreign_costs_as_many_reads_as_what_is_absent(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = 0
    real = SqliteStore.reading

    async def counted(self: SqliteStore, read: Callable[..., T]) -> T:
        nonlocal reads
        reads += 1
        return await real(self, read)

    monkeypatch.setattr(SqliteStore, "reading", counted)
    async with serve(quick()) as client:
        session = await client.session()
        await client.speak(session)
        runs = cast("list[dict[str, str]]", (await client.get("/api/runs"))["items"])
        tenant = json.dumps({"id": HERE}).encode()
        assert (await client.call("POST", "/api/tenants", raw=tenant))[0] == 201
        found = list(operations(await client.get("/openapi.json")))
        paths = [one.path for one in found if one.method == "GET" and "{session}" in one.path]
        # The tenant is looked up once, and known for a while.
        assert (await client.call("GET", "/api/me", headers={"Hostler-Tenant": HERE}))[0] == 200
        names = {"run": runs[0]["id"], "session": session}

        for path in [*paths, "/api/runs/{run}"]:
            costs: list[int] = []
            for end in ("", "0"):
                before = reads
                there = {
                    name: value[: len(value) - len(end)] + end for name, value in names.items()
                }
                head = {"Hostler-Tenant": HERE}
                status, _ = await client.call("GET", path.format(**there), headers=head)
                assert status == 404
                costs.append(reads - before)
            assert costs[0] == costs[1], path


# -- the matrix --------------------------------------------------------------------------------


async def seen_in(client: Client, only: str, change: Change) -> str:
    return "\n".join(await bent(client, only, change))


async def test_the_matrix_sees_what_is_wrong(serve: Serve) -> None:
    first = list[str]()

    def oracle(_: str, path: str, told: Told) -> Told:
        """Answer another way the first time that a session is named."""
        if told.status != 404 or path in first or "/sessions/" not in path:
            return told
        is_even = len(first) % 2 == 0
        first.append(path)
        return told._replace(status=403) if is_even else told

    def wordy(_: str, path: str, told: Told) -> Told:
        is_absent = told.status == 404
        return told._replace(body=told.body + path[-1] * (hash(path) % 7)) if is_absent else told

    def headed(_: str, path: str, told: Told) -> Told:
        extra = {**told.headers, "X-Found": str(hash(path))}
        return told._replace(headers=extra) if told.status == 404 else told

    def open_door(_: str, path: str, told: Told) -> Told:
        return told._replace(status=200) if told.status == 401 and "ses_" in path else told

    def shut(method: str, path: str, told: Told) -> Told:
        is_one = method == "GET" and path.startswith("/api/sessions/ses_") and path.count("/") == 3
        return told._replace(status=404) if is_one else told

    def grown(_: str, path: str, told: Told) -> Told:
        if path != "/openapi.json":
            return told
        document = json.loads(told.body)
        one = document["paths"]["/api/sessions/{session}"]["get"]
        one["parameters"].append({"in": "query", "name": "twin", "schema": {}})
        return told._replace(body=json.dumps(document))

    async with serve(quick()) as client:
        assert "403 for what is foreign" in await seen_in(client, "get_session", oracle)
        assert "the bodies differ" in await seen_in(client, "get_session", wordy)
        assert "the headers differ" in await seen_in(client, "get_session", headed)
        assert "200 without a good key" in await seen_in(client, "get_session", open_door)
        assert " owner: 404" in await seen_in(client, "get_session", shut)
        assert "query.twin" in await seen_in(client, "get_session", grown)


async def test_an_operation_without_an_entry_is_a_finding(serve: Serve) -> None:
    def grown(_: str, path: str, told: Told) -> Told:
        if path != "/openapi.json":
            return told
        document = json.loads(told.body)
        document["paths"]["/api/new"] = {"get": {"operationId": "new"}}
        return told._replace(body=json.dumps(document))

    async with serve(quick()) as client:
        assert await bent(client, "new", grown) == [
            "the operation : isolation.POLICIES says nothing of it"
        ]


async def test_a_change_by_somebody_who_may_not_is_a_finding(serve: Serve) -> None:
    @dataclass(frozen=True, slots=True)
    class Careless(HttpWire):
        """Does for everybody what its operator may."""

        async def ask(
            self,
            method: str,
            path: str,
            *,
            headers: Mapping[str, str] | None = None,
            body: bytes | None = None,
        ) -> Told:
            told = await HttpWire.ask(self, method, path, headers=headers, body=body)
            if method == "PATCH":
                key = {"Authorization": f"Bearer {KEY}", "Hostler-Tenant": HERE}
                await HttpWire.ask(self, method, path, headers=key, body=body)
            return told

    async with serve(quick()) as client:
        wire = Careless(client.http, client.url)
        report: Report = await verify_isolation(wire, KEY, only=["label_session"])

    assert "somebody changed what is not theirs" in {cell.fault for cell in report.findings}


async def permissive(
    self: Access, who: Principal, right: Right, session: SessionId, of: Noun = "sessions"
) -> Key:
    """Let every member do everything with every session of their tenant."""
    del self
    authorise(who, right, session, of)
    return Key(who.tenant, session)


take = Tickets.take


async def kept(self: Tickets, ticket: str) -> Caller:
    """Take a ticket however often it comes."""
    caller = await take(self, ticket)
    self._kept[ticket] = (caller, self.clock() + 60)  # pyright: ignore[reportPrivateUsage]
    return caller


def unconfined(who: Principal, session: SessionId | None) -> None:
    del who, session


async def anybody(self: Scraping, who: Principal, accept: str) -> tuple[bytes, str]:
    del self, who, accept
    return b"", "text/plain"


BROKEN: Mapping[str, tuple[object, str, object, str, str]] = {
    "Access.key": (Access, "key", permissive, "get_session", "path.session colleague: 200 for"),
    "Access.key, shared to read": (Access, "key", permissive, "delete_session", " reader: 204"),
    "Access.key, by socket": (
        Access,
        "key",
        permissive,
        "socket",
        "path.session colleague: it was",
    ),
    "confine": (endpoint, "confine", unconfined, "capabilities", " link: 200, and it takes read"),
    "Tickets.take": (Tickets, "take", kept, "socket", "query.ticket owner: it was opened"),
    "Scraping.metrics": (Scraping, "metrics", anybody, "metrics", " stranger: 200, and it takes"),
}
"""What is broken, how, where it shows, and as what."""


async def test_an_endpoint_that_another_tenant_sees_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_all(self: Endpoints, tenant: TenantId) -> list[Endpoint]:
        del tenant
        return list(self._known.values())

    endpoints = make_endpoints(load_settings({"data": tmp_path}))
    async with serving(quick(), file=None, endpoints=endpoints) as client:
        monkeypatch.setattr(Endpoints, "of", of_all)
        found = await bent(client, "list_endpoints", lambda _method, _path, told: told)

    assert found == [" stranger: the answer tells of canary-of-isolation-a"]


@pytest.mark.parametrize("broken", BROKEN)
async def test_a_server_without_a_check_is_seen(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    where, name, other, only, wanted = BROKEN[broken]
    async with serve(quick()) as client:
        monkeypatch.setattr(where, name, other)
        found = await bent(client, only, lambda _method, _path, told: told)

    assert any(wanted in one for one in found), found


async def command(url: str, home: Path, *only: str) -> tuple[int, str, str]:
    """Return status, output and errors of `hostler verify isolation`."""
    asked = [part for one in only for part in ("--only", one)]
    done = await anyio.run_process(
        [sys.executable, "-m", "hostler", "verify", "isolation", url, *asked],
        env={**environment(home), "PATH": os.environ["PATH"]},
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.timeout(120)
async def test_the_command_prints_the_matrix(serve: Serve, tmp_path: Path) -> None:
    async with serve(quick()) as client:
        status, out, errors = await command(client.url, tmp_path, "get_session", "socket")

    lines = out.splitlines()
    assert status == 0, errors
    assert lines[0].split()[:3] == ["anonymous", "revoked", "expired"]
    assert [line.split()[0] for line in lines[1:3]] == ["get_session", "socket"]
    assert " 0 findings" in lines[-1]


@pytest.mark.timeout(120)
async def test_the_command_fails_where_something_is_not_isolated(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with serve(quick()) as client:
        monkeypatch.setattr(Access, "key", permissive)
        status, out, errors = await command(client.url, tmp_path, "get_session")

    assert status == 1
    assert "WRONG" in out
    assert "get_session path.session colleague: 200 for what is foreign, 404 for" in errors
