"""Endpoints of tenants: their models are asked where they say, with their key, by the operator's rules."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from tests.canaries import canary, master_keys
from tests.people import new_key
from tests.serving import Client, Json, serving

from hostler.app.agent import Agent
from hostler.app.building import build_agents
from hostler.app.endpoints import make_endpoints
from hostler.app.settings import load_settings
from hostler.core.errors import SetupError
from hostler.testing.model_script import End, Text
from hostler.testing.provider_server import (
    Asked,
    Play,
    ProviderServer,
    Send,
    chunk,
    head,
    provider_server,
    refused,
)
from hostler.testing.wire_chat import CHAT
from hostler.vault.vault import SealedVault

pytestmark = pytest.mark.anyio
OPERATORS = canary("OPENAI_API_KEY", "sk-of-the-operator-0123")
OWN = canary("model key of a tenant", "sk-of-acme-456789")
PATH = "/api/endpoints"


def saying(text: str, *headers: str) -> Play:
    said = b"".join(CHAT.events([Text(text), End()]))
    return [Send(head(headers=headers)), Send(chunk(said) + chunk(b""))]


@asynccontextmanager
async def provider(text: str) -> AsyncGenerator[ProviderServer]:
    async with provider_server(lambda _: saying(text)) as server:
        yield server


def place(server: ProviderServer) -> str:
    return server.url.removeprefix("http://")


@dataclass
class House:
    """A server whose agent's model is `openai:m`, and its tenants."""

    operator: Client
    acme: Client
    other: Client

    async def put(self, url: str, provider: str = "openai", who: Client | None = None) -> int:
        body = {"base_url": url}
        return (await (who or self.acme).call("PUT", f"{PATH}/{provider}", body))[0]

    async def set_key(self, provider: str = "openai") -> None:
        path = f"/api/secrets/model:{provider}"
        assert (await self.acme.call("PUT", path, {"value": OWN}))[0] in (200, 201)


async def said(client: Client, session: str | None = None) -> str:
    """Return what a model answers somebody, or why it does not."""
    frames = await client.speak(session or await client.session())
    facts = {one.event: one.data for one in frames}
    if "model_replied" in facts:
        return str(facts["model_replied"]["text"])
    assert facts["run_ended"]["reason"] == "model_error"
    return cast("dict[str, str]", facts["model_failed"]["error"])["message"]


@asynccontextmanager
async def house(
    folder: Path,
    *,
    allow: tuple[str, ...] = (),
    deny: tuple[str, ...] = (),
    model: str = "openai:m",
    providers: Mapping[str, object] | None = None,
    vault: SealedVault | None = None,
) -> AsyncGenerator[House]:
    egress = {"allow": allow, "deny": deny}
    given = {"data": folder, "egress": egress, "providers": providers or {}}
    settings, vault = load_settings(given), vault or SealedVault(master_keys())
    endpoints = make_endpoints(settings)
    agents = [Agent("a", model=model)]
    async with (
        build_agents(agents, settings, vault=vault, endpoints=endpoints) as specs,
        serving(
            *specs.values(), file=folder / "log.db", vault=vault, endpoints=endpoints
        ) as operator,
    ):
        people = dict[str, Client]()
        for name in ("acme", "other"):
            await operator.call("POST", "/api/tenants", {"id": name})
            made = await new_key(operator, tenant=name, role="admin", user=f"{name}-admin")
            people[name] = Client(operator.http, operator.url, str(made["key"]))
        yield House(operator, people["acme"], people["other"])


@asynccontextmanager
async def two_providers(
    folder: Path,
    patch: pytest.MonkeyPatch,
    *,
    also: str = "localhost",
    providers: Mapping[str, object] | None = None,
) -> AsyncGenerator[tuple[House, ProviderServer, ProviderServer]]:
    """Give a house, the operator's provider, and one that acme may point at, with a key for it."""
    async with provider("operator's") as theirs, provider("acme's") as own:
        patch.setenv("OPENAI_BASE_URL", f"{theirs.url}/v1")
        patch.setenv("OPENAI_API_KEY", OPERATORS)
        async with house(folder, allow=(place(own), also), providers=providers) as at:
            await at.set_key()
            yield at, theirs, own


