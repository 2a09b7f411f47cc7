"""Agents, asked with OpenAI's own client over Chat Completions: `agent:NAME`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import anyio
import openai
import pytest
from openai.types.chat import ChatCompletion
from tests.carried import AGENT, LOOK, Plays, agents, calls, says, sessions, the_session, until
from tests.chats import PATH, the_sdk
from tests.people import somebody
from tests.serving import Client, Json

from hostler.core.decide import Limits
from hostler.core.events import CallId, ToolCall
from hostler.core.ports import Delta, Failure
from hostler.core.said import ModelSaid, ToolSaid, UserSaid
from hostler.testing.doubles import a_tool

pytestmark = pytest.mark.anyio

HELLO: Json = {"role": "user", "content": "hello"}
TOOLS: list[Json] = [{"type": "function", "function": LOOK}]
BOTH = pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])


async def ask(
    client: Client, messages: Sequence[Json], *, streamed: bool, **more: object
) -> ChatCompletion:
    """Ask with OpenAI's client, which puts a stream together itself."""
    asked = {"model": AGENT, "messages": [*messages], **more}
    async with the_sdk(client) as sdk:
        if not streamed:
            return await sdk.chat.completions.create(**asked)  # type: ignore[call-overload]
        asked["stream_options"] = {"include_usage": True}
        async with sdk.chat.completions.stream(**asked) as stream:  # type: ignore[arg-type]
            return await stream.get_final_completion()


def answered(told: ChatCompletion, *outputs: str) -> list[Json]:
    """Return what a client sends after the calls of an answer, with their results."""
    message = told.choices[0].message
    sent = message.model_dump(include={"role", "content", "tool_calls"})
    results: list[Json] = [
        {"role": "tool", "tool_call_id": call.id, "content": output}
        for call, output in zip(message.tool_calls or (), outputs, strict=True)
    ]
    return [sent, *results]


@BOTH
async def test_an_agent_answers_and_its_session_is_there_for_others(*, streamed: bool) -> None:
    model = Plays([says("well then")])
    before: list[Json] = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
    ]
    async with agents(model) as client:
        told = await ask(client, [*before, HELLO], streamed=streamed, max_tokens=9, temperature=0.5)
        (session,) = await sessions(client)
        facts = await client.facts(str(session["id"]))

    assert told.model == AGENT
    assert told.choices[0].message.content == "well then"
    assert told.choices[0].finish_reason == "stop"
    assert told.usage is not None
    assert (told.usage.prompt_tokens, told.usage.completion_tokens) == (10, 3)
    (asked,) = model.asked
    assert list(asked.transcript) == [UserSaid("one"), ModelSaid("two"), UserSaid("hello")]
    assert (asked.system, asked.max_output_tokens) == ("be brief", 9)
    assert asked.wanted.temperature == 0.5
    assert (session["agent"], session["metadata"]) == ("double", {"face": "chat"})
    assert facts[-1]["kind"] == "run_ended"


@BOTH
async def test_what_an_agents_own_tools_do_is_between_its_words(*, streamed: bool) -> None:
    model = Plays(
        [calls("fetch", text="I look."), calls("fetch"), says("It is blue.", thinking="hm")]
    )
    async with agents(model, a_tool("fetch")) as client:
        told = await ask(client, [HELLO], streamed=streamed)

    (choice,) = told.choices
    assert choice.message.content == "I look.\n\nIt is blue."
    assert getattr(choice.message, "reasoning_content", None) == "hm"
    assert (choice.message.tool_calls, choice.finish_reason) == (None, "stop")
    assert told.usage is not None
    assert (told.usage.prompt_tokens, told.usage.completion_tokens) == (30, 9)


