"""Tenants set webhooks over HTTP, and are told: signed, durably, and only where they may point."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from openai import OpenAI
from openai.types.webhooks import ResponseCompletedWebhookEvent
from standardwebhooks import WebhookVerificationError
from tests.canaries import master_keys
from tests.people import new_key, somebody
from tests.receivers import Receiver, a_hook, delivery, receiving, to_loopback
from tests.serving import Client, Json, quick, serving

from hostler.app.house import open_house
from hostler.app.keys import ADMIN
from hostler.core.errors import Conflict
from hostler.core.ports import AgentSpec, Reply, Request, ToolSpec
from hostler.harness.egress import Egress
from hostler.harness.outbound import Outbound
from hostler.service.limits import MOST_WEBHOOKS
from hostler.testing.doubles import ModelDouble, ToolboxDouble, a_call, an_agent
from hostler.vault.vault import SealedVault

pytestmark = pytest.mark.anyio
HOOKS = "/api/webhooks"


@asynccontextmanager
async def house(
    folder: Path | None = None,
    agent: AgentSpec | None = None,
    *,
    outbound: Outbound | None = None,
    vault: SealedVault | None = None,
) -> AsyncGenerator[Client]:
    async with serving(
        agent or an_agent(quick()),
        file=None if folder is None else folder / "log.db",
        vault=vault or SealedVault(master_keys()),
        outbound=outbound or to_loopback(),
    ) as client:
        yield client


@dataclass
class Told:
    """A server, a receiver, and a webhook that leads there."""

    client: Client
    receiver: Receiver
    hook: Json

    @property
    def path(self) -> str:
        return f"{HOOKS}/{self.hook['id']}"

    @property
    def secret(self) -> str:
        return str(self.hook["secret"])


@asynccontextmanager
async def told(
    folder: Path, agent: AgentSpec | None = None, **more: object
) -> AsyncGenerator[Told]:
    async with receiving() as receiver, house(folder, agent) as client:
        yield Told(client, receiver, await a_hook(client, receiver.url, **more))


def asks_first() -> AgentSpec:
    """Return an agent that wants to pay, and may not without an approval."""

    def answer(request: Request) -> Reply:
        del request
        return Reply(text="", stop="tools", calls=(a_call("pay"),))

    tool = ToolSpec(name="pay", description="", parameters={}, approval=True)
    return an_agent(ModelDouble(answer), tools=ToolboxDouble({"pay": tool}))


# -- what is told ----------------------------------------------------------------------------


async def test_an_end_of_a_run_is_told_and_the_reference_library_verifies_it(
    tmp_path: Path,
) -> None:
    async with told(tmp_path) as at:
        session = await at.client.session()
        await at.client.speak(session, "keep this to yourself", purpose="nightly")
        (came,) = await at.receiver.got(1)

        read = came.verified(at.secret)
        kept = await delivery(at.client, at.hook, tries=1)

    data = cast("Json", read["data"])
    assert read["type"] == "run.completed"
    assert (data["session"], data["purpose"], data["status"]) == (session, "nightly", "done")
    assert b"keep this" not in came.body
    assert came.headers["content-type"] == "application/json"
    assert (kept["id"], kept["status"], kept["code"]) == (came.id, "delivered", 204)
    assert kept["body"] == read


async def test_a_request_for_an_approval_and_a_cancel_are_told(tmp_path: Path) -> None:
    async with told(tmp_path, asks_first()) as at:
        session = await at.client.session()
        status, _ = await at.client.call(
            "POST", f"/api/sessions/{session}/messages", {"content": "pay"}
        )
        assert status == 202
        await at.receiver.got(1)
        await at.client.call("POST", f"/api/sessions/{session}/cancel", {})
        first, second = await at.receiver.got(2)

    assert first.verified(at.secret)["type"] == "approval.requested"
    assert cast("Json", first.json["data"])["tool"] == "pay"
    assert second.verified(at.secret)["type"] == "run.cancelled"


async def test_openai_s_sdk_is_told_of_a_background_response(tmp_path: Path) -> None:
    async with told(tmp_path, events=["response.completed"]) as at:
        session = await at.client.session()
        await at.client.speak(session)
        mark = {"openai": {"background": True}}
        frames = await at.client.speak(session, metadata=mark)
        (came,) = await at.receiver.got(1)

    run = str(frames[-1].data["run"])
    client = OpenAI(api_key="none", webhook_secret=at.secret)
    event = client.webhooks.unwrap(came.body, dict(came.headers))
    assert isinstance(event, ResponseCompletedWebhookEvent)
    assert event.data.id == f"resp_{run.removeprefix('run_')}"


async def test_each_tenant_is_told_of_its_own_runs_alone(tmp_path: Path) -> None:
    async with receiving() as mine, receiving() as theirs, house(tmp_path) as client:
        await client.call("POST", "/api/tenants", {"id": "acme"})
        made = await new_key(client, tenant="acme", role="admin")
        acme = Client(client.http, client.url, str(made["key"]))
        own = await a_hook(client, mine.url)
        other = await a_hook(acme, theirs.url)

        session = await acme.session()
        await acme.speak(session)
        (came,) = await theirs.got(1)
        await client.call("POST", f"{HOOKS}/{own['id']}/test")
        (tested,) = await mine.got(1)

    assert cast("Json", came.verified(str(other["secret"]))["data"])["session"] == session
    assert tested.json["type"] == "webhook.test"


async def test_what_was_not_taken_before_a_stop_is_sent_when_the_server_is_back(
    tmp_path: Path,
) -> None:
    keys = master_keys()
    async with receiving() as receiver:
        receiver.hangs()
        async with house(tmp_path, vault=SealedVault(keys)) as client:
            hook = await a_hook(client, receiver.url)
            await client.speak(await client.session())
            await receiver.got(1)
        receiver.says(200)
        async with house(tmp_path, vault=SealedVault(keys)) as client:
            first, second = await receiver.got(2)
            await delivery(client, hook, tries=1)

    assert first.id == second.id
    assert first.body == second.body
    assert second.verified(str(hook["secret"]))


# -- answers of receivers --------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_a_failure_and_is_not_followed(status: int, tmp_path: Path) -> None:
    async with told(tmp_path) as at:
        at.receiver.says(status, Location=f"{at.receiver.url}/elsewhere")
        await at.client.call("POST", f"{at.path}/test")
        kept = await delivery(at.client, at.hook, tries=1)

    assert (kept["status"], kept["code"]) == ("pending", status)
    assert kept["next_at"] is not None
    assert len(at.receiver.came) == 1


async def test_a_receiver_that_is_gone_disables_its_webhook_until_somebody_enables_it(
    tmp_path: Path,
) -> None:
    async with told(tmp_path) as at:
        at.receiver.says(410)
        await at.client.call("POST", f"{at.path}/test")
        kept = await delivery(at.client, at.hook, tries=1)
        hook = await at.client.get(at.path)
        assert (kept["status"], hook["enabled"], hook["disabled_because"]) == (
            *("given_up", False),
            "gone",
        )
        await at.client.speak(await at.client.session())
        refused = [
            await at.client.call("POST", f"{at.path}/test"),
            await at.client.call("POST", f"{at.path}/deliveries/{kept['id']}/replay"),
        ]
        assert [(status, body["code"]) for status, body in refused] == [
            (409, "webhook_disabled")
        ] * 2
        at.receiver.says(200)
        status, hook = await at.client.call("PATCH", at.path, {"enabled": True})
        assert (status, hook["enabled"], hook["failures"]) == (200, True, 0)

        await at.client.call("POST", f"{at.path}/deliveries/{kept['id']}/replay")
        came = await at.receiver.got(2)

    assert [one.id for one in came] == [kept["id"]] * 2, "nothing was kept while it was disabled"


async def test_a_replay_is_the_same_event_under_the_same_id(tmp_path: Path) -> None:
    async with told(tmp_path) as at:
        await at.client.speak(await at.client.session())
        await at.receiver.got(1)
        kept = await delivery(at.client, at.hook, tries=1)
        status, again = await at.client.call("POST", f"{at.path}/deliveries/{kept['id']}/replay")
        assert (status, again["status"]) == (202, "pending")
        first, second = await at.receiver.got(2)
        done = await delivery(at.client, at.hook, tries=2)

    assert (first.id, first.body) == (second.id, second.body)
    assert second.verified(at.secret)
    assert done["status"] == "delivered"


# -- secrets ---------------------------------------------------------------------------------


async def test_a_secret_is_shown_once_and_is_nowhere_in_the_open(tmp_path: Path) -> None:
    async with told(tmp_path) as at:
        await at.client.call("POST", f"{at.path}/test")
        await at.receiver.got(1)
        kept = await delivery(at.client, at.hook, tries=1)
        later = [
            await at.client.get(one)
            for one in (HOOKS, at.path, f"{at.path}/deliveries", "/api/audit", "/api/secrets")
        ]
        _, changed = await at.client.call("PATCH", at.path, {"description": "mine"})

    assert at.secret.startswith("whsec_")
    shown = json.dumps([*later, changed, kept])
    assert "whsec_" not in shown
    assert at.secret[6:] not in shown
    with closing(sqlite3.connect(tmp_path / "log.db")) as db:
        stored = "\n".join(db.iterdump())
    assert at.secret[6:] not in stored


async def test_a_rotated_webhook_signs_with_both_secrets_while_both_are_good(
    tmp_path: Path,
) -> None:
    async with told(tmp_path) as at:
        status, made = await at.client.call("POST", f"{at.path}/rotate", {})
        assert status == 200
        assert made["old_secret_until"] is not None
        await at.client.call("POST", f"{at.path}/test")
        (both,) = await at.receiver.got(1)
        _, last = await at.client.call("POST", f"{at.path}/rotate", {"old_good_for_s": 0})
        await at.client.call("POST", f"{at.path}/test")
        _, one = await at.receiver.got(2)
        names = await at.client.get("/api/secrets")

    assert both.verified(at.secret)
    assert both.verified(str(made["secret"]))
    assert one.verified(str(last["secret"]))
    for old in (at.secret, str(made["secret"])):
        with pytest.raises(WebhookVerificationError):
            one.verified(old)
    kept = [str(item["name"]) for item in cast("list[Json]", names["items"])]
    assert len(kept) == 2, "the first one signs no more, and is gone"
    assert all(name.startswith(f"webhook:{at.hook['id']}:") for name in kept)


async def test_a_webhook_whose_secret_was_removed_sends_nothing_and_says_why(
    tmp_path: Path,
) -> None:
    async with told(tmp_path) as at:
        await at.client.call("DELETE", f"/api/secrets/webhook:{at.hook['id']}:1")
        await at.client.call("POST", f"{at.path}/test")
        kept = await delivery(at.client, at.hook, tries=1)
        hook = await at.client.get(at.path)

    assert (kept["code"], kept["error"]) == (None, "its secret was removed: give it another one")
    assert at.receiver.came == []
    assert hook["failures"] == 0


async def test_removing_a_webhook_removes_its_secret_and_its_deliveries(tmp_path: Path) -> None:
    async with told(tmp_path) as at:
        await at.client.call("POST", f"{at.path}/test")
        await at.receiver.got(1)
        assert (await at.client.call("DELETE", at.path))[0] == 204

        gone = [
            (await at.client.call(method, f"{at.path}{more}"))[0]
            for method, more in (("GET", ""), ("DELETE", ""), ("GET", "/deliveries"))
        ]
        assert gone == [404] * 3
        assert (await at.client.get("/api/secrets"))["items"] == []


async def test_a_house_without_a_vault_has_nothing_to_sign_with() -> None:
    agents = {"double": an_agent(quick())}
    async with open_house(agents, default_agent="double", file=None) as service:
        for asked in (
            service.webhooks.create(ADMIN, url="https://hooks.example"),
            service.webhooks.list(ADMIN, after="", limit=1),
            service.deliveries.test(ADMIN, "whk_1"),
        ):
            with pytest.raises(Conflict) as refused:
                await asked
            assert refused.value.code == "no_vault"


# -- where, who, how many --------------------------------------------------------------------

CLOSED = (
    "https://127.0.0.1/hook",
    "https://localhost/hook",
    "https://[::1]/hook",
    "https://0x7f.1/hook",
    "https://2130706433/hook",
    "https://169.254.169.254/latest/meta-data",
    "https://10.1.2.3/hook",
    "https://[::ffff:10.1.2.3]/hook",
    "https://printer.local/hook",
    "https://user:password@hooks.example/",
    "http://hooks.example/",
    "ftp://hooks.example/",
    "file:///etc/passwd",
    "//hooks.example",
    "https://hooks.example/#here",
    "https://hooks.example/ and more",
    "https://hooks.example:99999/",
    "https://höoks.example/",
    "javascript:alert(1)",
    "",
)


@pytest.mark.parametrize("url", CLOSED)
async def test_a_place_that_the_operator_s_rules_close_is_refused_when_it_is_set(
    url: str,
) -> None:
    strict = Outbound(Egress(), in_clear=False)
    async with house(outbound=strict) as client:
        status, problem = await client.call("POST", HOOKS, {"url": url})
        good = await a_hook(client, "https://hooks.example/")
        changed, _ = await client.call("PATCH", f"{HOOKS}/{good['id']}", {"url": url})
        kept = await client.get(f"{HOOKS}/{good['id']}")

    assert (status, changed, kept["url"]) == (422, 422, "https://hooks.example/")
    assert cast("list[Json]", problem["errors"])[0]["pointer"] == "/url"


async def test_a_name_that_leads_to_this_machine_is_not_connected_to() -> None:
    looked_up = list[str]()

    async def resolve(host: str, port: int) -> list[str]:
        del port
        looked_up.append(host)
        return ["127.0.0.1"]

    async with (
        receiving() as receiver,
        house(outbound=Outbound(Egress(), resolve=resolve, in_clear=False)) as client,
    ):
        port = receiver.url.rpartition(":")[2]
        hook = await a_hook(client, f"https://rebound.example:{port}")
        await client.call("POST", f"{HOOKS}/{hook['id']}/test")
        kept = await delivery(client, hook, tries=1)

    assert looked_up == ["rebound.example"]
    assert receiver.came == []
    assert "has no address that connections from here may go to" in str(kept["error"])
    assert "127.0.0.1" not in json.dumps(kept)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": 1},
        {"url": "https://hooks.example/" + "x" * 5000},
        {"url": "https://hooks.example", "events": []},
        {"url": "https://hooks.example", "events": ["run.exploded"]},
        {"url": "https://hooks.example", "events": "run.completed"},
        {"url": "https://hooks.example", "description": "x" * 501},
        {"url": "https://hooks.example", "secret": "whsec_mine"},
    ],
    ids=str,
)
async def test_what_is_no_webhook_is_refused(body: Json) -> None:
    async with house() as client:
        assert (await client.call("POST", HOOKS, body))[0] == 422
        assert (await client.get(HOOKS))["items"] == []
        assert (await client.get("/api/secrets"))["items"] == []


async def test_a_known_secret_is_refused_in_a_url_and_in_a_description() -> None:
    async with house() as client:
        value = "sk-0123456789-abcdef"
        assert (await client.call("PUT", "/api/secrets/mine", {"value": value}))[0] == 201
        url = {"url": f"https://hooks.example/{value}"}
        said = {"url": "https://hooks.example/", "description": f"key: {value}"}
        answers = [await client.call("POST", HOOKS, one) for one in (url, said)]

    assert [status for status, _ in answers] == [422, 422]
    assert value not in json.dumps(answers)


async def test_only_those_who_administer_the_tenant_see_and_set_webhooks() -> None:
    async with house() as client:
        hook = await a_hook(client, "https://hooks.example/")
        member, viewer = await somebody(client, "ann"), await somebody(client, "bob", "viewer")
        path = f"{HOOKS}/{hook['id']}"
        for who in (member, viewer):
            for method, at, body in (
                ("GET", HOOKS, None),
                ("POST", HOOKS, {"url": "https://hooks.example/"}),
                ("GET", path, None),
                ("PATCH", path, {"enabled": False}),
                ("DELETE", path, None),
                ("POST", f"{path}/rotate", {}),
                ("POST", f"{path}/test", None),
                ("GET", f"{path}/deliveries", None),
            ):
                assert (await who.call(method, at, body))[0] == 403, (method, at)
        assert (await client.get(path))["enabled"] is True


async def test_a_tenant_has_so_many_webhooks_and_one_too_many_leaves_no_secret() -> None:
    async with house() as client:
        for _ in range(MOST_WEBHOOKS):
            await a_hook(client, "https://hooks.example/")
        status, problem = await client.call("POST", HOOKS, {"url": "https://hooks.example/"})
        kept = cast("list[Json]", (await client.get("/api/secrets"))["items"])
        first = await client.get(f"{HOOKS}?limit=15")
        rest = await client.get(f"{HOOKS}?limit=15&after={first['cursor']}")

    assert (status, problem["code"], len(kept)) == (409, "too_many_webhooks", MOST_WEBHOOKS)
    items = [cast("list[Json]", page["items"]) for page in (first, rest)]
    ids = [str(one["id"]) for page in items for one in page]
    assert ids == sorted(set(ids), reverse=True)
    assert (len(ids), first["more"], rest["more"]) == (MOST_WEBHOOKS, True, False)


async def test_what_is_done_to_webhooks_is_in_the_audit_log_without_places_and_secrets(
    tmp_path: Path,
) -> None:
    async with told(tmp_path) as at:
        await at.client.call("PATCH", at.path, {"enabled": False})
        await at.client.call("PATCH", at.path, {"enabled": True})
        await at.client.call("POST", f"{at.path}/rotate", {})
        _, made = await at.client.call("POST", f"{at.path}/test")
        await at.receiver.got(1)
        await at.client.call("POST", f"{at.path}/deliveries/{made['id']}/replay")
        await at.client.call("DELETE", at.path)
        rows = cast("list[Json]", (await at.client.get("/api/audit"))["items"])

    done = [(row["action"], row["object"]) for row in reversed(rows)]
    hook = at.hook["id"]
    assert done == [
        ("webhook.create", hook),
        ("webhook.change", hook),
        ("webhook.change", hook),
        ("webhook.rotate", hook),
        ("webhook.test", hook),
        ("webhook.replay", made["id"]),
        ("webhook.remove", hook),
    ]
    assert at.receiver.url not in json.dumps(rows)
