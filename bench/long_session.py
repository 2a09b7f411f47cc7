"""Does a session's 201st turn cost what its second did?  And what does reading its log cost?

Turns of 20 tokens, no tool; the late turns against as many second turns, each of a session of its
own.  *fold* is `state.fold` over the events of the long session, again and again up to 10,000;
*decode* is what comes before it when a session is not in memory.
"""

from __future__ import annotations

import time
from itertools import cycle, islice

import msgspec
from msgspec import Struct

from bench.drive import Turns, checked, make_sessions
from bench.servers import Server
from bench.setting import Figures, Row, Setting
from bench.wire import Script
from hostler.core.codec import load
from hostler.core.events import Event, Seq, SessionId
from hostler.core.state import State, fold

SCRIPT = Script(tokens=20)


class _Frame(Struct):
    data: msgspec.Raw


class _Page(Struct):
    events: list[_Frame]


async def run(setting: Setting) -> list[Row]:
    figures, size = Figures("long_session"), setting.size
    long: dict[str, str] = {}
    for server in setting.servers:
        (long[server.name],) = await make_sessions(server.client, 1)
        await _turns(server, [long[server.name]] * size.turns)
    for server in setting.turns():
        fresh = await make_sessions(server.client, size.late_turns)
        await _turns(server, fresh)
        late = [long[server.name]] * size.late_turns
        for case, sessions in (("turn 2", fresh), (f"turn {size.turns + 1}", late)):
            with server.spent() as spent:
                turns = await _turns(server, sessions)
            each_s = spent.cpu_s / len(sessions)
            figures.add(server.name, case, "CPU per turn", each_s * 1e3, "ms")
            figures.add(server.name, case, "turn p50", turns.p50_s * 1e3, "ms")
    ours = setting.servers[0]
    facts = await _facts(ours, long[ours.name])
    for _ in range(size.reps):
        _read(facts, size.events, figures)
    return figures.rows()


async def _turns(server: Server, sessions: list[str]) -> Turns:
    turns = Turns()
    for session in sessions:
        await turns.one(server.client, SCRIPT, session)
    return checked(turns)


async def _facts(server: Server, session: str) -> list[bytes]:
    path = f"/api/sessions/{session}/events?limit=1000"
    page = msgspec.json.decode(await server.client.request("GET", path), type=_Page)
    return [bytes(frame.data) for frame in page.events]


def _read(facts: list[bytes], count: int, figures: Figures) -> None:
    began = time.process_time()
    loaded = [load(raw) for raw in islice(cycle(facts), count)]
    decoded = time.process_time()
    events = [
        Event(session=SessionId("ses_bench"), seq=Seq(n), at=0.0, fact=fact, raw=b"")
        for n, fact in enumerate(loaded, start=1)
    ]
    ready = time.process_time()
    fold(State(), events)
    folded = time.process_time()
    case = f"{count} events"
    figures.add("hostler", case, "decode", (decoded - began) * 1e3, "ms")
    figures.add("hostler", case, "fold", (folded - ready) * 1e3, "ms")
