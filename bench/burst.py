"""What does a token cost that comes with many others?  Answers of 500 tokens in one write."""

from __future__ import annotations

import time

from bench.drive import make_sessions, say
from bench.setting import Figures, Row, Setting
from bench.wire import Script


async def run(setting: Setting) -> list[Row]:
    figures, size = Figures("burst"), setting.size
    script = Script(tokens=size.burst)
    case = f"{size.burst} tokens at once"
    for server in setting.turns():
        sessions = await make_sessions(server.client, size.sessions)  # before the clock starts
        await say(server.client, sessions.pop(), script)
        tokens, until = 0, time.perf_counter() + size.secs
        with server.spent() as spent:
            while sessions and time.perf_counter() < until:
                await say(server.client, sessions.pop(), script)
                tokens += size.burst
        figures.add(server.name, case, "CPU per token", spent.cpu_s / tokens * 1e6, "us")
        figures.add(server.name, case, "tokens", tokens / spent.wall_s, "/s")
    return figures.rows()
