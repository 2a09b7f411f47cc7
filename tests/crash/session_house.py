"""A house for generated programs: one store, a clock by hand, workers that wait to be let.

A worker goes as far as its model or its slow tool, and stays there until the program says what
comes next.  A house has one node, or several that share a database, a queue and a bus; each verb
goes to any of them.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, TypeVar

import anyio
import anyio.abc
from tests.crash.session_node import HEARD, Node, Opens
from tests.fleets import Hub, until

from hostler.core.decide import Limits
from hostler.core.errors import Fenced, NotFound, ToolError
from hostler.core.events import (
    Event,
    Key,
    ModelAsked,
    Principal,
    PrincipalId,
    RunKey,
    Seq,
    SessionId,
    TenantId,
    ToolStarted,
)
from hostler.core.loop import Drive, Interrupt
from hostler.core.news import Piece
from hostler.core.ports import Delta, Failure, Handler, Job, Reply, Request
from hostler.core.store import Store
from hostler.engine.reconcile import reconcile
from hostler.service.cursor import Cursor
from hostler.service.service import Service
from hostler.testing.crashing import check_prompt
from hostler.testing.doubles import Crash, ToolboxDouble, a_tool, an_agent, whole_log

T = TypeVar("T")
ME = Principal(id=PrincipalId("me"), tenant=TenantId("default"))
PATIENCE_S = 15
"""Real seconds after which something hangs that never should."""
APPROVAL_S, AGENT_CLIENT_S, BROWSER_S = 900.0, 500.0, 1000.0
TOOLS = {
    spec.name: spec
    for spec in (
        a_tool("gated", approval=True),
        a_tool("client", client=True, timeout_s=AGENT_CLIENT_S),
        a_tool("never"),
        a_tool("safe", twice="safe"),
        a_tool("reader", twice="safe", effects="read"),
        a_tool("slow"),
    )
}
Order: TypeAlias = str | Reply | Failure
"""What the model of a worker does next: say a word, or end."""
_working: ContextVar[Worker] = ContextVar("_working")


@dataclass(eq=False)
class Worker:
    """One drive of one run."""

    key: RunKey
    moved: Callable[[], None]
    node: Node
    where: Literal["busy", "model", "tool", "over"] = "busy"
    is_last: bool = True
    """No other worker has taken the run over."""
    said: str = ""
    """By the model, in this attempt."""
    until: float | None = None
    interrupt: Interrupt = field(default_factory=Interrupt)
    _order: Order = ""
    _let: anyio.Event = field(default_factory=anyio.Event)

    def ring(self) -> None:
        if self.where in ("model", "tool"):
            self.where = "busy"
        self.interrupt.ring()

    def let(self, order: Order = "") -> None:
        self.where, self._order = "busy", order
        self._let.set()

    async def wait(self, where: Literal["model", "tool"]) -> Order:
        self._let, self.where = anyio.Event(), where
        self.moved()
        await self._let.wait()
        return self._order


@dataclass(eq=False)
class Viewer:
    """All that one client was ever shown, and where it would go on."""

    session: Key
    node: Node | None = None
    seen: list[Event | Piece] = field(default_factory=list[Event | Piece])
    scope: anyio.CancelScope | None = None
    news: anyio.Event = field(default_factory=anyio.Event)

    @property
    def cursor(self) -> Cursor:
        return Cursor.parse(str(Cursor.after(self.seen[-1]))) if self.seen else Cursor()

    @property
    def facts(self) -> list[tuple[int, bytes]]:
        return [(one.seq, one.raw) for one in self.seen if isinstance(one, Event)]

    @property
    def texts(self) -> dict[int, str]:
        """What was streamed, by attempt; a piece that does not follow on shows as a hole."""
        texts = dict[int, str]()
        for one in self.seen:
            if isinstance(one, Piece):
                so_far = texts.get(one.asked, "")
                hole = "" if one.start == len(so_far) else f"<{one.start}>"
                texts[one.asked] = f"{so_far}{hole}{one.delta.text}"
        return texts

    def see(self, batch: Iterable[Event | Piece]) -> None:
        self.seen += batch
        self.news.set()
        self.news = anyio.Event()

    async def comes_to(self, wanted: Callable[[], bool]) -> None:
        while not wanted():
            await self.news.wait()


@dataclass
class Jobs:
    """A `core.ports.Engine` that hands a job out when it is told to."""

    clock: Callable[[], float]
    due: dict[RunKey, float] = field(default_factory=dict[RunKey, float])
    running: dict[RunKey, Worker] = field(default_factory=dict[RunKey, Worker])
    again: dict[RunKey, float] = field(default_factory=dict[RunKey, float])

    async def enqueue(self, job: Job) -> None:
        where = self.again if job.key in self.running else self.due
        where[job.key] = min(job.not_before, where.get(job.key, job.not_before))

    def is_live(self, key: RunKey) -> bool:
        return key in self.due or key in self.running

    async def idle(self, keys: Sequence[RunKey]) -> Sequence[RunKey]:
        return [key for key in keys if not self.is_live(key)]

    async def serve(self, handler: Handler, *, slots: int) -> None: ...
    @property
    def serves(self) -> bool:
        return True

    async def aclose(self) -> None: ...

    def drain(self) -> None: ...
    @property
    def live(self) -> int:
        return len(self.due) + len(self.running)

    def waiting(self) -> tuple[int, float]:
        return len(self.due), 0.0

    @property
    def ready(self) -> list[RunKey]:
        return [key for key, at in self.due.items() if at <= self.clock()]

    def lost(self, worker: Worker) -> None:
        """Its node is dead, and so is its lease."""
        if self.running.get(worker.key) is worker:
            self.again[worker.key] = self.clock()
        self.ended(worker)

    def ended(self, worker: Worker) -> None:
        if self.running.get(worker.key) is not worker:
            return
        del self.running[worker.key]
        again = self.again.pop(worker.key, None)
        times = [at for at in (worker.until, again) if at is not None]
        if times:
            self.due[worker.key] = min(times)


class LettingModel:
    """Each worker's model does what that worker is told."""

    provider = name = "let"

    def __init__(self, house: House) -> None:
        self._house = house

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
        worker = _working.get()
        worker.said = ""
        check_prompt(request.transcript)
        self._house.asked.append((worker.key, tuple(map(str, request.transcript))))
        while isinstance(order := await worker.wait("model"), str):
            if worker.is_last:  # another process's text does not get here
                worker.said += order
                self._house.spoken[worker.key.session, self._house.asking(worker)] = worker.said
                yield Delta("text", order)
        yield order


