"""The loop: read, fold, decide, act, append.  Until there is nothing left to do.

    log ──recall──▶ fold ──▶ decide ──▶ act ──▶ append ──▶ log
                    (pure)    (pure)   (world)

It keeps nothing in memory that the log does not hold, so it may die between any two lines and
another worker goes on from the same place.  An outcome and the intent that follows it share one
commit: the next decision is made on what is about to be written, and the append holds only if
nobody else wrote meanwhile.  If somebody did, the outcome alone is written and the log read anew.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import partial

import anyio

from hostler.core.decide import (
    Action,
    AskModel,
    Begin,
    CallTools,
    End,
    Rest,
    Wait,
    bounded,
    closing,
    decide,
    processed,
    remark,
)
from hostler.core.errors import Fenced, Moved
from hostler.core.events import (
    AttemptDropped,
    AttemptId,
    CallId,
    Event,
    Fact,
    Fault,
    Key,
    ModelAsked,
    ModelFailed,
    ModelReplied,
    PartShown,
    RunClaimed,
    RunId,
    RunKey,
    RunStarted,
    Seq,
    ToolFinished,
    ToolStarted,
)
from hostler.core.gate import admit
from hostler.core.memory import remember
from hostler.core.news import Signals
from hostler.core.ports import (
    Agents,
    AgentSpec,
    CallContext,
    ClientTool,
    Delta,
    Failure,
    Model,
    Reply,
    Request,
    World,
)
from hostler.core.said import Said
from hostler.core.sealed import Part, Secrets
from hostler.core.shown import Show, Shown, Stage
from hostler.core.state import LOST, Run, State, fold, prompt, terms_of
from hostler.core.store import Store
from hostler.core.streamed import Streamed
from hostler.core.terms import AS_IT_IS, Terms

TOGETHER_S = 0.25
"""Text that comes within it is taken as one piece while others wait: most of its cost is per piece."""
PATIENCE_S = 5.0
"""A longer wait leaves the loop, and memory, and comes back as a delayed job."""
KEEP_CHARACTERS = 256 * 1024
"""A larger state is dropped during each effect and folded again after it."""
BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 30.0)
READERS = 8
STOPPED = "Cancelled while it ran; it may have taken effect in part."
NO_RESULT = "No result came from the client in time; it may have taken effect."


class Interrupt:
    """Stops the effect in flight, so that the loop reads the log and decides anew.

    Sticky: a `ring` that comes before the effect has begun stops it as it begins.
    """

    def __init__(self, waits: Callable[[], None] = lambda: None) -> None:
        """`waits` is called as each effect begins: from there on the run waits for the world."""
        self.rung, self._waits = False, waits
        self._scope: anyio.CancelScope | None = None

    def ring(self) -> None:
        self.rung = True
        if self._scope is not None:
            self._scope.cancel()

    @contextmanager
    def guard(self) -> Generator[None]:
        self._waits()
        with anyio.CancelScope() as self._scope:
            if self.rung:
                self._scope.cancel()
            yield
        self._scope = None


class _Log:
    """The run's view of its session's log, and its pen."""

    def __init__(self, store: Store, key: RunKey, world: World) -> None:
        self._store, self._key, self._world = store, Key(key.tenant, key.session), world
        self._state: State | None = None
        self._unwritten: list[Fact] = []
        self.fence: int | None = None
        self.agent, self.active = "", None
        self.client_tools: Sequence[ClientTool] = ()

    async def state(self) -> State:
        """Return what the log says, with what was noted."""
        if self._state is None:
            if self._unwritten:
                _, head = await self._store.append(self._key, self._unwritten, fence=self.fence)
                self._unwritten, self.fence = [], head.fence
            recall = await self._store.recall(self._key)
            head, self.agent, self.client_tools = recall.head, recall.agent, recall.client_tools
            self.active = head.active
            if self.fence not in (None, head.fence):
                raise Fenced(f"{self._key.session}: another worker claimed it")
            self._state, self.fence = fold(remember(recall.past), recall.events), head.fence
            self._state.seq = head.seq
        return self._state

    def note(self, facts: Sequence[Fact]) -> None:
        """Take facts as written; they will be, with the next commit."""
        self._unwritten += facts
        if self._state is not None:
            fold(self._state, self._number(facts))

    async def commit(self, intents: Sequence[Fact]) -> bool:
        """Write what was noted and `intents`; False, without them, if the log had moved."""
        state = await self.state()
        self.note(intents)
        if not self._unwritten:
            return True
        expected = Seq(state.seq - len(self._unwritten))
        outcomes = self._unwritten[: len(self._unwritten) - len(intents)]
        try:
            appended = await self._store.append(
                self._key, self._unwritten, fence=self.fence, expected=expected
            )
        except Moved:
            self._unwritten, self._state = outcomes, None
            return False
        self._unwritten, self.fence = [], appended.head.fence
        return True

    async def write(self, fact: Fact) -> None:
        """Write one outcome now, come what may."""
        with anyio.CancelScope(shield=True):
            events, _ = await self._store.append(self._key, [fact], fence=self.fence)
            if self._state is not None and events[0].seq == self._state.seq + 1:
                fold(self._state, events)
            else:
                self._state = None

    def forget(self, *, above: int = 0) -> None:
        """Drop the state, to be read again when it is next needed."""
        if self._state is not None and not self._unwritten and self._state.size >= above:
            self._state = None

    def _number(self, facts: Sequence[Fact]) -> list[Event]:
        assert self._state is not None
        first, at, session = self._state.seq + 1, self._world.clock(), self._key.session
        return [
            Event(session=session, seq=Seq(first + i), at=at, fact=fact, raw=b"")
            for i, fact in enumerate(facts)
        ]


@dataclass(slots=True, kw_only=True)
class Drive:
    """One worker's turn at one run."""

    key: RunKey
    agents: Agents
    store: Store
    signals: Signals
    interrupt: Interrupt
    world: World
    secrets: Secrets | None = None
    crowded: Callable[[], bool] = lambda: False
    """Whether others wait for this worker's time: text is then taken in larger pieces."""
    leaving: Callable[[], bool] = lambda: False
    """Whether another worker shall go on: this one then begins no further step."""

    async def run(self) -> float | None:
        """Drive the run until it ends or waits; return when to look again, None for never.

        When this worker is `leaving`, it returns now between two steps: nothing is in flight, and
        whoever goes on asks and runs nothing a second time.

        Cancelling the task that awaits this (a shutdown) leaves the run open, to be resumed
        elsewhere.  Only a `CancelRequested` fact cancels a run.

        Raises:
            Fenced: another worker took over; nothing more may be written.
            NotFound: the session was deleted.
        """
        log = _Log(self.store, self.key, self.world)
        state = await log.state()
        agent = self._agent(log, state)
        if agent is None or log.active != self.key.run:  # it has ended, or its turn has not come
            return None
        first = decide(state, self.key.run, limits=agent.limits, now=self.world.clock())
        if isinstance(first, Rest | Wait):
            return first.until if isinstance(first, Wait) else None
        self._claim(state, log)
        del state  # and none is held below: an effect may take long, and a state be large
        while True:
            self.interrupt.rung = False
            agent, action, r = await self._decided(log, agent)
            if isinstance(action, Begin):
                log.note([RunStarted(run=self.key.run)])
            elif isinstance(action, AskModel | CallTools) and self.leaving():
                if await log.commit([]):
                    return self.world.clock()
            elif r is not None and isinstance(action, AskModel):
                await self._ask(action, r, log, agent)
            elif r is not None and isinstance(action, CallTools):
                await self._call(action, r, log, agent)
            elif await self._is_over(action, r, log):
                return action.until if isinstance(action, Wait) else None

    async def _decided(self, log: _Log, agent: AgentSpec) -> tuple[AgentSpec, Action, Run | None]:
        state, now = await log.state(), self.world.clock()
        agent = self._agent(log, state) or agent
        return agent, decide(state, self.key.run, limits=agent.limits, now=now), state.run

    def _agent(self, log: _Log, state: State) -> AgentSpec | None:
        return self.agents(terms_of(state, self.key.run).agent or log.agent)

    def _claim(self, state: State, log: _Log) -> None:
        run = self.key.run
        claim = (log.fence or 0) + 1
        log.note([RunClaimed(run=run, claim=claim, worker=self.world.worker)])
        if state.run is not None and state.run.attempt is not None:
            lost = state.run.attempt
            log.note([AttemptDropped(run=run, attempt=lost, reason="worker_lost")])

    async def _is_over(self, action: Action, r: Run | None, log: _Log) -> bool:
        """Write what is left to write; whether this worker has nothing more to do."""
        if not isinstance(action, Wait):
            return await log.commit(closing(r, action) if r and isinstance(action, End) else [])
        written = await log.commit([])
        log.forget(above=KEEP_CHARACTERS)
        if written and not await self._pause(action):
            return True
        log.forget()
        return False

    async def _pause(self, wait: Wait) -> bool:
        """Sleep a short wait out, or until rung; False, at once, for a long one."""
        left_s = wait.until - self.world.clock()
        if left_s > PATIENCE_S or self.leaving():
            return False
        with self.interrupt.guard():
            await anyio.sleep(max(0.0, left_s))
        return True

    async def _ask(self, ask: AskModel, r: Run, log: _Log, agent: AgentSpec) -> None:
        """Ask the model once, and note what came of it."""
        model = agent.models[min(ask.choice, len(agent.models) - 1)]
        attempt = AttemptId(self.world.mint("att"))
        asked = ModelAsked(
            run=r.id, attempt=attempt, provider=model.provider, model=model.name, choice=ask.choice
        )
        if not await log.commit([asked]):
            return
        stream = self._masked(
            model,
            asking(agent, r.terms, prompt(await log.state()), log.client_tools, self.key),
        )
        seen, at, failures = processed(r), r.asking, r.failures
        last, said, first_s, began = None, Streamed(), None, self.world.clock()
        log.forget(above=KEEP_CHARACTERS)
        with self.interrupt.guard():
            async with aclosing(stream) as parts:
                async for part in parts:
                    if isinstance(part, Delta):
                        if first_s is None:
                            first_s = round(max(0.0, self.world.clock() - began), 6)
                        self.signals.delta(self.key, at, attempt, part)
                        said.add(part)
                        if self.crowded():
                            await anyio.sleep(TOGETHER_S)
                    else:
                        last = part
        if isinstance(last, Reply):
            log.note([_replied(r.id, attempt, at, last, first_s, said), *seen])
        else:
            log.note(self._gave_up(attempt, last, said, failures, first_s))

    def _masked(self, model: Model, request: Request) -> AsyncGenerator[Part, None]:
        mask = None if self.secrets is None else self.secrets.mask(self.key.tenant)
        parts = model.stream(request)
        return parts if mask is None else mask.stream(parts)

    def _context(self, call: CallId, show: Show) -> CallContext:
        secrets, key = self.secrets, self.key
        if secrets is None:
            return CallContext(call=call, key=key, shows=show)
        mask, reveal = secrets.mask(key.tenant), partial(secrets.find, key.tenant)
        if mask is None:
            return CallContext(call=call, key=key, reveal=reveal, shows=show)
        return CallContext(call=call, key=key, reveal=reveal, mask=mask.text, shows=show)

    async def _shown(self, log: _Log, call: CallId, part: Shown) -> None:
        await log.write(PartShown(run=self.key.run, call=call, part=part))

    def _gave_up(
        self,
        attempt: AttemptId,
        last: Failure | None,
        said: Streamed,
        failures: int,
        first_s: float | None,
    ) -> list[Fact]:
        run, reason = self.key.run, "interrupted" if self.interrupt.rung else "failed"
        text, streamed = said.text() or None, said.stretches()
        dropped = AttemptDropped(
            run=run, attempt=attempt, reason=reason, text=text, streamed=streamed
        )
        if last is None and self.interrupt.rung:
            return [dropped]
        last = last or Failure(code="truncated", message="the stream just ended", again=True)
        wait_s = bounded(last.retry_after_s)
        if wait_s is None:  # full jitter, as AWS's "Exponential Backoff And Jitter" measures best
            wait_s = self.world.chance() * BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]
        failed = ModelFailed(
            run=run,
            attempt=attempt,
            error=Fault(code=last.code, message=last.message),
            retry_after_s=wait_s if last.again else None,
            usage=last.usage,
            first_token_s=first_s,
        )
        return [failed, dropped] if streamed else [failed]

    async def _call(self, action: CallTools, r: Run, log: _Log, agent: AgentSpec) -> None:
        """Run the open calls; each outcome is written as it comes, the last one noted."""
        tools = agent.tools.with_clients(log.client_tools)
        state, now = await log.state(), self.world.clock()
        checked = admit(state, r, action.fresh, tools, agent.limits, now=now)
        del state
        again = [one for one in action.lost if one.expires_at is None and tools.may_repeat(one)]
        checked += [_given_up(one) for one in action.lost if one not in again]
        here = [one for one in checked if isinstance(one, ToolStarted) and one.expires_at is None]
        begun = again + here
        if all(isinstance(one, ToolFinished) for one in (*checked, *begun)):
            log.note(checked)
            return
        if not await log.commit(checked) or not begun:
            return
        log.forget(above=KEEP_CHARACTERS)
        done, unwritten = dict[CallId, ToolFinished](), list[ToolFinished]()
        limiter = anyio.CapacityLimiter(READERS)

        async def one(started: ToolStarted) -> None:
            stage = Stage(partial(self._shown, log, started.call))
            async with limiter:
                try:
                    context = self._context(started.call, stage.show)
                    finished = done[started.call] = await tools.run(started, context)
                finally:
                    stage.is_over = True
            if len(done) < len(begun):
                await log.write(finished)
            else:
                unwritten.append(_remarked(finished, remark(r, done)))

        with self.interrupt.guard():
            for group in _side_by_side(begun, tools.is_reader):
                async with anyio.create_task_group() as tasks:
                    for started in group:
                        tasks.start_soon(one, started)
        unwritten += [
            ToolFinished(run=r.id, call=one.call, outcome="cancelled", output=STOPPED)
            for one in begun
            if one.call not in done
        ]
        log.note(unwritten)


