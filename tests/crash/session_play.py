"""Programs of clients, workers and accidents: each step is carried out and held to a sketch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, get_args

import anyio
import msgspec
import pytest
from tests.crash.session_checks import catch_up, check
from tests.crash.session_client import Desk, code
from tests.crash.session_house import BROWSER_S, ME, House, Viewer, Worker
from tests.crash.session_sketch import Sketch, last_closed

from hostler.core.errors import NotFound
from hostler.core.events import (
    CallId,
    ClientTool,
    Event,
    Key,
    Policy,
    RunKey,
    SessionId,
    ToolCall,
)
from hostler.core.ports import Failure, Reply
from hostler.core.records import Session
from hostler.engine.reconcile import reconcile
from hostler.service.inbox import Cancelled, Message, Receipt
from hostler.service.once import Answering
from hostler.service.waits import Decision
from hostler.testing.doubles import Crash, whole_log

POLICIES: tuple[Policy, ...] = get_args(Policy)
MOST_SESSIONS = 3
WAITS_S = (1.0, 61.0, 600.0, 1000.0)
BROWSER = ClientTool(name="browser", timeout_s=BROWSER_S)
REPLIES = (
    (),
    ("gated",),
    ("client",),
    ("slow",),
    ("never", "safe"),
    ("gated", "client", "never", "slow"),
    ("reader", "reader", "gated", "gated"),
    ("browser", "unheard_of"),
)
FAILURES = (
    Failure(code="overloaded", message="busy", again=True),
    Failure(code="rate_limit", message="later", again=True, retry_after_s=60.0),
    Failure(code="auth", message="no", again=False),
)


class Step(NamedTuple):
    verb: str
    which: int = 0
    how: int = 0


def _receipt(receipt: Receipt) -> object:
    return receipt


def _event(event: Event) -> object:
    return [event.session, event.seq, event.kind]


def _session(session: Session) -> object:
    return [session.id, session.head.seq, session.title]


@dataclass
class Play:
    """Carries steps out, and says before each what has to come of it."""

    house: House
    sketches: dict[Key, Sketch] = field(default_factory=dict[Key, Sketch])
    desk: Desk = field(init=False)

    def __post_init__(self) -> None:
        self.desk = Desk(self.house)

    def pick(self, which: int) -> Sketch | None:
        there = list(self.sketches.values())
        return there[which % len(there)] if there else None

    # -- clients -----------------------------------------------------------------------------

    async def create(self, which: int, how: int) -> None:
        there = self.pick(which)
        if there is not None and (how % 3 == 0 or len(self.sketches) >= MOST_SESSIONS):
            await self._create_again(there, how)
            return

        async def verb(answering: Answering[Session]) -> Session:
            tools = [BROWSER] if how % 2 else []
            made, new = await self.house.service.sessions.create(
                ME, client_tools=tools, answering=answering
            )
            assert new
            return made

        answer = await self.desk.post("create", verb, _session)
        assert isinstance(answer, bytes)
        key = Key(ME.tenant, SessionId(msgspec.json.decode(answer)[0]))
        self.house.recorded.setdefault(key, {})
        self.sketches[key] = Sketch(key)

    async def _create_again(self, there: Sketch, how: int) -> None:
        """Make a session that is there, with the same body or another one."""
        session = await self.house.store.session(there.key)
        title = "another" if how % 2 else session.title

        async def verb(answering: Answering[Session]) -> Session:
            made, new = await self.house.service.sessions.create(
                ME,
                id=there.key.session,
                title=title,
                client_tools=session.client_tools,
                finding=answering,
            )
            assert not new
            return made

        answer = await self.desk.post("create", verb, _session)
        assert code(answer) == ("exists" if how % 2 else None)

    async def speak(self, which: int, how: int) -> None:
        sketch = self.pick(which)
        if sketch is None:
            return
        policy, content = POLICIES[how % len(POLICIES)], f"said-{self.desk.keys}."
        sketch.sent += 1

        async def verb(answering: Answering[Receipt]) -> Receipt:
            said = Message(content=content, policy=policy, metadata={})
            inbox = self.house.service.inbox
            return await inbox.speak(ME, sketch.key.session, said, answering=answering)

        answer = await self.desk.post(f"speak {sketch.key}", verb, _receipt, content.encode())
        wanted = sketch.joined(policy)
        if wanted == "refused":
            assert code(answer) == "busy"
            sketch.rejected += 1
            return
        assert isinstance(answer, bytes), answer
        receipt = msgspec.json.decode(answer, type=Receipt)
        assert wanted in ("new", receipt.run)
        position = sketch.spoke(policy, receipt.run, receipt.input, content)
        assert receipt.position == position

    async def cancel(self, which: int, how: int) -> None:
        sketch = self.pick(which)
        if sketch is None:
            return
        run = [None, *sketch.queue][how % (1 + len(sketch.queue))]

        async def verb(answering: Answering[Cancelled]) -> Cancelled:
            inbox, session = self.house.service.inbox, sketch.key.session
            return await inbox.cancel(ME, session, "enough", run=run, answering=answering)

        answer = await self.desk.post(f"cancel {run} {sketch.key}", verb, lambda done: done)
        assert isinstance(answer, bytes)
        assert msgspec.json.decode(answer, type=Cancelled).run == (run or sketch.active)
        if run is not None:
            sketch.queue.remove(run)
            sketch.dropped[run] = "enough"
        elif sketch.active is not None:
            sketch.cancelled.add(sketch.active)

    async def approve(self, which: int, how: int) -> None:
        decision = (
            Decision(verdict="allow"),
            Decision(verdict="deny", reason="no"),
            Decision(verdict="allow", arguments={"edited": how}),
            Decision(verdict="allow", remember=True),
        )[how % 4]

        async def verb(key: Key, call: CallId, answering: Answering[Event]) -> Event:
            waits = self.house.service.waits
            return await waits.approve(ME, key.session, call, decision, answering=answering)

        await self._answer("approval", which, how // 4, verb)

    async def answer(self, which: int, how: int) -> None:
        async def verb(key: Key, call: CallId, answering: Answering[Event]) -> Event:
            waits, said = self.house.service.waits, f"result {how}"
            return await waits.answer(
                ME, key.session, call, output=said, is_error=how % 2 == 1, answering=answering
            )

        await self._answer("client", which, how // 2, verb)

    async def _answer(
        self,
        kind: str,
        which: int,
        nth: int,
        verb: Callable[[Key, CallId, Answering[Event]], Awaitable[Event]],
    ) -> None:
        """Answer one of the calls that wait or ever waited, the newest first, or one there is not."""
        sketch = self.pick(which)
        if sketch is None:
            return
        calls = [call for call, wait in sketch.waits.items() if wait.kind == kind][::-1]
        call = calls[nth % len(calls)] if calls else CallId("call_none")

        answer = await self.desk.post(
            f"{kind} {call}", lambda answering: verb(sketch.key, call, answering), _event
        )

        wait, wanted = sketch.waits.get(call), "not_found"
        if wait is not None:
            late = None if self.house.now < wait.expires_at else "expired"
            wanted = {"open": late, "answered": "already_answered", "closed": "expired"}[
                wait.status
            ]
        assert code(answer) == wanted

    async def fork(self, which: int, how: int) -> None:
        parent = self.pick(which)
        if parent is None or len(self.sketches) >= MOST_SESSIONS:
            return
        log = self.house.log(parent.key)
        at = None if how % 2 == 0 else len(log) * how // 12
        end = last_closed(log, len(log) if at is None else at)

        async def verb(answering: Answering[Session]) -> Session:
            return await self.house.service.sessions.fork(
                ME, parent.key.session, at=at, answering=answering
            )

        answer = await self.desk.post(f"fork {parent.key}", verb, _session)
        if at not in (None, end):
            assert code(answer) == "open_step"
            return
        assert isinstance(answer, bytes), answer
        session, seq, _ = msgspec.json.decode(answer)
        assert seq == end + 1
        key = Key(ME.tenant, SessionId(session))
        log_of_fork = await whole_log(self.house.store, key)
        assert len(log_of_fork) == end + 1
        self.house.recorded[key] = {event.seq: event for event in log_of_fork}
        self.sketches[key] = Sketch(key, tuple(event.raw for event in log[:end]), at=end + 1)

    async def delete(self, which: int, how: int) -> None:
        """Delete a session while its run, if any, is driven to the end that this asks for."""
        del how
        sketch = self.pick(which)
        if sketch is None:
            return
        key, run = sketch.key, sketch.active
        self.house.leaving = key
        while not await self._deleted(key, None if run is None else RunKey(*key, run)):
            await self.house.restart()
        del self.sketches[key]
        for viewer in [one for one in self.house.viewers if one.session == key]:
            self.house.cut(viewer)
            self.house.viewers.remove(viewer)
            told = [event.raw for event in self.house.log(key)]
            assert [raw for _, raw in viewer.facts] == told[: len(viewer.facts)]
        del self.house.recorded[key]
        with pytest.raises(NotFound):
            await self.house.store.head(key)

    async def _deleted(self, key: Key, run: RunKey | None) -> bool:
        house = self.house
        async with anyio.create_task_group() as tasks:

            async def drive() -> None:
                while not house.dead:
                    if run is not None and run in house.jobs.ready:
                        house.work(run)
                    await house.something()
                tasks.cancel_scope.cancel()

            tasks.start_soon(drive)
            try:
                await house.service.sessions.delete(ME, key.session)
            except Crash:
                pass
            except NotFound:
                assert house.deaths
            house.moved()
            tasks.cancel_scope.cancel()
        return not house.dead

    async def repeat(self, which: int, how: int) -> None:
        """Send a request again, or another one with its key."""
        if not self.desk.sent:
            return
        first = self.desk.sent[-1 - which % len(self.desk.sent)]
        body = b"another" if how % 4 == 3 else first.body
        before = self.desk.written()

        answer = await self.desk.request(first.what, first.key, body, first.verb, first.view)

        assert self.desk.written() == before, "done twice"
        if how % 4 == 3:
            assert code(answer) == "key_reused"
        else:
            assert answer == first.answer

    # -- those who watch ---------------------------------------------------------------------

    async def watch(self, which: int, how: int) -> None:
        del how
        sketch = self.pick(which)
        if sketch is not None and len(self.house.viewers) < 2 * MOST_SESSIONS:
            viewer = Viewer(sketch.key)
            self.house.viewers.append(viewer)
            self.house.connect(viewer)

    async def cut(self, which: int, how: int) -> None:
        del how
        if self.house.viewers:
            self.house.cut(self.house.viewers[which % len(self.house.viewers)])

    async def back(self, which: int, how: int) -> None:
        """Come back with the cursor of any frame that was shown: what came after it is forgotten."""
        if not self.house.viewers:
            return
        viewer = self.house.viewers[which % len(self.house.viewers)]
        self.house.cut(viewer)
        viewer.seen = viewer.seen[: len(viewer.seen) - len(viewer.seen) * how // 12]
        self.house.connect(viewer)

    async def poll(self, which: int, how: int) -> None:
        """Ask for a page past the cursor, of one that is not connected."""
        viewers = [viewer for viewer in self.house.viewers if viewer.scope is None]
        if not viewers:
            return
        viewer = viewers[which % len(viewers)]
        page = await self.house.service.following.page(
            ME, viewer.session.session, after=viewer.cursor, limit=1 + how, deltas=how % 2 == 0
        )
        viewer.see(page.items)

    # -- workers and the world ---------------------------------------------------------------

    async def work(self, which: int, how: int) -> None:
        """Let workers take all the jobs there are, or one."""
        ready = self.house.jobs.ready
        for run in ready if how else ready[which : which + 1]:
            self.house.work(run)

    async def usurp(self, which: int, how: int) -> None:
        """Drive a run that is being driven, as after a lease that was lost."""
        del how
        if (worker := self._one_at("model", which)) or (worker := self._one_at("tool", which)):
            self.house.work(worker.key)

    def _one_at(self, where: str, which: int) -> Worker | None:
        there = self.house.at(where)
        return there[which % len(there)] if there else None

    async def word(self, which: int, how: int) -> None:
        if worker := self._one_at("model", which):
            worker.let(f"word-{how} ")

    async def reply(self, which: int, how: int) -> None:
        if worker := self._one_at("model", which):
            wanted = REPLIES[how % len(REPLIES)]
            calls = tuple(
                ToolCall(id=CallId(self.house.mint("call")), name=name, arguments={"n": n})
                for n, name in enumerate(wanted, start=self.house.minted)
            )
            text = "" if how == len(REPLIES) + 1 else f"{worker.said}reply-{self.house.minted}."
            worker.let(Reply(text=text, stop="tools" if calls else "end", calls=calls))

    async def fail(self, which: int, how: int) -> None:
        if worker := self._one_at("model", which):
            worker.let(FAILURES[how % len(FAILURES)])

    async def tool(self, which: int, how: int) -> None:
        if worker := self._one_at("tool", which):
            worker.let("fails" if how % 3 == 2 else "")

    async def wait(self, which: int, how: int) -> None:
        del which
        self.house.now += WAITS_S[how % len(WAITS_S)]

    async def nothing(self, which: int, how: int) -> None:
        """What steps that do not matter become when a program is made shorter."""

    async def race(self, which: int, how: int) -> None:
        """Let a worker go on between what the next request sees and what it writes."""

        async def overtake() -> None:
            await (self.reply if how % 4 else self.tool)(which, how)
            await self.house.quiet()
            catch_up(self.house, self.sketches)

        self.desk.overtake = overtake

    async def ring(self, which: int, how: int) -> None:
        del which, how
        await reconcile(self.house.store, self.house.jobs)

    async def crash(self, which: int, how: int) -> None:
        """Die now, or at a write to come, before or after it is written."""
        if how < 3:
            await self.house.restart()
        else:
            self.house.fuse = (1 + (which + how) % 6, how % 2 == 0)

    # -- the whole ---------------------------------------------------------------------------

    VERBS: ClassVar = {
        "nothing": 2,
        "create": 1,
        "speak": 9,
        "cancel": 1,
        "approve": 4,
        "answer": 3,
        "fork": 2,
        "delete": 1,
        "repeat": 2,
        "watch": 2,
        "cut": 1,
        "back": 3,
        "poll": 1,
        "work": 9,
        "usurp": 1,
        "word": 5,
        "reply": 12,
        "fail": 2,
        "tool": 3,
        "wait": 1,
        "ring": 1,
        "race": 3,
        "crash": 2,
    }
    """How often each step comes, of 71."""

    async def step(self, step: Step) -> None:
        await getattr(self, step.verb)(step.which, step.how)
        await self.house.settle()
        await check(self.house, self.sketches)
