"""Links that open one session for reading, and nothing else; and who may do what at all."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import cast

import anyio
import pytest
from tests.serving import Client, Json, Serve, serving
from tests.viewers import TRANSPORTS, ConnectionLost, Frames, Speaker, Viewer, by_sse, say

from hostler.app.keys import ADMIN
from hostler.core.errors import Forbidden, NotFound
from hostler.core.events import Principal, PrincipalId, SessionId, TenantId
from hostler.core.ports import AgentSpec, Reply, World
from hostler.faces.http.open_streams import OpenStreams
from hostler.service.authorise import RIGHTS, authorise
from hostler.service.limits import MOST_SHARES
from hostler.service.service import Service, make_service
from hostler.testing.doubles import ModelDouble, an_agent

pytestmark = pytest.mark.anyio


def quick() -> AgentSpec:
    return an_agent(ModelDouble(lambda _: Reply(text="fine", stop="end")))


async def shared(client: Client, session: str, **body: object) -> Json:
    status, made = await client.call("POST", f"/api/sessions/{session}/shares", body)
    assert status == 201, made
    return made


async def test_a_link_reads_its_session_on_every_transport(serve: Serve) -> None:
    async with serve(quick()) as client:
        session = await client.session()
        await client.speak(session)
        made = await shared(client, session)
        facts = await client.get(f"/api/sessions/{session}/events")

        assert re.fullmatch(r"hs_[\w-]{43}", str(made["token"]))
        guest = Client(client.http, client.url, key=str(made["token"]))
        assert (await guest.get(f"/api/sessions/{session}"))["id"] == session
        assert await guest.get(f"/api/sessions/{session}/events") == facts
        for transport in TRANSPORTS.values():
            viewer = Viewer([transport])
            with anyio.fail_after(10):
                await viewer.watch(guest, session)
            assert len(viewer.facts) == len(cast("list[Json]", facts["events"]))
        guest.key = ""
        assert await guest.get(str(made["url"])) == facts


async def test_a_link_opens_nothing_else(serve: Serve) -> None:
    async with serve(quick()) as client:
        session, other = await client.session(), await client.session()
        receipt = (await client.speak(session))[0].data
        made = await shared(client, session)
        guest = Client(client.http, client.url, key=str(made["token"]))
        document = await client.get("/openapi.json")
        ours = f"/api/sessions/{session}"
        allowed = {("GET", ours), ("GET", f"{ours}/events"), ("GET", f"{ours}/socket")}
        allowed.add(("GET", f"{ours}/scheduled"))  # it is in the events, too
        allowed.add(("GET", f"/api/chat/{session}/stream"))  # the same, for another client
        public = {"/healthz", "/readyz"}

        for path, methods in cast("dict[str, Json]", document["paths"]).items():
            for method in map(str.upper, methods):
                for one in (session, other):
                    where = path.format(
                        session=one,
                        run=receipt["run"],
                        call="call_1",
                        share="shr_1",
                        secret="github",
                        agent="double",
                        tenant="default",
                        key="key_1",
                        user="alice",
                        provider="openai",
                        model="openai:gpt-5",
                        webhook="whk_1",
                        delivery="evt_1",
                        response="resp_1",
                        conversation="conv_00000000",
                        item="msg_1",
                        input="inp_1",
                    )
                    if path in public or (method, where) in allowed:
                        continue
                    status, problem = await guest.call(method, where, A_BODY.get(path, {}))
                    wanted = (404,) if "{session}" in path and one == other else (403,)
                    assert status in wanted, (method, where, problem)

        absent = await guest.call("GET", "/api/sessions/ses_absent00")
        foreign = await guest.call("GET", f"/api/sessions/{other}")
        assert [*map(str, foreign)] == [
            one.replace("ses_absent00", other) for one in map(str, absent)
        ]


A_BODY = {
    "/api/sessions/{session}/messages": {"content": "hello"},
    "/api/sessions/{session}/approvals/{call}": {"decision": "allow"},
    "/api/sessions/{session}/calls/{call}/result": {"output": "x"},
}


async def test_a_socket_by_link_reads_and_cannot_write_and_the_link_is_not_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with serve(quick()) as client:
        session = await client.session()
        made = await shared(client, session)
        url = f"{client.url}/api/sessions/{session}/socket?share={made['token']}"
        with anyio.fail_after(10):
            async with client.http.ws_connect(url) as socket:
                for verb, body in (
                    ("message", {"content": "hello"}),
                    ("cancel", {}),
                    ("typing", {}),
                ):
                    await socket.send_json({"id": 1, "verb": verb, "body": body})
                    told = cast("Json", await socket.receive_json())
                    assert (told["re"], told["status"]) == (1, 403)

        assert await client.facts(session) == []
    assert str(made["token"]) not in caplog.text


@pytest.mark.parametrize("end", ["revoked", "expired"])
async def test_a_link_that_is_over_is_refused_and_its_streams_are_cut(
    tmp_path: Path, end: str
) -> None:
    streams = OpenStreams()
    async with serving(an_agent(Speaker([])), file=tmp_path / "log.db", streams=streams) as client:
        session = await client.session()
        await say(client, session)
        made = await shared(client, session, expires_in_s=1.0 if end == "expired" else 60)
        guest, path = Client(client.http, client.url, key=str(made["token"])), "/api/sessions"
        viewer = Viewer([by_sse])
        with anyio.fail_after(10):
            url = f"{client.url}{path}/{session}/socket?share={made['token']}"
            async with client.http.ws_connect(url) as socket, anyio.create_task_group() as tasks:
                tasks.start_soon(viewer.watch, client, session, has_asked)
                await viewer.comes_to(has_asked)
                stream = by_sse(guest, session, "0")
                await anext(stream)
                if end == "revoked":
                    where = f"{path}/{session}/shares/{made['id']}"
                    assert (await client.call("DELETE", where))[0] == 204
                    assert (await client.call("DELETE", where))[0] == 204

                await ended(stream)
                async for _ in socket:
                    pass
                assert socket.close_code == 4401
        status, problem = await guest.call("GET", f"{path}/{session}")

        assert (status, problem["code"]) == (401, "unauthorised")
        assert len(streams) == 0


def has_asked(viewer: Viewer) -> bool:
    return "model_asked" in viewer.kinds


async def ended(frames: Frames) -> None:
    try:
        async for _ in frames:
            pass
    except ConnectionLost:
        pass


def in_files(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


async def test_links_are_listed_without_their_tokens_and_kept_without_them(
    serve: Serve, tmp_path: Path
) -> None:
    async with serve(quick()) as client:
        session = await client.session()
        path = f"/api/sessions/{session}/shares"
        key = {"Idempotency-Key": "k"}
        made = [(await client.call("POST", path, {}, headers=key))[1] for _ in range(2)]
        listed = cast("list[Json]", (await client.get(path))["items"])

        assert [one["id"] for one in listed] == [one["id"] for one in made]
        assert all("token" not in one for one in listed)
        for body in ({"expires_in_s": 0}, {"expires_in_s": -1}, {"expires_in_s": 1e12}):
            assert (await client.call("POST", path, body))[0] == 422
        assert (await client.call("POST", "/api/sessions/ses_absent00/shares", {}))[0] == 404
    stored = in_files(tmp_path)
    assert not any(str(one["token"]).encode() in stored for one in made)


async def test_a_session_has_so_many_links(serve: Serve) -> None:
    async with serve(quick()) as client:
        path = f"/api/sessions/{await client.session()}/shares"
        links = [(await client.call("POST", path, {}))[1] for _ in range(MOST_SHARES)]
        assert links[-1]["id"]

        status, problem = await client.call("POST", path, {})

        assert (status, problem["code"]) == (409, "too_many_shares")
        assert (await client.call("DELETE", f"{path}/{links[0]['id']}"))[0] == 204
        assert (await client.call("POST", path, {}))[0] == 201


# -- every verb asks first -------------------------------------------------------------------

STRANGER = Principal(
    id=PrincipalId("share:x"),
    tenant=TenantId("default"),
    role="viewer",
    only=SessionId("ses_mine0000"),
)
OPEN = {
    "Auditing.during": "goes around verbs, which ask",
    "Auditing.refused": "writes that somebody was refused",
    "Auditing.cut": "is retention, not somebody",
    "Following.follow_on": "takes a seat, which only those have who may see the session",
    "Following.seat": "takes a key, which only those have who may see the session, or make it",
    "Inbox.arrive": "makes facts for a key, and writes nothing",
    "Inbox.wake": "rings for a key, which only those have who may write",
    "Schedule.say": "is the engine's, when the time has come; who scheduled it was asked then",
    "Inbox.spoken": "makes a fact for a key, and writes nothing",
    "Sessions.new": "makes a row, and writes nothing",
    "TenantDeliveries.tidy": "is retention, not somebody",
    "TenantWebhooks.tidy": "as above",
    "Waits.given": "makes a fact for a key, and writes nothing",
    "Waits.result": "as above",
    "Rates.standing": "says how often the caller may ask, and nothing of anybody else's",
    "Rates.take": "counts what the caller asks",
    "Runs.wait": "as above",
    "Shares.holder": "finds out who calls",
    "Service.ready": "says nothing of anybody's",
    "Access.forget": "is told what has changed",
    "Access.forget_told": "as forget, when another node says so",
    "Keys.forget": "when another node says that a key is over",
    "Keys.forget_all": "when another process has changed keys",
    "Moving.heard": "when another node was asked, by somebody who may",
    "Sessions.agent_for": "tells a face the agent of the tenant that the caller is of",
    "Tenants.forget": "when another process has changed tenants",
    "Access.sees": "is a question, and its answer is no",
    "Keys.holder": "finds out who calls",
    "Keys.note_use": "writes what it was told",
    "Tenants.known_settings": "tells limits of the tenant that the caller is of",
    "Tenants.exists": "is asked at the door, of the tenant that a token names",
    "Tenants.settings_of": "what is looked up for everybody, and shown to nobody",
    "Tenants.every": "as above",
}


class Untouchable:
    """Stands for every port; a verb that reaches it has not asked first."""

    def __getattr__(self, name: str) -> object:
        def reached(*_: object, **__: object) -> object:
            raise AssertionError(f"{name} was reached")

        return reached


def a_service() -> Service:
    nothing = Untouchable()
    return make_service(
        audits=nothing,  # type: ignore[arg-type]
        store=nothing,  # type: ignore[arg-type]
        directory=nothing,  # type: ignore[arg-type]
        engine=nothing,  # type: ignore[arg-type]
        signals=nothing,  # type: ignore[arg-type]
        agents={"double": quick()},
        default_agent="double",
        world=World("w"),
    )


def verbs() -> list[str]:
    """Return every public verb of the service and of its nouns."""
    service = a_service()
    nouns: list[object] = [service, *(getattr(service, n) for n in service.__dataclass_fields__)]
    ours: set[type] = {
        type(noun) for noun in nouns if type(noun).__module__.startswith("hostler.service")
    }
    return sorted(
        f"{noun.__name__}.{name}"
        for noun in ours
        for name, verb in vars(noun).items()
        if not name.startswith("_") and inspect.isfunction(verb)
    )


def noun_of(service: Service, name: str) -> object:
    nouns = [service, *(getattr(service, field) for field in service.__dataclass_fields__)]
    return next(noun for noun in nouns if type(noun).__name__ == name)


async def carried_out(result: object) -> None:
    if isinstance(result, AsyncGenerator):
        await anext(cast("AsyncGenerator[object, None]", result))
    elif isinstance(result, Awaitable):
        await cast("Awaitable[object]", result)
    elif isinstance(result, AbstractContextManager):
        with cast("AbstractContextManager[object]", result):
            pass


@pytest.mark.parametrize("verb", sorted(set(verbs()) - set(OPEN)))
async def test_every_verb_refuses_a_stranger_before_it_does_anything(verb: str) -> None:
    noun, _, name = verb.partition(".")
    method = cast("Callable[..., object]", getattr(noun_of(a_service(), noun), name))
    parameters = inspect.signature(method).parameters
    assert next(iter(parameters)) == "who", f"{verb} does not ask who calls"
    needed = {
        one.name: SessionId("ses_theirs00") if one.name == "session" else Untouchable()
        for one in parameters.values()
        if one.name != "who" and one.default is inspect.Parameter.empty
    }
    if "session" in parameters:
        needed["session"] = SessionId("ses_theirs00")

    with pytest.raises((NotFound, Forbidden)):
        await carried_out(method(STRANGER, **needed))


def test_what_asks_nobody_is_there_and_has_its_reason() -> None:
    assert set(OPEN) <= set(verbs())


def test_rights_are_what_roles_have() -> None:
    mine, theirs = SessionId("ses_mine0000"), SessionId("ses_theirs00")
    for right in RIGHTS["admin"]:
        authorise(ADMIN, right, theirs)
        authorise(ADMIN, right, None)
    authorise(STRANGER, "read", mine)
    for right in ("write", "admin"):
        with pytest.raises(Forbidden):
            authorise(STRANGER, right, mine)
    for right in RIGHTS["admin"]:
        with pytest.raises(NotFound):
            authorise(STRANGER, right, theirs)
        with pytest.raises(Forbidden):
            authorise(STRANGER, right, None)
