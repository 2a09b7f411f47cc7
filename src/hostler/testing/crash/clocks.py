"""A clock that jumps while a node runs: an hour on, an hour back, past 2038; or that stands still.

`libfaketime` stands between a node and its wall clock; how far it is off is in a file, which the lab
writes.  The monotonic clock is left alone, as it is when somebody sets the time.

Invariant: a jump is made only when the node shows the clock from before it, and waited for until it
shows the one after.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import anyio

from hostler.core.errors import SetupError
from hostler.core.ports import mint
from hostler.testing.crash.caller import Failed, Input
from hostler.testing.crash.load import Load
from hostler.testing.crash.nodes import Node, Site
from hostler.testing.crash.play import Play, at_rest
from hostler.testing.crash.scene import Case, staged
from hostler.testing.crash.waiting import LOOK_S

PLACES = (
    "/usr/lib/*/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/local/lib/faketime/libfaketimeMT.so.1",
)
HOUR_S = 3600
FINEST_S = 0.05
"""Between two looks at a clock that shows milliseconds."""
NOW = "now"
"""In a jump: the time there is, standing still."""


class Jumps(NamedTuple):
    """What the file says before the node starts, and then, one after the other."""

    begins: str
    then: tuple[str, ...]


JUMPS: Mapping[str, Jumps] = {
    "an hour on": Jumps("+0", ("+1h",)),
    "an hour back": Jumps("+0", ("-1h",)),
    "on, and further back": Jumps("+0", ("+1h", "-1h")),
    "past 2038": Jumps("@2038-01-19 02:30:00", ("@2038-01-19 03:30:00",)),
    "it stands still": Jumps("+0", (NOW, "+1h")),
}
"""By name.  None is longer than the day for which an answer to a key is kept."""
SHOWN_S = 20.0


def library() -> Path:
    """Return where libfaketime is.  Raises SetupError."""
    found = [one for place in PLACES for one in Path("/").glob(place[1:])]
    if not found:
        has = "only its command" if shutil.which("faketime") else "nothing of it"
        raise SetupError(f"libfaketime is not installed here, {has}: `apt-get install faketime`")
    return found[0]


@dataclass
class Clock:
    """The file that says how far a node's clock is off."""

    file: Path

    def set(self, said: str) -> None:
        said = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}" if said == NOW else said
        beside = self.file.with_suffix(".new")
        beside.write_text(f"{said}\n", encoding="ascii")
        beside.replace(self.file)

    def variables(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "TZ": "UTC",
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }


async def jump(site: Site, name: str) -> Case:
    """Do the play on a node whose clock jumps in the middle of it."""
    clock = Clock(site.folder / "clock")
    clock.set(JUMPS[name].begins)
    site.environ = {**site.environ, **clock.variables()}
    node = Node(site=site)

    async def work(play: Play) -> None:
        await play.tells_a_program()
        await play.lets_another_tenant_in()
        open_one, asked = await _left_open(play)
        once = mint("once")
        kept = await _speak(play, open_one, once)
        for step in JUMPS[name].then:
            before = await _shown(play)
            clock.set(step)
            await (_until_it_stands(play) if step == NOW else _until_it_jumps(play, before))
            await Load(play, 3).during(play.works)
        if await _speak(play, open_one, once) != kept:
            play.caller.told.twice.append("before a jump of the clock and after it")
        await _answer(play, asked)
        await play.cancels()

    return await staged(name, site, [node], work)


async def _left_open(play: Play) -> tuple[str, str]:
    """Return a session, and one in which a call waits for a person."""
    plain, asker = await play.session("worker"), await play.session("asker")
    await play.speaks(asker, "deploy it")
    await play.asked(asker)
    return plain, asker


async def _speak(play: Play, session: str, once: str) -> object:
    path = f"/api/sessions/{session}/messages"
    _, told = await play.caller.ask("POST", path, {"content": "hello"}, once=once)
    play.caller.told.inputs.append(Input.of(told, "hello"))
    return told


async def _answer(play: Play, session: str) -> None:
    """Allow what was asked before the clock jumped.  Raises Failed: it expired with the jump."""
    call = await play.asked(session)
    path = f"/api/sessions/{session}/approvals/{call}"
    await play.caller.ask("POST", path, {"decision": "allow"}, once=mint("once"))
    play.caller.told.decisions[call] = (session, "allow")
    await at_rest(play.caller, session)


async def _shown(play: Play) -> datetime:
    """Return the time on a node, by what it makes now."""
    _, made = await play.caller.ask("POST", "/api/sessions", {"agent": "slow"})
    session = str(made["id"])
    await play.caller.ask("DELETE", f"/api/sessions/{session}")
    return datetime.fromisoformat(str(made["created_at"])).astimezone(UTC)


async def _until_it_jumps(play: Play, before: datetime) -> None:
    with anyio.move_on_after(SHOWN_S):
        while True:
            off_s = (await _shown(play) - before).total_seconds()
            if abs(off_s) > HOUR_S / 2:
                return
            await anyio.sleep(LOOK_S)
    raise Failed("the clock of the node did not jump")


async def _until_it_stands(play: Play) -> None:
    with anyio.move_on_after(SHOWN_S):
        before = await _shown(play)
        while True:
            await anyio.sleep(FINEST_S)
            now = await _shown(play)
            if now == before:
                return
            before = now
    raise Failed("the clock of the node did not stop")
