"""What does a token cost as it is generated?  500 streams at once, 20 tokens a second each.

*streams* asks the same with 1,000 and 2,000 of them: do they all end, and how much later?

*wall* is how long all of them took, by how long the model took for one; a *gap* is between two
pieces of text at a client, 50 ms if nothing holds them up.
"""

from __future__ import annotations

import sys

import anyio

from bench.drive import Turns, checked, make_sessions, percentile
from bench.servers import Server
from bench.setting import Figures, Row, Setting
from bench.wire import Script

GAP_S = 0.05


async def run(setting: Setting) -> list[Row]:
    figures = Figures("paced")
    await measure(setting, figures, setting.size.streams)
    return figures.rows()


async def run_many(setting: Setting) -> list[Row]:
    figures = Figures("streams")
    for count in setting.size.many_streams:
        await measure(setting, figures, count)
    return figures.rows()


async def measure(setting: Setting, figures: Figures, count: int) -> None:
    script = Script(tokens=max(2, round(setting.size.secs / GAP_S)), gap_s=GAP_S)
    ideal_s = (script.tokens - 1) * GAP_S
    case = f"{count} streams"
    for server in setting.turns():
        sessions = await make_sessions(server.client, count)
        with server.spent() as spent:
            turns = await _all_at_once(server, sessions, script)
        if turns.errors:
            print(f"  {server.name}: {turns.errors[0]}", file=sys.stderr)
        if not turns.done:
            checked(turns)
        tokens = len(turns.done) * script.tokens
        gaps = [
            after - before
            for turn in turns.done
            for before, after in zip(turn.times, turn.times[1:], strict=False)
        ]
        firsts = [turn.first_s for turn in turns.done]
        figures.add(server.name, case, "CPU per token", spent.cpu_s / tokens * 1e6, "us")
        figures.add(server.name, case, "wall", spent.wall_s / ideal_s, "x ideal")
        figures.add(server.name, case, "gap p99", percentile(gaps, 99) * 1e3, "ms")
        figures.add(server.name, case, "first token p99", percentile(firsts, 99) * 1e3, "ms")
        figures.add(server.name, case, "errors", len(turns.errors), "")


async def _all_at_once(server: Server, sessions: list[str], script: Script) -> Turns:
    turns = Turns()
    async with anyio.create_task_group() as tasks:
        for session in sessions:
            tasks.start_soon(turns.one, server.client, script, session)
    return turns