# -- whose server, whose key -----------------------------------------------------------------------


async def test_a_tenant_s_models_are_asked_at_its_endpoint_with_its_own_key_and_nobody_else_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"openai": {"headers": {"x-team": "blue"}}}
    async with two_providers(tmp_path, monkeypatch, providers=given) as (at, theirs, own):
        assert await at.put(f"{own.url}/v1") == 201

        answers = [await said(one) for one in (at.acme, at.other, at.operator)]

    assert answers == ["acme's", "operator's", "operator's"]
    (asked,) = own.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["authorization"] == f"Bearer {OWN}"
    assert "x-team" not in asked.headers, "that is between the operator and their provider"
    keys = {one.headers["authorization"] for one in theirs.asked}
    assert keys == {f"Bearer {OPERATORS}"}
    assert {one.headers["x-team"] for one in theirs.asked} == {"blue"}


async def test_without_a_key_of_its_own_a_tenant_s_endpoint_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with two_providers(tmp_path, monkeypatch) as (at, theirs, own):
        assert (await at.acme.call("DELETE", "/api/secrets/model:openai"))[0] == 204
        await at.put(f"{own.url}/v1")

        answer = await said(at.acme)

    assert answer == (
        "openai is not asked: this tenant has an endpoint for openai and no key of its own: "
        "its admin sets the secret model:openai"
    )
    assert not own.asked
    assert not theirs.asked


@pytest.mark.parametrize("name", ["ollama", "vllm"])
async def test_a_provider_that_needs_no_key_is_asked_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", OPERATORS)
    async with (
        provider("acme's") as own,
        house(tmp_path, allow=(place(own),), model=f"{name}:m") as at,
    ):
        assert await at.put(f"{own.url}/v1", name) == 201
        assert await said(at.acme) == "acme's"

    assert "authorization" not in own.asked[0].headers


async def test_a_change_is_seen_by_the_next_question_of_a_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        provider("another's") as another,
        two_providers(tmp_path, monkeypatch, also=place(another)) as (at, _, own),
    ):
        session = await at.acme.session()
        answers = [await said(at.acme, session)]
        await at.put(f"{own.url}/v1")
        answers.append(await said(at.acme, session))
        await at.put(f"{another.url}/v1")
        answers.append(await said(at.acme, session))
        assert (await at.acme.call("DELETE", f"{PATH}/openai"))[0] == 204
        answers.append(await said(at.acme, session))
        assert (await at.acme.call("DELETE", f"{PATH}/openai"))[0] == 404

    assert answers == ["operator's", "acme's", "another's", "operator's"]


async def test_an_endpoint_is_there_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with provider("operator's") as theirs, provider("acme's") as own:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{theirs.url}/v1")
        vault = SealedVault(master_keys())
        async with house(tmp_path, allow=(place(own),), vault=vault) as at:
            await at.set_key()
            await at.put(f"{own.url}/v1")
            before = await at.acme.get(PATH)
        async with house(tmp_path, allow=(place(own),), vault=vault) as at:
            assert await at.acme.get(PATH) == before
            assert await said(at.acme) == "acme's"
        async with house(tmp_path, vault=vault) as at:
            assert "over https only" in await said(at.acme), "the operator allows it no more"


