"""What does it cost to be there?  Starting, importing, memory, and sessions that do nothing.

*start* is from the process's start to the first answer of `/healthz`.  Memory is the resident set;
a session is idle when nobody speaks in it.  The database is measured in pages, its log included.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import anyio
import anyio.to_thread

from bench import servers
from bench.drive import make_sessions, say
from bench.servers import Server
from bench.setting import Figures, Row, Setting
from bench.wire import Script

IMPORTS = {"hostler": "import hostler", "what serves": "import hostler.app.commands.serve"}
TURNS = 100
IDLE_S = 2.0
SCRIPT = Script(tokens=50, calls=1)


async def run(setting: Setting) -> list[Row]:
    figures = Figures("start")
    for rep in range(setting.size.reps):
        await _start_each(setting, figures, rep)
        for what, code in IMPORTS.items():
            seconds = await anyio.to_thread.run_sync(_import_s, code)
            figures.add("hostler", f"import {what}", "wall", seconds * 1e3, "ms")
    for server in setting.servers:
        await _idle(setting, figures, server)
    return figures.rows()


async def _start_each(setting: Setting, figures: Figures, rep: int) -> None:
    for name, start in (("hostler", servers.hostler), ("floor", servers.floor)):
        folder = setting.folder / f"{name}-{rep}"
        folder.mkdir()
        async with start(folder, setting.model_port) as server:
            figures.add(name, "start", "wall", server.start_s * 1e3, "ms")
            figures.add(name, "start", "RSS", server.rss_bytes / 1e6, "MB")


def _import_s(code: str) -> float:
    """Return how long an import takes in a new process, compiled code being there."""
    timed = f"import time; t = time.perf_counter(); {code}; print(time.perf_counter() - t)"
    told = subprocess.run([sys.executable, "-c", timed], capture_output=True, check=True, text=True)
    return float(told.stdout)


async def _idle(setting: Setting, figures: Figures, server: Server) -> None:
    size, name = setting.size, server.name
    for session in await make_sessions(server.client, 10):
        await say(server.client, session, SCRIPT)
    with server.spent() as spent:
        await anyio.sleep(min(IDLE_S, size.secs))
    figures.add(name, "idle", "CPU per second", spent.cpu_s / spent.wall_s * 1e3, "ms")
    rss, stored = server.rss_bytes, _stored_bytes(server.database)
    sessions = await make_sessions(server.client, size.sessions)
    case = f"{size.sessions} idle sessions"
    figures.add(name, case, "RSS each", (server.rss_bytes - rss) / size.sessions / 1e3, "KB")
    each = (_stored_bytes(server.database) - stored) / size.sessions
    figures.add(name, case, "database each", each, "B")
    stored, spoken = _stored_bytes(server.database), sessions[:TURNS]
    for session in spoken:
        await say(server.client, session, SCRIPT)
    each = (_stored_bytes(server.database) - stored) / len(spoken)
    figures.add(name, "a turn of 50 tokens", "database each", each, "B")


def _stored_bytes(database: Path) -> int:
    with closing(sqlite3.connect(database)) as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        return int(pages) * int(db.execute("PRAGMA page_size").fetchone()[0])
