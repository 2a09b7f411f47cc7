"""Members see what is theirs or shared with them, and of the rest not even that it is there."""

from __future__ import annotations

import json
from typing import cast

import anyio
import pytest
from aiohttp import WSServerHandshakeError
from tests.answers import nameless
from tests.people import ended, exactly, new_key, somebody
from tests.serving import Client, Json, Serve
from tests.viewers import by_sse, say

from hostler.core.events import ToolCall
from hostler.core.ports import AgentSpec, Reply, Request
from hostler.testing.doubles import ModelDouble, an_agent

pytestmark = pytest.mark.anyio
ABSENT = "ses_absent00"


def plain() -> AgentSpec:
    return an_agent(ModelDouble(lambda _: Reply(text="fine words", stop="end")))


def ids(body: Json) -> list[str]:
    return [str(one.get("id", one.get("session"))) for one in cast("list[Json]", body["items"])]


async def spoken(client: Client) -> tuple[str, str]:
    """Make a session in which something was said; return it and its run."""
    session = await client.session()
    receipt = (await client.speak(session, "fine words"))[0].data
    return session, str(receipt["run"])


def where(session: str, run: str) -> list[tuple[str, str, bytes | None]]:
    """Return all that can be asked about a session by its id."""
    one = f"/api/sessions/{session}"
    return [
        ("GET", one, None),
        ("PATCH", one, b'{"title": "mine now"}'),
        ("DELETE", one, None),
        ("POST", f"{one}/messages", b'{"content": "hello"}'),
        ("POST", f"{one}/cancel", b"{}"),
        ("POST", f"{one}/approvals/call_1", b'{"decision": "allow"}'),
        ("POST", f"{one}/calls/call_1/result", b'{"output": "x"}'),
        ("POST", f"{one}/fork", b"{}"),
        ("POST", f"{one}/typing", b"{}"),
        ("GET", f"{one}/export", None),
        ("GET", f"{one}/events", None),
        ("GET", f"{one}/events?after=now", None),
        ("GET", f"{one}/events?after=99", None),
        ("GET", f"{one}/socket", None),
        ("POST", f"{one}/shares", b"{}"),
        ("GET", f"{one}/shares", None),
        ("DELETE", f"{one}/shares/shr_1", None),
        ("GET", f"{one}/members", None),
        ("PUT", f"{one}/members/eve", b"{}"),
        ("DELETE", f"{one}/members/eve", None),
        ("GET", f"/api/runs/{run}", None),
        ("GET", f"/api/runs?session={session}", None),
        ("GET", f"/api/approvals?session={session}", None),
        ("GET", f"/api/sessions?after={session}", None),
    ]


@pytest.mark.parametrize("whose", ["another member's", "another tenant's"])
async def test_what_is_somebody_else_s_answers_byte_by_byte_like_what_is_absent(
    serve: Serve, whose: str
) -> None:
    async with serve(plain()) as admin:
        session, run = await spoken(await somebody(admin, "alice"))
        if whose == "another member's":
            eves = [await somebody(admin, "eve")]
        else:
            assert (await admin.call("POST", "/api/tenants", {"id": "acme"}))[0] == 201
            eves = [
                await somebody(admin, "eve", role, tenant="acme")
                for role in ("member", "viewer", "admin")
            ]

        for eve in eves:
            asked = zip(where(session, run), where(ABSENT, "run_absent"), strict=True)
            for (method, path, body), (_, absent, _) in asked:
                theirs = nameless(await exactly(eve, method, path, body))
                nothing = nameless(await exactly(eve, method, absent, body))
                told = theirs[2].replace(session.encode(), ABSENT.encode())
                told = told.replace(run.encode(), b"run_absent")
                assert (theirs[0], told) == (nothing[0], nothing[2]), (method, path)
                assert theirs[1] == nothing[1], (method, path)
                assert theirs[0] in (200, 403, 404), (method, path, theirs)
        assert (await admin.get(f"/api/sessions/{session}"))["title"] is None
        assert ids(await admin.get("/api/sessions")) == [session]


