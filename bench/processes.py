"""What do several processes of one machine cost?  A turn, as in `turn`, with one process and with two.

They have one PostgreSQL, and Redis between them: HOSTLER_BENCH_POSTGRES and HOSTLER_BENCH_REDIS.
Model server, clients and databases are on the same cores, so turns a second say little.
"""

from __future__ import annotations

import os
import sys
from contextlib import AsyncExitStack
from dataclasses import replace

from bench import servers
from bench.drive import closed_loop
from bench.postgres import NAMED, REDIS, a_database, names_in
from bench.setting import Figures, Row, Setting
from bench.turn import SCRIPT, WARM_S

COUNTS = (1, 2)


async def run(setting: Setting) -> list[Row]:
    url, redis = os.environ.get(NAMED), os.environ.get(REDIS)
    if not (url and redis):
        print(f"{NAMED} and {REDIS} are not both named: no processes", file=sys.stderr)
        return []
    async with AsyncExitStack() as stack:
        running = list[servers.Server]()
        for count in COUNTS:
            folder = setting.folder / f"processes-{count}"
            folder.mkdir()
            own = await stack.enter_async_context(a_database(url))
            settings = await stack.enter_async_context(names_in(redis))
            server = servers.hostler(
                folder,
                setting.model_port,
                name=f"{count} process{'es' * (count > 1)}",
                database=own,
                settings=settings,
                flags=("--processes", str(count)),
            )
            running.append(await stack.enter_async_context(server))
        return await _run(replace(setting, servers=running))


async def _run(setting: Setting) -> list[Row]:
    figures, size = Figures("processes"), setting.size
    for server in setting.servers:
        secs = min(WARM_S, size.secs)
        await closed_loop(server.client, SCRIPT, at_once=8, secs=secs, streams=False)
    for at_once in size.at_once:
        for server in setting.turns():
            with server.spent() as spent:
                turns = await closed_loop(
                    server.client, SCRIPT, at_once=at_once, secs=size.secs, streams=False
                )
            case = f"{at_once} at once"
            figures.add(
                server.name, case, "CPU per turn", spent.cpu_s / len(turns.done) * 1e3, "ms"
            )
            figures.add(server.name, case, "turns", len(turns.done) / spent.wall_s, "/s")
            figures.add(server.name, case, "turn p50", turns.p50_s * 1e3, "ms")
    return figures.rows()
