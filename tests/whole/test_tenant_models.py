"""A model that a tenant points at goes out by the operator's rules; the operator's own do not ask."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from hostler.app.building import Parts, build_agents
from hostler.app.providers import Place
from hostler.app.settings import load_settings
from hostler.core.errors import SetupError
from hostler.core.events import UserSaid
from hostler.core.ports import Failure, Model, Reply, Request
from hostler.testing.model_script import End, Text
from hostler.testing.provider_server import Asked, Play, Send, chunk, head, provider_server
from hostler.testing.wire_chat import CHAT

pytestmark = pytest.mark.anyio


def answered(_: Asked) -> Play:
    return [Send(head()), Send(chunk(b"".join(CHAT.events([Text("Hi."), End()]))) + chunk(b""))]


def parts(tmp_path: Path, **settings: object) -> Parts:
    return Parts(load_settings({"data": tmp_path, **settings}), {})


def place(url: str) -> Place:
    return Place(provider="mine", model="m", wire="openai_chat", base_url=url, key_env=("NO_KEY",))


async def said(model: Model) -> Reply | Failure:
    request = Request(system="", transcript=[UserSaid("Hi.")])
    last = [part async for part in model.stream(request)][-1]
    assert isinstance(last, Reply | Failure)
    return last


async def test_an_operator_s_model_may_be_on_loopback_and_a_tenant_s_may_not(
    tmp_path: Path,
) -> None:
    async with provider_server(answered) as server:
        mine = {"wire": "openai_chat", "base_url": server.url, "headers": {"x-team": "blue"}}
        made = parts(tmp_path, providers={"mine": mine})
        own = await said(made.model("mine:m"))
        tenant = await said(made.tenant_model(place(server.url), key=lambda _: "sk-tenant"))
        await made.aclose()

    assert isinstance(own, Reply), own
    assert isinstance(tenant, Failure)
    assert tenant.message.startswith("mine is not asked: 127.0.0.1:")
    assert len(server.asked) == 1


async def test_a_place_that_the_operator_allows_is_asked_with_the_tenant_s_key_alone(
    tmp_path: Path,
) -> None:
    async with provider_server(answered) as server:
        mine = {"wire": "openai_chat", "base_url": server.url, "headers": {"x-team": "blue"}}
        allow = [server.url.removeprefix("http://")]
        made = parts(tmp_path, providers={"mine": mine}, egress={"allow": allow})
        reply = await said(made.tenant_model(place(server.url), key=lambda _: "sk-tenant"))
        await made.aclose()

    assert isinstance(reply, Reply), reply
    (asked,) = server.asked
    assert asked.headers["authorization"] == "Bearer sk-tenant"
    assert "x-team" not in asked.headers, "that is between the operator and their provider"


@pytest.mark.parametrize("rules", [{"allow": ["10.0.0.0/33"]}, {"deny": ["http://a"]}])
async def test_rules_that_cannot_be_read_stop_the_start(
    tmp_path: Path, rules: Mapping[str, object]
) -> None:
    settings = load_settings({"data": tmp_path, "egress": rules})
    with pytest.raises(SetupError, match=r"\[egress\]"):
        async with build_agents([], settings):
            pass


async def test_models_and_tools_of_a_server_share_breakers_that_can_be_seen(
    tmp_path: Path,
) -> None:
    made = parts(tmp_path)
    model = made.tenant_model(place("http://127.0.0.1:1/v1?secret=1"), key=lambda _: "sk-tenant")
    await said(model)
    states = made.breakers.states()
    await made.aclose()

    assert sorted(one.kind for one in states) == ["model", "rate_limit"]
    assert all("mine http://127.0.0.1:1/v1 " in one.name for one in states)
    assert "secret" not in str(states)
