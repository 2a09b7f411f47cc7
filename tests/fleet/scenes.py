"""What clients do on a fleet while its nodes go and come: each scene is whole in itself, and says what
was wrong by raising.

A scene goes through the balancer, and asks again where it is not answered, as the howtos tell clients
to. Where it matters that two things happen on two nodes, it asks these nodes.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias, cast
from uuid import uuid4

import anyio
from tests.fleet.nodes import LATER, PATIENCE_S, Fleet, Passing, answered, asks, patiently
from tests.serving import Client as Plain
from tests.serving import Json
from tests.viewers import MID_MESSAGE, TRANSPORTS, Viewer

from hostler.app.frames import Frame
from hostler.core.errors import Conflict
from hostler.core.events import ClientTool
from hostler.testing.crash.waiting import breath

Scene: TypeAlias = Callable[[Fleet], Awaitable[None]]
SHORT, LONG = "say 20 1", "say 200 15"
RESPONSES = "/v1/responses"


# -- what scenes are made of -------------------------------------------------------------------


async def comes_to(fleet: Fleet, session: str, kind: str, run: str | None = None) -> list[Frame]:
    """Return a session's facts up to one of a kind."""
    facts = list[Frame]()
    with anyio.fail_after(PATIENCE_S):
        async with fleet.client() as client, aclosing(client.follow(session)) as frames:
            async for frame in frames:
                if frame.event == "delta":
                    continue
                facts.append(frame)
                if frame.event == kind and run in (None, frame.data["run"]):
                    break
    return facts


async def ended(fleet: Fleet, session: str, run: str) -> Frame:
    """Return the end of a run."""
    return (await comes_to(fleet, session, "run_ended", run))[-1]


async def says(fleet: Fleet, session: str, content: str, **more: object) -> str:
    """Say something; return the run."""
    async with fleet.client() as client:
        return str((await client.speak(session, content, **more)).run)  # type: ignore[arg-type]


def driver(facts: Sequence[Frame]) -> int:
    """Return the process that drives a session's run."""
    claims = [one for one in facts if one.event == "run_claimed"]
    return int(str(claims[-1].data["worker"]).rpartition("-")[2])


async def elsewhere(
    fleet: Fleet, facts: Sequence[Frame], path: str, body: object
) -> tuple[int, Json]:
    """Ask a node that does not drive the run; if it goes meanwhile, another one, the same thing."""
    once = uuid4().hex

    async def ask() -> tuple[int, Json]:
        node = await fleet.another(driver(facts))
        return await answered(fleet.at(node), "POST", path, body, once)

    return await patiently(ask)


# -- scenes ------------------------------------------------------------------------------------


async def every_message_is_taken_as_its_policy_says(fleet: Fleet) -> None:
    session = await fleet.session()
    async with fleet.client() as client:
        first = await client.speak(session, LONG)
        try:
            await client.speak(session, SHORT, policy="reject")
        except Conflict as error:
            assert error.code == "busy", error  # noqa: PT017  what else comes is a failure
        else:
            raise AssertionError("taken, where another run was going")
        queued = await client.speak(session, SHORT, policy="queue")
        joined = await client.speak(session, SHORT, policy="coalesce")
        steered = await client.speak(session, SHORT, policy="steer")
        replaced = await client.speak(session, SHORT, policy="replace")
        last = await client.speak(session, SHORT, policy="interrupt")
    assert joined.run == queued.run
    assert steered.run == first.run
    facts = await comes_to(fleet, session, "run_ended", replaced.run)
    ends = {str(one.data["run"]): one.data["status"] for one in facts if one.event == "run_ended"}
    assert ends == {
        first.run: "cancelled",
        queued.run: "cancelled",
        last.run: "done",
        replaced.run: "done",
    }, ends
    order = [one.data["run"] for one in facts if one.event == "run_ended"]
    assert order.index(last.run) < order.index(replaced.run)