async def test_lists_show_a_member_what_is_theirs_or_shared_and_an_admin_everything(
    serve: Serve,
) -> None:
    async with serve(plain()) as admin:
        alice, bob = await somebody(admin, "alice"), await somebody(admin, "bob")
        viewer = await somebody(admin, "eve", "viewer")
        mine, my_run = await spoken(alice)
        his, his_run = await spoken(bob)
        shared, shared_run = await spoken(bob)
        await bob.call("PUT", f"/api/sessions/{shared}/members/alice", {"role": "viewer"})

        assert ids(await alice.get("/api/sessions")) == [shared, mine]
        assert ids(await alice.get("/api/sessions?limit=1")) == [shared]
        assert ids(await alice.get(f"/api/sessions?after={shared}")) == [mine]
        assert ids(await alice.get(f"/api/sessions?after={his}")) == []
        assert ids(await alice.get("/api/sessions?status=idle&agent=double")) == [shared, mine]
        assert ids(await alice.get("/api/sessions?status=running")) == []
        assert ids(await alice.get("/api/runs")) == [shared_run, my_run]
        assert ids(await alice.get(f"/api/runs?session={his}")) == []
        assert set(ids(await alice.get("/api/search?q=fine+words"))) == {shared, mine}
        taken = await alice.get("/api/storage")
        assert {str(one["session"]) for one in cast("list[Json]", taken["largest"])} == {
            shared,
            mine,
        }
        assert (taken["sessions"], taken["database_bytes"]) == (2, 0)
        for everybody in (admin, viewer):
            assert ids(await everybody.get("/api/sessions")) == [shared, his, mine]
            assert ids(await everybody.get("/api/runs")) == [shared_run, his_run, my_run]
            assert set(ids(await everybody.get("/api/search?q=words"))) == {shared, his, mine}


async def test_the_inbox_shows_a_member_their_own_requests_and_they_answer_no_other(
    serve: Serve,
) -> None:
    call = ToolCall(id="call_x", name="ask_me", arguments={})  # type: ignore[arg-type]

    def answer(request: Request) -> Reply:
        said = any(type(one).__name__ == "ToolSaid" for one in request.transcript)
        return (
            Reply(text="done", stop="end") if said else Reply(text="", stop="tools", calls=(call,))
        )

    tools = [{"name": "ask_me", "description": "", "parameters": {"type": "object"}}]
    async with serve(an_agent(ModelDouble(answer))) as admin:
        alice, bob = await somebody(admin, "alice"), await somebody(admin, "bob")
        session = await alice.session(client_tools=tools)
        path = f"/api/sessions/{session}"
        waits = {"Prefer": "wait=10"}
        status, told = await alice.call("POST", f"{path}/messages", {"content": "x"}, headers=waits)
        assert status == 202
        waiting = str(cast("Json", told["waiting"])["call"])

        refused = await bob.call("POST", f"{path}/calls/{waiting}/result", {"output": "y"})

        assert refused[0] == 404
        assert (await bob.get("/api/approvals?status="))["items"] == []
        result = await alice.call("POST", f"{path}/calls/{waiting}/result", {"output": "y"})
        assert result[0] == 200, result
        assert result[1]["principal"] == "alice"


async def test_who_a_session_is_shared_with_reads_or_writes_until_it_is_not(serve: Serve) -> None:
    async with serve(plain()) as admin:
        alice, bob = await somebody(admin, "alice"), await somebody(admin, "bob")
        session, _ = await spoken(alice)
        path = f"/api/sessions/{session}"
        member, say = f"{path}/members/bob", {"content": "hello"}

        assert (await alice.call("PUT", member, {"role": "viewer"}))[0] == 200
        assert (await bob.call("GET", path))[0] == 200
        assert (await bob.call("POST", f"{path}/messages", say))[0] == 403
        assert (await bob.call("PUT", member, {"role": "member"}))[0] == 403, "not his to decide"
        assert (await alice.call("PUT", member, {"role": "member"}))[0] == 200
        assert (await bob.call("POST", f"{path}/messages", say))[0] == 202
        assert (await exactly(bob, "GET", f"{path}/export"))[0] == 200
        for method, where in (
            ("DELETE", path),
            ("GET", f"{path}/members"),
            ("POST", f"{path}/shares"),
        ):
            body: Json | None = {} if method == "POST" else None
            assert (await bob.call(method, where, body))[0] == 403
        listed = cast("list[Json]", (await alice.get(f"{path}/members"))["items"])
        assert [(one["user"], one["role"], one["by"]) for one in listed] == [
            ("bob", "member", "alice")
        ]

        for _ in range(2):
            assert (await alice.call("DELETE", member))[0] == 204
        assert (await bob.call("GET", path))[0] == 404
        assert (await alice.call("PUT", f"{path}/members/alice", {}))[0] == 422
        for user, status in (("a%20b", 422), ("admin", 422), ("key_1", 422), ("share%3Ax", 422)):
            assert (await alice.call("PUT", f"{path}/members/{user}", {}))[0] == status
        assert (await alice.call("PUT", member, {"role": "admin"}))[0] == 422


async def test_streams_and_sockets_end_when_a_session_is_shared_no_more(serve: Serve) -> None:
    async with serve(plain()) as admin:
        alice, bob = await somebody(admin, "alice"), await somebody(admin, "bob")
        session, _ = await spoken(alice)
        other, _ = await spoken(bob)
        member = f"/api/sessions/{session}/members/bob"
        await alice.call("PUT", member, {"role": "member"})
        url = f"{admin.url}/api/sessions/{session}/socket"
        key = {"Authorization": f"Bearer {bob.key}"}
        with anyio.fail_after(10):
            async with admin.http.ws_connect(url, headers=key) as socket:
                stream, own = by_sse(bob, session, "0"), by_sse(bob, other, "0")
                await anext(stream)
                first = await anext(own)

                assert (await alice.call("DELETE", member))[0] == 204

                await ended(stream)
                async for _ in socket:
                    pass
                assert socket.close_code == 4401
                assert await anext(own) != first, "what is his goes on"
                await own.aclose()
            with pytest.raises(WSServerHandshakeError, match="404"):
                await admin.http.ws_connect(url, headers=key)


