"""What does a turn cost?  Server CPU, in a closed loop of 16 and 64 clients.

A turn: a new session and a message over HTTP; the model calls a tool that does nothing; the model
answers with 50 tokens at once, streamed to the client as Server-Sent Events.
"""

from __future__ import annotations

from bench.drive import closed_loop, percentile
from bench.postgres import with_postgres
from bench.setting import Figures, Row, Setting
from bench.wire import Script

SCRIPT = Script(tokens=50, calls=1)
WARM_S = 1.0


async def run(setting: Setting) -> list[Row]:
    async with with_postgres(setting) as every:
        return await _run(every)


async def _run(setting: Setting) -> list[Row]:
    figures, size = Figures("turn"), setting.size
    for server in setting.servers:
        await closed_loop(server.client, SCRIPT, at_once=2, secs=min(WARM_S, size.secs))
    for at_once in size.at_once:
        for server in setting.turns():
            with server.spent() as spent:
                turns = await closed_loop(server.client, SCRIPT, at_once=at_once, secs=size.secs)
            done, case = len(turns.done), f"{at_once} at once"
            total_s = [turn.total_s for turn in turns.done]
            figures.add(server.name, case, "CPU per turn", spent.cpu_s / done * 1e3, "ms")
            figures.add(server.name, case, "turns", done / spent.wall_s, "/s")
            figures.add(server.name, case, "turn p50", turns.p50_s * 1e3, "ms")
            figures.add(server.name, case, "turn p99", percentile(total_s, 99) * 1e3, "ms")
    return figures.rows()
