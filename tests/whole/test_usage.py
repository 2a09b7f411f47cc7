"""What a tenant is told of its usage is what the provider reported, in whichever wire API it did."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import pytest
from msgspec.structs import replace
from tests.canaries import master_keys
from tests.serving import Client, Json, serving

from hostler.app.agent import Agent
from hostler.app.building import build_agents
from hostler.app.settings import load_settings
from hostler.core.events import Usage
from hostler.testing import wire_anthropic, wire_chat, wire_gemini, wire_responses
from hostler.testing.model_script import Args, Begin, End, Step, Text, WireFormat
from hostler.testing.provider_server import Asked, Play, Send, chunk, head, provider_server
from hostler.vault.vault import SealedVault

pytestmark = pytest.mark.anyio
COUNTS = ("input_tokens", "output_tokens", "cache_read_tokens", "reasoning_tokens")
NOTHING = Usage()


class Wire(NamedTuple):
    name: str
    speaks: WireFormat
    fails: Callable[[Usage], tuple[Sequence[bytes], Usage]]
    """An answer that fails after its usage was told; and what was told."""


def chat(usage: Usage) -> tuple[Sequence[bytes], Usage]:
    return wire_chat.end("error", usage), usage


def responses(usage: Usage) -> tuple[Sequence[bytes], Usage]:
    failed = wire_responses.event(
        "response.failed",
        response={
            **wire_responses.WHOLE,
            "status": "failed",
            "error": {"code": "server_error", "message": "oh"},
            "usage": wire_responses.counts(usage),
        },
    )
    return [failed], usage


def anthropic(usage: Usage) -> tuple[Sequence[bytes], Usage]:
    error = {"type": "overloaded_error", "message": "oh"}
    events = [
        wire_anthropic.message_start(usage),
        wire_anthropic.event({"type": "error", "error": error}),
    ]
    return events, replace(usage, output_tokens=1, reasoning_tokens=0)


def gemini(usage: Usage) -> tuple[Sequence[bytes], Usage]:
    return [wire_gemini.end("SOMETHING_ELSE", usage)], usage


WIRES = (
    Wire("openai_chat", wire_chat.CHAT, chat),
    Wire("openai_responses", wire_responses.RESPONSES, responses),
    Wire("anthropic", wire_anthropic.ANTHROPIC, anthropic),
    Wire("gemini", wire_gemini.GEMINI, gemini),
)


class Provider:
    """Answers as it is told, one question after the other, and keeps account of what it reports."""

    def __init__(self, wire: Wire) -> None:
        self.wire, self._told = wire, 0
        self.plays = deque[tuple[Play, Usage]]()
        self.reported = list[Usage]()

    def __call__(self, _: Asked) -> Play:
        play, usage = self.plays.popleft()
        self.reported.append(usage)
        return play

    def refuses(self, status: int, *headers: str) -> None:
        said = self.wire.speaks.refusal("auth" if status == 401 else "server", "oh")
        header = head(status, content_type="application/json", headers=headers)
        self.plays.append(([Send(header + chunk(said) + chunk(b""))], NOTHING))

    def answers(self, *steps: Step, stop: str = "end") -> None:
        usage = self._usage()
        last = End("tools" if stop == "tools" else "end", usage)
        self._sends(self.wire.speaks.events([*steps, last]), usage)

    def fails(self) -> None:
        self._sends(*self.wire.fails(self._usage()))

    def _usage(self) -> Usage:
        """Return counts of which no two answers have the same, nor any two of one answer."""
        self._told += 1
        n = 10**self._told
        return Usage(
            input_tokens=7 * n, output_tokens=5 * n, cache_read_tokens=3 * n, reasoning_tokens=2 * n
        )

    def _sends(self, events: Sequence[bytes], usage: Usage) -> None:
        self.plays.append(([Send(head()), Send(chunk(b"".join(events)) + chunk(b""))], usage))

    def sums(self) -> dict[str, int]:
        """Return what was reported since this was asked last."""
        reported, self.reported = self.reported, []
        return {name: sum(getattr(one, name) for one in reported) for name in COUNTS}


async def usage(client: Client, tenant: str) -> Json:
    status, page = await client.call("GET", "/api/usage", headers={"Hostler-Tenant": tenant})
    assert status == 200, page
    (row,) = cast("list[Json]", page["items"])
    return row


async def said(client: Client, tenant: str, text: str) -> str:
    """Say something in a new session of a tenant's, and return how the run ended."""
    acting = {"Hostler-Tenant": tenant, "Prefer": "wait=15"}
    _, made = await client.call("POST", "/api/sessions", {}, headers=acting)
    path = f"/api/sessions/{made['id']}/messages"
    status, ended = await client.call("POST", path, {"content": text}, headers=acting)
    assert status == 200, ended
    return str(ended["status"])


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
async def test_a_tenant_s_usage_is_the_sum_of_what_its_provider_reported(
    wire: Wire, tmp_path: Path
) -> None:
    def look(at: str) -> str:
        """Look at something."""
        return f"{at} is there"

    provider = Provider(wire)
    async with provider_server(provider) as server:
        mine = {"wire": wire.name, "base_url": server.url}
        settings = load_settings({"data": tmp_path, "providers": {"mine": mine}})
        vault = SealedVault(master_keys())
        agents = [Agent("a", model="mine:m", tools=[look])]
        async with (
            build_agents(agents, settings, vault=vault) as specs,
            serving(*specs.values(), file=tmp_path / "log.db", vault=vault) as client,
        ):
            await client.call("POST", "/api/tenants", {"id": "acme"})
            provider.refuses(500, "Retry-After: 0")
            provider.fails()
            provider.answers(Begin("c", "look", "id-c"), Args("c", '{"at": "it"}'), stop="tools")
            provider.answers(Text("It is there."))
            provider.refuses(401)
            ends = [await said(client, "default", text) for text in ("look", "and fail")]
            own, reported = await usage(client, "default"), provider.sums()
            provider.fails()
            provider.answers(Text("Hello."))
            ends.append(await said(client, "acme", "hello"))
            other, reported_to_other = await usage(client, "acme"), provider.sums()

    assert ends == ["done", "failed", "done"]
    assert not provider.plays
    assert {name: own[name] for name in COUNTS} == reported
    assert (own["runs"], own["calls"], own["failed_calls"]) == (2, 5, 3)
    assert {name: other[name] for name in COUNTS} == reported_to_other
    assert (other["runs"], other["calls"], other["failed_calls"]) == (1, 2, 1)