async def test_an_owner_ends_streams_of_those_alone_with_whom_they_shared(serve: Serve) -> None:
    async with serve(plain()) as admin:
        alice, boss = await somebody(admin, "alice"), await somebody(admin, "boss", "admin")
        session = await alice.session()
        await alice.speak(session)
        with anyio.fail_after(10):
            stream = by_sse(boss, session, "0")
            await anext(stream)
            assert (await alice.call("DELETE", f"/api/sessions/{session}/members/boss"))[0] == 204
            await say(alice, session, "again")
            while b"again" not in bytes((await anext(stream)).data):
                pass
            await stream.aclose()


async def test_a_program_revokes_the_key_it_came_with(serve: Serve) -> None:
    async with serve(plain()) as admin:
        made = await new_key(admin, role="member")
        program = Client(admin.http, admin.url, str(made["key"]))
        assert (await program.call("DELETE", f"/api/keys/{made['id']}"))[0] == 204
        assert (await program.call("GET", "/api/me"))[0] == 401


async def test_a_fork_and_an_import_belong_to_who_made_them(serve: Serve) -> None:
    async with serve(plain()) as admin:
        alice, bob = await somebody(admin, "alice"), await somebody(admin, "bob")
        session, _ = await spoken(alice)
        await alice.call("PUT", f"/api/sessions/{session}/members/bob", {"role": "viewer"})

        status, fork = await bob.call("POST", f"/api/sessions/{session}/fork", {})
        assert status == 201
        _, _, file = await exactly(alice, "GET", f"/api/sessions/{session}/export")
        assert (await alice.call("DELETE", f"/api/sessions/{session}"))[0] == 204
        query = "?id=ses_imported00"
        assert (await bob.call("POST", f"/api/sessions/import{query}", raw=file))[0] == 201

        assert ids(await bob.get("/api/sessions"))[-1] == "ses_imported00" or fork["id"]
        assert set(ids(await bob.get("/api/sessions"))) == {str(fork["id"]), "ses_imported00"}
        assert ids(await alice.get("/api/sessions")) == []
        assert (await bob.call("DELETE", f"/api/sessions/{fork['id']}"))[0] == 204


async def test_an_id_that_another_member_took_is_refused_whatever_it_was_made_with(
    serve: Serve,
) -> None:
    async with serve(plain()) as admin:
        alice, bob = await somebody(admin, "alice"), await somebody(admin, "bob")
        await alice.session(id="ses_of_alice")
        for _ in range(2):
            status, problem = await bob.call("POST", "/api/sessions", {"id": "ses_of_alice"})
            assert (status, problem["code"]) == (409, "exists")
        assert (await alice.call("POST", "/api/sessions", {"id": "ses_of_alice"}))[0] == 200


async def test_two_keys_of_one_user_are_one_person_and_facts_name_them(serve: Serve) -> None:
    async with serve(plain()) as admin:
        phone, laptop = await somebody(admin, "alice"), await somebody(admin, "alice")
        session, _ = await spoken(phone)

        await laptop.speak(session)

        spoke = [one for one in await laptop.facts(session) if one["kind"] == "user_spoke"]
        assert [one["principal"] for one in spoke] == ["alice", "alice"]
        status, made = await admin.call("POST", "/api/keys", {})
        assert status == 201
        program = Client(admin.http, admin.url, str(made["key"]))
        own = await program.session()
        assert (await phone.call("GET", f"/api/sessions/{own}"))[0] == 404
        assert (await program.get("/api/me"))["id"] == made["id"]


async def test_an_answer_that_was_kept_is_not_shown_to_who_may_not_see_it_any_more(
    serve: Serve,
) -> None:
    async with serve(plain()) as admin:
        alice, bob = await somebody(admin, "alice"), await somebody(admin, "bob")
        session, _ = await spoken(alice)
        member = f"/api/sessions/{session}/members/bob"
        await alice.call("PUT", member, {"role": "member"})
        path, key = f"/api/sessions/{session}/messages", {"Idempotency-Key": "k"}
        assert (await bob.call("POST", path, {"content": "x"}, headers=key))[0] == 202
        assert (await bob.call("POST", path, {"content": "x"}, headers=key))[0] == 202
        await alice.call("DELETE", member)

        status, problem = await bob.call("POST", path, {"content": "x"}, headers=key)

        assert (status, problem["detail"]) == (404, f"no session {session}")
        assert "run" not in json.dumps(problem)
