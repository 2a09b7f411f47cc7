"""Keys and tenants: what each opens, how each ends, and what is otherwise for a tenant."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import cast, get_args

import anyio
import pytest
from tests.answers import nameless
from tests.people import ended, exactly, new_key, somebody
from tests.serving import Client, Json, Serve, serving
from tests.viewers import by_sse

from hostler.app.upkeep import again_and_again
from hostler.core.directory import Directory, Standing
from hostler.core.errors import Forbidden, NotFound, Unauthorised, Unavailable
from hostler.core.events import Principal, PrincipalId, Role, Scope, TenantId
from hostler.core.ports import AgentSpec, Reply, Request, World
from hostler.faces.http.open_streams import OpenStreams
from hostler.service.authorise import RIGHTS, RIGHTS_OF, Access, Right, authorise
from hostler.service.keys import REMEMBERED_S, Keys, NewKey
from hostler.service.tenants import Tenants
from hostler.stores.memory import MemoryStore
from hostler.stores.memory_directory import MemoryDirectory
from hostler.testing.directory_suite import a_grant, of
from hostler.testing.doubles import ModelDouble, an_agent
from hostler.testing.store_kit import Clock

pytestmark = pytest.mark.anyio
OPERATOR = Principal(id=PrincipalId("admin"), tenant=TenantId("default"), is_operator=True)


def plain(name: str = "double") -> AgentSpec:
    return an_agent(ModelDouble(lambda _: Reply(text="fine", stop="end")), name=name)


# -- who may do what -------------------------------------------------------------------------


async def allowed(
    role: Role, right: Right, standing: Standing | None, scopes: frozenset[Scope] | None = None
) -> str:
    """Return what becomes of somebody who wants to do something with a session."""
    store = MemoryStore()
    directory = MemoryDirectory(store)
    key = await of(store, "me" if standing == "owner" else "else", name="ses_1")
    if standing in ("member", "viewer"):
        await directory.grant(a_grant(key, PrincipalId("me"), role=standing))
    who = Principal(id=PrincipalId("me"), tenant=key.tenant, role=role, scopes=scopes)
    try:
        assert await Access(directory).key(who, right, key.session) == key
    except (Forbidden, NotFound) as error:
        return type(error).__name__
    return "yes"


TABLE: dict[tuple[Role, Standing | None], str] = {
    # may read · write · administer
    ("admin", None): "yes yes yes",
    ("admin", "owner"): "yes yes yes",
    ("admin", "viewer"): "yes yes yes",
    ("member", None): "NotFound NotFound NotFound",
    ("member", "owner"): "yes yes yes",
    ("member", "member"): "yes yes Forbidden",
    ("member", "viewer"): "yes Forbidden Forbidden",
    ("viewer", None): "yes Forbidden Forbidden",
    ("viewer", "owner"): "yes Forbidden Forbidden",
    ("viewer", "member"): "yes Forbidden Forbidden",
}


@pytest.mark.parametrize(("role", "standing"), TABLE)
async def test_a_role_and_a_standing_give_these_rights(
    role: Role, standing: Standing | None
) -> None:
    told = [await allowed(role, right, standing) for right in ("read", "write", "admin")]
    assert " ".join(told) == TABLE[role, standing]
    assert set(RIGHTS) == set(get_args(Role))
    assert set(RIGHTS_OF) == set(get_args(Standing))


@pytest.mark.parametrize("role", get_args(Role))
@pytest.mark.parametrize("right", get_args(Right))
async def test_a_scope_takes_away_what_it_does_not_name_and_gives_nothing(
    role: Role, right: Right
) -> None:
    named: Scope = f"sessions:{right}"  # type: ignore[assignment]
    others = frozenset(get_args(Scope)) - {named}

    assert await allowed(role, right, "owner", others) == "Forbidden"
    assert await allowed(role, right, "owner", frozenset({named})) == await allowed(
        role, right, "owner"
    )
    who = Principal(id=PrincipalId("me"), tenant=TenantId("t"), scopes=frozenset({named}))
    for noun in ("runs", "keys", "tenant"):
        with pytest.raises(Forbidden, match="scope"):
            authorise(who, "read", None, noun)
    if right == "admin":
        with pytest.raises(Forbidden, match="tenant:admin"):
            authorise(who, "admin", None)


async def test_a_change_of_who_may_see_is_seen_at_once_and_remembering_ends() -> None:
    store, clock = MemoryStore(), Clock()
    directory = MemoryDirectory(store)
    access, key = Access(directory, clock), await of(store, "alice")
    who = Principal(id=PrincipalId("bob"), tenant=key.tenant, role="member")
    await directory.grant(a_grant(key))
    await access.key(who, "read", key.session)

    await directory.ungrant(key, who.id)  # on another node
    await access.key(who, "read", key.session)
    clock.now += 2.0
    with pytest.raises(NotFound):
        await access.key(who, "read", key.session)
    await directory.grant(a_grant(key))
    await access.key(who, "read", key.session)
    await directory.ungrant(key, who.id)
    access.forget(*key)
    with pytest.raises(NotFound):
        await access.key(who, "read", key.session)


class Counted:
    """A directory that counts what it is asked."""

    def __init__(self, directory: Directory) -> None:
        self.asked, self._directory = list[str](), directory

    def __getattr__(self, name: str) -> Callable[..., object]:
        self.asked.append(name)
        return cast("Callable[..., object]", getattr(self._directory, name))


async def test_a_turn_asks_the_directory_nothing_for_an_admin_and_once_for_a_member() -> None:
    store = MemoryStore()
    counted = Counted(MemoryDirectory(store))
    access = Access(cast("Directory", counted))
    key = await of(store, "alice")
    for role, wanted in (("admin", []), ("viewer", []), ("member", ["standing"])):
        counted.asked.clear()
        who = Principal(id=PrincipalId("alice"), tenant=key.tenant, role=cast("Role", role))
        for right in ("read", "read", "write") if role != "viewer" else ("read",):
            await access.key(who, cast("Right", right), key.session)
        assert counted.asked == wanted


# -- keys ------------------------------------------------------------------------------------


async def test_a_key_is_shown_once_and_says_who_comes_with_it(serve: Serve, tmp_path: Path) -> None:
    async with serve(plain()) as admin:
        wanted = {"user": "alice", "scopes": ["sessions:read", "runs:read"], "expires_in_s": 60}
        twice = {"Idempotency-Key": "k"}
        made = [(await admin.call("POST", "/api/keys", wanted, headers=twice))[1] for _ in range(2)]
        assert made[0]["key"] != made[1]["key"], "an answer that was kept would hold it"
        key = str(made[0]["key"])
        assert re.fullmatch(r"hk_[0-9a-f]{8}_[\w-]{43}", key)
        assert key.startswith(f"{made[0]['prefix']}_")
        alice = Client(admin.http, admin.url, key)

        me = await alice.get("/api/me")
        assert (me["id"], me["user"], me["role"]) == ("alice", "alice", "member")
        assert (me["tenant"], me["scopes"]) == ("default", ["runs:read", "sessions:read"])
        assert (me["key"], me["prefix"]) == (made[0]["id"], made[0]["prefix"])
        assert me["expires_at"] == made[0]["expires_at"]
        assert (await alice.call("POST", "/api/sessions", {}))[0] == 403
        assert (await alice.get("/api/sessions"))["items"] == []
        listed = cast("list[Json]", (await admin.get("/api/keys"))["items"])
        assert [one["id"] for one in listed] == [made[1]["id"], made[0]["id"]]
        assert all("key" not in one and "digest" not in one for one in listed)
        assert listed[1]["used_at"] is not None
        assert listed[0]["used_at"] is None
        assert (await admin.get("/api/me"))["is_operator"] is True
    stored = in_files(tmp_path)
    assert not any(str(one["key"]).encode() in stored for one in made)


def in_files(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


@pytest.mark.parametrize(
    "wrong",
    [
        {"role": "operator"},
        {"user": ""},
        {"user": "a b"},
        {"user": "a/b"},
        {"user": "admin"},
        {"user": "key_1"},
        {"user": "share:x"},
        {"user": "ü"},
        {"user": "x" * 129},
        {"user": 5},
        {"scopes": []},
        {"scopes": ["everything"]},
        {"scopes": "runs:read"},
        {"title": "x" * 501},
        {"expires_in_s": 0},
        {"expires_in_s": -1},
        {"expires_in_s": 1e300},
        {"expires_in_s": "30d"},
        {"is_operator": True},
    ],
    ids=str,
)
async def test_a_key_that_cannot_be_is_refused(serve: Serve, wrong: Json) -> None:
    async with serve(plain()) as admin:
        assert (await admin.call("POST", "/api/keys", wrong))[0] == 422
        assert (await admin.get("/api/keys"))["items"] == []


async def test_a_key_that_is_wrong_revoked_or_expired_is_refused_in_the_same_bytes(
    serve: Serve,
) -> None:
    async with serve(plain()) as admin:
        revoked, short = await new_key(admin), await new_key(admin, expires_in_s=0.001)
        assert (await admin.call("DELETE", f"/api/keys/{revoked['id']}"))[0] == 204
        good = str((await new_key(admin))["key"])
        hostile = [
            "hk_",
            "hk_00000000_" + "x" * 43,
            good[:-1],
            good + "x",
            good.upper(),
            good.replace("hk_", "hs_", 1)[:46],
            "x" * 8000,
            "'; DROP TABLE keys; --",
            "\u00e9",
        ]
        answers = [
            nameless(await exactly(Client(admin.http, admin.url, str(key)), "GET", "/api/me"))
            for key in (revoked["key"], short["key"], *hostile[:4], hostile[6], hostile[7])
        ]
        assert {answer[0] for answer in answers} == {401}
        assert len({answer[2] for answer in answers}) == 1
        for key in hostile:
            assert (await exactly(Client(admin.http, admin.url, key), "GET", "/api/me"))[0] == 401
        assert (await exactly(Client(admin.http, admin.url, good), "GET", "/api/me"))[0] == 200


@pytest.mark.parametrize("end", ["revoked", "expired"])
async def test_a_key_that_ends_cuts_its_streams_and_sockets_and_no_other_s(
    tmp_path: Path, end: str
) -> None:
    streams = OpenStreams()
    async with serving(plain(), file=tmp_path / "log.db", streams=streams) as admin:
        made = await new_key(admin, user="alice", expires_in_s=60 if end == "revoked" else 1.5)
        alice, other = (
            Client(admin.http, admin.url, str(made["key"])),
            await somebody(admin, "alice"),
        )
        session = await alice.session()
        await alice.speak(session)
        url = f"{admin.url}/api/sessions/{session}/socket"
        header = {"Authorization": f"Bearer {alice.key}"}
        with anyio.fail_after(10):
            async with admin.http.ws_connect(url, headers=header) as socket:
                stream, kept = by_sse(alice, session, "0"), by_sse(other, session, "0")
                await anext(stream)
                await anext(kept)
                if end == "revoked":
                    for _ in range(2):
                        gone = await alice.call("DELETE", f"/api/keys/{made['id']}")
                        assert gone[0] in (204, 401), "a member ends their own"

                await ended(stream)
                async for _ in socket:
                    pass
                assert socket.close_code == 4401
                assert len(streams) == 1
                await kept.aclose()
        assert (await alice.call("GET", "/api/me"))[0] == 401


async def test_a_member_knows_of_their_own_keys_alone_and_makes_none(serve: Serve) -> None:
    async with serve(plain()) as admin:
        alice, bob = await somebody(admin, "alice"), await somebody(admin, "bob")
        viewer = await somebody(admin, "eve", "viewer")
        his = str((await bob.get("/api/me"))["key"])

        listed = cast("list[Json]", (await alice.get("/api/keys"))["items"])

        assert [one["user"] for one in listed] == ["alice"]
        assert (await alice.call("POST", "/api/keys", {"user": "alice"}))[0] == 403
        assert (await viewer.call("GET", "/api/keys"))[0] == 403
        absent = nameless(await exactly(alice, "DELETE", "/api/keys/key_absent"))
        foreign = nameless(await exactly(alice, "DELETE", f"/api/keys/{his}"))
        assert (foreign[0], foreign[2].replace(his.encode(), b"key_absent")) == (404, absent[2])
        assert (await bob.call("GET", "/api/me"))[0] == 200


async def test_a_key_of_few_scopes_makes_no_key_of_more(serve: Serve) -> None:
    async with serve(plain()) as admin:
        few = await somebody(admin, "ann", "admin", scopes=["keys:admin", "runs:read"])
        for scopes in (None, ["sessions:read"], ["runs:read", "sessions:read"]):
            assert (await few.call("POST", "/api/keys", {"scopes": scopes}))[0] == 403
        assert (await few.call("POST", "/api/keys", {"scopes": ["runs:read"]}))[0] == 201
        assert (await few.call("POST", "/api/tenants", {"id": "acme"}))[0] == 403


async def test_a_key_is_looked_up_once_in_a_while_and_its_use_noted_in_one_write() -> None:
    clock, directory = Clock(), Counted(MemoryDirectory(MemoryStore()))
    world = World("w", clock=clock)
    port = cast("Directory", directory)
    keys = Keys(port, Tenants(port, world, {}), world)
    key, text = await keys.create(OPERATOR, NewKey(user="alice"))
    directory.asked.clear()

    for _ in range(5):
        assert (await keys.holder(text)).who.id == "alice"
    assert directory.asked == ["key_of_digest"]
    clock.now += REMEMBERED_S
    await keys.holder(text)
    await keys.note_use()
    await keys.note_use()

    assert directory.asked == ["key_of_digest"] * 2 + ["touch_keys"]
    assert (await port.key(key.tenant, key.id)).used_at == clock.now
    await port.revoke_key(key.tenant, key.id, at=1.0)  # on another node
    clock.now += REMEMBERED_S
    with pytest.raises(Unauthorised):
        await keys.holder(text)


class Full(MemoryDirectory):
    """A directory whose disk is full for its first writes."""

    refused, written = 0, anyio.Event()

    async def touch_keys(self, used: Mapping[tuple[TenantId, str], float]) -> None:
        if self.refused < 3:
            self.refused += 1
            raise Unavailable("disk full")
        await super().touch_keys(used)
        self.written.set()


async def test_a_full_disk_puts_off_the_note_of_a_key_s_use_and_ends_nothing() -> None:
    clock, directory = Clock(), Full(MemoryStore())
    world = World("w", clock=clock)
    keys = Keys(directory, Tenants(directory, world, {}), world)
    key, text = await keys.create(OPERATOR, NewKey(user="alice"))
    await keys.holder(text)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(again_and_again, "noting", keys.note_use, 0.001)
            await directory.written.wait()
            tasks.cancel_scope.cancel()

    assert directory.refused == 3
    assert (await directory.key(key.tenant, key.id)).used_at == clock.now


# -- tenants ---------------------------------------------------------------------------------


async def test_the_operator_makes_tenants_and_acts_in_them_and_nobody_else_does(
    serve: Serve,
) -> None:
    async with serve(plain()) as admin:
        assert (await admin.call("POST", "/api/keys", {"tenant": "acme"}))[0] == 404
        status, made = await admin.call("POST", "/api/tenants", {"id": "acme", "title": "Acme"})
        assert (status, made["title"]) == (201, "Acme")
        assert (await admin.call("POST", "/api/tenants", {"id": "acme"}))[0] == 409
        for wrong in ("", "ACME", "a b", "../x", "x" * 64, "é", 5):
            assert (await admin.call("POST", "/api/tenants", {"id": wrong}))[0] == 422
        there = {"Hostler-Tenant": "acme"}
        _, session = await admin.call("POST", "/api/sessions", {}, headers=there)
        assert (await admin.call("GET", f"/api/sessions/{session['id']}"))[0] == 404
        ann = await somebody(admin, "ann", "admin", tenant="acme")
        assert (await ann.get(f"/api/sessions/{session['id']}"))["id"] == session["id"]

        def ids(page: Json) -> list[object]:
            return [one["id"] for one in cast("list[Json]", page["items"])]

        assert ids(await admin.get("/api/tenants")) == ["acme", "default"]
        assert ids(await ann.get("/api/tenants")) == ["acme"]
        for path in ("/api/tenants/{}",):
            absent = nameless(await exactly(ann, "GET", path.format("nobody")))
            foreign = nameless(await exactly(ann, "GET", path.format("default")))
            assert (foreign[0], foreign[2].replace(b"default", b"nobody")) == (404, absent[2])
        for tenant in ("default", "nobody", "", "x\u00e9"):
            status, told = await ann.call("GET", "/api/me", headers={"Hostler-Tenant": tenant})
            assert (status, told["code"]) == (404, "not_found")
        assert (await ann.call("GET", "/api/me", headers={"Hostler-Tenant": "acme"}))[0] == 200
        absent_header = {"Hostler-Tenant": "nobody"}
        assert (await admin.call("GET", "/api/me", headers=absent_header))[0] == 404
        assert (await ann.call("POST", "/api/tenants", {"id": "mine"}))[0] == 403
        assert (await ann.call("PATCH", "/api/tenants/acme", {"settings": {}}))[0] == 403
        assert (await ann.call("PATCH", "/api/tenants/default", {"settings": {}}))[0] == 404
        assert (await ann.call("POST", "/api/keys", {"tenant": "default"}))[0] == 404


@pytest.mark.parametrize(
    "settings",
    [
        {"most_sessions": -1},
        {"most_sessions": "3"},
        {"most_sessions": 10**30},
        {"retention_days": -0.5},
        {"requests_per_s": 1e-300},
        {"runs_per_s": 1e7},
        {"default_agent": "nobody"},
        {"most_cats": 3},
    ],
    ids=str,
)
async def test_settings_that_cannot_be_are_refused(serve: Serve, settings: Json) -> None:
    async with serve(plain()) as admin:
        status, _ = await admin.call("PATCH", "/api/tenants/default", {"settings": settings})
        assert status == 422
        told = cast("Json", (await admin.get("/api/tenants/default"))["settings"])
        assert set(told.values()) == {None}


async def test_changes_of_one_thing_at_once_undo_nothing(serve: Serve) -> None:
    async with serve(plain()) as admin:
        session = f"/api/sessions/{await admin.session()}"
        for number in range(5):
            labels = {"title": f"T{number}", "metadata": {"a": number}}
            settings = {"most_sessions": 50 + number, "most_streams": 50 + number}
            async with anyio.create_task_group() as tasks:
                for name, value in labels.items():
                    tasks.start_soon(admin.call, "PATCH", session, {name: value})
                for name, value in settings.items():
                    body = {"settings": {name: value}}
                    tasks.start_soon(admin.call, "PATCH", "/api/tenants/default", body)
            assert {**await admin.get(session), **labels} == await admin.get(session)
            told = cast("Json", (await admin.get("/api/tenants/default"))["settings"])
            assert {**told, **settings} == told


async def test_what_is_otherwise_for_a_tenant_holds_there_alone(serve: Serve) -> None:
    async with serve(plain(), plain("butler")) as admin:
        changes = {"most_sessions": 2, "most_streams": 1, "default_agent": "butler"}
        await admin.call("POST", "/api/tenants", {"id": "acme", "settings": changes})
        ann = await somebody(admin, "ann", "admin", tenant="acme")

        sessions = [await ann.session() for _ in range(2)]

        assert (await ann.get(f"/api/sessions/{sessions[0]}"))["agent"] == "butler"
        status, problem = await ann.call("POST", "/api/sessions", {})
        assert (status, problem["code"]) == (409, "too_many_sessions")
        assert (await admin.get(f"/api/sessions/{await admin.session()}"))["agent"] == "double"
        await ann.speak(sessions[0])
        stream = by_sse(ann, sessions[0], "0")
        await anext(stream)
        accept = {"Accept": "text/event-stream"}
        path = f"/api/sessions/{sessions[0]}/events"
        assert (await ann.call("GET", path, headers=accept))[0] == 429
        await stream.aclose()
        more = {"settings": {"most_sessions": 3}}
        assert (await admin.call("PATCH", "/api/tenants/acme", more))[0] == 200
        await ann.session()
        told = cast("Json", (await ann.get("/api/tenants/acme"))["settings"])
        assert (told["most_sessions"], told["most_streams"]) == (3, 1)
        nothing = {"settings": {"most_sessions": None}}
        await admin.call("PATCH", "/api/tenants/acme", nothing)
        await ann.session()


async def test_a_tenant_has_so_many_runs_active_and_what_goes_on_is_not_refused(
    serve: Serve,
) -> None:
    goes_on = anyio.Event()

    class Slow:
        provider, name = "double", "slow"

        async def stream(self, request: Request) -> AsyncGenerator[Reply, None]:
            del request
            await goes_on.wait()
            yield Reply(text="fine", stop="end")

    async with serve(an_agent(Slow())) as admin:  # type: ignore[arg-type]
        limit = {"settings": {"most_active_runs": 1}}
        await admin.call("PATCH", "/api/tenants/default", limit)
        first, second = [await admin.session() for _ in range(2)]
        say = {"content": "hello"}

        assert (await admin.call("POST", f"/api/sessions/{first}/messages", say))[0] == 202
        status, problem = await admin.call("POST", f"/api/sessions/{second}/messages", say)

        assert (status, problem["code"]) == (429, "too_many")
        queued = await admin.call("POST", f"/api/sessions/{first}/messages", say)
        assert queued[0] == 202, "it waits for a run that is going"
        goes_on.set()
