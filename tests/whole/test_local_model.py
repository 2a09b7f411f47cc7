"""A model that runs on this machine: real weights, in a real process of llama.cpp."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from tests.local_weights import NAME, folder_with_weights

from hostler.core.errors import SetupError
from hostler.core.events import JsonObject
from hostler.core.ports import Delta, Failure, Reply, Request, ToolSpec
from hostler.core.said import ModelSaid, UserSaid
from hostler.harness.validate import Schema
from hostler.models import local, weights
from hostler.models.local import Local, opened
from hostler.models.prompted import Prompted

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

CAPITAL = "What is the capital of France?"
ENDLESS: JsonObject = {"ignore_eos": True, "max_tokens": 4000}
WEATHER = ToolSpec(
    name="get_weather",
    description="Say what the weather is in a city.",
    parameters={
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "unit": {"enum": ["celsius", "fahrenheit"]},
            "days": {"type": "integer"},
        },
        "required": ["city", "unit", "days"],
    },
)


@pytest.fixture(scope="session")
def folder() -> Path:
    return folder_with_weights()


@pytest.fixture
def file(folder: Path) -> Path:
    return weights.path_of(NAME, folder)


@pytest.fixture
async def model(file: Path) -> AsyncGenerator[Local]:
    async with aclosing(Local(file, NAME, defaults=weights.KNOWN[NAME].defaults)) as model:
        yield model


def question(text: str = CAPITAL, **options: object) -> Request:
    return Request(
        system="You are a helpful assistant.", transcript=[UserSaid(text)], options=options
    )


async def answer(model: Local | Prompted, request: Request) -> tuple[list[Delta], Reply | Failure]:
    *deltas, last = [part async for part in model.stream(request)]
    assert not isinstance(last, Delta)
    return [one for one in deltas if isinstance(one, Delta)], last


async def reply(model: Local, request: Request | None = None) -> Reply:
    _, last = await answer(model, request or question())
    assert isinstance(last, Reply), last
    return last


async def failure(model: Local, request: Request | None = None) -> Failure:
    _, last = await answer(model, request or question())
    assert isinstance(last, Failure), last
    return last


def is_there(process: int) -> bool:
    try:
        return "(python" in Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except (
        FileNotFoundError,
        ProcessLookupError,
    ):  # gone before it is opened, or before it is read
        return False


async def test_it_answers_and_what_it_says_is_streamed(model: Local) -> None:
    deltas, last = await answer(model, question())

    assert isinstance(last, Reply)
    assert "Paris" in last.text
    assert "".join(one.text for one in deltas) == last.text
    assert len(deltas) > 2
    assert last.stop == "end"
    assert last.usage.input_tokens > 10
    assert last.usage.output_tokens >= len(deltas)
    assert (last.usage.cost, last.usage.price) == (0, "local")


async def test_it_is_told_the_whole_conversation(model: Local) -> None:
    said = [UserSaid("Hi."), ModelSaid(text="Hello."), UserSaid(CAPITAL)]

    short = await reply(model)
    last = await reply(model, Request(system="", transcript=said))

    assert "Paris" in last.text
    assert last.usage.input_tokens > short.usage.input_tokens


async def test_a_limit_on_tokens_is_kept_and_told(model: Local) -> None:
    request = Request(system="", transcript=[UserSaid(CAPITAL)], max_output_tokens=3)

    last = await reply(model, request)

    assert (last.stop, last.usage.output_tokens) == ("length", 3)


async def test_a_tool_that_is_named_is_called_with_arguments_that_fit(folder: Path) -> None:
    model = opened(NAME, folder)
    assert isinstance(model, Prompted)
    async with aclosing(model):
        for words in ("What is the weather in Paris?", "Weather for Rome, please: 3 days"):
            request = Request(system="", transcript=[UserSaid(words)], tools=[WEATHER])

            deltas, last = await answer(model, request)

            assert isinstance(last, Reply), last
            (call,) = last.calls
            assert (call.name, call.unparsed, last.stop, last.text) == (
                "get_weather",
                None,
                "tools",
                "",
            )
            assert Schema("get_weather", WEATHER.parameters).fit(call.arguments).repairs == ()
            assert [(one.part, one.call) for one in deltas] == [("arguments", call.id)]


async def test_cancelling_stops_the_generating_and_keeps_the_process(model: Local) -> None:
    came, began = 0, 0.0
    async with aclosing(model.stream(question("Count from one up.", **ENDLESS))) as parts:
        async for _ in parts:
            came += 1
            began = began or time.monotonic()
            if came == 21:
                break
    each_s, process = (time.monotonic() - began) / 20, model.process_id
    began = time.monotonic()

    await reply(model)

    assert model.process_id == process
    took_s = time.monotonic() - began
    assert took_s < 1 + 500 * each_s, "the other answer would take as long as 2000 tokens"


async def test_a_cancelled_wait_for_a_turn_harms_nobody(model: Local) -> None:
    async with anyio.create_task_group() as tasks, aclosing(model.stream(question())) as parts:
        await anext(parts)
        tasks.start_soon(reply, model)
        await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert "Paris" in (await reply(model)).text


async def test_a_process_that_is_killed_is_a_failure_and_the_next_request_works(
    model: Local,
) -> None:
    parts = list[Delta | Reply | Failure]()
    async for part in model.stream(question("Count from one up.", **ENDLESS)):
        parts.append(part)
        if len(parts) == 3:
            assert model.process_id is not None
            os.kill(model.process_id, signal.SIGKILL)

    last = parts[-1]
    assert isinstance(last, Failure)
    assert (last.code, last.again) == ("server", True)
    assert "SIGKILL" in last.message
    assert model.process_id is None
    assert "Paris" in (await reply(model)).text


async def test_a_process_that_was_idle_for_long_ends_and_the_next_request_starts_another(
    file: Path,
) -> None:
    defaults = weights.KNOWN[NAME].defaults  # without them it may talk for minutes
    async with aclosing(Local(file, NAME, defaults=defaults, idle_s=0.01)) as model:
        await reply(model)
        child = model._child
        assert child is not None
        with anyio.fail_after(60):
            await anyio.to_thread.run_sync(child.process.wait)

        assert "Paris" in (await reply(model)).text


async def test_the_event_loop_goes_on_while_it_loads_and_generates(model: Local) -> None:
    turns, while_it_came = 0, list[int]()

    async def count() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(count)
        async for _ in model.stream(question()):
            while_it_came.append(turns)
        tasks.cancel_scope.cancel()

    gaps = [b - a for a, b in zip([0, *while_it_came], while_it_came, strict=False)]
    assert gaps[0] > 500, "loading and reading the question"
    assert sorted(gaps[1:-1])[len(gaps) // 2] > 5, "between two tokens"


async def test_requests_are_answered_one_after_the_other_and_not_too_many_wait(
    model: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "MOST_WAITING", 2)
    texts, failures = list[str](), list[Failure]()

    async def ask(request: Request) -> None:
        _, last = await answer(model, request)
        if isinstance(last, Reply):
            texts.append(last.text)
        else:
            failures.append(last)

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(ask, question())
            await anyio.lowlevel.checkpoint()

    assert len(texts) == 3
    assert all("Paris" in text for text in texts)
    assert [(one.code, one.message) for one in failures] == [
        ("overloaded", "2 requests wait for smollm2 already")
    ]


async def test_closing_ends_the_process_and_what_it_was_doing(file: Path) -> None:
    model = Local(file, NAME)
    process, last = 0, list[Delta | Reply | Failure]()
    async for part in model.stream(question("Count from one up.", **ENDLESS)):
        last = [part]
        if not process:
            assert model.process_id is not None
            process = model.process_id
            assert is_there(process)
            await model.aclose()
            assert not is_there(process)

    assert isinstance(last[0], Failure)
    closed = await failure(model)
    assert (closed.code, closed.again) == ("unavailable", False)
    await model.aclose()


CRASHES = """
import os, pathlib, signal, sys, anyio
from hostler.core.said import UserSaid
from hostler.core.ports import Request
from hostler.models.local import Local
async def main():
    model = Local(pathlib.Path(sys.argv[1]), "m")
    async for part in model.stream(Request(system="", transcript=[UserSaid("Hi")])):
        print(model.process_id, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
anyio.run(main)
"""


async def test_the_process_ends_with_a_server_that_is_killed(file: Path) -> None:
    with anyio.fail_after(120):
        crashed = await anyio.run_process([sys.executable, "-c", CRASHES, str(file)], check=False)

        assert crashed.returncode == -signal.SIGKILL, crashed.stderr
        process = int(crashed.stdout)
        while is_there(process):
            await anyio.lowlevel.checkpoint()


async def test_a_conversation_that_is_too_long_is_told_as_such(file: Path) -> None:
    defaults = weights.KNOWN[NAME].defaults
    async with aclosing(Local(file, NAME, defaults=defaults, context_tokens=256)) as model:
        told = await failure(model, question("word " * 2000))

        assert (told.code, told.again) == ("context_overflow", False)
        assert "Paris" in (await reply(model)).text


async def test_options_that_make_no_sense_are_refused_and_the_process_lives_on(
    model: Local,
) -> None:
    await reply(model)
    process = model.process_id

    told = await failure(model, question(grammar="root ::= ("))

    assert (told.code, told.again) == ("invalid_request", False)
    assert "Paris" in (await reply(model)).text
    assert model.process_id == process


async def test_a_file_that_is_no_weights_is_told(tmp_path: Path) -> None:
    file = tmp_path / "no.gguf"
    file.write_bytes(b"GGUF" + bytes(1000))
    async with aclosing(Local(file, "no")) as model:
        told = await failure(model)

        assert (told.code, told.again) == ("unavailable", False)
        assert f"{file} cannot be loaded" in told.message
        assert model.process_id is None


# -- by name -------------------------------------------------------------------------------------


def test_weights_that_are_not_here_are_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="run `hostler models get smollm2`"):
        opened(NAME, tmp_path)
    with pytest.raises(SetupError, match="no weights are known as 'smollm3'; known are smollm2"):
        opened("smollm3", tmp_path)
    with pytest.raises(SetupError, match=r"there are no weights at .*x\.gguf"):
        opened(str(tmp_path / "x.gguf"), tmp_path)


@pytest.mark.parametrize(
    ("size", "wrapped"), [(local.TINY_BYTES - 1, True), (local.SMALL_BYTES, False)]
)
def test_a_path_is_a_model_with_the_way_to_tools_that_its_size_allows(
    tmp_path: Path,
    size: int,
    wrapped: bool,  # noqa: FBT001
) -> None:
    file = tmp_path / "my.gguf"
    with file.open("wb") as sparse:
        sparse.truncate(size)

    made = opened(str(file), tmp_path)

    assert (made.provider, made.name) == ("local", "my")
    assert isinstance(made, Prompted) == wrapped


def test_without_llama_cpp_it_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)

    with pytest.raises(SetupError, match=r"pip install 'hostler\[local\]'"):
        opened(NAME, tmp_path)