async def a_cancel_is_taken_anywhere_and_ends_the_run_where_it_is(fleet: Fleet) -> None:
    session = await fleet.session()
    run = await says(fleet, session, LONG)
    facts = await comes_to(fleet, session, "model_asked")
    status, told = await elsewhere(fleet, facts, f"/api/sessions/{session}/cancel", {"run": run})
    assert (status, told["run"]) == (202, run)
    facts = await comes_to(fleet, session, "run_ended", run)
    assert facts[-1].data["status"] == "cancelled", facts[-1]
    kinds = [one.event for one in facts]
    assert kinds.count("cancel_requested") == 1
    assert "model_asked" not in kinds[kinds.index("cancel_requested") :], "asked after all"


async def an_approval_is_given_on_another_node_than_the_one_that_asked(fleet: Fleet) -> None:
    session = await fleet.session()
    run = await says(fleet, session, "call deploy")
    facts = await comes_to(fleet, session, "approval_asked")
    call = str(facts[-1].data["call"])
    path = f"/api/sessions/{session}/approvals/{call}"
    status, told = await elsewhere(fleet, facts, path, {"decision": "allow"})
    assert status == 200, told
    facts = await comes_to(fleet, session, "run_ended", run)
    assert facts[-1].data["status"] == "done", facts[-1]
    assert [one.event for one in facts].count("approval_given") == 1
    assert len([one for one in await fleet.effects() if one.call == call]) <= 1


async def a_clients_tool_is_answered_on_another_node(fleet: Fleet) -> None:
    session = await fleet.session(client_tools=[ClientTool(name="browser")])
    run = await says(fleet, session, "call browser")
    facts = await comes_to(fleet, session, "tool_started")
    path = f"/api/sessions/{session}/calls/{facts[-1].data['call']}/result"
    status, told = await elsewhere(fleet, facts, path, {"output": "a page"})
    assert status == 200, told
    facts = await comes_to(fleet, session, "run_ended", run)
    assert facts[-1].data["status"] == "done", facts[-1]
    outputs = [one.data["output"] for one in facts if one.event == "tool_finished"]
    assert outputs == ["a page"]


async def a_fork_begins_with_what_was_said_and_goes_on_by_itself(fleet: Fleet) -> None:
    session = await fleet.session()
    await ended(fleet, session, await says(fleet, session, SHORT))
    path, once = f"/api/sessions/{session}/fork", uuid4().hex
    status, made = await asks(fleet, "POST", path, {}, once)
    again = await asks(fleet, "POST", path, {}, once)
    assert status == 201, made
    assert again[1]["id"] == made["id"], "forked twice"
    fork = str(made["id"])
    fleet.sessions.append(fork)
    run = await says(fleet, fork, SHORT)
    mine = await comes_to(fleet, fork, "run_ended", run)
    theirs = await comes_to(fleet, session, "run_ended")
    at = cast("int", cast("Json", made["forked"])["at"])
    assert [one.data for one in mine[:at]] == [one.data for one in theirs[:at]]
    assert mine[-1].data["status"] == "done"


async def a_link_reads_on_every_node_until_it_is_taken_back(fleet: Fleet) -> None:
    session = await fleet.session()
    await ended(fleet, session, await says(fleet, session, SHORT))
    path = f"/api/sessions/{session}/shares"
    status, made = await asks(fleet, "POST", path, {}, uuid4().hex)
    assert status == 201, made
    token = str(made["token"])

    async def read(node: int) -> int:
        guest = fleet.at(fleet.nodes[node], token)
        return (await answered(guest, "GET", f"/api/sessions/{session}"))[0]

    places = range(len(fleet.nodes))
    assert [await patiently(partial(read, one)) for one in places] == [200] * len(places)
    await asks(fleet, "DELETE", f"{path}/{made['id']}")
    assert {await patiently(partial(read, one)) for one in places} <= {401, 404}


