"""Models as agents, and messages that bring the answers their run waits for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from tests.direct import somebody

from hostler.app.house import open_house
from hostler.core.errors import Conflict, Invalid, NotFound
from hostler.core.events import (
    CallId,
    ClientTool,
    Event,
    RunEnded,
    RunId,
    RunStatus,
    SessionId,
    UserSpoke,
)
from hostler.core.ports import Reply, Request
from hostler.core.said import ModelSaid, ToolSaid, UserSaid
from hostler.core.terms import Terms, Wanted
from hostler.service.cursor import Cursor
from hostler.service.follow import Ends, any_end
from hostler.service.inbox import Message, Receipt
from hostler.service.resuming import Answer
from hostler.service.service import Service
from hostler.service.waits import Result
from hostler.testing.doubles import ModelDouble, a_call, an_agent

pytestmark = pytest.mark.anyio

ANN = somebody("ann")
LOOK, SAY = ClientTool(name="look"), ClientTool(name="say")
BARE = Terms(ends_unanswered=True, wanted=Wanted(temperature=0.0))


def calls_both_first(request: Request) -> Reply:
    if isinstance(request.transcript[-1], UserSaid) and len(request.transcript) == 1:
        return Reply(text="", stop="tools", calls=(a_call("look"), a_call("say")))
    return Reply(text="seen", stop="end")


@asynccontextmanager
async def house(
    model: ModelDouble, file: Path | None = None
) -> AsyncGenerator[tuple[Service, SessionId]]:
    async with open_house({"a": an_agent(model)}, default_agent="a", file=file) as service:
        session, _ = await service.sessions.create(ANN, agent="double:double")
        yield service, session.id


async def until(service: Service, session: SessionId, ends: Ends) -> list[Event]:
    events, follow = list[Event](), service.following.follow
    with anyio.fail_after(20):
        async for batch in follow(ANN, session, after=Cursor(0), ends=ends):  # type: ignore[arg-type]
            events += [one for one in batch if isinstance(one, Event)]
    return events


async def asked(service: Service, session: SessionId) -> tuple[RunId, list[CallId]]:
    """Say something; return the run and the calls that wait for their client."""
    message = Message(
        content="go", policy="queue", metadata={}, client_tools=[LOOK, SAY], terms=BARE
    )
    receipt = await service.inbox.speak(ANN, session, message)
    waiting = list[CallId]()

    def both(event: Event) -> bool:
        if event.kind == "tool_started":
            waiting.append(event.fact.call)  # type: ignore[union-attr]
        return len(waiting) == 2

    await until(service, session, both)
    return receipt.run, waiting


async def resume(
    service: Service,
    session: SessionId,
    run: RunId,
    answers: Mapping[CallId, Answer],
    content: str = "",
) -> Receipt:
    message = Message(content=content, policy="steer", metadata={}, terms=Terms(agent="a"))
    return await service.resuming.resume(ANN, session, run, message, answers)


async def test_a_model_answers_as_it_is_and_is_in_no_list() -> None:
    model = ModelDouble(lambda _: Reply(text="hello", stop="end"))
    async with house(model) as (service, session):
        assert "double:double" in service.agents
        assert [*service.agents] == ["a"]
        message = Message(content="hi", policy="queue", metadata={})
        await service.inbox.speak(ANN, session, message)
        events = await until(service, session, any_end)

    assert isinstance(events[-1].fact, RunEnded)
    assert (events[-1].fact.status, model.asked[0].system) == ("done", "")


@pytest.mark.parametrize("name", ["double:other", "nobody:x", ":", "a:", "x" * 1000 + ":y"])
async def test_a_model_that_may_not_be_asked_is_no_agent(name: str) -> None:
    async with house(ModelDouble(lambda _: Reply(text="", stop="end"))) as (service, session):
        with pytest.raises(Invalid):
            await service.sessions.create(ANN, agent=name)
        message = Message(content="hi", policy="queue", metadata={}, terms=Terms(agent=name))
        with pytest.raises(Invalid):
            await service.inbox.speak(ANN, session, message)


async def test_a_model_that_says_nothing_has_answered() -> None:
    model = ModelDouble(lambda _: Reply(text="", stop="end"))
    async with house(model) as (service, session):
        await service.inbox.speak(ANN, session, Message(content="hi", policy="queue", metadata={}))
        events = await until(service, session, any_end)

    ended = events[-1].fact
    assert isinstance(ended, RunEnded)
    status: RunStatus = "done"
    assert (ended.status, len(model.asked)) == (status, 1)


async def test_answers_and_the_message_with_them_are_one_write_that_the_model_reads_whole(
    tmp_path: Path,
) -> None:
    model = ModelDouble(calls_both_first)
    async with house(model, tmp_path / "h.db") as (service, session):
        run, (one, other) = await asked(service, session)
        answers = {one: Result(output="a wall"), other: Result(output="no voice", is_error=True)}
        receipt = await resume(service, session, run, answers, "and now?")
        events = await until(service, session, any_end)

    assert receipt.run == run
    spoke = next(e for e in events if isinstance(e.fact, UserSpoke) and e.fact.content != "go")
    after = [e for e in events if e.seq > spoke.seq][:2]
    assert [e.kind for e in after] == ["tool_finished", "tool_finished"]
    assert len({e.at for e in (spoke, *after)}) == 1
    said = model.asked[-1].transcript
    assert [type(one) for one in said] == [UserSaid, ModelSaid, ToolSaid, ToolSaid, UserSaid]
    assert [getattr(s, "output", "") for s in said][2:4] == ["a wall", "no voice"]
    assert len(model.asked) == 2


async def test_of_answers_of_which_one_is_refused_none_is_written() -> None:
    async with house(ModelDouble(calls_both_first)) as (service, session):
        run, (one, _) = await asked(service, session)
        before = (await service.sessions.get(ANN, session)).head.seq
        answers = {one: Result(output="a wall"), CallId("call_x"): Result(output="?")}
        with pytest.raises(NotFound):
            await resume(service, session, run, answers)

        assert (await service.sessions.get(ANN, session)).head.seq == before


async def test_answers_that_come_a_second_time_are_told_so_and_ask_nothing_again() -> None:
    model = ModelDouble(calls_both_first)
    async with house(model) as (service, session):
        run, (one, other) = await asked(service, session)
        answers = {one: Result(output="a"), other: Result(output="b")}
        await resume(service, session, run, answers)
        await until(service, session, any_end)
        with pytest.raises(Conflict) as told:
            await resume(service, session, run, answers)

    assert (told.value.code, len(model.asked)) == ("not_waiting", 2)