@dataclass
class House:
    """A server's life after life on one store; `recorded` is what observers were told."""

    opens: Opens
    size: int = 1
    """How many nodes it has."""
    now: float = 1_000_000.0
    minted: int = 0
    recorded: dict[Key, dict[Seq, Event]] = field(default_factory=dict[Key, dict[Seq, Event]])
    asked: list[tuple[RunKey, tuple[str, ...]]] = field(
        default_factory=list[tuple[RunKey, tuple[str, ...]]]
    )
    """Every request to a model: of which run, and its transcript."""
    spoken: dict[tuple[SessionId, int], str] = field(
        default_factory=dict[tuple[SessionId, int], str]
    )
    """What was streamed, by session and attempt."""
    viewers: list[Viewer] = field(default_factory=list[Viewer])
    workers: list[Worker] = field(default_factory=list[Worker])
    fuse: tuple[int, bool] | None = None
    """Writes until a process dies, and whether the last of them is written."""
    leaving: Key | None = None
    """Somebody asked for this session to be deleted."""
    overtake: Callable[[], Awaitable[None]] | None = None
    """Done after the next time that somebody looks at a head."""
    overtaken: dict[Key, int] | None = None
    """How long the logs were then."""
    deaths: int = 0
    hub: Hub = field(default_factory=Hub)
    told: int = 0
    chance: random.Random = field(default_factory=lambda: random.Random(1))

    def __post_init__(self) -> None:
        effects = {"slow": self._slow}
        self.tools = ToolboxDouble(TOOLS, effects=effects)
        limits = Limits(approval_s=APPROVAL_S)
        self.agent = an_agent(LettingModel(self), tools=self.tools, limits=limits)
        self._news = anyio.Event()
        self.jobs = Jobs(self.clock)
        self.nodes = [Node(self, number) for number in range(self.size)]

    def clock(self) -> float:
        return self.now

    def mint(self, prefix: str) -> str:
        self.minted += 1
        return f"{prefix}_{self.minted:028x}"

    def some(self) -> Node:
        """Return a node that lives, if there is one."""
        return self.chance.choice([one for one in self.nodes if one.is_up] or self.nodes)

    @property
    def service(self) -> Service:
        return self.some().service

    @property
    def store(self) -> Store:
        return self.some().store

    # -- life and death ----------------------------------------------------------------------

    @property
    def dead(self) -> bool:
        return any(node.is_dead for node in self.nodes)

    async def begin(self, lives: anyio.abc.TaskGroup) -> None:
        self._lives = lives
        for node in self.nodes:
            await lives.start(node.live)

    async def end(self) -> None:
        for node in self.nodes:
            await node.end()

    async def restart(self) -> None:
        """Lose all of the dead, or of somebody, but the store; what was told has to be in it."""
        dead = [node for node in self.nodes if node.is_dead] or [self.some()]
        watching = [v for v in self.viewers if v.scope is not None and v.node in dead]
        self.deaths += 1
        for node in dead:
            node.is_dead = True  # from here on it is asked nothing
            await node.end()
        if len(dead) == len(self.nodes):
            self.jobs = Jobs(self.clock)
        for node in dead:
            await self._lives.start(node.live)
        for key, told in self.recorded.items():
            try:
                log = {event.seq: event for event in await whole_log(self.store, key)}
            except NotFound:
                assert key == self.leaving, "a session is gone"
                continue
            for seq, event in told.items():
                assert log[seq].raw == event.raw, "an acknowledged fact is gone"
            self.record(key, list(log.values()))
        await reconcile(self.store, self.jobs)
        for viewer in watching:
            self.connect(viewer)

    async def burn(self, node: Node, write: Callable[[], Awaitable[T]]) -> T:
        """Write, unless the node is dead or dies of it."""
        dies = self.fuse is not None and self.fuse[0] <= 1
        after = self.fuse is not None and self.fuse[1]
        if self.fuse is not None:
            self.fuse = None if dies else (self.fuse[0] - 1, after)
        if node.is_dead or (dies and not after):
            self.die(node)
        done = await write()
        if dies:
            self.die(node)
        return done

    def die(self, node: Node) -> None:
        node.is_dead = True
        self.moved()
        raise Crash

    # -- who works ---------------------------------------------------------------------------

    def work(self, key: RunKey) -> Worker:
        """Drive a run; whoever drove it before is overtaken."""
        for other in self.workers:
            other.is_last = other.is_last and other.key != key
        self.jobs.due.pop(key, None)
        worker = self.jobs.running[key] = Worker(key, self.moved, self.some())
        self.workers.append(worker)
        worker.node.tasks.start_soon(self._drive, worker)
        return worker

    async def _drive(self, worker: Worker) -> None:
        _working.set(worker)
        node, is_over = worker.node, False
        drive = Drive(
            key=worker.key,
            agents=lambda _: self.agent,
            store=node.store,
            signals=node.signals,
            interrupt=worker.interrupt,
            world=node.world,
        )
        try:
            with node.signals.on_cancel(worker.key, worker.ring):
                worker.until = await drive.run()
            is_over = True
        except (Crash, Fenced, NotFound):
            is_over = not node.is_dead
        except BaseExceptionGroup as group:
            if group.split((Crash, Fenced, NotFound))[1] is not None:
                raise
            is_over = not node.is_dead
        finally:
            worker.where = "over"
            self.workers.remove(worker)
            (self.jobs.ended if is_over else self.jobs.lost)(worker)
            self.moved()

    async def _slow(self, started: ToolStarted) -> str:
        if await _working.get().wait("tool"):
            raise ToolError("it did not work out")
        return str(started.arguments)

    def log(self, key: Key) -> list[Event]:
        return [event for _, event in sorted(self.recorded[key].items())]

    def written(self) -> dict[Key, int]:
        return {key: len(log) for key, log in self.recorded.items()}

    def at(self, where: str) -> list[Worker]:
        return [worker for worker in self.workers if worker.where == where]

    def asking(self, worker: Worker) -> int:
        """Return where the run's last attempt was written."""
        log = self.recorded[Key(worker.key.tenant, worker.key.session)].values()
        return max(e.seq for e in log if isinstance(e.fact, ModelAsked))

    # -- rest --------------------------------------------------------------------------------

    def moved(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    async def something(self) -> None:
        await self._news.wait()

    async def quiet(self) -> None:
        """Wait until nobody does anything that the program did not ask for, or all are dead."""
        while not self.dead and self.at("busy"):
            await self.something()

    async def settle(self) -> None:
        """Wait for quiet, be alive then, and let those who watch see all there is."""
        is_settled = False
        while not is_settled:
            await self.quiet()
            if self.dead:
                await self.restart()
            else:
                await self._hear()
                is_settled = not self.dead and not self.at("busy")
        for viewer in self.viewers:
            if viewer.scope is not None:
                await viewer.comes_to(lambda viewer=viewer: self._is_current(viewer))

    async def _hear(self) -> None:
        """Let all nodes hear what the others have said up to now."""
        if len(self.nodes) == 1:
            return
        self.told += 1
        for node in self.nodes:
            node.tell(HEARD, f"{self.told} {node.number}")
        said = {f"{self.told} {node.number}" for node in self.nodes}
        await until(
            lambda: all(said - {f"{self.told} {node.number}"} <= node.heard for node in self.nodes)
        )

    def _is_current(self, viewer: Viewer) -> bool:
        """Whether it has seen every fact, and all that is being said."""
        log, texts = self.recorded[viewer.session], viewer.texts
        if viewer.cursor.seq != len(log):
            return False
        return all(
            texts.get(self.asking(worker), "") == worker.said
            for worker in self.at("model")
            if worker.is_last and Key(worker.key.tenant, worker.key.session) == viewer.session
        )

    # -- who watches -------------------------------------------------------------------------

    def connect(self, viewer: Viewer) -> None:
        viewer.scope, viewer.node = anyio.CancelScope(), self.some()
        viewer.node.tasks.start_soon(self._watch, viewer, viewer.node, viewer.scope)

    async def _watch(self, viewer: Viewer, node: Node, scope: anyio.CancelScope) -> None:
        with scope:
            try:
                following, session = node.service.following, viewer.session.session
                async with aclosing(following.follow(ME, session, after=viewer.cursor)) as stream:
                    async for batch in stream:
                        if viewer.scope is not scope:
                            return
                        viewer.see(batch)
            except NotFound:
                viewer.scope = None

    def cut(self, viewer: Viewer) -> None:
        if viewer.scope is not None:
            viewer.scope.cancel()
            viewer.scope = None

    def record(self, key: Key, events: Sequence[Event]) -> None:
        """Take down what is written, and so is so for ever."""
        log = self.recorded.setdefault(key, {})
        for event in events:
            assert log.setdefault(event.seq, event).raw == event.raw, "another fact at its place"