async def two_nodes_asked_the_same_at_once_do_it_once(fleet: Fleet) -> None:
    session, once = await fleet.session(), uuid4().hex
    told = list[Json]()
    path, body = f"/api/sessions/{session}/messages", {"content": SHORT}

    async def ask(place: int) -> None:
        async def one() -> tuple[int, Json]:
            node = pair[place] if pair[place].is_up else (await fleet.two())[0]
            return await answered(fleet.at(node), "POST", path, body, once)

        status, answer = await patiently(one)
        assert status == 202, answer
        told.append(answer)

    pair = await fleet.two()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, 0)
        tasks.start_soon(ask, 1)
    assert told[0] == told[1]
    facts = await comes_to(fleet, session, "run_ended", str(told[0]["run"]))
    assert [one.event for one in facts].count("user_spoke") == 1


async def a_tool_with_an_effect_runs_once_at_most(fleet: Fleet) -> None:
    session = await fleet.session()
    run = await says(fleet, session, "call note")
    facts = await comes_to(fleet, session, "run_ended", run)
    assert facts[-1].data["status"] == "done", facts[-1]
    calls = [str(one.data["call"]) for one in facts if one.event == "tool_started"]
    outcomes = [one.data["outcome"] for one in facts if one.event == "tool_finished"]
    did = [one.call for one in await fleet.effects() if one.run == run]
    assert len(calls) == len(outcomes) == 1
    if outcomes == ["ok"]:
        assert did == calls
    else:
        assert (fleet.how, outcomes) == ("killed", ["unknown"])
        assert len(did) <= 1


async def whoever_follows_sees_each_frame_once(fleet: Fleet) -> None:
    session = await fleet.session()
    viewers = [Viewer([TRANSPORTS[name]]) for name in MID_MESSAGE]
    viewers.append(Viewer([TRANSPORTS[name] for name in MID_MESSAGE], cuts=[7, 5, 3, 1, 9, 2]))
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            for viewer in viewers:
                tasks.start_soon(_watch, fleet, session, viewer)
            for _ in range(3):
                await ended(fleet, session, await says(fleet, session, "say 60 2"))
    _, page = await asks(fleet, "GET", f"/api/sessions/{session}/events?limit=1000")
    facts = [one["data"] for one in cast("list[dict[str, Json]]", page["events"])]
    full = {
        str(one["attempt"]): str(one["text"]) for one in facts if one["kind"] == "model_replied"
    }
    dropped = {str(one["attempt"]) for one in facts if one["kind"] == "attempt_dropped"}
    for viewer in viewers:
        assert [json.loads(one) for one in viewer.facts] == facts
        for attempt, text in viewer.texts.items():
            if attempt not in dropped:
                assert full[attempt].startswith(text), "said twice, or with a hole"


async def _watch(fleet: Fleet, session: str, viewer: Viewer) -> None:
    """Follow to the third end, over as many connections as it takes."""

    def is_done(one: Viewer) -> bool:
        return one.ends >= 3

    while not is_done(viewer):
        try:
            await viewer.watch(fleet.raw, session, until=is_done)
        except LATER:
            await breath()


async def a_chat_comes_back_to_the_message_that_is_being_made(fleet: Fleet) -> None:
    chat = f"ses_{uuid4().hex}"
    message = {"id": uuid4().hex, "role": "user", "parts": [{"type": "text", "text": "say 60 3"}]}
    begun = json.dumps({"id": chat, "messages": [message], "trigger": "submit-message"}).encode()
    fleet.sessions.append(chat)

    async def first() -> list[Json]:
        return await _chunks(fleet, "POST", "/api/chat", begun, upto=12, once=chat)

    chunks = await patiently(first)
    replayed = False
    with anyio.fail_after(PATIENCE_S):
        while not any(one["type"] == "finish" for one in chunks):
            path = f"/api/chat/{chat}/stream"
            resumed = await patiently(partial(_chunks, fleet, "GET", path))
            if not resumed:
                break  # nothing runs: it is in the log
            chunks, replayed = resumed, True
    facts = await comes_to(fleet, chat, "run_ended")
    kinds = [one.event for one in facts]
    assert kinds.count("user_spoke") == 1
    assert facts[-1].data["status"] == "done", facts[-1]
    if replayed and chunks[-1]["type"] == "finish":
        (text,) = [one.data["text"] for one in facts if one.event == "model_replied"]
        assert chunks[0]["type"] == "start"
        assert _text(chunks) == text


