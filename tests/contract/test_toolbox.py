"""What `core.ports.Toolbox` promises, on the real one: a call has one outcome, whatever its tool does."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import anyio
import msgspec
import pytest

from hostler.core.codec import dump, load
from hostler.core.errors import SetupError, ToolError
from hostler.core.events import (
    CallId,
    JsonObject,
    RunId,
    RunKey,
    SessionId,
    TenantId,
    ToolCall,
    ToolFinished,
    ToolStarted,
)
from hostler.core.ports import CallContext, Tool, ToolSpec
from hostler.core.ports import Toolbox as ToolboxPort
from hostler.harness.toolbox import LARGEST_FILE_CHARS, LEAST_CHARS, Toolbox

pytestmark = pytest.mark.anyio

RUN = RunKey(TenantId("default"), SessionId("ses_1"), RunId("run_1"))
CITY: JsonObject = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
    "additionalProperties": False,
}
ANYTHING: JsonObject = {"type": "object"}


@dataclass(frozen=True, slots=True)
class ATool:
    spec: ToolSpec
    act: Callable[[JsonObject, CallContext], Awaitable[str]]

    async def __call__(self, arguments: JsonObject, context: CallContext) -> str:
        return await self.act(arguments, context)


def a_spec(name: str = "any", **changes: object) -> ToolSpec:
    values: dict[str, object] = {"name": name, "description": "", "parameters": ANYTHING}
    return msgspec.convert(values | changes, ToolSpec)


def that_returns(output: object) -> Tool:
    async def act(_arguments: JsonObject, _context: CallContext) -> str:
        return output  # type: ignore[return-value]

    return ATool(a_spec(), act)


def that_raises(error: BaseException) -> Tool:
    async def act(_arguments: JsonObject, _context: CallContext) -> str:
        raise error

    return ATool(a_spec(), act)


def that_hangs(*, timeout_s: float = 60.0) -> Tool:
    async def act(_arguments: JsonObject, _context: CallContext) -> str:
        await anyio.sleep_forever()
        return "never"

    return ATool(a_spec(timeout_s=timeout_s), act)


def box(*tools: Tool, folder: Path | None = None, limit_chars: int = 32_000) -> ToolboxPort:
    return Toolbox(tools, spill_folder=folder, limit_chars=limit_chars)


def a_call(name: str = "any", *, cut: bool = False, **arguments: object) -> ToolCall:
    return ToolCall(id=CallId("call_1"), name=name, arguments=arguments, cut=cut)


def checked(tools: ToolboxPort, call: ToolCall) -> ToolStarted:
    started = tools.check(call, RUN.run)
    assert isinstance(started, ToolStarted), started
    return started


def refused(tools: ToolboxPort, call: ToolCall) -> str:
    finished = tools.check(call, RUN.run)
    assert isinstance(finished, ToolFinished)
    assert (finished.run, finished.call, finished.outcome) == (RUN.run, call.id, "error")
    return finished.output


async def run(tools: ToolboxPort, call: ToolCall | None = None) -> ToolFinished:
    started = checked(tools, call or a_call())
    finished = await tools.run(started, CallContext(call=started.call, key=RUN))
    assert (finished.run, finished.call) == (RUN.run, started.call)
    assert load(dump(finished)) == finished
    return finished


# -- what is offered -------------------------------------------------------------------------


def test_specs_come_in_the_order_of_their_names_however_they_were_given() -> None:
    specs = [a_spec(name) for name in ("b", "C", "a")]
    tools = [ATool(spec, that_returns("").__call__) for spec in specs]
    assert [spec.name for spec in box(*tools).specs] == ["C", "a", "b"]
    assert box(*tools).specs == box(*reversed(tools)).specs


@pytest.mark.parametrize(
    "name", ["", "two words", "a.b", "naïve", "x" * 65, "../up", "line\n", "a\0b"]
)
def test_a_name_that_providers_refuse_is_an_error_of_the_setup(name: str) -> None:
    with pytest.raises(SetupError, match="names are"):
        box(ATool(a_spec(name), that_returns("").__call__))


def test_two_tools_of_one_name_are_an_error_of_the_setup() -> None:
    with pytest.raises(SetupError, match="two tools are called any"):
        box(that_returns("a"), that_returns("b"))


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("inf"), float("nan")])
def test_a_time_out_that_is_no_time_is_an_error_of_the_setup(timeout_s: float) -> None:
    with pytest.raises(SetupError, match="timeout_s"):
        box(ATool(a_spec(timeout_s=timeout_s), that_returns("").__call__))


def test_a_wrong_schema_is_an_error_of_the_setup() -> None:
    with pytest.raises(SetupError, match="tool any: its JSON Schema is wrong"):
        box(ATool(a_spec(parameters={"properties": 1}), that_returns("").__call__))


def test_a_limit_too_small_to_say_anything_is_an_error_of_the_setup() -> None:
    with pytest.raises(SetupError, match="limit_chars"):
        box(limit_chars=LEAST_CHARS - 1)


def test_whether_a_call_may_be_repeated_and_reads_is_what_its_tool_says() -> None:
    tools = box(
        ATool(a_spec("reads", effects="read", twice="safe"), that_returns("").__call__),
        ATool(a_spec("writes"), that_returns("").__call__),
    )
    reads, writes = (checked(tools, a_call(name)) for name in ("reads", "writes"))
    gone = ToolStarted(run=RUN.run, call=CallId("call_2"), name="gone", arguments={})
    assert [tools.may_repeat(one) for one in (reads, writes, gone)] == [True, False, False]
    assert [tools.is_reader(one) for one in (reads, writes, gone)] == [True, False, False]


# -- what is executed ------------------------------------------------------------------------


def weather() -> ToolboxPort:
    return box(ATool(a_spec("weather", parameters=CITY), that_returns("sunny").__call__))


def test_a_sound_call_is_executed_as_it_was_asked() -> None:
    call = a_call("weather", city="Paris", days=2)
    started = checked(weather(), call)
    assert started == ToolStarted(
        run=RUN.run, call=call.id, name="weather", arguments={"city": "Paris", "days": 2}
    )


def test_every_mend_of_a_call_is_in_the_fact() -> None:
    call = ToolCall(
        id=CallId("call_1"),
        name="functions.Weather",
        arguments={},
        unparsed="{'city': 'Paris', 'days': '2',}",
    )
    started = checked(weather(), call)
    assert (started.name, started.arguments) == ("weather", {"city": "Paris", "days": 2})
    assert started.repairs == (
        "read the name 'functions.Weather' as weather",
        "read single quotes as double quotes",
        "removed a trailing comma",
        'read "2" as 2 at $.days',
    )
    assert call.arguments == {}


def test_an_unknown_tool_is_refused_with_a_suggestion() -> None:
    told = refused(weather(), a_call("wether", city="Paris"))
    assert "no tool 'wether'" in told
    assert "Did you mean weather?" in told


def test_arguments_that_do_not_fit_are_refused_with_what_was_expected() -> None:
    told = refused(weather(), a_call("weather", city="Paris", days="soon"))
    assert '$.days: "soon" is not of type "integer" (schema: /properties/days/type)' in told


def test_arguments_that_were_cut_off_are_never_executed_however_whole_they_look() -> None:
    assert "length limit" in refused(weather(), a_call("weather", city="Paris", cut=True))


def test_a_refusal_can_be_stored_whatever_the_model_sent() -> None:
    call = a_call("we\ud800ather\x00", city="Paris")
    finished = weather().check(call, RUN.run)
    assert load(dump(finished)) == finished


async def test_the_tool_gets_the_arguments_and_the_idempotency_key_of_the_call() -> None:
    got: list[tuple[JsonObject, CallContext]] = []

    async def act(arguments: JsonObject, context: CallContext) -> str:
        got.append((arguments, context))
        return "sunny"

    tools = box(ATool(a_spec("weather", parameters=CITY), act))
    finished = await run(tools, a_call("weather", city="Paris", days="2"))
    assert (finished.outcome, finished.output, finished.file) == ("ok", "sunny", None)
    assert got == [({"city": "Paris", "days": 2}, CallContext(call=CallId("call_1"), key=RUN))]


async def test_the_model_is_told_of_an_argument_that_was_dropped_but_of_no_other_mend() -> None:
    finished = await run(weather(), a_call("weather", city="Paris", days="2", unit="celsius"))
    assert finished.output == "sunny\n\ndropped $.unit, which is not known here"


async def test_a_call_of_a_tool_that_is_gone_has_an_outcome() -> None:
    gone = ToolStarted(run=RUN.run, call=CallId("call_2"), name="gone", arguments={})
    finished = await weather().run(gone, CallContext(call=gone.call, key=RUN))
    assert "no tool gone" in finished.output


# -- what goes wrong -------------------------------------------------------------------------


class Hostile(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


class Panic(BaseException):
    """What PyO3 raises for a panic in Rust is no `Exception` either."""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ToolError("The city is closed."), "The city is closed."),
        (ExceptionGroup("", [ToolError("The city is closed.")]), "The city is closed."),
        (ValueError("bad luck"), "ValueError: bad luck"),
        (ExceptionGroup("", [ExceptionGroup("", [KeyError("k")])]), "KeyError: 'k'"),
        (ExceptionGroup("two", [KeyError("k"), OSError()]), "ExceptionGroup: two"),
        (TimeoutError(), "TimeoutError"),
        (SystemExit(2), "SystemExit: 2"),
        (Panic("at the disco"), "Panic: at the disco"),
        (Hostile(), "Hostile: "),
        (RecursionError("too deep"), "RecursionError: too deep"),
        (StopAsyncIteration(), "StopAsyncIteration"),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, BaseException) else "",
)
async def test_what_a_tool_raises_is_the_outcome_of_its_call(
    error: BaseException, told: str
) -> None:
    finished = await run(box(that_raises(error)))
    assert finished.outcome == "error"
    assert finished.output.startswith(told)


async def test_a_tool_s_bug_is_logged_with_its_traceback_and_what_it_meant_to_say_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG, "hostler"):
        await run(box(that_raises(ToolError("The city is closed."))))
        assert caplog.records == []
        await run(box(that_raises(ValueError("bad luck"))))
    assert "Traceback" in caplog.text
    assert "call_1" in caplog.text


@pytest.mark.parametrize("output", [None, 3, b"bytes", ["a"]])
async def test_a_tool_that_returns_no_text_has_an_error_for_outcome(output: object) -> None:
    finished = await run(box(that_returns(output)))
    assert finished.outcome == "error"
    assert type(output).__name__ in finished.output


class Text(str):
    __slots__ = ()


async def test_text_of_a_tool_s_own_kind_is_stored_as_text() -> None:
    assert type((await run(box(that_returns(Text("sunny"))))).output) is str


async def test_a_tool_that_does_not_answer_in_time_is_given_up() -> None:
    with anyio.fail_after(5):
        finished = await run(box(that_hangs(timeout_s=0.05)))
    assert finished.outcome == "error"
    assert "no answer within 0.05 s" in finished.output


async def test_a_tool_that_answers_its_time_out_with_another_error_is_given_up_all_the_same() -> (
    None
):
    async def act(_arguments: JsonObject, _context: CallContext) -> str:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("interrupted")

    with anyio.fail_after(5):
        finished = await run(box(ATool(a_spec(timeout_s=0.05), act)))
    assert "no answer within" in finished.output


async def test_a_tool_that_saves_its_answer_from_the_time_out_has_answered() -> None:
    async def act(_arguments: JsonObject, _context: CallContext) -> str:
        with anyio.move_on_after(0.1, shield=True):
            await anyio.sleep_forever()
        return "late"

    finished = await run(box(ATool(a_spec(timeout_s=0.05), act)))
    assert (finished.outcome, finished.output) == ("ok", "late")


async def test_a_cancel_goes_through_a_tool_and_leaves_no_outcome() -> None:
    finished: list[ToolFinished] = []
    began = anyio.Event()

    async def act(_arguments: JsonObject, _context: CallContext) -> str:
        began.set()
        await anyio.sleep_forever()
        return "never"

    async def call() -> None:
        finished.append(await run(box(ATool(a_spec(), act))))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await began.wait()
            tasks.cancel_scope.cancel()
    assert finished == []


async def test_a_tool_that_is_cancelled_by_its_own_code_has_failed_and_nothing_else_has() -> None:
    async def act(_arguments: JsonObject, _context: CallContext) -> str:
        other = asyncio.get_running_loop().create_future()
        other.cancel()
        return str(await other)

    tools = box(ATool(a_spec(), act))
    for _ in range(2):  # a time-out before must not be taken for a cancel now
        assert "cancelled by its own code" in (await run(tools)).output
        await run(box(that_hangs(timeout_s=0.01)))


# -- what is too long, or cannot be read --------------------------------------------------------


def kept(finished: ToolFinished) -> str:
    assert finished.file is not None
    return Path(finished.file).read_text(encoding="utf-8")


def modes(finished: ToolFinished) -> tuple[int, int]:
    """Return who may do what with the file, and with its folder."""
    assert finished.file is not None
    path = Path(finished.file)
    return stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)


async def test_output_at_the_limit_is_not_touched() -> None:
    text = "x" * 2_000
    assert (await run(box(that_returns(text), limit_chars=2_000))).output == text


async def test_a_long_output_is_kept_whole_and_the_model_reads_both_its_ends(
    tmp_path: Path,
) -> None:
    text = "\n".join(f"line {i} é\x1b[1m" for i in range(1_000))
    finished = await run(box(that_returns(text), folder=tmp_path / "new", limit_chars=2_000))
    path = tmp_path / "new" / "default" / "ses_1" / "call_1.txt"
    assert finished.outcome == "ok"
    assert finished.file == str(path)
    assert path.read_text(encoding="utf-8") == text
    assert len(finished.output) <= 2_000
    assert finished.output.startswith("line 0 é\nline 1 é\n")
    assert finished.output.endswith("\nline 999 é")
    assert f"cut here, from {len(text):,} characters; the whole is in {path}" in finished.output


async def test_what_is_kept_is_for_its_owner_only(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        finished = await run(box(that_returns("x" * 9_000), folder=tmp_path, limit_chars=1_000))
    finally:
        os.umask(old)
    assert modes(finished) == (0o600, 0o700)


async def test_a_call_that_is_run_twice_replaces_what_it_kept(tmp_path: Path) -> None:
    for text in ("a" * 9_000, "b" * 5_000):
        finished = await run(box(that_returns(text), folder=tmp_path, limit_chars=1_000))
    assert kept(finished) == "b" * 5_000


async def test_a_link_in_the_way_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target, session = tmp_path / "target", tmp_path / "default" / "ses_1"
    target.write_text("precious", encoding="utf-8")
    session.mkdir(parents=True)
    (session / "call_1.txt").symlink_to(target)
    finished = await run(box(that_returns("x" * 9_000), folder=tmp_path, limit_chars=1_000))
    assert kept(finished) == "x" * 9_000
    assert target.read_text(encoding="utf-8") == "precious"


@pytest.mark.parametrize("session", ["..", "a/b", "", ".hidden", "x" * 200, "a\0b"])
async def test_ids_that_make_no_path_are_not_made_into_one(tmp_path: Path, session: str) -> None:
    tools = box(that_returns("x" * 9_000), folder=tmp_path / "in", limit_chars=1_000)
    key = RunKey(RUN.tenant, SessionId(session), RUN.run)
    started = checked(tools, a_call())
    finished = await tools.run(started, CallContext(call=started.call, key=key))
    assert finished.file is None
    assert "the rest is lost" in finished.output
    assert not (tmp_path / "in").exists()


async def test_without_a_folder_the_middle_is_lost_and_that_is_said() -> None:
    finished = await run(box(that_returns("a" * 9_000 + "z" * 9_000), limit_chars=1_000))
    assert finished.file is None
    assert "from 18,000 characters; the rest is lost" in finished.output
    assert finished.output[0] + finished.output[-1] == "az"


async def test_a_disk_that_cannot_be_written_costs_the_middle_and_not_the_outcome(
    tmp_path: Path,
) -> None:
    (tmp_path / "default").write_text("in the way", encoding="utf-8")
    finished = await run(box(that_returns("x" * 9_000), folder=tmp_path, limit_chars=1_000))
    assert (finished.outcome, finished.file) == ("ok", None)
    assert "the rest is lost" in finished.output


async def test_an_endless_output_is_kept_in_part_and_that_is_said(tmp_path: Path) -> None:
    text = "x" * (LARGEST_FILE_CHARS + 10)
    finished = await run(box(that_returns(text), folder=tmp_path))
    assert f"the first {LARGEST_FILE_CHARS:,} are in" in finished.output
    assert len(kept(finished)) == LARGEST_FILE_CHARS


async def test_a_long_error_is_shortened_as_well(tmp_path: Path) -> None:
    error = ToolError("bad " * 10_000)
    finished = await run(box(that_raises(error), folder=tmp_path, limit_chars=1_000))
    assert finished.outcome == "error"
    assert len(finished.output) <= 1_000
    assert kept(finished) == "bad " * 10_000


async def test_the_outcome_of_an_effect_is_not_lost_to_a_cancel_while_it_is_kept(
    tmp_path: Path,
) -> None:
    scope = anyio.CancelScope()

    async def act(_arguments: JsonObject, _context: CallContext) -> str:
        scope.cancel()
        return "x" * 9_000

    finished: list[ToolFinished] = []
    with scope:
        finished.append(await run(box(ATool(a_spec(), act), folder=tmp_path, limit_chars=1_000)))
    assert [one.outcome for one in finished] == ["ok"]


@pytest.mark.parametrize(
    ("output", "read"),
    [
        ("half \ud800 pair", "half \ufffd pair"),
        ("nul \x00 bell \x07", "nul \ufffd bell \ufffd"),
        ("\x1b[31mred\x1b[0m \x1b]0;title\x07text", "red text"),
        ("tab\t, line\r\n, é, 🐎 and \u2028 stay", "tab\t, line\r\n, é, 🐎 and \u2028 stay"),
        (bytes(range(32)).decode(), "\ufffd" * 9 + "\t\n" + "\ufffd" * 2 + "\r" + "\ufffd" * 18),
    ],
)
async def test_what_no_model_reads_is_taken_out_of_the_output(output: str, read: str) -> None:
    assert (await run(box(that_returns(output)))).output == read
    assert (await run(box(that_raises(ToolError(output))))).output == read


async def test_half_a_character_is_kept_as_well_as_it_can_be(tmp_path: Path) -> None:
    text = "\ud800" + "x" * 9_000
    finished = await run(box(that_returns(text), folder=tmp_path, limit_chars=1_000))
    assert kept(finished) == "?" + "x" * 9_000
