"""How much later does the first token come than from the model itself?  An idle server, one client.

Twelve tokens, 10 ms apart, the first after 5 ms, so that nothing hides in a burst.
"""

from __future__ import annotations

import statistics
import time

from bench.bare import Client
from bench.drive import make_session, say
from bench.setting import Figures, Row, Setting
from bench.wire import Script

SCRIPT = Script(tokens=12, gap_s=0.01, first_s=0.005)
CASE = "one client"


async def run(setting: Setting) -> list[Row]:
    figures, model = Figures("first_token"), Client(setting.model_port)
    for server in setting.servers:
        await say(server.client, await make_session(server.client), SCRIPT)
    for _ in range(setting.size.reps):
        added: dict[str, list[float]] = {server.name: [] for server in setting.servers}
        for _ in range(setting.size.firsts):
            direct_s = await _direct_s(model)
            for server in setting.servers:
                session = await make_session(server.client)
                turn = await say(server.client, session, SCRIPT)
                added[server.name].append(turn.first_s - direct_s)
        for name, seconds in added.items():
            figures.add(name, CASE, "added p50", statistics.median(seconds) * 1e3, "ms")
    model.close()
    return figures.rows()


async def _direct_s(model: Client) -> float:
    """Return the time to the first token without a server between."""
    times = list[float]()

    def hear(block: bytes) -> None:
        if b'"content"' in block:
            times.append(time.perf_counter())

    messages = [{"role": "user", "content": SCRIPT.prompt}]
    body = {"model": "mock", "stream": True, "messages": messages}
    began = time.perf_counter()
    await model.request("POST", "/v1/chat/completions", body, on_event=hear)
    return times[0] - began