async def _chunks(
    fleet: Fleet,
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    upto: int = 10**9,
    once: str = "",
) -> list[Json]:
    """Return what a stream of a chat brings, up to so much or to where it breaks."""
    headers = {"Authorization": f"Bearer {fleet.key}", "Content-Type": "application/json"}
    headers |= {"Idempotency-Key": once} if once else {}
    found = list[Json]()
    url = f"{fleet.balancer.url}{path}"
    async with fleet.http.request(method, url, data=body, headers=headers) as answer:
        if answer.status == 204:
            return []
        if answer.status != 200:
            told = await answer.text()
            assert answer.status in (409, 502, 503), told
            raise Passing(told)
        try:
            async for line in answer.content:
                data = line.decode().rstrip("\n").partition("data: ")[2]
                if data and data != "[DONE]":
                    found.append(json.loads(data))
                if len(found) >= upto:
                    break
        except LATER:
            pass
    if not found:
        raise Passing("broken before its first chunk")
    return found


def _text(chunks: Sequence[Json]) -> str:
    """Return the text that is on the screen after these chunks."""
    text = ""
    for one in chunks:
        if one["type"] == "reset-step":
            text = ""
        elif one["type"] == "text-delta":
            text += str(one["delta"])
    return text


async def a_response_goes_on_from_the_last_number(fleet: Fleet) -> None:
    body = {"model": "agent:obedient", "input": "say 60 3", "background": True, "store": True}
    status, made = await asks(fleet, "POST", RESPONSES, body, uuid4().hex)
    assert status == 200, made
    name, seen = str(made["id"]), dict[int, Json]()
    with anyio.fail_after(PATIENCE_S):
        while not any(one["type"] == "response.completed" for one in seen.values()):
            last = max(seen, default=-1)
            fresh = await patiently(partial(_events, fleet, name, last, upto=15))
            numbers = [cast("int", one["sequence_number"]) for one in fresh]
            assert numbers == sorted(set(numbers)), numbers
            assert all(number > last for number in numbers), "seen before"
            seen |= dict(zip(numbers, fresh, strict=True))
    whole = await patiently(partial(_events, fleet, name, -1, whole=True))
    again = {cast("int", one["sequence_number"]): one for one in whole}
    said = "".join(
        str(one["delta"]) for one in whole if one["type"] == "response.output_text.delta"
    )
    assert said.split() == [f"word{number}" for number in range(60)]
    missed = [one for number, one in again.items() if number not in seen]
    assert not missed, f"never shown to who went on: {missed[:3]}"
    if fleet.how == "rolled":
        assert list(again) == list(range(len(again))), "numbers with a hole"
        assert seen == again


async def _events(
    fleet: Fleet, name: str, after: int, *, upto: int = 10**9, whole: bool = False
) -> list[Json]:
    """Return the events of a response past a number, up to so many or to where it breaks."""
    more = "" if after < 0 else f"&starting_after={after}"
    url = f"{fleet.balancer.url}{RESPONSES}/{name}?stream=true{more}"
    found, is_whole = list[Json](), False
    async with fleet.http.get(url, headers={"Authorization": f"Bearer {fleet.key}"}) as answer:
        if answer.status != 200:
            told = await answer.text()
            assert answer.status in (502, 503), told
            raise Passing(told)
        try:
            async for line in answer.content:
                data = line.decode().rstrip("\n").partition("data: ")[2]
                is_whole = is_whole or data == "[DONE]"
                if data and data != "[DONE]" and line.endswith(b"\n"):
                    found.append(json.loads(data))
                if len(found) >= upto:
                    break
        except LATER:
            pass
    if whole and not is_whole:
        raise Passing("it broke")
    return found