@BOTH
async def test_results_of_a_clients_tools_go_to_the_run_that_waits(*, streamed: bool) -> None:
    model = Plays([calls("look", "look", text="Let me.", at="sky"), says("blue")])
    async with agents(model) as client:
        first = await ask(client, [HELLO], streamed=streamed, tools=TOOLS)
        messages = [HELLO, *answered(first, "it is blue", "and wide")]
        last = await ask(client, messages, streamed=streamed, tools=TOOLS)
        (session,) = await sessions(client)

    (choice,) = first.choices
    assert (choice.message.content, choice.finish_reason) == ("Let me.", "tool_calls")
    sent = cast("list[Json]", answered(first, "", "")[0]["tool_calls"])
    made = [cast("Json", one["function"]) for one in sent]
    assert [(one["name"], one["arguments"]) for one in made] == [("look", '{"at":"sky"}')] * 2
    assert last.choices[0].message.content == "blue"
    assert last.usage is not None
    assert last.usage.prompt_tokens == 10
    hello, asked, one, two = model.asked[1].transcript
    assert hello == UserSaid("hello")
    assert isinstance(asked, ModelSaid)
    assert [cast("ToolSaid", each).output for each in (one, two)] == ["it is blue", "and wide"]
    assert [cast("ToolSaid", each).call for each in (one, two)] == list(asked.calls)
    assert session["status"] == "idle"


@BOTH
async def test_calls_of_both_kinds_in_one_reply_are_told_apart(*, streamed: bool) -> None:
    model = Plays([calls("fetch", "look", "nowhere"), says("blue")])
    async with agents(model, a_tool("fetch")) as client:
        first = await ask(client, [HELLO], streamed=streamed, tools=TOOLS)
        last = await ask(client, [HELLO, *answered(first, "sky")], streamed=streamed, tools=TOOLS)

    made = first.choices[0].message.tool_calls or ()
    assert [one.function.name for one in made] == ["look"]  # type: ignore[union-attr]
    assert last.choices[0].message.content == "blue"
    told = [one.output for one in model.asked[1].transcript if isinstance(one, ToolSaid)]
    assert told == ["{}", "sky", "no tool named nowhere"]


async def test_what_is_said_after_results_is_read_after_them() -> None:
    model = Plays([calls("look"), says("blue")])
    async with agents(model) as client:
        first = await ask(client, [HELLO], streamed=False, tools=TOOLS)
        more: list[Json] = [{"role": "user", "content": "be quick"}]
        messages = [HELLO, *answered(first, "sky"), *more, *more]
        await ask(client, messages, streamed=False, tools=TOOLS)
        found = await sessions(client)

    assert len(found) == 1
    assert [type(one) for one in model.asked[1].transcript] == [
        UserSaid,
        ModelSaid,
        ToolSaid,
        UserSaid,
    ]


async def test_calls_of_another_server_are_history() -> None:
    made: Json = {"id": "call_abc", "type": "function", "function": {"name": "look"}}
    messages: list[Json] = [
        HELLO,
        {"role": "assistant", "tool_calls": [made]},
        {"role": "tool", "tool_call_id": "call_abc", "content": "sky"},
    ]
    model = Plays([says("blue")])
    async with agents(model) as client:
        told = await ask(client, messages, streamed=False)

    call = ToolCall(id=CallId("call_abc"), name="look", arguments={}, provider_id="call_abc")
    assert told.choices[0].message.content == "blue"
    assert list(model.asked[0].transcript) == [
        UserSaid("hello"),
        ModelSaid("", (call,)),
        ToolSaid(call, "sky"),
    ]


@BOTH
async def test_results_that_are_sent_again_are_taken_once(*, streamed: bool) -> None:
    go_on = anyio.Event()
    model = Plays([calls("look"), [*says("blue")[:1], go_on, *says("blue")[1:]]])
    told = list[ChatCompletion]()
    async with agents(model) as client:
        first = await ask(client, [HELLO], streamed=False, tools=TOOLS)
        messages = [HELLO, *answered(first, "sky")]

        async def again() -> None:
            told.append(await ask(client, messages, streamed=streamed, tools=TOOLS))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(again)
            tasks.start_soon(again)
            await until(client, await the_session(client), "model_asked", 2)
            go_on.set()
        await again()  # after the end
        found = await sessions(client)

    assert [one.choices[0].message.content for one in told] == ["blue"] * 3
    assert (len(model.asked), len(found)) == (2, 1)