def asking(
    agent: AgentSpec,
    terms: Terms,
    transcript: Sequence[Said],
    client_tools: Sequence[ClientTool],
    key: RunKey,
) -> Request:
    """Return what an agent asks its model on these terms."""
    own, told = agent.instructions, terms.instructions
    return Request(
        system=own if told is None else f"{own}\n\n{told}".strip(),
        transcript=transcript,
        tools=agent.tools.with_clients(client_tools).specs,
        session=key.session,
        tenant=key.tenant,
        max_output_tokens=terms.max_output_tokens or agent.max_output_tokens,
        wanted=AS_IT_IS if terms.wanted == AS_IT_IS else terms.wanted,
        options=agent.options,
    )


def _replied(
    run: RunId,
    attempt: AttemptId,
    seen: Seq,
    reply: Reply,
    first_s: float | None,
    said: Streamed,
) -> ModelReplied:
    return ModelReplied(
        run=run,
        attempt=attempt,
        seen=seen,
        text=reply.text,
        calls=reply.calls,
        stop=reply.stop,
        usage=reply.usage,
        thinking=reply.thinking,
        replay=reply.replay,
        raw_usage=reply.raw_usage,
        first_token_s=first_s,
        streamed=said.stretches(reply),
    )


def _given_up(lost: ToolStarted) -> ToolFinished:
    late = lost.expires_at is not None
    return ToolFinished(
        run=lost.run,
        call=lost.call,
        outcome="error" if late else "unknown",
        output=NO_RESULT if late else LOST,
    )


def _remarked(finished: ToolFinished, remark: str) -> ToolFinished:
    if not remark:
        return finished
    return ToolFinished(
        run=finished.run,
        call=finished.call,
        outcome=finished.outcome,
        output=finished.output + remark,
        file=finished.file,
    )


def _side_by_side(
    begun: Sequence[ToolStarted], is_reader: Callable[[ToolStarted], bool]
) -> list[list[ToolStarted]]:
    """Group calls, in order: neighbouring readers together, each writer alone."""
    groups: list[list[ToolStarted]] = []
    reading = False
    for started in begun:
        if is_reader(started) and reading:
            groups[-1].append(started)
        else:
            groups.append([started])
        reading = is_reader(started)
    return groups