async def those_who_watch_on_two_nodes_see_each_other(fleet: Fleet) -> None:
    session = await fleet.session()
    both = anyio.Event()
    seen = set[str]()

    async def watch(name: str) -> None:
        path = f"/api/sessions/{session}/events?presence=true"
        while True:
            node = next((one for one in fleet.up if one.number % 2 == len(name) % 2), None)
            try:
                if node is None:
                    raise Passing
                async with aclosing(fleet.at(node).frames(path)) as frames:
                    async for frame in frames:
                        if frame.event == "presence" and len(_watching(frame.data)) > 1:
                            seen.add(name)
                            if len(seen) > 1:
                                both.set()
            except (*LATER, AssertionError):  # it says 503 when it goes
                await breath()

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch, "a")
            tasks.start_soon(watch, "bb")
            await both.wait()
            tasks.cancel_scope.cancel()


def _watching(data: Mapping[str, object]) -> Sequence[object]:
    return cast("Sequence[object]", data["watching"])


@dataclass
class _Open:
    """What somebody has open with a key."""

    begun: anyio.Event = field(default_factory=anyio.Event)
    is_over: bool = False


async def a_key_that_is_taken_back_opens_no_node_and_what_it_had_open_is_cut(fleet: Fleet) -> None:
    session = await fleet.session()
    await says(fleet, session, SHORT)
    user = f"u{uuid4().hex[:8]}"
    status, made = await asks(fleet, "POST", "/api/keys", {"user": user, "role": "admin"})
    assert status == 201, made
    theirs, opened = str(made["key"]), _Open()
    path = f"/api/sessions/{session}/events"

    async def watch() -> None:
        """Until a node that was asked afresh refuses."""
        while True:
            status, _ = await patiently(
                lambda: answered(_as(fleet, theirs), "GET", f"/api/sessions/{session}")
            )
            if status == 401:
                opened.is_over = True
                return
            try:
                async with aclosing(_as(fleet, theirs).frames(path)) as frames:
                    async for _ in frames:
                        opened.begun.set()
            except (*LATER, AssertionError):
                await breath()

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            await opened.begun.wait()
            assert (await asks(fleet, "DELETE", f"/api/keys/{made['id']}"))[0] in (204, 404)
            for node in fleet.nodes:

                async def refused(node: object = node) -> None:
                    status, told = await answered(fleet.at(node, theirs), "GET", "/api/me")  # type: ignore[arg-type]
                    if status == 200:
                        raise Passing("it knows it still")
                    assert status == 401, told

                await patiently(refused)
    assert opened.is_over


def _as(fleet: Fleet, key: str) -> Plain:
    return Plain(fleet.http, fleet.balancer.url, key, ears=None)


SCENES: Sequence[Scene] = (
    every_message_is_taken_as_its_policy_says,
    a_cancel_is_taken_anywhere_and_ends_the_run_where_it_is,
    an_approval_is_given_on_another_node_than_the_one_that_asked,
    a_clients_tool_is_answered_on_another_node,
    a_fork_begins_with_what_was_said_and_goes_on_by_itself,
    a_link_reads_on_every_node_until_it_is_taken_back,
    two_nodes_asked_the_same_at_once_do_it_once,
    a_tool_with_an_effect_runs_once_at_most,
    whoever_follows_sees_each_frame_once,
    a_chat_comes_back_to_the_message_that_is_being_made,
    a_response_goes_on_from_the_last_number,
    those_who_watch_on_two_nodes_see_each_other,
    a_key_that_is_taken_back_opens_no_node_and_what_it_had_open_is_cut,
)