async def test_other_results_for_the_same_calls_are_another_branch() -> None:
    model = Plays([calls("look"), says("blue"), says("grey")])
    async with agents(model) as client:
        first = await ask(client, [HELLO], streamed=False, tools=TOOLS)
        await ask(client, [HELLO, *answered(first, "sun")], streamed=False, tools=TOOLS)
        other = [HELLO, *answered(first, "rain")]
        told = await ask(client, other, streamed=False, tools=TOOLS)
        found = await sessions(client)

    assert told.choices[0].message.content == "grey"
    assert len(found) == 2
    results = [one.output for one in model.asked[2].transcript if isinstance(one, ToolSaid)]
    assert results == ["rain"]


async def test_a_run_waits_for_results_through_a_restart_of_the_server(tmp_path: Path) -> None:
    model, file = Plays([calls("look"), says("blue")]), tmp_path / "log.db"
    async with agents(model, file=file) as client:
        first = await ask(client, [HELLO], streamed=True, tools=TOOLS)
    async with agents(model, file=file) as client:
        messages = [HELLO, *answered(first, "sky")]
        last = await ask(client, messages, streamed=True, tools=TOOLS)
        found = await sessions(client)

    assert last.choices[0].message.content == "blue"
    assert len(found) == 1


@pytest.mark.parametrize("tenant", ["default", "acme"])
async def test_somebody_elses_run_takes_no_results(tenant: str) -> None:
    model = Plays([calls("look"), says("other")])
    async with agents(model) as client:
        await client.call("POST", "/api/tenants", {"id": "acme"})
        first = await ask(client, [HELLO], streamed=False, tools=TOOLS)
        ann = await somebody(client, "ann", tenant=tenant)
        messages = [HELLO, *answered(first, "sky")]
        told = await ask(ann, messages, streamed=False, tools=TOOLS)
        (own,) = await sessions(ann)
        there = [one for one in await sessions(client) if one["id"] != own["id"]]

    assert told.choices[0].message.content == "other"
    assert own["status"] == "idle"
    assert [one["status"] for one in there] == ["waiting"]


async def test_an_approval_is_waited_for_and_given_elsewhere() -> None:
    model = Plays([calls("fetch"), says("fetched")])
    told = list[ChatCompletion]()
    async with agents(model, a_tool("fetch", approval=True)) as client:

        async def one() -> None:
            told.append(await ask(client, [HELLO], streamed=True))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one)
            session = await the_session(client)
            asked = await until(client, session, "approval_asked")
            path = f"/api/sessions/{session}/approvals/{asked['call']}"
            status, _ = await client.call("POST", path, {"decision": "allow"})
            assert status == 200

    assert told[0].choices[0].message.content == "fetched"


@pytest.mark.parametrize("again", [False, True], ids=["fresh", "with results"])
async def test_a_run_that_nobody_can_find_again_ends_with_its_client(*, again: bool) -> None:
    never = anyio.Event()
    last, session = [never, *says("too late")], ""
    model = Plays([calls("look"), last] if again else [last])
    async with agents(model) as client:
        messages = [HELLO]
        if again:
            told = await ask(client, messages, streamed=False, tools=TOOLS)
            messages += answered(told, "sky")
        async with anyio.create_task_group() as tasks:

            async def one() -> None:
                await ask(client, messages, streamed=True, tools=TOOLS)

            tasks.start_soon(one)
            session = await the_session(client)
            await until(client, session, "model_asked", 1 + again)
            tasks.cancel_scope.cancel()
        if again:  # whoever sends the results again finds it
            never.set()
        ended = await until(client, session, "run_ended")

    wanted = ("done", None) if again else ("cancelled", "client went away")
    assert (ended["status"], ended.get("reason")) == wanted


async def test_the_same_idempotency_key_is_the_same_run() -> None:
    model, key = Plays([says("one"), says("two")]), {"Idempotency-Key": "k"}
    async with agents(model) as client:
        first = await ask(client, [HELLO], streamed=False, extra_headers=key)
        again = await ask(client, [HELLO], streamed=False, extra_headers=key)
        with pytest.raises(openai.UnprocessableEntityError) as reused:
            await ask(client, [HELLO, HELLO], streamed=False, extra_headers=key)
        new = await ask(client, [HELLO], streamed=False)
        found = await sessions(client)

    texts = [one.choices[0].message.content for one in (first, again, new)]
    assert texts == ["one", "one", "two"]
    assert reused.value.code == "key_reused"
    assert len(found) == 2


