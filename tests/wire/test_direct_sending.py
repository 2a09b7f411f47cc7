"""Answers to direct calls as they are sent, to an outlet that is no HTTP: order, silence, ends."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

import anyio
import pytest

from hostler.core.errors import Unavailable
from hostler.core.ports import Delta, Failure, Reply
from hostler.faces.http.answers import Answer, tell
from hostler.faces.http.direct import SILENT_LOOKS, Sending

pytestmark = pytest.mark.anyio
LAST = Reply(text="ab", stop="end")
FAULT = Failure(code="server", message="oh", again=True)


@dataclass
class Plain:
    """Words that can be read; thoughts are passed over."""

    alive: bytes = b"alive"
    id_headers: Sequence[bytes] = ()
    tell = staticmethod(tell)

    def begin(self) -> Sequence[bytes]:
        return (b"begin",)

    def add(self, delta: Delta) -> Sequence[bytes]:
        return (delta.text.encode(),) if delta.part == "text" else ()

    def end(self, reply: Reply) -> Sequence[bytes]:
        return (reply.text.encode(), b"end")

    def error(self, answer: Answer, request: str) -> Sequence[bytes]:
        return (f"{answer.status} {request}".encode(),)

    def whole(self, reply: Reply) -> Answer:
        return Answer(200, reply.text)

    def failed(self, failure: Failure) -> Answer:
        return Answer(502, failure.message)


@dataclass
class Frames:
    """An outlet that takes each event as a text, as a socket would."""

    sent: list[str] = field(default_factory=list[str])
    writes: bool = True
    """Whether anything can be written without waiting."""
    gate: anyio.Event | None = None
    """What `send` waits for, if for anything."""
    is_open: bool = False
    over: int = 0

    async def begin(self) -> None:
        assert not self.is_open
        self.is_open = True

    def write(self, events: Sequence[bytes]) -> bool:
        if self.is_open and self.writes:
            self._take(events)
            return True
        return False

    async def send(self, events: Sequence[bytes], *, last: bool = False) -> None:
        assert self.is_open
        if self.gate is not None:
            await self.gate.wait()
        self._take(events)
        self.over += last

    def _take(self, events: Sequence[bytes]) -> None:
        assert not self.over, "nothing may follow the last"
        self.sent += [one.decode() for one in events]


Part = Delta | Reply | Failure | Exception | anyio.Event


async def parts(*these: Part) -> AsyncGenerator[Delta | Reply | Failure, None]:
    """Yield these; at an event, wait for it."""
    for one in these:
        if isinstance(one, anyio.Event):
            await one.wait()
        elif isinstance(one, Exception):
            raise one
        else:
            yield one


async def said(*these: Part, frames: Frames | None = None) -> tuple[Answer | None, list[str]]:
    """Send these; return what is to be answered instead of a stream, and what was sent."""
    frames = frames or Frames()
    answer: Answer | None = None
    async with anyio.create_task_group() as tasks:
        sending = Sending(frames, Plain(), "req_1", tasks)
        answer = await sending.all(parts(*these), "POST /")
    assert frames.over == (answer is None)
    return answer, frames.sent


def text(said: str) -> Delta:
    return Delta("text", said)


async def test_what_comes_is_sent_in_order_and_ends_once() -> None:
    assert await said(text("a"), text("b"), LAST) == (None, ["begin", "a", "b", "ab", "end"])
    assert await said(text("a"), text("b"), LAST, frames=Frames(writes=False)) == (
        None,
        ["begin", "a", "b", "ab", "end"],
    )
    assert await said(LAST) == (None, ["begin", "ab", "end"])


@pytest.mark.parametrize(
    ("wrong", "status"), [(FAULT, 502), (Unavailable("full"), 503), (ValueError("a bug"), 500)]
)
async def test_what_goes_wrong_has_a_status_until_something_was_sent(
    wrong: Part, status: int
) -> None:
    answer, sent = await said(Delta("thinking", "hm"), wrong)
    assert (answer and answer.status, sent) == (status, [])

    assert await said(text("a"), wrong) == (None, ["begin", "a", f"{status} req_1"])


async def looked_at(*these: Part, when: anyio.Event, frames: Frames, looks: int) -> list[str]:
    """Send these, look so often at the silence, and then let `when` happen."""
    async with anyio.create_task_group() as tasks:
        sending = Sending(frames, Plain(), "req_1", tasks)

        async def look() -> None:
            for _ in range(looks):
                sending.look()
                await anyio.wait_all_tasks_blocked()
            when.set()

        async def send() -> None:
            assert await sending.all(parts(*these), "POST /") is None

        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(look)
    return frames.sent


async def test_a_long_silence_begins_a_stream_and_errors_are_told_in_it() -> None:
    when = anyio.Event()

    sent = await looked_at(when, FAULT, when=when, frames=Frames(), looks=SILENT_LOOKS)

    assert sent == ["begin", "alive", "502 req_1"]


async def test_a_long_silence_in_the_middle_has_signs_of_life_now_and_then() -> None:
    when, frames = anyio.Event(), Frames()

    sent = await looked_at(
        text("a"), when, text("b"), LAST, when=when, frames=frames, looks=2 * SILENT_LOOKS
    )

    assert sent == ["begin", "a", "alive", "alive", "b", "ab", "end"]


async def test_what_is_sent_breaks_the_silence_and_what_is_not_sent_does_not() -> None:
    first, when, frames = anyio.Event(), anyio.Event(), Frames()
    async with anyio.create_task_group() as tasks:
        sending = Sending(frames, Plain(), "req_1", tasks)
        these = (text("a"), first, text("b"), when, Delta("thinking", "hm"), LAST)

        async def send() -> None:
            await sending.all(parts(*these), "POST /")

        tasks.start_soon(send)
        for _ in range(SILENT_LOOKS - 1):
            await anyio.wait_all_tasks_blocked()
            sending.look()
        first.set()
        for _ in range(SILENT_LOOKS - 1):
            await anyio.wait_all_tasks_blocked()
            sending.look()
        await anyio.wait_all_tasks_blocked()
        assert frames.sent == ["begin", "a", "b"]
        sending.look()
        await anyio.wait_all_tasks_blocked()
        assert frames.sent == ["begin", "a", "b", "alive"]
        when.set()


async def test_a_sign_of_life_that_waits_for_the_client_is_overtaken_by_nothing() -> None:
    gate, frames, when = anyio.Event(), Frames(writes=False), anyio.Event()
    async with anyio.create_task_group() as tasks:
        sending = Sending(frames, Plain(), "req_1", tasks)

        async def send() -> None:
            await sending.all(parts(text("a"), when, text("b"), LAST), "POST /")

        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        frames.gate, frames.writes = gate, True
        for _ in range(SILENT_LOOKS):
            sending.look()
        await anyio.wait_all_tasks_blocked()
        when.set()
        await anyio.wait_all_tasks_blocked()
        assert frames.sent == ["begin", "a"]
        gate.set()

    assert frames.sent == ["begin", "a", "alive", "b", "ab", "end"]


async def test_nothing_is_said_after_the_end_however_long_that_waits() -> None:
    gate, frames = anyio.Event(), Frames(gate=anyio.Event())
    frames.gate = gate
    async with anyio.create_task_group() as tasks:
        sending = Sending(frames, Plain(), "req_1", tasks)

        async def send() -> None:
            await sending.all(parts(LAST), "POST /")

        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        for _ in range(2 * SILENT_LOOKS):
            sending.look()
            await anyio.wait_all_tasks_blocked()
        gate.set()

    assert (frames.sent, frames.over) == (["begin", "ab", "end"], 1)


async def test_an_outlet_that_needs_no_signs_of_life_is_only_begun() -> None:
    when, frames = anyio.Event(), Frames()
    async with anyio.create_task_group() as tasks:
        sending = Sending(frames, Plain(alive=b""), "req_1", tasks)

        async def send() -> None:
            await sending.all(parts(when, LAST), "POST /")

        tasks.start_soon(send)
        for _ in range(3 * SILENT_LOOKS):
            await anyio.wait_all_tasks_blocked()
            sending.look()
        await anyio.wait_all_tasks_blocked()
        assert frames.sent == ["begin"]
        when.set()
