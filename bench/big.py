"""Does much that is kept make it slow?  100,000 sessions, 1,000,000 messages, a log of 10,000.

*resume* is from the request to the last event, for a client that has seen nothing.  Lists are
pages of 100; *anywhere* begins each after another session.  Searches are for the newest 20 hits.
Each case is asked once before it is measured: what is read from disk is not what this is about.
"""

from __future__ import annotations

import random
import time
from urllib.parse import urlencode

import anyio
import anyio.to_thread
import msgspec
from msgspec import Struct

from bench import library, servers
from bench.bare import Client
from bench.drive import TURN_S, WrongError, percentile
from bench.setting import Figures, Row, Setting

HITS = 20


class _Item(Struct):
    id: str = ""


class _Page(Struct):
    items: list[_Item]


_page = msgspec.json.Decoder(_Page)


async def run(setting: Setting) -> list[Row]:
    """Measure Hostler alone, once: the samples are many requests."""
    figures, size = Figures("big"), setting.size
    folder = setting.folder / "big"
    folder.mkdir()

    def build() -> str:
        return library.build(
            folder / "data" / "hostler.db",
            sessions=size.kept_sessions - 1,
            messages=size.messages,
            long=size.events,
        )

    long = await anyio.to_thread.run_sync(build)
    async with servers.hostler(folder, setting.model_port) as server:
        await _resume(server.client, long, size.events)
        for _ in range(size.reps):
            seconds = await _resume(server.client, long, size.events)
            figures.add("hostler", f"{size.events} events", "resume", seconds * 1e3, "ms")
        for case, queries in _lists(size.kept_sessions - 1, size.asks).items():
            took = [await _ask(server.client, "sessions", query) for query in queries]
            figures.add("hostler", case, "list p99", percentile(took[1:], 99) * 1e3, "ms")
        for case, words in _searches().items():
            asked = [{"q": words, "limit": str(HITS)}] * (1 + max(1, size.asks // 4))
            took = [await _ask(server.client, "search", query) for query in asked]
            figures.add("hostler", case, "search p99", percentile(took[1:], 99) * 1e3, "ms")
    return figures.rows()


async def _resume(client: Client, session: str, count: int) -> float:
    """Read the whole log as a stream."""
    heard, last, began = 0, 0.0, time.perf_counter()
    whole = anyio.Event()

    def hear(block: bytes) -> None:
        nonlocal heard, last
        if block.startswith(b"id: "):
            heard += 1
            if heard == count:
                last = time.perf_counter()
                whole.set()

    path = f"/api/sessions/{session}/events?after=0"
    with anyio.fail_after(TURN_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: client.request("GET", path, on_event=hear))
            await whole.wait()
            tasks.cancel_scope.cancel()
    return last - began


def _lists(sessions: int, asks: int) -> dict[str, list[dict[str, str]]]:
    """Return the queries of each case."""
    chance = random.Random(1)  # the same pages each time
    times = 1 + asks
    return {
        "newest": [{}] * times,
        "anywhere": [
            {"after": library.session_id(chance.randrange(sessions))} for _ in range(times)
        ],
        "the oldest": [{"after": library.session_id(100 % sessions)}] * times,
        "status=idle": [{"status": "idle"}] * times,
        "status=waiting (0.1 %)": [{"status": "waiting"}] * times,
        "status=running (none)": [{"status": "running"}] * times,
        "agent=other (1 %)": [{"agent": library.OTHER_AGENT}] * times,
        "agent=nobody (none)": [{"agent": "nobody"}] * times,
    }


def _searches() -> dict[str, str]:
    return {
        "a word in 1 %": library.SELDOM,
        "a word in one message": library.ONCE,
        "a word in all": library.EVERYWHERE,
        "that and one in 1 %": f"{library.EVERYWHERE} {library.SELDOM}",
    }


async def _ask(client: Client, what: str, query: dict[str, str]) -> float:
    began = time.perf_counter()
    answer = await client.request("GET", f"/api/{what}?{urlencode(query)}")
    took_s = time.perf_counter() - began
    if what == "search" and not _page.decode(answer).items:
        raise WrongError(f"nothing was found: {query}")
    return took_s