async def test_a_tenant_s_broken_endpoint_keeps_nobody_else_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Asked) -> Play:
        return [Send(head(429, headers=["Retry-After: 3000"]) + chunk(b""))]

    async with provider("operator's") as theirs, provider_server(broken) as own:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{theirs.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", OWN)  # the same key, even
        async with house(tmp_path, allow=(place(own),)) as at:
            for who in (at.acme, at.other):
                assert (await who.call("PUT", "/api/secrets/model:openai", {"value": OWN}))[
                    0
                ] == 201
            await at.put(own.url)
            for _ in range(3):
                session = await at.acme.session()
                path = f"/api/sessions/{session}/messages"
                assert (await at.acme.call("POST", path, {"content": "hello"}))[0] == 202
                await _failed(at.acme, session)
            assert await said(at.other) == "operator's"
            assert await said(at.operator) == "operator's"

    assert len(own.asked) == 1, "its own breaker is open"


async def _failed(client: Client, session: str) -> None:
    """Return when the session's model has failed for the first time."""
    async for frame in client.frames(f"/api/sessions/{session}/events?after=0"):
        if frame.event == "model_failed":
            return


# -- what may be set, and what may be reached ------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://models.example/v1", "over https only"),
        ("https://user:pw@models.example/v1", "no user name and no password"),
        ("https://models.example/v1#there", "no fragment"),
        pytest.param(f"https://models.example/v1?key={OWN}", "no secret in it", id="key"),
        ("https://127.0.0.1/v1", "has no address that connections from here may go to"),
        ("https://10.0.0.1/v1", "has no address that connections from here may go to"),
        ("https://[::1]/v1", "has no address that connections from here may go to"),
        ("https://localhost/v1", "has no address that connections from here may go to"),
        ("https://169.254.169.254/v1", "has no address that connections from here may go to"),
        ("http://169.254.169.254/v1", "has no address that connections from here may go to"),
        ("https://2130706433/v1", "is no address"),
        ("ftp://models.example/v1", "begins with http:// or https://"),
        ("models.example/v1", "begins with http:// or https://"),
        ("", "printable ASCII"),
    ],
)
async def test_a_url_that_cannot_be_is_refused_with_the_rule_it_breaks(
    tmp_path: Path, url: str, told: str
) -> None:
    async with house(tmp_path, allow=("169.254.0.0/16",)) as at:
        await at.set_key()
        status, problem = await at.acme.call("PUT", f"{PATH}/openai", {"base_url": url})
        kept = await at.acme.get(PATH)

    assert status == 422
    assert told in str(problem["detail"])
    assert cast("list[Json]", problem["errors"])[0]["pointer"] == "/base_url"
    assert kept["items"] == []


async def test_a_url_that_is_public_can_be_set(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        url = "https://models.example/v1?api-version=1"
        made = await at.acme.call("PUT", f"{PATH}/openai", {"base_url": url})
        again = await at.acme.call("PUT", f"{PATH}/openai", {"base_url": url})
        listed = await at.acme.get(PATH)
        absent = await at.put("https://models.example/v1", "opneai")

    assert (made[0], again[0], absent) == (201, 200, 404)
    assert made[1]["base_url"] == url
    assert listed["items"] == [again[1]]


class Names:
    """What names resolve to, an answer a look-up; where everybody looks them up."""

    def __init__(self, patch: pytest.MonkeyPatch, **answers: list[str]) -> None:
        self.asked, self._answers, self._real = list[str](), answers, socket.getaddrinfo
        patch.setattr(socket, "getaddrinfo", self._look_up)

    def _look_up(self, host: str, port: int, *rest: object, **more: object) -> object:
        name = str(host).partition(".")[0]
        if name not in self._answers:
            return self._real(host, port, *rest, **more)  # type: ignore[arg-type]
        self.asked.append(host)
        left = self._answers[name]
        address = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]


async def test_a_name_of_a_private_address_is_refused_when_it_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Names(monkeypatch, inside=["127.0.0.1"])
    async with provider("inside") as inside, house(tmp_path) as at:
        await at.set_key()
        port = inside.url.rpartition(":")[2]
        assert await at.put(f"https://inside.example:{port}/v1") == 201
        answer = await said(at.acme)

    assert answer == (
        f"openai is not asked: inside.example:{port} has no address that connections from here may "
        "go to; if it should, the operator of this server adds it to `allow` under [egress]"
    )
    assert names.asked == ["inside.example"]
    assert inside.connections == 0


