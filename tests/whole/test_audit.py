"""The audit log: what is in it, what can never be, and that it cannot be changed unseen."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import cast

import anyio
import pytest
from tests.canaries import canary, master_keys
from tests.serving import KEY, Client, Json, Serve, serving
from tests.terminals import Home
from tests.waiting import Removals, approve, over, parked, serving_agents

from hostler.core.audited import ACTIONS, Entry, Wanted
from hostler.core.errors import CallerError, Forbidden, Unauthorised
from hostler.core.events import PrincipalId, TenantId
from hostler.core.ports import AgentSpec, Reply, World
from hostler.faces.http.endpoint import Operation
from hostler.faces.http.entry import Tickets
from hostler.faces.http.open_streams import OpenStreams
from hostler.faces.native.operations import Operations
from hostler.faces.native.table import table
from hostler.service.auditing import REFUSAL_EVERY_S, REFUSALS_AT_ONCE, Auditing
from hostler.service.service import Service
from hostler.stores.memory_audit import MemoryAudits
from hostler.testing.doubles import ModelDouble, an_agent
from hostler.testing.store_kit import Clock
from hostler.vault.vault import SealedVault

pytestmark = pytest.mark.anyio
MINE = TenantId("mine")
PLAIN = {
    # What the log of a session, or the server's own, already tells; and what changes nothing.
    "create_session",
    "label_session",
    "fork",
    "speak",
    "cancel",
    "answer",
    "typing",
    "give_ticket",
    "give_feedback",
    "move_session",
    "withdraw_scheduled",
}
"""Operations that change something, and are not audited."""


def quick() -> AgentSpec:
    return an_agent(ModelDouble(lambda _: Reply(text="fine", stop="end")))


async def rows(client: Client, query: str = "") -> list[Json]:
    page = await client.get(f"/api/audit?limit=1000{query}")
    return cast("list[Json]", page["items"])


async def shared(client: Client, session: str) -> Json:
    status, made = await client.call("POST", f"/api/sessions/{session}/shares", {})
    assert status == 201
    return made


async def exported(client: Client, path: str) -> bytes:
    key = {"Authorization": f"Bearer {client.key}"}
    async with client.http.get(f"{client.url}{path}", headers=key) as answer:
        assert answer.status == 200
        return await answer.read()


@asynccontextmanager
async def failing(folder: Path, action: str) -> AsyncGenerator[None]:
    """Let the database refuse rows of one action."""
    with closing(sqlite3.connect(folder / "log.db", isolation_level=None)) as db:
        db.execute(
            "CREATE TRIGGER no_row BEFORE INSERT ON audit "
            f"WHEN new.action = '{action}' BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
        yield
        db.execute("DROP TRIGGER no_row")


def operations() -> list[Operation]:
    # The handlers are only named here, never called, so they need nothing to work on.
    return table(Operations(cast("Service", None), OpenStreams(), Tickets()))


# -- what is in it -----------------------------------------------------------------------------


def test_whatever_changes_something_is_audited_or_plain_by_name() -> None:
    changing = {one.name: one.audited for one in operations() if one.method != "GET"}

    assert {name for name, action in changing.items() if action is None} == PLAIN
    assert {one.audited for one in operations() if one.audited} <= set(ACTIONS)


async def test_a_row_says_who_did_what_to_what_and_how_it_ended(serve: Serve) -> None:
    async with serve(quick()) as client:
        session = await client.session()
        share = await shared(client, session)
        path = f"/api/sessions/{session}/shares/{share['id']}"
        named = {"X-Request-Id": "req-of-the-proxy"}
        assert (await client.call("DELETE", path, headers=named))[0] == 204

        revoked, made = await rows(client)

    assert (made["action"], made["kind"], made["object"]) == ("share.create", "share", share["id"])
    assert made["details"] == {"session": session, "expires_in_s": 604800}
    assert (made["principal"], made["tenant"], made["outcome"]) == ("admin", "default", "done")
    assert (made["status"], made["address"], made["seq"]) == (201, "127.0.0.1", 1)
    assert (revoked["action"], revoked["object"]) == ("share.revoke", share["id"])
    assert (revoked["request"], revoked["status"]) == ("req-of-the-proxy", 204)
    assert revoked["previous"] == made["hash"]


async def test_sessions_that_are_taken_away_brought_or_removed_are_audited(serve: Serve) -> None:
    async with serve(quick()) as client:
        session = await client.session()
        file = await exported(client, f"/api/sessions/{session}/export")
        await client.call("DELETE", f"/api/sessions/{session}")
        assert (await client.call("POST", "/api/sessions/import", raw=file))[0] == 201
        assert (await client.call("POST", "/api/sessions/import", raw=file))[0] == 409

        found = await rows(client)

    told = [(row["action"], row["object"], row["outcome"], row["status"]) for row in found]
    assert told == [
        ("session.import", session, "refused", 409),
        ("session.import", session, "done", 201),
        ("session.delete", session, "done", 204),
        ("session.export", session, "done", 200),
    ]


async def test_secrets_are_audited_by_name_and_without_their_values(tmp_path: Path) -> None:
    value, vault = "a-value-to-look-for", SealedVault(master_keys())
    async with serving(quick(), file=tmp_path / "log.db", vault=vault) as client:
        path = "/api/secrets/tool:github"
        assert (await client.call("PUT", path, {"value": value}))[0] == 201
        assert (await client.call("PUT", path, {"value": value}))[0] == 200
        assert (await client.call("POST", "/api/secrets-rotation"))[0] == 200
        assert (await client.call("POST", "/api/secrets-scrub", {"value": f"{value}-2"}))[0] == 200
        assert (await client.call("DELETE", path))[0] == 204
        assert (await client.call("DELETE", path))[0] == 404

        found = await rows(client)
        file = await exported(client, "/api/audit/export")

    assert [(row["action"], row["kind"], row["object"], row["outcome"]) for row in found] == [
        ("secret.remove", "secret", "tool:github", "refused"),
        ("secret.remove", "secret", "tool:github", "done"),
        ("secret.scrub", "secret", "", "done"),
        ("secret.rotate", "secret", "", "done"),
        ("secret.set", "secret", "tool:github", "done"),
        ("secret.set", "secret", "tool:github", "done"),
    ]
    assert value.encode() not in file
    with closing(sqlite3.connect(tmp_path / "log.db")) as db:
        assert value not in repr(db.execute("SELECT * FROM audit").fetchall())


async def test_an_approval_is_audited_once_however_often_it_is_sent(tmp_path: Path) -> None:
    removals = Removals()
    async with serving_agents(tmp_path, removals.agent()) as client:
        session = await client.session()
        call = (await parked(client, session))["call"]
        path, key = f"/api/sessions/{session}/approvals/{call}", {"Idempotency-Key": "k"}
        for _ in range(2):
            assert (await client.call("POST", path, {"decision": "deny"}, headers=key))[0] == 200
        assert (await approve(client, session, call))[0] == 409
        await over(client, session)

        late, given = await rows(client)

    assert (given["action"], given["kind"], given["object"]) == ("approval.answer", "call", call)
    assert given["details"] == {"session": session, "decision": "deny"}
    assert (late["outcome"], late["status"]) == ("refused", 409)
    assert cast("Json", late["details"])["code"] == "already_answered"


async def test_a_verb_of_a_socket_is_audited_like_its_operation(tmp_path: Path) -> None:
    async with serving_agents(tmp_path, Removals().agent()) as client:
        session = await client.session()
        call = (await parked(client, session))["call"]
        url, key = f"{client.url}/api/sessions/{session}/socket?after=now", f"Bearer {client.key}"
        with anyio.fail_after(10):
            async with client.http.ws_connect(url, headers={"Authorization": key}) as socket:
                body = {"call": call, "decision": "deny"}
                await socket.send_json({"id": 1, "verb": "approve", "body": body})
                while "re" not in cast("Json", await socket.receive_json()):
                    pass

        (given,) = await rows(client)

    assert (given["action"], given["object"]) == ("approval.answer", call)
    assert given["address"] == "127.0.0.1"


async def test_conversations_and_reads_are_not_audited(serve: Serve) -> None:
    async with serve(quick()) as client:
        session = await client.session(title="of no concern")
        await client.speak(session)
        await client.get(f"/api/sessions/{session}")
        assert (await client.call("GET", "/api/sessions/ses_absent00"))[0] == 404

        assert await rows(client) == []


async def test_no_secret_gets_into_the_log(serve: Serve, tmp_path: Path) -> None:
    async with serve(quick()) as client:
        session = await client.session()
        token = str((await shared(client, session))["token"])
        wrong = Client(client.http, client.url, key="hk_wrong_but_perhaps_good_elsewhere")
        assert (await wrong.call("GET", f"/api/sessions?share={token}"))[0] == 401
        assert (await wrong.call("GET", f"/api/sessions/{session}?ticket={token}"))[0] == 401
        file = await exported(client, "/api/audit/export")

    with closing(sqlite3.connect(tmp_path / "log.db")) as db:
        kept = repr(db.execute("SELECT * FROM audit").fetchall()).encode()
    for secret in (token, wrong.key, KEY):
        assert secret.encode() not in file
        assert secret.encode() not in kept


# -- one commit --------------------------------------------------------------------------------


async def test_what_cannot_be_audited_is_not_done(tmp_path: Path) -> None:
    vault = SealedVault(master_keys())
    async with serving(quick(), file=tmp_path / "log.db", vault=vault) as client:
        session = await client.session()
        async with failing(tmp_path, "share.create"):
            status, _ = await client.call("POST", f"/api/sessions/{session}/shares", {})
            assert status == 503
            shares = await client.get(f"/api/sessions/{session}/shares")
        async with failing(tmp_path, "session.delete"):
            assert (await client.call("DELETE", f"/api/sessions/{session}"))[0] == 503

        async with failing(tmp_path, "secret.set"):
            status, _ = await client.call(
                "PUT", "/api/secrets/one", {"value": canary("one", "12345678")}
            )
            assert status == 503
        async with failing(tmp_path, "tenant.create"):
            assert (await client.call("POST", "/api/tenants", {"id": "acme"}))[0] == 503

        assert (await client.get("/api/secrets"))["items"] == []
        assert (await client.call("GET", "/api/tenants/acme"))[0] == 404
        assert shares["items"] == []
        assert (await client.get(f"/api/sessions/{session}"))["id"] == session
        assert await rows(client) == []


async def test_a_delete_is_audited_with_the_delete_and_not_with_the_cancel_before_it(
    tmp_path: Path,
) -> None:
    async with serving_agents(tmp_path, Removals().agent()) as client:
        session = await client.session()
        await parked(client, session)
        async with failing(tmp_path, "session.delete"):
            assert (await client.call("DELETE", f"/api/sessions/{session}"))[0] == 503

        facts = await client.facts(session)
        assert facts[-1]["status"] == "cancelled"
        assert await rows(client) == []


# -- refusals ----------------------------------------------------------------------------------


async def test_those_who_are_not_let_in_are_written_down_until_they_are_too_many(
    serve: Serve,
) -> None:
    async with serve(quick()) as client:
        wrong = Client(client.http, client.url, key="hk_guess")
        for _ in range(REFUSALS_AT_ONCE + 20):
            assert (await wrong.call("GET", "/api/sessions"))[0] == 401

        found = await rows(client, "&action=access.refused")

    assert REFUSALS_AT_ONCE <= len(found) <= REFUSALS_AT_ONCE + 2
    assert {(row["principal"], row["status"], row["outcome"]) for row in found} == {
        ("nobody", 401, "refused")
    }


async def test_a_guest_who_reaches_for_more_is_written_down(serve: Serve) -> None:
    async with serve(quick()) as client:
        session = await client.session()
        share = await shared(client, session)
        guest = Client(client.http, client.url, key=str(share["token"]))
        path = f"/api/sessions/{session}"
        assert (await guest.call("POST", f"{path}/messages", {"content": "hi"}))[0] == 403
        assert (await guest.call("DELETE", path))[0] == 403
        assert (await guest.call("GET", "/api/audit"))[0] == 403

        found = await rows(client)

    who = f"share:{share['id']}"
    assert [(row["action"], row["principal"], row["status"]) for row in found] == [
        ("access.refused", who, 403),
        ("session.delete", who, 403),
        ("access.refused", who, 403),
        ("share.create", "admin", 201),
    ]


def refusal(principal: str, tenant: TenantId = MINE) -> Entry:
    return Entry(tenant=tenant, action="access.refused", principal=PrincipalId(principal))


async def test_refusals_that_were_too_many_are_counted_in_the_next_one() -> None:
    clock = Clock()
    auditing = Auditing(audits=MemoryAudits(clock=clock), world=World("w", clock))
    for _ in range(REFUSALS_AT_ONCE + 7):
        await auditing.refused(refusal("somebody"), Forbidden("no"))
    clock.now += REFUSAL_EVERY_S
    await auditing.refused(refusal("somebody"), Forbidden("no"))

    last, before = await auditing.audits.newest(MINE, Wanted(), limit=2)

    assert last.details == {"code": "forbidden", "unwritten": 7}
    assert before.details == {"code": "forbidden"}
    assert last.seq == REFUSALS_AT_ONCE + 1


async def test_who_has_no_key_cannot_crowd_out_what_others_are_refused() -> None:
    auditing = Auditing(audits=MemoryAudits(), world=World("w", Clock()))
    nobody, default = refusal("nobody", TenantId("")), TenantId("default")
    for _ in range(REFUSALS_AT_ONCE * 2):
        await auditing.refused(nobody, Unauthorised("no"))
    await auditing.refused(refusal("somebody", default), Forbidden("no"))

    (last,) = await auditing.audits.newest(default, Wanted(), limit=1)

    assert last.principal == "somebody"


async def test_a_deed_that_is_refused_is_written_as_refused() -> None:
    auditing = Auditing(audits=MemoryAudits(), world=World("w", Clock()))

    async def refuse() -> None:
        raise CallerError("no")

    with pytest.raises(CallerError):
        await auditing.during(refusal("somebody"), refuse)
    (row,) = await auditing.audits.newest(MINE, Wanted(), limit=9)
    assert (row.outcome, row.status) == ("refused", 400)


# -- reading it, and checking it ---------------------------------------------------------------


async def test_pages_and_filters(serve: Serve) -> None:
    async with serve(quick()) as client:
        session = await client.session()
        for _ in range(3):
            await shared(client, session)
        await client.call("DELETE", f"/api/sessions/{session}")

        first = await client.get("/api/audit?limit=2")
        rest = await client.get(f"/api/audit?after={first['cursor']}")
        assert [row["seq"] for row in cast("list[Json]", first["items"])] == [4, 3]
        assert [row["seq"] for row in cast("list[Json]", rest["items"])] == [2, 1]
        assert (first["more"], rest["more"]) == (True, False)
        assert len(await rows(client, "&action=share.create")) == 3
        assert await rows(client, "&principal=nobody") == []
        assert await rows(client, "&to=2020-01-01T00:00:00Z") == []
        assert len(await rows(client, "&from=2020-01-01T00:00:00%2B01:00")) == 4
        assert len(await rows(client, "&from=2020-01-01")) == 4


@pytest.mark.parametrize(
    "query",
    [
        "from=yesterday",
        "to=0001-01-01T00:00:00%2B14:00",
        "from=2020-01-01T00:00:00",
        "action=x",
        "after=x",
        "to=",
    ],
)
async def test_what_cannot_be_asked_for_is_422(serve: Serve, query: str) -> None:
    async with serve(quick()) as client:
        assert (await client.call("GET", f"/api/audit?{query}"))[0] == 422


async def test_the_exported_file_goes_on_where_the_last_one_ended(serve: Serve) -> None:
    async with serve(quick()) as client:
        session = await client.session()
        await shared(client, session)
        head = await client.get("/api/audit/head")
        file = await exported(client, "/api/audit/export")
        more = await exported(client, f"/api/audit/export?after={head['seq']}")

    lines = [cast("Json", json.loads(line)) for line in file.splitlines()]
    later = [cast("Json", json.loads(line)) for line in more.splitlines()]
    assert lines[0]["hash"] == head["hash"]
    assert [row["action"] for row in lines] == ["share.create", "audit.export"]
    assert later[0] == lines[1]


@pytest.mark.timeout(120)
def test_the_command_verifies_files_and_databases_and_says_where_they_break(
    tmp_path: Path,
) -> None:
    home = Home(tmp_path)
    database, file = tmp_path / "data" / "hostler.db", tmp_path / "audit.jsonl"
    anyio.run(fill, database)

    head = home.run("audit", "head").stdout.strip()
    file.write_text(home.run("audit", "export").stdout)
    whole = home.run("audit", "verify", str(file), "--head", head)
    stored = home.run("audit", "verify", "--database", str(database))
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:1] + lines[2:]))
    cut = home.run("audit", "verify", str(file))
    piped = home.run("audit", "verify", "-", "--head", f"9:{'0' * 64}", stdin="".join(lines))
    with closing(sqlite3.connect(database, isolation_level=None)) as db:
        db.execute("UPDATE audit SET principal = 'somebody' WHERE seq = 2")
    changed = home.run("audit", "verify", "--database", str(database))

    assert (whole.returncode, stored.returncode) == (0, 0), whole.stderr + stored.stderr
    assert whole.stdout.startswith("default: whole up to 4:")
    assert (cut.returncode, cut.stderr[:18]) == (1, "broken at row 3: i")
    assert (piped.returncode, "the end is missing" in piped.stderr) == (1, True)
    assert changed.returncode == 1
    assert changed.stderr == "broken at row 2: it was changed: its hash is another\n"


async def fill(database: Path) -> None:
    database.parent.mkdir()
    async with serving(quick(), file=database) as client:
        session = await client.session()
        for _ in range(3):
            await shared(client, session)


@pytest.mark.parametrize("days", [0.0, 30.0])
async def test_retention_leaves_a_chain_that_is_whole(days: float) -> None:
    clock = Clock()
    auditing = Auditing(audits=MemoryAudits(clock=clock), world=World("w", clock))
    await auditing.audits.write(refusal("somebody"))
    clock.now += 40 * 86_400.0
    await auditing.audits.write(refusal("somebody"))

    await auditing.cut(days)

    kept = await auditing.audits.rows(MINE, after=0, limit=9)
    assert [row.seq for row in kept] == ([2, 3] if days else [1, 2])


async def test_tenants_and_keys_are_audited_in_the_tenant_of_who_did_it(serve: Serve) -> None:
    async with serve(quick()) as client:
        assert (await client.call("POST", "/api/tenants", {"id": "acme"}))[0] == 201
        wanted = {"user": "ann", "role": "admin"}
        status, made = await client.call("POST", "/api/keys", {"tenant": "acme", **wanted})
        assert status == 201
        ann = Client(client.http, client.url, key=str(made["key"]))
        assert (await ann.call("DELETE", f"/api/keys/{made['id']}"))[0] == 204

        mine = await rows(client)
        _, page = await client.call("GET", "/api/audit", headers={"Hostler-Tenant": "acme"})

    assert [(row["action"], row["object"]) for row in mine] == [
        ("key.create", made["id"]),
        ("tenant.create", "acme"),
    ]
    assert str(made["key"]) not in json.dumps(mine)
    (revoked,) = cast("list[Json]", page["items"])
    assert (revoked["action"], revoked["user"], revoked["seq"]) == ("key.revoke", "ann", 1)
