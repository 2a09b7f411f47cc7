"""What is looked at while servers still live, after the work: streams, webhooks, strangers, memory.

Invariant: waiting ends; what did not come by then is for the checker to tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

import anyio

from hostler.core.ports import mint
from hostler.service.delivering import LOOK_BESIDE_S, TAKEN_S
from hostler.testing.crash.caller import Caller, Told
from hostler.testing.crash.play import Play
from hostler.testing.crash.waiting import LOOK_S, until

SETTLED_S = TAKEN_S + LOOK_BESIDE_S + 15.0
"""A delivery that was taken by who died then is free after the first two, and takes its time to come."""
QUIET_S = 3.0
LEEWAY = 8
"""Descriptors: a connection is kept here and there."""
ASKED = ("", "/events", "/export", "/shares", "/members")
"""Of a session, by a stranger."""


async def settle(play: Play) -> None:
    """Wait until followers saw, and webhooks were told, all that there is."""
    told = play.caller.told
    with anyio.move_on_after(SETTLED_S):
        for session in told.sessions:
            if session in told.deleted:
                continue
            end = cast("int", (await play.caller.get(f"/api/sessions/{session}"))["seq"])
            await until(partial(_has_seen, told, session, end))
        for given in told.spoken() if told.webhooks else ():
            if given.session not in told.deleted:
                await until(partial(_came, play, f'"{given.run}"'.encode()))


def _has_seen(told: Told, session: str, end: int) -> bool:
    return len(told.seen.get(session, ())) >= end


def _came(play: Play, name: bytes) -> bool:
    return any(name in body for body in play.receiver.came)


async def learned(play: Play) -> Sequence[str]:
    """Return what another tenant is told of sessions and runs that it is not told of nothing."""
    if not play.other_key:
        return []
    told, found = play.caller.told, list[str]()
    known = [(f"/api/sessions/{one}", "ses", ASKED) for one in told.sessions]
    known += [(f"/api/runs/{one.run}", "run", ("",)) for one in told.spoken()]
    nothing = dict[tuple[str, str], object]()
    for path, kind, asked in known:
        for more in asked:
            if (kind, more) not in nothing:
                absent = f"{path.rpartition('/')[0]}/{mint(kind)}"
                nothing[kind, more] = await _told(play.caller, absent + more, play.other_key)
            said = await _told(play.caller, path + more, play.other_key)
            if said != nothing[kind, more] or said[0] != 404:
                found.append(f"a stranger is told {said} of {path}{more}")
    return found


async def _told(caller: Caller, path: str, key: str) -> tuple[int, object]:
    """Return an answer without the names that differ by themselves."""
    status, body = await caller.ask("GET", path, key=key, good=ANY)
    words = str({name: value for name, value in body.items() if name != "request_id"})
    for one in path.split("/"):
        if len(one) > 16:
            words = words.replace(one, "<id>")
    return status, words


ANY = frozenset(range(200, 500))


class Held(NamedTuple):
    """What a process has open."""

    descriptors: int
    children: int


def held(pid: int) -> Held:
    """Return what a process has open now."""
    place = Path(f"/proc/{pid}")
    children = 0
    for task in (place / "task").iterdir():
        with suppress(OSError):
            children += len((task / "children").read_text(encoding="ascii").split())
    return Held(sum(1 for _ in (place / "fd").iterdir()), children)


async def at_least(pid: int) -> Held:
    """Return the least that a process has open within some seconds: connections close by and by."""
    least = held(pid)
    with anyio.move_on_after(QUIET_S):
        while True:
            await anyio.sleep(LOOK_S)
            now = held(pid)
            least = Held(*map(min, least, now))
    return least


def more_than(idle: Held, before: Held) -> Sequence[str]:
    """Return what was held beyond what one holds that has done nothing."""
    is_more = before.descriptors > idle.descriptors + LEEWAY or before.children > idle.children
    return [f"a node at rest held {before}, and an idle one holds {idle}"] if is_more else []