async def test_a_name_that_means_something_else_later_is_judged_at_each_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Allowed by its name: even so, it does not lead to where clouds hand out credentials."""
    names = Names(monkeypatch, rebind=["127.0.0.1", "169.254.169.254"])
    async with provider_server(lambda _: saying("acme's", "Connection: close")) as own:
        port = own.url.rpartition(":")[2]
        async with house(tmp_path, allow=(f"rebind.example:{port}",)) as at:
            await at.set_key()
            assert await at.put(f"http://rebind.example:{port}/v1") == 201
            first, second = await said(at.acme), await said(at.acme)

    assert first == "acme's"
    assert "has no address that connections from here may go to" in second
    assert "169.254" not in second
    assert len(names.asked) == 2, "one look-up a connection"
    assert own.asked[0].headers["host"] == f"rebind.example:{port}"


async def test_an_operator_who_closes_everything_closes_it_to_all_endpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Names(monkeypatch, models=["93.184.216.34"])
    async with house(tmp_path, deny=("0.0.0.0/0", "::/0")) as at:
        await at.set_key()
        assert await at.put("https://models.example/v1") == 201
        assert "has no address that connections from here may go to" in await said(at.acme)


async def test_a_redirect_of_a_tenant_s_endpoint_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with provider("inside") as inside:
        away = [f"Location: {inside.url}/"]
        async with provider_server(lambda _: [Send(head(307, headers=away) + chunk(b""))]) as own:
            monkeypatch.setenv("OPENAI_API_KEY", OPERATORS)
            async with house(tmp_path, allow=(place(own), place(inside))) as at:
                await at.set_key()
                await at.put(own.url)
                answer = await said(at.acme)

    assert "redirect" in answer
    assert inside.connections == 0


async def test_a_connection_that_fails_does_not_tell_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Names(monkeypatch, inside=["127.0.0.1"])
    async with refused() as url:
        port = url.rpartition(":")[2]
        async with house(tmp_path, allow=(f"inside.example:{port}",)) as at:
            await at.set_key()
            await at.put(f"http://inside.example:{port}/v1")
            session = await at.acme.session()
            path = f"/api/sessions/{session}/messages"
            await at.acme.call("POST", path, {"content": "hello"})
            await _failed(at.acme, session)
            facts = await at.acme.facts(session)

    assert "openai cannot be reached: Connection refused" in json.dumps(facts)
    assert "127.0.0.1" not in json.dumps(facts)


def test_rules_that_cannot_be_read_stop_the_start(tmp_path: Path) -> None:
    for rules in ({"allow": ["10.0.0.0/33"]}, {"deny": ["http://a"]}):
        with pytest.raises(SetupError, match=r"\[egress\]"):
            make_endpoints(load_settings({"data": tmp_path, "egress": rules}))


# -- who may ---------------------------------------------------------------------------------------


async def test_endpoints_are_the_admin_s_and_no_other_tenant_s(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        url, body = "https://models.example/v1", {"base_url": "https://evil.example/v1"}
        assert await at.put(url) == 201
        for role in ("member", "viewer"):
            made = await new_key(at.operator, tenant="acme", role=role, user=role)
            one = Client(at.operator.http, at.operator.url, str(made["key"]))
            asked = [
                await one.call("GET", PATH),
                await one.call("PUT", f"{PATH}/openai", body),
                await one.call("DELETE", f"{PATH}/openai"),
            ]
            assert [status for status, _ in asked] == [403, 403, 403]
            assert "models.example" not in json.dumps(asked)

        assert (await at.other.get(PATH))["items"] == []
        assert (await at.other.call("DELETE", f"{PATH}/openai"))[0] == 404
        assert await at.put(body["base_url"], who=at.other) == 201
        head = {"Hostler-Tenant": "acme"}
        assert (await at.other.call("PUT", f"{PATH}/openai", body, headers=head))[0] == 404
        (mine,) = cast("list[Json]", (await at.acme.get(PATH))["items"])
        assert mine["base_url"] == url

        status, _ = await at.operator.call("DELETE", f"{PATH}/openai", headers=head)
        assert status == 204
        assert (await at.acme.get(PATH))["items"] == []
        rows = cast("list[Json]", (await at.acme.get("/api/audit"))["items"])

    done = [
        (one["action"], one["kind"], one["object"])
        for one in rows
        if str(one["action"]).startswith("endpoint.") and one["outcome"] == "done"
    ]
    assert done == [
        ("endpoint.remove", "provider", "openai"),
        ("endpoint.set", "provider", "openai"),
    ]
