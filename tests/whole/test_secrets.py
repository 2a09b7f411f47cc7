"""Secrets over HTTP: set and never shown; had by tools and models; in nothing that is written."""

from __future__ import annotations

import base64
import itertools
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, cast
from urllib.parse import quote

import pytest
from tests.canaries import canary, learn, master_keys
from tests.serving import Client, Frame, serving

from hostler import DataPart, DocumentPart, SourcePart, tool
from hostler.app.building import Parts
from hostler.app.settings import load_settings
from hostler.app.vaults import MasterKeys, make_vault, master_key_file
from hostler.core.errors import SetupError, ToolError
from hostler.core.events import TenantId
from hostler.core.ports import CallContext, Delta, Failure, Reply, Request
from hostler.core.said import UserSaid
from hostler.harness.toolbox import Toolbox
from hostler.testing.canaries import Canaries
from hostler.testing.doubles import a_call, an_agent
from hostler.testing.provider_server import Asked, Play, Send, chunk, head, provider_server
from hostler.vault.envelope import new_key
from hostler.vault.logs import MaskedRecords, mask_logs
from hostler.vault.vault import SealedVault

pytestmark = pytest.mark.anyio
TENANT = TenantId("default")
PATH = "/api/secrets"


@tool(secrets=["github"])
async def push(how: str, context: CallContext) -> str:
    """Push, and say or raise too much."""
    value = await context.secret("github")
    if how == "raise":
        raise ToolError(f"bad credentials: {value}")
    if how == "break":
        raise RuntimeError(value)
    if how == "show":
        await context.show(DataPart(name="a", value={value: [value]}, key=value))
        await context.show(SourcePart(url=f"https://example.com/{quote(value)}", title=value))
        await context.show(DocumentPart(title=value, media_type="a/b", name=value))
    return {"quote": quote(value), "json": json.dumps({"t": value})}.get(how, value * 2000)


@tool
async def peek(which: str, context: CallContext) -> str:
    """Try to have a secret that was not named."""
    return await context.secret(which)


