"""One message and what comes of it, for scripts: `hostler run`, and chats that cannot draw.

Invariant: the exit status says how the run ended: 0 done, 1 failed, 130 cancelled.  A script waits
for no person: a run that does is cancelled, unless it was said that all is allowed.
"""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial

import anyio
import anyio.to_thread
import msgspec
from anyio.abc import TaskGroup
from msgspec.structs import asdict

from hostler.app.asking import Back, Lost
from hostler.app.client import Client
from hostler.app.frames import Frame
from hostler.app.settings import load_settings
from hostler.app.terminal.items import Over, Wait, Wants
from hostler.app.terminal.plain import Plain
from hostler.app.terminal.reach import INTERRUPTED, Reached, agree, own, perform, reach
from hostler.app.terminal.story import Story
from hostler.app.terminal.words import wait_of
from hostler.core.errors import Conflict, HostlerError, SetupError
from hostler.core.events import JsonObject

STATUS = {"done": 0, "failed": 1, "cancelled": INTERRUPTED}
GIVE_UP_S = 60.0
"""How long a script waits for a server that went away in mid-run."""
CANCEL_S = 10.0
"""How long it waits for a run that it cancelled to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line said."""

    prompt: str
    session: str | None
    agent: str | None
    model: str | None
    as_json: bool
    timeout_s: float | None
    allow: bool


def run(
    *,
    prompt: str | None,
    agent: str | None,
    model: str | None,
    session: str | None,
    json: bool,
    timeout_s: float | None,
    allow: bool,
    **flags: object,
) -> None:
    """Say one thing, show what comes of it, and exit with how that ended.

    Raises:
        SetupError: there is nothing to say, or nobody to say it to.
    """
    settings = load_settings(flags)
    asked = Asked(
        prompt=_whole(prompt),
        session=session,
        agent=agent,
        model=model,
        as_json=json,
        timeout_s=timeout_s,
        allow=allow,
    )
    instead = own("working", settings, agent, model)

    async def work() -> int:
        async with reach(settings, instead) as reached:
            return await _run(reached, asked)

    perform(work)


async def _run(reached: Reached, asked: Asked) -> int:
    client, agent = reached.client, reached.agent or asked.agent
    await agree(reached, asked.agent, asked.model)
    session = asked.session or (await client.create_session(agent=agent)).id
    receipt = asdict(await client.speak(session, asked.prompt))
    if asked.as_json:
        _print_frames([Frame(id=str(receipt["cursor"]), event="receipt", data=receipt)])
    plain = Plain(sys.stdout, sys.stderr)
    if await _is_behind_a_wait(client, receipt):
        plain.note(
            "a run before it waits for somebody: it waits, too.  To answer: "
            f"`hostler chat --session {session}`"
        )
        return 1
    watch = RunWatch(client, receipt, plain)
    watch.settle = partial(_settle, watch, asked.allow)
    if asked.as_json:
        watch.show = _print_frames
    try:
        over = await watch.to_the_end(timeout_s=asked.timeout_s)
    except BrokenPipeError:
        await client.cancel(session, tries_s=0)  # nobody is left to read what it would cost
        raise
    if over is None:
        return watch.status
    if asked.as_json and over.status != "done":
        plain.note(f"the run ended {over.status}")
    return 1 if watch.gave_up else STATUS.get(over.status, 1)


async def _is_behind_a_wait(client: Client, receipt: JsonObject) -> bool:
    if receipt["position"] == 0:
        return False
    return bool((await client.api.get(f"/api/sessions/{receipt['session']}"))["waits"])


async def _settle(watch: RunWatch, allow: bool, waits: Sequence[Wait]) -> None:  # noqa: FBT001
    """Allow what the run waits for, if it is only that and was said; else give the run up."""
    session = str(watch.receipt["session"])
    for wait in waits:
        if not (allow and isinstance(wait, Wants)):
            hint = "; --allow allows all such" if isinstance(wait, Wants) else ""
            await watch.give_up(f"it waits for {wait_of(wait)}: cancelling{hint}")
            return
    for wait in waits:
        try:
            await watch.client.approve(session, wait.call)
        except Conflict:
            continue  # somebody was quicker
        except HostlerError as error:
            await watch.give_up(f"not allowed: {error}: cancelling")
            return