async def test_one_key_that_is_used_at_once_begins_one_run() -> None:
    go_on = anyio.Event()
    model, key = Plays([[go_on, *says("one")]]), {"Idempotency-Key": "k"}
    told = list[object]()
    async with agents(model) as client:

        async def one() -> None:
            try:
                done = await ask(client, [HELLO], streamed=True, extra_headers=key)
                told.append(done.choices[0].message.content)
            except openai.ConflictError as error:  # while the first one is still looked at
                told.append(error.code)

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(one)
            await until(client, await the_session(client), "model_asked")
            go_on.set()
        found = await sessions(client)

    assert (len(found), len(model.asked)) == (1, 1)
    assert set(told) <= {"one", "in_progress"}
    assert "one" in told


async def test_a_run_that_ended_takes_no_results_any_more() -> None:
    model = Plays([calls("look"), says("new")])
    async with agents(model) as client:
        first = await ask(client, [HELLO], streamed=False, tools=TOOLS)
        session = await the_session(client)
        await client.call("POST", f"/api/sessions/{session}/cancel", {})
        await until(client, session, "run_ended")
        messages = [HELLO, *answered(first, "sky")]
        told = await ask(client, messages, streamed=False, tools=TOOLS)
        found = await sessions(client)

    assert told.choices[0].message.content == "new"
    assert len(found) == 2


async def test_a_result_that_another_client_gave_first_holds() -> None:
    model = Plays([calls("look", "look"), says("blue")])
    async with agents(model) as client:
        first = await ask(client, [HELLO], streamed=False, tools=TOOLS)
        session = await the_session(client)
        facts = await client.facts(session)
        (call, _) = [one["call"] for one in facts if one["kind"] == "tool_started"]
        path = f"/api/sessions/{session}/calls/{call}/result"
        status, _ = await client.call("POST", path, {"output": "theirs"})
        messages = [HELLO, *answered(first, "mine", "mine")]
        await ask(client, messages, streamed=False, tools=TOOLS)
        found = await sessions(client)

    assert (status, len(found)) == (200, 1)
    outputs = [one.output for one in model.asked[1].transcript if isinstance(one, ToolSaid)]
    assert outputs == ["theirs", "mine"]


async def test_an_agent_that_is_not_there_is_no_model() -> None:
    async with agents(Plays([says("no")])) as client, the_sdk(client) as sdk:
        for model in ("agent:nobody", "agent:", "agent:p:m", "agent:" + "x" * 5000):
            with pytest.raises(openai.NotFoundError) as absent:
                await sdk.chat.completions.create(model=model, messages=[HELLO])  # type: ignore[list-item]
            assert (absent.value.code, absent.value.param) == ("model_not_found", "model")
            assert "there is agent:double" in absent.value.message
        found = await sessions(client)

    assert found == []


@pytest.mark.parametrize(
    ("limits", "status", "code"),
    [
        (Limits(max_steps=1), 502, "step_limit"),
        (Limits(max_tokens=1), 429, "budget"),
    ],
)
async def test_why_a_run_gave_no_answer_is_told(limits: Limits, status: int, code: str) -> None:
    model = Plays([calls("fetch")])
    async with agents(model, a_tool("fetch"), limits=limits) as client, the_sdk(client) as sdk:
        raw = sdk.with_options(max_retries=2)
        with pytest.raises(openai.APIStatusError) as stopped:
            await raw.chat.completions.create(model=AGENT, messages=[HELLO])  # type: ignore[list-item]
        found = await sessions(client)

    assert (stopped.value.status_code, stopped.value.code) == (status, code)
    assert len(found) == 1  # the client did not ask again


async def test_a_fault_after_the_first_word_is_the_streams_last_event() -> None:
    fault = Failure(code="invalid_request", message="p says no", again=False)
    model = Plays([calls("fetch", text="I look."), [fault]])
    async with agents(model, a_tool("fetch")) as client:
        with pytest.raises(openai.APIError, match="p says no"):
            await ask(client, [HELLO], streamed=True)
        with pytest.raises(openai.BadRequestError) as refused:
            await ask(client, [HELLO], streamed=False)

    assert refused.value.code == "invalid_request"
    assert refused.value.response.headers["x-should-retry"] == "false"


