"""Which models clients may ask themselves, by what names, and with whose keys at whose endpoints."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.canaries import master_keys
from tests.direct import Says, answer, columns, somebody
from tests.serving import Client, serving
from tests.whole.test_endpoints import OPERATORS, OWN, place, provider

from hostler.app.agent import Agent
from hostler.app.building import build_agents
from hostler.app.catalogue import Catalogue, make_catalogue
from hostler.app.endpoints import Placed, make_endpoints
from hostler.app.settings import load_settings
from hostler.core.errors import NotFound, SetupError
from hostler.core.ports import Model, Reply
from hostler.service.service import Service
from hostler.testing.doubles import an_agent
from hostler.testing.provider_server import ProviderServer, Send, chunk, head, provider_server
from hostler.testing.wire_chat import CHAT
from hostler.vault.vault import SealedVault

pytestmark = pytest.mark.anyio


def catalogue(
    *listed: str, agents: Sequence[str] = (), most: int = 500
) -> tuple[Catalogue, list[str]]:
    """Return a catalogue of these, and what it opens."""
    opened = list[str]()

    def open_model(name: str) -> Model:
        opened.append(name)
        kind, _, rest = name.partition(":")
        return Says(provider=kind, name=rest)

    made = Catalogue(listed, ("openai", "azure", "anthropic"), most=most)
    models = [Says(provider=one.partition(":")[0], name=one.partition(":")[2]) for one in agents]
    made.take([an_agent(*models)] if models else [], open_model)
    return made, opened


def name_of(model: Model | None) -> str | None:
    return None if model is None else f"{model.provider}:{model.name}"


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("openai:a", "openai:a"),
        ("a", "openai:a"),
        ("anthropic:claude-9", "anthropic:claude-9"),
        ("claude-9", "anthropic:claude-9"),
        ("local:tiny", "local:tiny"),
        ("tiny", "local:tiny"),
        ("azure:llama3:8b", "azure:llama3:8b"),
        ("llama3:8b", "azure:llama3:8b"),
        ("anthropic:gpt", None),
        ("openai:b", None),
        ("gpt", None),
        ("both", None),
        ("", None),
        (":", None),
        ("anthropic:claude-", "anthropic:claude-"),
        ("anthropic:", None),
        ("anthropic:claude-/../../admin", None),
        ("anthropic:claude-a b", None),
        ("anthropic:claude-\n", None),
        (f"anthropic:claude-{'x' * 500}", None),
    ],
)
def test_a_model_is_found_by_its_name_by_a_pattern_or_by_the_only_one_that_is_called_so(
    asked: str, found: str | None
) -> None:
    models, _ = catalogue(
        *("anthropic:claude-*", "local:tiny", "azure:llama3:8b", "azure:both"),
        agents=["openai:a", "openai:both"],
    )

    assert name_of(models.find(asked)) == found


def test_names_are_those_of_agents_and_those_that_are_listed_in_order() -> None:
    models, opened = catalogue("azure:z", "openai:*", "openai:a", agents=["openai:b", "openai:a"])

    assert models.names() == ["openai:b", "openai:a", "azure:z"]
    assert opened == []


def test_a_bare_name_that_two_patterns_fit_finds_nothing() -> None:
    models, _ = catalogue("openai:gpt-*", "azure:gpt-*")

    assert models.find("gpt-5") is None
    assert name_of(models.find("azure:gpt-5")) == "azure:gpt-5"


def test_what_may_be_asked_by_default_is_nothing_but_the_models_of_agents() -> None:
    models, _ = catalogue(agents=["openai:a"])

    assert models.find("openai:b") is None
    assert models.find("openai:*") is None


@pytest.mark.parametrize("name", ["scripted:/etc/passwd", "local:/etc/passwd"])
def test_no_pattern_reaches_what_reads_files_of_the_server(name: str) -> None:
    models, opened = catalogue("*:*")

    assert models.find(name) is None
    assert opened == []
    for pattern in ("scripted:*", "local:*.gguf"):
        with pytest.raises(SetupError, match="listed by name"):
            Catalogue([pattern])


@pytest.mark.parametrize("wrong", ["gpt-5", ":x", "openai:", "*", ""])
def test_what_is_neither_a_name_nor_a_pattern_is_an_error_of_the_settings(wrong: str) -> None:
    with pytest.raises(SetupError, match=r"direct\.models"):
        make_catalogue(load_settings({"direct": {"models": [wrong]}}))


def test_a_model_is_opened_once_and_of_those_that_clients_name_so_many_are_kept() -> None:
    models, opened = catalogue("openai:*", "azure:z", most=2)

    first = models.find("openai:1")
    assert models.find("openai:1") is first
    for name in ("azure:z", "openai:2", "openai:1", "openai:3", "openai:1", "azure:z"):
        models.find(name)
    assert models.find("openai:1") is first
    assert opened == ["openai:1", "azure:z", "openai:2", "openai:3"]
    models.find("openai:2")
    assert opened[-1] == "openai:2"


def test_patterns_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTLER_DIRECT", '{"models": ["openai:*", "anthropic:claude-5"]}')

    made = make_catalogue(load_settings({}))

    assert made.names() == ["anthropic:claude-5"]


# -- opened ones ------------------------------------------------------------------------------


@asynccontextmanager
async def house(
    folder: Path, *listed: str, agent: str = "openai:m", allow: tuple[str, ...] = ()
) -> AsyncGenerator[tuple[Service, Client]]:
    """Serve an agent, with all that a server has, and let clients ask what is listed."""
    given = {"data": folder, "direct": {"models": listed}, "egress": {"allow": allow}}
    settings, vault, houses = load_settings(given), SealedVault(master_keys()), list[Service]()
    endpoints, models = make_endpoints(settings), make_catalogue(settings)
    async with (
        build_agents(
            [Agent("a", model=agent)],
            settings,
            vault=vault,
            endpoints=endpoints,
            catalogue=models,
        ) as specs,
        serving(
            *specs.values(),
            file=folder / "log.db",
            vault=vault,
            endpoints=endpoints,
            catalog=models,
            entered=houses.append,
        ) as client,
    ):
        assert houses[0].direct.find(somebody(), agent) is specs["a"].models[0]
        yield houses[0], client


async def said(service: Service, name: str, **who: str) -> str:
    """Return what a model answers, or why it does not."""
    who_asks = somebody(**who)
    last = (await answer(service, service.direct.find(who_asks, name), who_asks))[-1]
    return last.text if isinstance(last, Reply) else getattr(last, "message", "")


@pytest.fixture(name="operators")
async def operators_provider(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[ProviderServer]:
    async with provider("operator's") as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", OPERATORS)
        yield server


async def test_a_model_that_no_agent_has_is_asked_with_the_operator_s_key(
    tmp_path: Path, operators: ProviderServer
) -> None:
    async with house(tmp_path, "openai:*") as (service, _):
        assert await said(service, "openai:another") == "operator's"
        assert await said(service, "another") == "operator's"

    assert [one.json["model"] for one in operators.asked] == ["another"] * 2
    assert operators.asked[0].headers["authorization"] == f"Bearer {OPERATORS}"
    assert (
        columns(tmp_path / "log.db", "provider", "model", "status")
        == [("openai", "another", "replied")] * 2
    )


async def test_a_tenant_s_endpoint_and_key_are_those_of_its_direct_calls_too(
    tmp_path: Path, operators: ProviderServer
) -> None:
    async with (
        provider("acme's") as own,
        house(tmp_path, "openai:*", allow=(place(own), "localhost")) as (service, client),
    ):
        await client.call("POST", "/api/tenants", {"id": "acme"})
        acting = {"Hostler-Tenant": "acme"}
        key, url = {"value": OWN}, {"base_url": f"{own.url}/v1"}
        await client.call("PUT", "/api/secrets/model:openai", key, headers=acting)
        status, _ = await client.call("PUT", "/api/endpoints/openai", url, headers=acting)
        assert status == 201

        answers = [await said(service, "openai:m", tenant=one) for one in ("acme", "default")]
        answers.append(await said(service, "openai:free", tenant="acme"))

    assert answers == ["acme's", "operator's", "acme's"]
    assert {one.headers["authorization"] for one in own.asked} == {f"Bearer {OWN}"}
    assert len(operators.asked) == 1


async def test_of_the_models_that_clients_name_at_an_endpoint_so_many_are_kept(
    tmp_path: Path, operators: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hostler.app.endpoints.MOST_MODELS", 2)
    async with (
        provider("acme's") as own,
        house(tmp_path, "openai:*", allow=(place(own), "localhost")) as (service, client),
    ):
        key, url = {"value": OWN}, {"base_url": f"{own.url}/v1"}
        await client.call("PUT", "/api/secrets/model:openai", key)
        await client.call("PUT", "/api/endpoints/openai", url)
        answers = [await said(service, f"openai:m{number}") for number in range(5)]
        placed = service.direct.find(somebody(), "openai:m")
        assert isinstance(placed, Placed)
        (kept,) = placed.elsewhere._kept.values()
        assert list(kept.models) == ["m3", "m4"]

    assert answers == ["acme's"] * 5
    assert not operators.asked


async def test_a_provider_that_is_down_is_left_alone_by_direct_calls_as_by_agents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = head(503, content_type="application/json") + chunk(CHAT.refusal("server", "oh"))
    async with provider_server(lambda _: [Send(told + chunk(b""))]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", OPERATORS)
        async with house(tmp_path, "openai:*") as (service, _):
            answers = [await said(service, f"openai:m{number}") for number in range(8)]
            (spent,) = await service.runs.usage(
                somebody(), ["tenant"], since=0, before=1e10, after=(), limit=9
            )

    assert len(server.asked) == 5
    assert "is not asked for another" in answers[-1]
    assert (spent.calls, spent.failed_calls, spent.unpriced_calls) == (8, 8, 0)


async def test_a_model_that_cannot_be_opened_is_not_found_and_only_the_log_says_why(
    tmp_path: Path, operators: ProviderServer
) -> None:
    del operators
    async with house(tmp_path, "opnai:m") as (service, _):
        with pytest.raises(NotFound, match="cannot be opened here") as refusal:
            service.direct.find(somebody(), "opnai:m")

    assert refusal.value.code == "model_not_found"