@dataclass(slots=True)
class RunWatch:
    """Follows one run on a terminal that can only write; Ctrl-C cancels it, twice leaves it."""

    client: Client
    receipt: JsonObject
    plain: Plain
    status: int = 1
    """Of a watch that did not see the end."""
    gave_up: bool = False
    settle: Callable[[Sequence[Wait]], Awaitable[None]] | None = None
    """Does something about what the run waits for; cancelled when that changes."""
    show: Callable[[list[Frame]], None] | None = None
    """Shows frames as they are, in place of what they tell."""
    story: Story = field(default_factory=Story)
    _waits: Sequence[Wait] = ()
    _settling: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    _scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    _over: Over | None = None
    _is_up: bool = False
    """Its turn has come."""

    async def to_the_end(self, *, timeout_s: float | None = None) -> Over | None:
        """Show what happens until the run ends; None if it was left before."""
        with self._scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._interrupts)
                if timeout_s is not None:
                    tasks.start_soon(self._deadline, timeout_s)
                await self._follow(tasks)
                tasks.cancel_scope.cancel()
        return self._over

    async def give_up(self, why: str) -> None:
        """Cancel the run, and leave it if that does not end it."""
        self.gave_up = True
        self.plain.note(why)
        await self._cancel()
        await anyio.sleep(CANCEL_S)
        self.leave()

    def leave(self) -> None:
        self._scope.cancel()

    async def _follow(self, tasks: TaskGroup) -> None:
        self._attend(tasks)
        session, after = str(self.receipt["session"]), str(self.receipt["cursor"])
        async with aclosing(self.client.api.news(session, after=after)) as news:
            with anyio.CancelScope() as patience:
                async for one in news:
                    if isinstance(one, Lost):
                        self.plain.note(f"{one.why}: trying to get back")
                        patience.deadline = anyio.current_time() + GIVE_UP_S
                    elif isinstance(one, Back):
                        self.plain.note("the server is back")
                        patience.deadline = math.inf
                    else:
                        # In a thread: who reads our output may be slow; a server here must not be.
                        await anyio.to_thread.run_sync(self._take, one)
                        self._attend(tasks)
                        if self._over is not None:
                            return
        self.plain.note(f"the server did not come back; later: `hostler attach {session}`")

    def _attend(self, tasks: TaskGroup) -> None:
        if self.settle is None or self.gave_up or self.story.waits == self._waits:
            return
        self._settling.cancel()
        self._waits, self._settling = self.story.waits, anyio.CancelScope()
        if self._waits:
            tasks.start_soon(self._settle, self.settle, self._settling)

    async def _settle(
        self, settle: Callable[[Sequence[Wait]], Awaitable[None]], scope: anyio.CancelScope
    ) -> None:
        with scope:
            await settle(self._waits)

    def _take(self, frames: list[Frame]) -> None:
        items = [item for frame in frames for item in self.story.tell(frame)]
        if self.show is None:
            self.plain.take(items)
        else:
            self.show(frames)
        run = self.receipt["run"]
        self._is_up |= any(one.event == "run_started" and one.data["run"] == run for one in frames)
        for item in items:
            if isinstance(item, Over) and item.run == run:
                self._over = item

    async def _interrupts(self) -> None:
        with anyio.open_signal_receiver(signal.SIGINT) as received:
            async for _ in received:
                if self.status == INTERRUPTED:
                    self.leave()
                    return
                self.status = INTERRUPTED
                self.plain.note("cancelling; Ctrl-C again leaves at once")
                await self._cancel()

    async def _deadline(self, timeout_s: float) -> None:
        await anyio.sleep(timeout_s)
        await self.give_up(f"not done after {timeout_s:g} s: cancelling")

    async def _cancel(self) -> None:
        """Cancel the run; one that waits is left, since a cancel would hit the one before it."""
        session = str(self.receipt["session"])
        if not self._is_up and self.receipt["position"] != 0:
            self.plain.note(
                f"it still waits for another run, and stays: `hostler attach {session}`"
            )
            self.leave()
            return
        try:
            await self.client.cancel(session, tries_s=0)
        except HostlerError as error:
            self.plain.note(f"not cancelled: {error}")


def _whole(prompt: str | None) -> str:
    """Return the prompt with what is piped in below it."""
    piped = (
        ""
        if sys.stdin is None or sys.stdin.isatty()
        else sys.stdin.buffer.read().decode(errors="replace")
    )
    parts = [part for part in (prompt or "", piped.strip("\n")) if part.strip()]
    if not parts:
        raise SetupError("there is nothing to say: give a PROMPT, or pipe one in")
    return "\n\n".join(parts)


def _print_frames(frames: list[Frame]) -> None:
    sys.stdout.buffer.write(b"".join(msgspec.json.encode(one) + b"\n" for one in frames))
    sys.stdout.buffer.flush()