async def test_text_of_an_attempt_that_broke_off_is_not_told_twice() -> None:
    fault = Failure(code="server", message="oh", again=True, retry_after_s=0.01)
    first = [Delta("text", "It is "), Delta("text", "bl"), fault]
    other = [Delta("text", "It was "), fault]
    model = Plays([first, first, other, says("It was blue.")])
    async with agents(model, limits=Limits(attempts=9)) as client:
        told = await ask(client, [HELLO], streamed=True)

    assert told.choices[0].message.content == "It is bl\n\nIt was blue."


async def test_a_tool_of_the_client_may_not_have_the_name_of_the_agents() -> None:
    async with agents(Plays([says("no")]), a_tool("look")) as client:
        with pytest.raises(openai.BadRequestError, match="look"):
            await ask(client, [HELLO], streamed=True, tools=TOOLS)


async def test_an_agent_has_as_many_tools_of_its_client_as_openai_takes() -> None:
    many = [{"type": "function", "function": {**LOOK, "name": f"look_{n}"}} for n in range(128)]
    async with agents(model := Plays([says("well")])) as client:
        told = await ask(client, [HELLO], streamed=False, tools=many)

    assert told.choices[0].message.content == "well"
    assert len(model.asked[0].tools) == 128


@BOTH
async def test_tools_that_an_agent_cannot_have_are_named_as_the_client_names_them(
    *, streamed: bool
) -> None:
    async with agents(Plays([says("well")])) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await ask(client, [HELLO], streamed=streamed, tools=TOOLS * 1000)

    assert refused.value.param == "tools"


async def test_agents_are_in_the_list_of_models() -> None:
    async with agents(Plays([says("no")])) as client, the_sdk(client) as sdk:
        listed = [one.id async for one in sdk.models.list()]
        one = await sdk.models.retrieve(AGENT)
        with pytest.raises(openai.NotFoundError):
            await sdk.models.retrieve("agent:nobody")
        _, page = await client.call(
            "GET", "/v1/models?limit=1", headers={"Anthropic-Version": "2023-06-01"}
        )

    assert listed == [AGENT, "p:m"]
    assert (one.id, one.owned_by) == (AGENT, "agent")
    assert page["first_id"] == AGENT


async def test_a_viewer_may_not_ask_an_agent() -> None:
    async with agents(Plays([says("no")])) as client:
        viewer = await somebody(client, "vic", "viewer")
        status, told = await viewer.call("POST", PATH, {"model": AGENT, "messages": [HELLO]})
        found = await sessions(client)

    assert (status, cast("Json", told["error"])["code"]) == (403, "insufficient_permissions")
    assert found == []


@pytest.mark.parametrize(
    ("ids", "content"),
    [
        (["call_" + "A" * 35], "x"),
        (["call_" + "_" * 35], "x"),
        (["call_" + "-" * 34 + "A"], "x"),
        (["x" * 100_000], "x" * 100_000),
        (["", "call_\x00", "call_" + "é" * 35], "x"),
    ],
)
async def test_ids_that_name_nothing_of_ours_are_history(ids: list[str], content: str) -> None:
    made = [{"id": one, "type": "function", "function": {"name": "look"}} for one in ids]
    messages: list[Json] = [
        HELLO,
        {"role": "assistant", "tool_calls": made},
        *({"role": "tool", "tool_call_id": one, "content": content} for one in ids),
    ]
    async with agents(Plays([says("blue")])) as client:
        told = await ask(client, messages, streamed=False)

    assert told.choices[0].message.content == "blue"


async def test_a_history_that_is_too_long_is_refused_before_anything_is_made() -> None:
    async with agents(Plays([says("no")])) as client:
        long: Json = {"role": "user", "content": "x" * 2_100_000}
        with pytest.raises(openai.APIStatusError) as refused:
            await ask(client, [long, long, HELLO], streamed=False)
        found = await sessions(client)

    assert (refused.value.status_code, refused.value.code) == (413, "request_too_large")
    assert found == []
