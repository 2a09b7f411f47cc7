"""What does a server do that is asked for more than it can?  Five times its rated load.

The peak is what a closed loop of 64 clients gets done; rated is 80 % of that.  Then turns arrive at
five times the rated load, whether others are done or not; a refused one is not tried again.
*goodput* is turns done a second, by the peak.  *refused in* is seen by a process that does nothing
but ask every 10 ms, so that it is the server's time and not that of the load.  *recovers in* is
from the end of the load to the first turn that is let in and done.
"""

from __future__ import annotations

import math
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from bench.bare import BrokenError, Client
from bench.drive import closed_loop, make_session, percentile, say
from bench.servers import KEY, Server
from bench.setting import Figures, Row, Setting
from bench.wire import Script

SCRIPT = Script(tokens=50, calls=1)
PEAK_AT_ONCE = 64
RATED = 0.8
TIMES = 5
LEAST_S = 20.0
"""Of this the first half is the burst that is let in before the server believes in a load."""
PAUSE_S = 0.005
PROBE = Path(__file__).parent / "probe.py"
Probed: TypeAlias = tuple[float, int, float]
"""When it was asked, in seconds since the load began; the status; how long it took."""
REFUSED = re.compile(r"^503 .*overloaded")


@dataclass(slots=True)
class Seen:
    """What became of the turns that arrived."""

    done: list[float] = field(default_factory=list[float])
    """When each was done, in seconds since the load began."""
    refused: int = 0
    driver_late_s: float = 0.0
    """The most that the load itself was late: above some ms, it is not the load it should be."""
    errors: list[str] = field(default_factory=list[str])


async def run(setting: Setting) -> list[Row]:
    figures, size = Figures("overload"), setting.size
    server = next(one for one in setting.servers if one.name == "hostler")
    secs = max(LEAST_S, size.secs) if size.secs >= 1 else size.secs
    for _ in range(size.reps):
        await closed_loop(server.client, SCRIPT, at_once=2, secs=min(1.0, secs))
        began = time.perf_counter()
        turns = await closed_loop(server.client, SCRIPT, at_once=PEAK_AT_ONCE, secs=min(5.0, secs))
        peak = len(turns.done) / (time.perf_counter() - began)
        rate = TIMES * RATED * peak
        seen, probed = await arrive(server, rate=rate, secs=secs)
        recovered_s = await recovery(server.client)
        case, half = f"{TIMES} x rated", secs / 2
        in_time = sum(at <= secs for at in seen.done)
        late = sum(half < at <= secs for at in seen.done)
        figures.add("hostler", case, "peak", peak, "/s")
        figures.add("hostler", case, "arrivals", rate, "/s")
        figures.add("hostler", case, "goodput", in_time / secs / peak * 100, "% of peak")
        figures.add("hostler", case, "goodput, 2nd half", late / half / peak * 100, "% of peak")
        figures.add("hostler", case, "refused", seen.refused, "")
        for name, since in (("refused in", 0.0), ("refused in, 2nd half", half)):
            took = [
                how_long * 1e3 for at, status, how_long in probed if at > since and status == 503
            ]
            for percent in (50, 99):
                value = percentile(took, percent) if took else math.nan
                figures.add("hostler", case, f"{name}, p{percent}", value, "ms")
        figures.add("hostler", case, "recovers in", recovered_s, "s")
        figures.add("hostler", case, "load late by", seen.driver_late_s * 1e3, "ms")
        figures.add("hostler", case, "errors", len(seen.errors), "")
        for error in seen.errors[:3]:
            print(f"  {error}", file=sys.stderr)
    return figures.rows()


async def arrive(server: Server, *, rate: float, secs: float) -> tuple[Seen, list[Probed]]:
    """Let turns arrive evenly, and wait for all that were let in."""
    seen, probed, sent = Seen(), list[Probed](), 0
    command = [sys.executable, str(PROBE), str(server.client.port), str(secs), KEY]
    async with await anyio.open_process(command, stderr=None) as probe:
        assert probe.stdout is not None
        told = BufferedByteReceiveStream(probe.stdout)
        await told.receive_until(b"\n", 100)
        async with anyio.create_task_group() as tasks:
            began = last = time.perf_counter()
            while (now := time.perf_counter() - began) < secs:
                seen.driver_late_s = max(seen.driver_late_s, now + began - last - PAUSE_S)
                last = now + began
                for _ in range(int(now * rate) - sent):
                    tasks.start_soon(_one, server.client, seen, began)
                    sent += 1
                await anyio.sleep(PAUSE_S)
        async for piece in told:
            probed += [_probed(line) for line in piece.split()]
    return seen, probed


async def recovery(client: Client) -> float:
    """Return how long it takes until a turn is let in and done."""
    began = time.perf_counter()
    with anyio.fail_after(60):
        while True:
            try:
                await say(client, await make_session(client), SCRIPT)
            except BrokenError:
                await anyio.sleep(0.02)
            else:
                return time.perf_counter() - began


async def _one(client: Client, seen: Seen, began: float) -> None:
    try:
        await say(client, await make_session(client), SCRIPT)
    except BrokenError as error:
        if REFUSED.match(str(error)):
            seen.refused += 1
        else:
            seen.errors.append(str(error))
    except (OSError, TimeoutError) as error:
        seen.errors.append(repr(error))
    else:
        seen.done.append(time.perf_counter() - began)


def _probed(line: bytes) -> Probed:
    at, status, took = line.split(b",")
    return float(at), int(status), float(took)
