"""What does it cost to be measured?  A scrape with 1,000 live runs; and the figures of one turn.

*scrape* is asked for as Prometheus does, while so many runs wait for their model.  *observed* is
CPU in this process: the facts of one turn (two attempts, one call) taken in by metrics alone.
"""

from __future__ import annotations

import time

import anyio

from bench.drive import Turns, checked, make_sessions, percentile
from bench.machine import Spent
from bench.setting import Figures, Row, Setting
from bench.wire import Script
from hostler.core.events import (
    AttemptId,
    CallId,
    Event,
    Fact,
    InputId,
    InputProcessed,
    Key,
    ModelAsked,
    ModelReplied,
    PrincipalId,
    RunClaimed,
    RunEnded,
    RunId,
    RunStarted,
    Seq,
    SessionId,
    TenantId,
    ToolFinished,
    ToolStarted,
    Usage,
    UserSpoke,
)
from hostler.telemetry.metrics import Known, Metrics
from hostler.telemetry.timeline import Timeline

LEAST_S = 1.0
"""How long the model takes at least: all runs have to have begun by then."""
EVERY_5_S = 0.02
TURNS = 2000


async def run(setting: Setting) -> list[Row]:
    figures, size = Figures("metrics"), setting.size
    ours = next(one for one in setting.servers if one.name == "hostler")
    case = f"{size.live_runs} live runs"
    script = Script(tokens=2, first_s=max(LEAST_S, 2 * size.secs))
    for _ in range(size.reps):
        sessions = await make_sessions(ours.client, size.live_runs)
        turns, took, spent, told = Turns(), list[float](), Spent(), b""
        async with anyio.create_task_group() as tasks:
            for i, session in enumerate(sessions, 1):
                tasks.start_soon(turns.one, ours.client, script, session)
                if i % 5 == 0:  # a burst would be refused on a busy machine
                    await anyio.sleep(EVERY_5_S)
            await anyio.sleep(script.first_s / 4)
            with ours.spent() as spent:
                for _ in range(min(20, size.asks)):
                    began = time.perf_counter()
                    told = await ours.client.request("GET", "/metrics")
                    took.append(time.perf_counter() - began)
        checked(turns)
        for percent in (50, 99):
            figures.add(
                "hostler", case, f"scrape p{percent}", percentile(took, percent) * 1e3, "ms"
            )
        figures.add("hostler", case, "CPU per scrape", spent.cpu_s / len(took) * 1e3, "ms")
        figures.add("hostler", case, "size", len(told) / 1024, "KiB")
        figures.add("hostler", "a turn", "observed", observed_s() * 1e6, "us")
    return figures.rows()


def observed_s() -> float:
    """Return the CPU seconds that the facts of one turn cost to take in."""
    known = Known(frozenset({"a"}), frozenset({("openai", "m")}), frozenset({"noop"}))
    timeline, key = Timeline([Metrics("0", known)]), Key(TenantId("t"), SessionId("s"))
    commits = [_commits(key, RunId(f"run_{i}")) for i in range(TURNS)]
    began = time.process_time()
    for turn in commits:
        for commit in turn:
            timeline.observe(key, commit)
    return (time.process_time() - began) / TURNS


def _commits(key: Key, run: RunId) -> list[list[Event]]:
    """Return what the store tells of one turn, commit by commit."""
    one, two, call, said = (
        AttemptId("att_1"),
        AttemptId("att_2"),
        CallId("call_1"),
        InputId("inp_1"),
    )
    spoke = UserSpoke(
        run=run, input=said, content="x", policy="queue", principal=PrincipalId("p"), metadata={}
    )
    asked = [ModelAsked(run=run, attempt=at, provider="openai", model="m") for at in (one, two)]
    replied = [
        ModelReplied(
            run=run,
            attempt=at,
            seen=Seq(1),
            text="x",
            calls=(),
            stop="end",
            usage=Usage(input_tokens=9, output_tokens=50),
        )
        for at in (one, two)
    ]
    commits: list[list[Fact]] = [
        [spoke],
        [RunClaimed(run=run, claim=1, worker="w"), RunStarted(run=run), asked[0]],
        [replied[0], ToolStarted(run=run, call=call, name="noop", arguments={})],
        [ToolFinished(run=run, call=call, outcome="ok", output=""), asked[1]],
        [
            replied[1],
            InputProcessed(run=run, input=said),
            RunEnded(run=run, status="done", usage=Usage()),
        ],
    ]
    return [
        [Event(session=key.session, seq=Seq(1), at=time.time(), fact=one, raw=b"") for one in facts]
        for facts in commits
    ]
