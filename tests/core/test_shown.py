"""What tools show: stored before `show` returns, for people alone, and no more than fits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import anyio
import anyio.from_thread
import pytest

from hostler import CallContext, DataPart, DocumentPart, FilePart, SourcePart, ToolError, tool
from hostler.core.errors import Fenced
from hostler.core.events import (
    CallId,
    CancelRequested,
    Event,
    Fact,
    InputId,
    Key,
    PartShown,
    PrincipalId,
    RunClaimed,
    RunId,
    RunKey,
    Seq,
    SessionId,
    TenantId,
    ToolFinished,
    ToolStarted,
    UserSpoke,
)
from hostler.core.head import advance
from hostler.core.memory import remember
from hostler.core.ports import AgentSpec, Reply, Request, Tool
from hostler.core.records import Appended, Once
from hostler.core.said import ToolSaid
from hostler.core.shown import (
    LARGEST_OF_CALL,
    LARGEST_SHOWN,
    MOST_OF_CALL,
    Shown,
    taken,
)
from hostler.core.state import State, fold, prompt
from hostler.harness.toolbox import Toolbox
from hostler.signals.local import LocalSignals
from hostler.stores.memory import MemoryStore
from hostler.testing.crashing import Workers, check_log
from hostler.testing.doubles import ModelDouble, a_call, a_session, an_agent

pytestmark = pytest.mark.anyio
RUN = RunId("run_1")
PAGE = SourcePart(url="https://example.com/a", title="A")
Act = Callable[[CallContext], Awaitable[object]]


class SlowStore(MemoryStore):
    """Tells when a part comes to be written, and waits with it."""

    def __init__(self) -> None:
        super().__init__()
        self.comes, self.goes_on = anyio.Event(), anyio.Event()

    async def append(
        self,
        key: Key,
        facts: Sequence[Fact],
        *,
        fence: int | None = None,
        expected: Seq | None = None,
        once: Once | None = None,
    ) -> Appended:
        if any(isinstance(one, PartShown) for one in facts):
            self.comes.set()
            await self.goes_on.wait()
        return await super().append(key, facts, fence=fence, expected=expected, once=once)


def call_once(request: Request) -> Reply:
    if isinstance(request.transcript[-1], ToolSaid):
        return Reply(text="done", stop="end")
    return Reply(text="", stop="tools", calls=(a_call("act"),))


def helper(*tools: Tool) -> AgentSpec:
    spec = an_agent(ModelDouble(call_once))
    return AgentSpec(
        name=spec.name,
        instructions="",
        models=spec.models,
        tools=Toolbox(tools, spill_folder=None),
        limits=spec.limits,
    )


def acting(act: Act, *, timeout_s: float = 5.0) -> Tool:
    async def run(context: CallContext) -> str:
        await act(context)
        return "acted"

    return tool(name="act", description="Act.", timeout_s=timeout_s)(run)


async def begun(store: MemoryStore) -> Key:
    key = await a_session(store)
    await store.append(
        key,
        [
            UserSpoke(
                run=RUN,
                input=InputId("inp_1"),
                content="go",
                policy="queue",
                principal=PrincipalId("p"),
                metadata={},
            )
        ],
    )
    return key


async def played(one: Tool, store: MemoryStore | None = None) -> list[Event]:
    """Return the log of a run in which a tool was called once."""
    store = store or MemoryStore()
    key = await begun(store)
    workers = Workers(store, helper(one), LocalSignals())
    log = await workers.work_until_rest(key)
    check_log(log)
    return log


def shown_in(log: Sequence[Event]) -> list[Shown]:
    return [one.fact.part for one in log if isinstance(one.fact, PartShown)]


def outcome_in(log: Sequence[Event]) -> ToolFinished:
    (found,) = [one.fact for one in log if isinstance(one.fact, ToolFinished)]
    return found


async def test_a_part_is_in_the_log_when_show_returns_and_a_model_does_not_read_it() -> None:
    store, written = MemoryStore(), list[list[str]]()

    async def act(context: CallContext) -> None:
        await context.show(PAGE)
        key = Key(context.key.tenant, context.key.session)
        written.append([one.kind for one in await store.read(key, after=Seq(0), limit=99)])

    log = await played(acting(act), store)

    assert written[0][-2:] == ["tool_started", "part_shown"]
    assert shown_in(log) == [PAGE]
    assert outcome_in(log).output == "acted"
    silent = [one for one in log if not isinstance(one.fact, PartShown)]
    assert prompt(fold(State(), log)) == prompt(fold(State(), silent))
    recall = await store.recall(Key(TenantId("default"), log[0].session))
    assert remember(recall.past).transcript == prompt(fold(State(), silent))


async def test_what_was_shown_is_searched_by_nobody() -> None:
    store = MemoryStore()
    await played(acting(lambda context: context.show(DataPart(name="note", value="zebra"))), store)
    assert await store.search(TenantId("default"), "zebra", limit=9) == []


async def test_a_head_goes_past_what_was_shown_and_says_nothing_of_it() -> None:
    log = await played(acting(lambda context: context.show(PAGE)))
    at = next(place for place, one in enumerate(log) if isinstance(one.fact, PartShown))
    store = MemoryStore()
    head = (await store.session(await a_session(store))).head
    for one in log[:at]:
        head = advance(head, one.seq, one.fact)  # type: ignore[arg-type]
    after = advance(head, log[at].seq, PartShown(run=RUN, call=CallId("call_1"), part=PAGE))
    assert after.seq == head.seq + 1
    assert (after.status, after.unanswered, after.steps) == ("running", 1, 1)


async def test_what_is_changed_after_it_was_shown_was_shown_as_it_was() -> None:
    value: dict[str, object] = {"done": 1}

    async def act(context: CallContext) -> None:
        await context.show(DataPart(name="progress", value=value))
        value["done"] = 2

    assert shown_in(await played(acting(act))) == [DataPart(name="progress", value={"done": 1})]


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


UNFIT: dict[str, object] = {
    "no part": "text",
    "nothing": None,
    "a name with a space": DataPart(name="my note", value=1),
    "no name": DataPart(name="", value=1),
    "a name of another type": DataPart(name=5, value=1),  # type: ignore[arg-type]
    "a name that is too long": DataPart(name="x" * 65, value=1),
    "no JSON": DataPart(name="a", value=object()),
    "half a character": DataPart(name="a", value="\ud800"),
    "too deep": DataPart(name="a", value=nested(33)),
    "far too deep": DataPart(name="a", value=nested(5000)),
    "too large": DataPart(name="a", value="x" * LARGEST_SHOWN),
    "a script": SourcePart(url="javascript:alert(1)"),
    "a script in a file": FilePart(media_type="image/png", url="JavaScript:alert(1)"),
    "a URL of no host": SourcePart(url="https:///a"),
    "a URL on two lines": SourcePart(url="https://example.com/\na"),
    "a relative URL": SourcePart(url="/a"),
    "no URL": SourcePart(url=""),
    "no media type": DocumentPart(title="a", media_type="pdf"),
    "no title": DocumentPart(title=None, media_type="a/b"),  # type: ignore[arg-type]
    "neither a URL nor data": FilePart(media_type="image/png"),
    "both": FilePart(media_type="image/png", url="https://example.com", data="aGk="),
    "no base64": FilePart(media_type="image/png", data="aGk"),
    "bytes that are no text": FilePart(media_type="image/png", data="\x00abc"),
    "a media type that ends the header": FilePart(media_type="a/b,<script>", data="aGk="),
}


@pytest.mark.parametrize("what", UNFIT)
async def test_what_cannot_be_shown_is_told_to_the_tool_and_not_written(what: str) -> None:
    part = UNFIT[what]

    log = await played(acting(lambda context: context.show(part)))  # type: ignore[arg-type]

    assert shown_in(log) == []
    assert outcome_in(log).outcome == "error"
    assert outcome_in(log).output.startswith("This was not shown: ")
    assert len(outcome_in(log).output) < 300


@pytest.mark.parametrize(
    "part",
    [
        DataPart(name="a", value=nested(31)),
        DataPart(name="a", value="x" * (LARGEST_SHOWN - 100)),
        DataPart(name="x" * 64, value=None, key=""),
        SourcePart(url="HTTP://example.com"),
        SourcePart(url="[secret:hook]"),
        DataPart(name="a-[secret:hook]", value=1),
        FilePart(media_type="text/plain", data="aGk[secret:hook]"),
        FilePart(media_type="text/plain", data=""),
    ],
    ids=lambda part: repr(part)[:40],
)
def test_what_just_fits_is_taken_and_so_is_what_was_masked(part: Shown) -> None:
    assert taken(part)[0] == part


async def test_a_call_shows_so_many_parts_and_may_go_on_without_more() -> None:
    async def act(context: CallContext) -> None:
        for _ in range(MOST_OF_CALL):
            await context.show(PAGE)
        with pytest.raises(ToolError, match=f"may show {MOST_OF_CALL} parts"):
            await context.show(PAGE)

    log = await played(acting(act))

    assert len(shown_in(log)) == MOST_OF_CALL
    assert outcome_in(log).outcome == "ok"


async def test_the_parts_of_a_call_have_so_many_bytes_in_all() -> None:
    large = DataPart(name="a", value="x" * (LARGEST_SHOWN - 100))

    async def act(context: CallContext) -> None:
        for _ in range(LARGEST_OF_CALL // LARGEST_SHOWN):
            await context.show(large)
        with pytest.raises(ToolError, match="in all"):
            await context.show(large)
        await context.show(PAGE)

    assert shown_in(await played(acting(act)))[-1] == PAGE


async def test_a_task_that_a_tool_left_behind_shows_nothing_of_its_call() -> None:
    left, told = anyio.Event(), list[str]()
    tasks = list[asyncio.Task[None]]()

    async def later(context: CallContext) -> None:
        await left.wait()
        try:
            await context.show(PAGE)
        except ToolError as error:
            told.append(str(error))

    async def act(context: CallContext) -> None:
        tasks.append(asyncio.get_running_loop().create_task(later(context)))

    log = await played(acting(act))
    left.set()
    await tasks[0]

    assert told == ["This was not shown: the call is over."]
    assert shown_in(log) == []


async def test_a_part_that_is_being_written_when_the_run_is_stopped_is_written() -> None:
    store = SlowStore()

    async def act(context: CallContext) -> None:
        await context.show(PAGE)
        await anyio.sleep_forever()

    key = await begun(store)
    agent = helper(acting(act))
    workers = Workers(store, agent, LocalSignals())
    logs = list[list[Event]]()

    async def play() -> None:
        logs.append(await workers.work_until_rest(key))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(play)
            await store.comes.wait()
            cancel = CancelRequested(run=RUN, principal=PrincipalId("p"), reason=None)
            await store.append(key, [cancel])
            workers.interrupt.ring()
            await anyio.wait_all_tasks_blocked()
            store.goes_on.set()

    check_log(logs[0])
    assert shown_in(logs[0]) == [PAGE]
    assert outcome_in(logs[0]).outcome == "cancelled"


async def test_a_function_in_a_thread_shows_too() -> None:
    @tool(name="act")
    def act(context: CallContext) -> str:
        """Act."""
        anyio.from_thread.run(context.show, PAGE)
        return "acted"

    assert shown_in(await played(act)) == [PAGE]


async def test_whoever_was_outbid_shows_nothing() -> None:
    store, raised = MemoryStore(), list[type[BaseException]]()

    async def act(context: CallContext) -> None:
        key = Key(context.key.tenant, context.key.session)
        claim = (await store.head(key)).fence + 1
        await store.append(key, [RunClaimed(run=RUN, claim=claim, worker="other")])
        try:
            await context.show(PAGE)
        except Fenced as error:
            raised.append(type(error))
            raise

    key = await begun(store)
    workers = Workers(store, helper(acting(act)), LocalSignals())
    with suppress(Fenced, BaseExceptionGroup):
        await workers.work_until_rest(key)

    assert raised == [Fenced]
    kinds = [one.kind for one in await store.read(key, after=Seq(0), limit=99)]
    assert "part_shown" not in kinds
    assert kinds[-1] == "run_claimed"


async def test_a_context_that_a_test_makes_takes_what_fits_and_shows_it_to_nobody() -> None:
    key = RunKey(TenantId("default"), SessionId("ses_1"), RUN)
    context = CallContext(call=CallId("call_1"), key=key)
    await context.show(PAGE)
    with pytest.raises(ToolError):
        await context.show(SourcePart(url="javascript:alert(1)"))


async def test_calls_side_by_side_show_each_for_itself() -> None:
    both = anyio.Event()
    waiting = list[str]()

    @tool(name="act", effects="read")
    async def act(context: CallContext) -> str:
        """Act."""
        waiting.append(context.call)
        if len(waiting) == 2:
            both.set()
        await both.wait()
        for n in range(3):
            await context.show(DataPart(name="n", value=n))
        return "acted"

    def call_twice(request: Request) -> Reply:
        if isinstance(request.transcript[-1], ToolSaid):
            return Reply(text="done", stop="end")
        return Reply(text="", stop="tools", calls=(a_call("act"), a_call("act")))

    store = MemoryStore()
    key = await begun(store)
    agent = helper(act)
    agent = AgentSpec(
        name=agent.name,
        instructions="",
        models=[ModelDouble(call_twice)],
        tools=agent.tools,
        limits=agent.limits,
    )
    with anyio.fail_after(5):
        log = await Workers(store, agent, LocalSignals()).work_until_rest(key)

    check_log(log)
    for call in [one.fact.call for one in log if isinstance(one.fact, ToolStarted)]:
        parts = [
            one.fact.part
            for one in log
            if isinstance(one.fact, PartShown) and one.fact.call == call
        ]
        assert parts == [DataPart(name="n", value=n) for n in range(3)]
