"""What a model owes its caller, beyond reading well: one function per promise."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

import anyio

from hostler.core.ports import Delta, Failure, Model, Reply, Request
from hostler.core.said import Said, UserSaid
from hostler.testing.model_script import End, Fails, Fault, Scenario, Shape, Text, WireFormat
from hostler.testing.model_trial import (
    DEADLINE_S,
    KEY,
    QUESTION,
    SHORT_S,
    Make,
    Setup,
    judge,
    listen,
    moves,
)
from hostler.testing.provider_server import (
    Asked,
    Hang,
    Play,
    Send,
    Wait,
    chunk,
    hanging_up,
    head,
    provider_server,
    refused,
)


def _good(wire: WireFormat, *texts: str) -> list[bytes]:
    return list(wire.events([*map(Text, texts), End()]))


def _at_once(wire: WireFormat, *texts: str) -> Play:
    """Return an answer whose every byte comes in one packet after its head."""
    return [Send(head()), Send(chunk(b"".join(_good(wire, *texts))) + chunk(b""))]


def _begun(wire: WireFormat, text: str) -> Play:
    """Return an answer that has begun; more may follow."""
    return [Send(head()), *(Send(chunk(event)) for event in wire.events([Text(text)]))]


def _in_two_halves(wire: WireFormat, second: anyio.Event) -> Callable[[Asked], Play]:
    """Say "One", and " two" when the event is set."""

    def play(_: Asked) -> Play:
        events = [(event, Send(chunk(event))) for event in _good(wire, "One", " two")]
        one = next(place for place, (event, _) in enumerate(events) if b"One" in event)
        sends = [send for _, send in events]
        return [Send(head()), *sends[: one + 1], Wait(second), *sends[one + 1 :], Send(chunk(b""))]

    return play


async def _first(model: Model) -> Delta:
    """Return the first delta of an answer that is then given up."""
    async with aclosing(model.stream(QUESTION)) as parts:
        async for part in parts:
            assert isinstance(part, Delta), part
            return part
    raise AssertionError("nothing came")


async def closing_it_closes_the_connection(wire: WireFormat, make: Make) -> None:
    def play(_: Asked) -> Play:
        return [*_begun(wire, "Well"), Hang()]

    async with provider_server(play) as server, make(Setup(base_url=f"{server.url}/v1")) as model:
        delta = await _first(model)

        assert (delta.part, delta.text) == ("text", "Well")
        await server.closed.wait()


async def cancelling_it_before_the_answer_closes_the_connection(
    wire: WireFormat, make: Make
) -> None:
    del wire
    asked = anyio.Event()

    def play(_: Asked) -> Play:
        asked.set()
        return [Hang()]

    async with provider_server(play) as server, make(Setup(base_url=f"{server.url}/v1")) as model:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen, model)
            await asked.wait()
            tasks.cancel_scope.cancel()

        await server.closed.wait()


async def its_connection_is_used_again(wire: WireFormat, make: Make) -> None:
    async with (
        provider_server(lambda _: _at_once(wire, "Hi.")) as server,
        make(Setup(base_url=f"{server.url}/v1")) as model,
    ):
        for _ in range(3):
            assert isinstance((await listen(model)).ending, Reply)

        assert server.connections == 1


async def a_reply_does_not_wait_for_the_connection_to_end(wire: WireFormat, make: Make) -> None:
    def play(_: Asked) -> Play:
        return [Send(head()), *(Send(chunk(event)) for event in _good(wire, "Hi.")), Hang()]

    async with provider_server(play) as server, make(Setup(base_url=f"{server.url}/v1")) as model:
        heard = await listen(model)

        assert isinstance(heard.ending, Reply), heard.ending
        assert heard.ending.text == "Hi."


async def text_is_passed_on_as_it_comes(wire: WireFormat, make: Make) -> None:
    heard = anyio.Event()

    play = _in_two_halves(wire, heard)
    async with provider_server(play) as server, make(Setup(base_url=f"{server.url}/v1")) as model:
        texts: list[str] = []
        async with aclosing(model.stream(QUESTION)) as parts:
            async for part in parts:
                heard.set()
                texts.append(part.text if not isinstance(part, Failure) else part.message)

        assert texts == ["One", " two", "One two"]


async def text_that_comes_at_once_is_one_delta(wire: WireFormat, make: Make) -> None:
    words = [f"word{n} " for n in range(50)]
    async with (
        provider_server(lambda _: _at_once(wire, *words)) as server,
        make(Setup(base_url=f"{server.url}/v1")) as model,
    ):
        heard = await listen(model)

        assert [delta.text for delta in heard.deltas] == ["".join(words)]


async def questions_at_once_are_kept_apart(wire: WireFormat, make: Make) -> None:
    def play(asked: Asked) -> Play:
        number = re.findall(rb"number (\d+)", asked.body)[0].decode()
        shape = Shape(piece_bytes=40)
        scenario = Scenario(
            name="", steps=[Text(number), Text(" it is"), End()], shape=shape, expect=ANY
        )
        return moves(scenario, wire)

    async with provider_server(play) as server, make(Setup(base_url=f"{server.url}/v1")) as model:
        texts: dict[int, str] = {}

        async def ask(number: int) -> None:
            said: Sequence[Said] = [UserSaid(f"number {number}")]
            ending = (await listen(model, Request(system="", transcript=said))).ending
            texts[number] = ending.text if isinstance(ending, Reply) else ending.message

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(ask, number)

        assert texts == {number: f"{number} it is" for number in range(20)}


async def a_slow_caller_is_not_taken_for_a_slow_provider(wire: WireFormat, make: Make) -> None:
    ready = anyio.Event()

    async with provider_server(_in_two_halves(wire, ready)) as server:
        setup = Setup(base_url=f"{server.url}/v1", idle_s=2 * SHORT_S)
        async with make(setup) as model, aclosing(model.stream(QUESTION)) as parts:
            last: object = None
            async for part in parts:
                last = part
                if not ready.is_set():
                    await anyio.sleep(4 * SHORT_S)  # the one thing here that is about time itself
                    ready.set()

        assert isinstance(last, Reply), last
        assert last.text == "One two"


async def its_key_is_asked_for_each_question(wire: WireFormat, make: Make) -> None:
    keys = iter(["sk-kit-one", "sk-kit-two"])
    setup = Setup(base_url="", key=lambda _: next(keys))
    async with (
        provider_server(lambda _: _at_once(wire, "Hi.")) as server,
        make(replace(setup, base_url=f"{server.url}/v1")) as model,
    ):
        await listen(model)
        await listen(model)

        for asked, key in zip(server.asked, ["sk-kit-one", "sk-kit-two"], strict=True):
            assert any(key in value for value in asked.headers.values()), asked.headers
            assert key not in asked.path, "keys in URLs end up in logs"


async def it_asks_without_a_key_where_there_is_none(wire: WireFormat, make: Make) -> None:
    async with (
        provider_server(lambda _: _at_once(wire, "Hi.")) as server,
        make(Setup(base_url=f"{server.url}/v1", key=lambda _: None)) as model,
    ):
        heard = await listen(model)

        assert isinstance(heard.ending, Reply), heard.ending
        assert "authorization" not in server.asked[0].headers


async def a_key_that_no_header_can_carry_is_a_failure(wire: WireFormat, make: Make) -> None:
    async with (
        provider_server(lambda _: _at_once(wire, "Hi.")) as server,
        make(Setup(base_url=f"{server.url}/v1", key=lambda _: "sk-ä\r\nX-Evil: 1")) as model,
    ):
        heard = await listen(model)

        judge(heard, Fails(codes=["auth"], again=False), model.provider)
        assert not server.asked


async def a_key_that_the_provider_echoes_is_not_told(wire: WireFormat, make: Make) -> None:
    fault = Fault("auth", f"Incorrect API key provided: {KEY}.\n\nSee https://example.com/keys")
    scenario = Scenario(name="", status=401, steps=[fault], expect=ANY)
    async with (
        provider_server(lambda _: moves(scenario, wire)) as server,
        make(Setup(base_url=f"{server.url}/v1")) as model,
    ):
        heard = await listen(model)

        judge(heard, Fails(codes=["auth"], again=False, says="Incorrect"), model.provider)


async def a_refused_connection_is_a_failure(wire: WireFormat, make: Make) -> None:
    del wire
    async with refused() as url, make(Setup(base_url=f"{url}/v1")) as model:
        heard = await listen(model)

        judge(heard, Fails(codes=["unavailable"], again=True), model.provider)


async def a_broken_handshake_is_a_failure(wire: WireFormat, make: Make) -> None:
    del wire
    async with hanging_up() as url:
        setup = Setup(base_url=f"{url.replace('http:', 'https:')}/v1")
        async with make(setup) as model:
            heard = await listen(model)

            judge(heard, Fails(codes=["unavailable"], again=True), model.provider)


async def a_url_that_is_none_is_a_failure(wire: WireFormat, make: Make) -> None:
    del wire
    async with make(Setup(base_url="nonsense")) as model:
        heard = await listen(model)

        judge(heard, Fails(codes=["invalid_request"], again=False), model.provider)


async def nothing_is_sent_before_somebody_listens(wire: WireFormat, make: Make) -> None:
    async with (
        provider_server(lambda _: _at_once(wire, "Hi.")) as server,
        make(Setup(base_url=f"{server.url}/v1")) as model,
    ):
        stream = model.stream(QUESTION)
        await anyio.wait_all_tasks_blocked()
        await stream.aclose()

        assert server.connections == 0


async def the_transcript_is_read_before_the_first_wait(wire: WireFormat, make: Make) -> None:
    lent: list[Said] = [UserSaid("number 1")]
    async with (
        provider_server(lambda _: _at_once(wire, "Hi.")) as server,
        make(Setup(base_url=f"{server.url}/v1")) as model,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listen, model, Request(system="", transcript=lent))
        await anyio.lowlevel.checkpoint()
        lent[:] = [UserSaid("number 2")]
        tasks.start_soon(_until, lambda: len(server.asked) == 1)

    assert b"number 1" in server.asked[0].body


async def what_cannot_be_written_is_a_failure(wire: WireFormat, make: Make) -> None:
    async with (
        provider_server(lambda _: _at_once(wire, "Hi.")) as server,
        make(Setup(base_url=f"{server.url}/v1")) as model,
    ):
        for request in (
            Request(system="", transcript=[UserSaid("x")], options={"a": object()}),
            Request(system="", transcript=[UserSaid("half an emoji: \ud83d")]),
        ):
            heard = await listen(model, request)

            judge(heard, Fails(codes=["invalid_request"], again=False), model.provider)


async def _until(true: Callable[[], bool]) -> None:
    with anyio.fail_after(DEADLINE_S):
        while not true():
            await anyio.lowlevel.checkpoint()


ANY = Fails(codes=[], again=False)
"""For scenarios whose outcome is judged elsewhere."""

BEHAVIOURS = (
    closing_it_closes_the_connection,
    cancelling_it_before_the_answer_closes_the_connection,
    its_connection_is_used_again,
    a_reply_does_not_wait_for_the_connection_to_end,
    text_is_passed_on_as_it_comes,
    text_that_comes_at_once_is_one_delta,
    questions_at_once_are_kept_apart,
    a_slow_caller_is_not_taken_for_a_slow_provider,
    its_key_is_asked_for_each_question,
    it_asks_without_a_key_where_there_is_none,
    a_key_that_no_header_can_carry_is_a_failure,
    a_key_that_the_provider_echoes_is_not_told,
    a_refused_connection_is_a_failure,
    a_broken_handshake_is_a_failure,
    a_url_that_is_none_is_a_failure,
    nothing_is_sent_before_somebody_listens,
    the_transcript_is_read_before_the_first_wait,
    what_cannot_be_written_is_a_failure,
)
