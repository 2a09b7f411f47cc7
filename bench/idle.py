"""What do clients cost that do nothing?  Memory of 10,000 sessions, and of 2,000 open streams.

Each stream is of a session of its own, which has none other.  What a session leaves in memory is
kept up to a number, so 10,000 are asked for as a whole, not each.
"""

from __future__ import annotations

import anyio

from bench.drive import make_sessions, say, watching
from bench.setting import Figures, Row, Setting
from bench.wire import Script

WARM = Script(tokens=50, calls=1)
SETTLE_S = 1.0


async def run(setting: Setting) -> list[Row]:
    """Measure once: memory that was used is not given back, so a second time would be free."""
    figures, size = Figures("idle"), setting.size
    ours = setting.servers[0]
    for session in await make_sessions(ours.client, 100 if size.secs >= 1 else 2):
        await say(ours.client, session, WARM)
    before = ours.rss_bytes
    sessions = await make_sessions(ours.client, size.idle_sessions)
    added = (ours.rss_bytes - before) / 1e6
    figures.add("hostler", f"{size.idle_sessions} idle sessions", "RSS added", added, "MB")
    before, case = ours.rss_bytes, f"{size.idle_streams} open streams"
    async with watching(ours.client, sessions[: size.idle_streams]):
        await anyio.sleep(min(SETTLE_S, size.secs))
        each = (ours.rss_bytes - before) / size.idle_streams / 1024
        figures.add("hostler", case, "RSS each", each, "KiB")
        with ours.spent() as spent:
            await anyio.sleep(size.secs)
        figures.add("hostler", case, "CPU per second", spent.cpu_s / spent.wall_s * 1e3, "ms")
    return figures.rows()