@dataclass
class Leaky:
    """A model that says `said`, however it is cut, and asks for tools by what it is told."""

    said: str
    cuts: tuple[int, ...] = ()
    provider: str = "leaky"
    name: str = "leaky"
    asked: list[Request] = field(default_factory=list[Request])

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
        self.asked.append(request)
        last = request.transcript[-1]
        told = str(last.content) if isinstance(last, UserSaid) else ""
        if told == "fail":
            yield Delta("text", self.said)
            yield Failure(code="auth", message=f"no such key: {self.said}", again=False)
            return
        places = (0, *(self.cuts or (len(self.said) // 2,)), len(self.said))
        parts: tuple[Literal["text", "thinking"], ...] = ("text", "thinking")
        for part in parts:
            for a, b in itertools.pairwise(places):
                yield Delta(part, self.said[a:b])
        calls = ()
        if told.startswith("call "):
            _, name, what = told.split(" ")
            calls = (a_call(name, how=what) if name == "push" else a_call(name, which=what),)
        stop = "tools" if calls else "end"
        yield Reply(text=self.said, thinking=self.said, calls=calls, stop=stop)


@dataclass
class Leaks:
    """A server, a model that leaks, and canaries."""

    client: Client
    vault: SealedVault
    model: Leaky
    canaries: Canaries
    value: str
    folder: Path

    def none_in(self, frames: list[Frame]) -> None:
        assert self.canaries.seen(json.dumps([frame.data for frame in frames]), "frames") == []
        for part in ("text", "thinking"):
            told = "".join(
                str(one.data["text"])
                for one in frames
                if one.event == "delta" and one.data["part"] == part
            )
            assert self.canaries.seen(told, f"the joined {part}") == []


@asynccontextmanager
async def leaking(folder: Path) -> AsyncGenerator[Leaks]:
    canaries, model = Canaries(), Leaky("")
    value, keys = learn(canaries.new("github", odd=True)), master_keys()
    canaries.values["master key"] = keys.keys[0].written
    tools = Toolbox([push, peek], spill_folder=folder / "results")
    agent = replace(an_agent(model), tools=tools)
    vault = SealedVault(keys)
    vault.learn(None, "HOSTLER_ADMIN_KEY", admin := canaries.new("admin"))
    async with serving(
        agent, file=folder / "log.db", results=folder / "results", vault=vault
    ) as client:
        status, _ = await client.call("PUT", f"{PATH}/github", {"value": value})
        assert status == 201
        model.said = f"It is {value}, or {admin}."
        yield Leaks(client, vault, model, canaries, value, folder)
    assert canaries.seen_in(folder) == []


async def test_a_secret_is_set_listed_and_removed_and_never_shown(tmp_path: Path) -> None:
    async with leaking(tmp_path) as at:
        again = await at.client.call("PUT", f"{PATH}/github", {"value": at.value})
        model = await at.client.call("PUT", f"{PATH}/model:openai", {"value": at.value})
        page = await at.client.get(PATH)
        gone = [await at.client.call("DELETE", f"{PATH}/github") for _ in range(2)]

        listed = [(one["name"], one["kind"]) for one in cast("list[dict[str, str]]", page["items"])]
        assert (again[0], model[0]) == (200, 201)
        assert listed == [("github", "tool"), ("model:openai", "model")]
        assert [status for status, _ in gone] == [204, 404]
        assert at.canaries.seen(json.dumps([again, model, page, gone]), "answers") == []


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("github", {"value": "short"}),
        ("github", {"value": "x" * 20_000}),
        ("github", {"value": "a [secret:b] c"}),
        ("github-token", {"value": "github-token"}),
        ("git%20hub", {"value": "long enough"}),
        ("github", {"value": "long enough", "kind": "other"}),
        ("github", {"value": 12_345_678}),
        ("github", {}),
    ],
)
async def test_what_could_not_be_masked_or_named_is_refused(
    tmp_path: Path, name: str, body: object
) -> None:
    async with leaking(tmp_path) as at:
        status, told = await at.client.call("PUT", f"{PATH}/{name}", body)

        assert (status, told["code"]) == (422, "invalid")


async def test_a_viewer_has_nothing_to_do_with_secrets(tmp_path: Path) -> None:
    async with leaking(tmp_path) as at:
        session = await at.client.session()
        _, link = await at.client.call("POST", f"/api/sessions/{session}/shares", {})
        guest = Client(at.client.http, at.client.url, key=str(link["token"]))

        tried = [
            await guest.call("GET", PATH),
            await guest.call("PUT", f"{PATH}/other", {"value": "long enough"}),
            await guest.call("DELETE", f"{PATH}/github"),
            await guest.call("POST", f"{PATH}-scrub", {}),
            await guest.call("POST", f"{PATH}-rotation", {}),
        ]

        assert [status for status, _ in tried] == [403] * 5


async def test_an_admin_of_the_first_tenant_does_not_rotate_master_keys(tmp_path: Path) -> None:
    async with leaking(tmp_path) as at:
        _, made = await at.client.call("POST", "/api/keys", {"role": "admin"})
        admin = Client(at.client.http, at.client.url, key=str(made["key"]))

        assert (await admin.call("GET", PATH))[0] == 200
        assert (await admin.call("POST", f"{PATH}-rotation", {}))[0] == 403
        assert (await at.client.call("POST", f"{PATH}-rotation", {}))[0] == 200


@pytest.mark.parametrize("said", ["talk", "fail", "call push json", "call push quote"])
async def test_nothing_that_a_model_says_is_written_with_a_secret(
    tmp_path: Path, said: str
) -> None:
    async with leaking(tmp_path) as at:
        session = await at.client.session(
            title=f"about {at.value}", metadata={at.value: [at.value]}
        )
        frames = await at.client.speak(session, said)
        labels = await at.client.get(f"/api/sessions/{session}")
        pages = [await at.client.get(f"/api/runs?session={session}"), labels]

        at.none_in(frames)
        assert labels["title"] == "about [secret:github]"
        assert at.canaries.seen(json.dumps(pages), "pages") == []


async def test_the_joined_text_is_the_masked_reply_at_every_cut(tmp_path: Path) -> None:
    async with leaking(tmp_path) as at:
        session = await at.client.session()
        for cut in range(1, len(at.model.said)):
            at.model.cuts = (cut,)
            frames = await at.client.speak(session, "talk")

            at.none_in(frames)
            told = [f.data["text"] for f in frames if f.data.get("part") == "text"]
            (reply,) = [f.data["text"] for f in frames if f.event == "model_replied"]
            assert "".join(map(str, told)) == reply
            assert "[secret:github]" in str(reply)


@pytest.mark.parametrize("how", ["raise", "break", "long", "show"])
async def test_what_a_tool_does_with_its_secret_reaches_neither_log_nor_model(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with leaking(tmp_path) as at:
        logging.getLogger().addHandler(caplog.handler)
        mask_logs(at.vault)
        session = await at.client.session()
        frames = await at.client.speak(session, f"call push {how}")

        (finished,) = [frame.data for frame in frames if frame.event == "tool_finished"]
        at.none_in(frames)
        assert "[secret:github]" in str(finished["output"])
        for request in at.model.asked:
            assert at.canaries.seen(repr(request.transcript), "prompt") == []
        logging.getLogger().removeHandler(caplog.handler)


def test_a_record_that_cannot_be_told_or_has_a_stack_is_masked_and_raises_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    vault, value = SealedVault(master_keys()), "sk-0123456789abcdef"
    vault.learn(None, "own", value)
    caplog.handler.addFilter(masks := MaskedRecords(vault))
    log = logging.getLogger("hostler.test")

    log.warning("bad %d", value)
    log.warning("worse %s", Untold())
    log.warning("stack", stack_info=True)  # which shows this line: "sk-0123456789abcdef"

    caplog.handler.removeFilter(masks)
    assert caplog.messages[0] == caplog.messages[1] == "a line that could not be made"
    assert value not in caplog.text
    assert "[secret:own]" in str(caplog.records[2].stack_info)


class Untold:
    def __str__(self) -> str:
        raise RuntimeError("sk-0123456789abcdef")


async def test_a_tool_has_only_the_secrets_that_it_names(tmp_path: Path) -> None:
    async with leaking(tmp_path) as at:
        session = await at.client.session()

        frames = await at.client.speak(session, "call peek github")

        (finished,) = [frame.data for frame in frames if frame.event == "tool_finished"]
        assert finished["outcome"] == "error"
        assert "may not use the secret github" in str(finished["output"])


async def test_a_refusal_does_not_quote_a_secret(tmp_path: Path) -> None:
    async with leaking(tmp_path) as at:
        session = await at.client.session()
        spoken = f"/api/sessions/{session}/messages"
        refused = [
            await at.client.call("POST", "/api/sessions", {"agent": at.value}),
            await at.client.call("POST", "/api/sessions", {at.value: 1}),
            await at.client.call("POST", spoken, {"content": "x", "policy": at.value}),
        ]

        assert [status for status, _ in refused] == [422] * 3
        assert at.canaries.seen(json.dumps(refused), "refusals") == []


async def test_a_secret_in_a_path_is_not_kept_in_the_audit_log(tmp_path: Path) -> None:
    async with leaking(tmp_path) as at:
        value = at.canaries.new("plain")
        await at.client.call("PUT", f"{PATH}/plain", {"value": value})
        stranger = Client(at.client.http, at.client.url, key="")
        tried = [
            await at.client.call("DELETE", f"{PATH}/{value}"),
            await at.client.call("DELETE", f"/api/sessions/{value}/shares/{value}"),
            await stranger.call("DELETE", f"{PATH}/{value}"),
        ]
        url, key = f"{at.client.url}/api/audit/export", at.client.key
        async with at.client.http.get(url, headers={"Authorization": f"Bearer {key}"}) as got:
            exported = (await got.read()).decode()

        assert [status for status, _ in tried] == [404, 404, 401]
        assert exported.count('"object":"[secret:plain]"') == 3
        assert '"details":{"session":"[secret:plain]"' in exported
        assert at.canaries.seen(exported, "export") == []


async def test_what_was_said_before_is_masked_in_exports_and_scrubbed_from_the_log(
    tmp_path: Path,
) -> None:
    async with leaking(tmp_path) as at:
        late = at.canaries.new("late", odd=True)
        coded = base64.b64encode(b"user:" + late.encode()).decode()
        session = await at.client.session(title=late)
        await at.client.speak(session, f"{late} {coded}")
        shape = [(fact["seq"], fact["kind"]) for fact in await at.client.facts(session)]
        await at.client.call("PUT", f"{PATH}/late", {"value": late})
        url = f"{at.client.url}/api/sessions/{session}/export"
        async with at.client.http.get(
            url, headers={"Authorization": f"Bearer {at.client.key}"}
        ) as got:
            exported = await got.read()

        status, done = await at.client.call("POST", f"{PATH}-scrub", {})

        facts = await at.client.facts(session)
        assert at.canaries.seen(exported, "export") == []
        assert status == 200
        assert (done["facts"], done["sessions"]) == (1, [session])
        assert [(fact["seq"], fact["kind"]) for fact in facts] == shape
        assert at.canaries.seen(json.dumps(facts), "log") == []


async def test_a_value_that_is_no_secret_can_be_scrubbed(tmp_path: Path) -> None:
    async with leaking(tmp_path) as at:
        value = at.canaries.new("typed by mistake")
        session = await at.client.session()
        await at.client.speak(session, value)

        await at.client.call("POST", f"{PATH}-scrub", {"value": value})
        await at.client.speak(session, f"again {value}")

        said = [fact["content"] for fact in await at.client.facts(session) if "content" in fact]
        assert said == ["[secret:scrubbed]", "again [secret:scrubbed]"]


async def test_a_model_is_asked_with_the_tenants_own_key_and_else_with_the_operators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def play(_: Asked) -> Play:
        return [Send(head()), Send(chunk(b""))]

    theirs = canary("OPENAI_API_KEY", "sk-of-the-operator-0123")
    own = canary("model key of a tenant", "sk-of-the-tenant-0123")
    monkeypatch.setenv("OPENAI_API_KEY", theirs)
    async with provider_server(play) as server:
        environ = {"OPENAI_BASE_URL": f"{server.url}/v1"}
        parts = Parts(load_settings({"data": tmp_path}), environ)
        model = parts.model("openai:some")
        async with leaking(tmp_path) as at:
            parts.vault = at.vault
            await at.vault.put(TENANT, "model:openai", "model", own)
            for tenant in ("default", "other"):
                question = Request(system="", transcript=[UserSaid("hi")], tenant=tenant)
                async for _ in model.stream(question):
                    pass
        await parts.aclose()

        keys = [asked.headers["authorization"] for asked in server.asked]
        assert keys == [f"Bearer {own}", f"Bearer {theirs}"]


def keys_of(folder: Path, **flags: object) -> MasterKeys:
    return MasterKeys(load_settings({"data": folder, **flags}))


def test_a_master_key_is_made_when_it_is_needed_for_its_owner_alone(tmp_path: Path) -> None:
    none, (made,), (again,) = (keys_of(tmp_path)(make=one) for one in (False, True, False))

    assert none == ()
    assert made == again
    assert master_key_file(tmp_path).stat().st_mode & 0o777 == 0o600


def test_a_master_key_comes_from_a_file_a_variable_or_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = new_key()
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_text(f"# ours\n{base64.b64encode(key).decode()}\n")
    read = [
        keys_of(tmp_path, master_key_file=file),
        keys_of(tmp_path, master_key_command=f"cat {file}"),
    ]
    monkeypatch.setenv("HOSTLER_MASTER_KEY", key.hex())
    read.append(keys_of(tmp_path))

    assert [one(make=False)[0].key for one in read] == [key] * 3


def test_a_master_key_that_cannot_be_used_is_refused_without_its_value(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("not-a-key-but-secret-anyway")
    file.chmod(0o644)
    with pytest.raises(SetupError, match="chmod 600"):
        keys_of(tmp_path, master_key_file=file)(make=False)
    file.chmod(0o600)
    for flags in (
        {"master_key_file": file},
        {"master_key_command": f"cat {file}"},
        {"master_key_command": "false"},
        {"master_key_file": file, "master_key_command": "true"},
    ):
        with pytest.raises(SetupError) as refused:
            keys_of(tmp_path, **flags)(make=False)
        assert "not-a-key" not in str(refused.value)


def test_the_operators_own_keys_are_masked_and_stand_ins_are_not(tmp_path: Path) -> None:
    headers = {
        "X-Api-Key": canary("own header", "0123456789abcdef-h"),
        "X-Purpose": "just-some-purpose",
    }
    own = {"own": {"wire": "openai_chat", "base_url": "http://o", "headers": headers}}
    settings = load_settings({"data": tmp_path, "providers": own})
    key = canary("OPENAI_API_KEY", "sk-0123456789abcdef")
    environ = {"OPENAI_API_KEY": key, "ANTHROPIC_API_KEY": "not-needed"}
    vault = make_vault(settings, admin_key="hk_0123456789abcdef", environ=environ)

    mask = vault.mask(TENANT)
    assert mask is not None
    told = mask.text(
        f"{' '.join(environ.values())} {' '.join(headers.values())} hk_0123456789abcdef"
    )

    assert told == (
        "[secret:OPENAI_API_KEY] not-needed [secret:own:X-Api-Key] just-some-purpose "
        "[secret:HOSTLER_ADMIN_KEY]"
    )


def test_what_is_secret_in_a_base_url_is_masked(tmp_path: Path) -> None:
    password, query = (
        canary("password in a URL", "p-0123456789abcdef"),
        canary("key in a URL", "k" * 16),
    )
    own = {"own": {"wire": "openai_chat", "base_url": f"http://me:{password}@o/v1"}}
    settings = load_settings({"data": tmp_path, "providers": own})
    environ = {"OPENAI_BASE_URL": f"http://o/v1?api-version=2026-01-01-preview&key={query}"}
    vault = make_vault(settings, admin_key="hk_0123456789abcdef", environ=environ)

    mask, basic = vault.mask(TENANT), base64.b64encode(f"me:{password}".encode()).decode()
    assert mask is not None
    told = mask.text(f"{password} {query} 2026-01-01-preview Basic {basic}")

    assert told.startswith(
        "[secret:own:base_url] [secret:OPENAI_BASE_URL] 2026-01-01-preview Basic "
    )
    assert "[secret:own:base_url]" in told.rpartition("Basic ")[2]
