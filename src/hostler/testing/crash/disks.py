"""A disk that fills, breaks or does not sync, under a node on SQLite.

While there is no space, nothing is accepted and all can be read; when there is, it goes on.  After a
sync that failed nobody knows what is on the disk: then the node has to end at once.

Invariant: only the node's own data folder is on that disk.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import anyio

from hostler.core.errors import SetupError
from hostler.core.ports import mint
from hostler.stores.sqlite_file import EXIT_IO_ERROR
from hostler.testing.crash.caller import BROKEN, Failed, Input
from hostler.testing.crash.nodes import EXPECTED, Node, Site
from hostler.testing.crash.play import Play, at_rest
from hostler.testing.crash.scene import Case, staged
from hostler.testing.crash.waiting import LOOK_S, until

Trouble: TypeAlias = Literal["full", "short", "error", "sync"]
LETTERS = {"full": "f", "short": "s", "error": "e", "sync": "y"}
REFUSED_S = 10.0
"""Within which a write that cannot be done is refused."""
LONG = "words that take room " * 2000


@dataclass
class Disk:
    """The disk of one folder, and what happens there."""

    folder: Path
    says: Path
    library: Path

    def set(self, trouble: Trouble | None) -> None:
        self.says.write_text(LETTERS[trouble] if trouble else "o", encoding="ascii")

    def variables(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(self.library),
            "DISK_LAB_UNDER": str(self.folder.resolve()),
            "DISK_LAB_SAYS": str(self.says),
        }


def a_disk(site: Site) -> Disk:
    """Return the disk that a site's data is on.

    Raises:
        SetupError: there is no compiler for C here, or this is no Linux.
    """
    compiler = shutil.which("cc")
    if compiler is None or not Path("/proc/self/fd").exists():
        raise SetupError("faults of disks need Linux and a compiler for C")
    library = site.folder / "disk.so"
    done = subprocess.run(  # noqa: S603  our own file
        [compiler, "-shared", "-fPIC", "-O1", "-o", library, Path(__file__).with_name("disk.c")],
        capture_output=True,
        check=False,
        text=True,
    )
    if done.returncode != 0:
        raise SetupError(f"disk.c is not compiled here: {done.stderr}")
    disk = Disk(site.data(1), site.folder / "says", library)
    disk.set(None)
    return disk


async def trouble(site: Site, what: Trouble) -> Case:
    """Have a disk fail in the middle of the play, and be well again."""
    disk = a_disk(site)
    site.environ = {**site.environ, **disk.variables()}
    expected = EXPECTED | {EXIT_IO_ERROR} if what == "sync" else EXPECTED
    node = Node(site=site, expected=expected)

    async def work(play: Play) -> None:
        await play.tells_a_program()
        await play.works()
        busy = await play.session("busy")
        await play.speaks(busy, "go on while it lasts")
        disk.set(what)
        if what == "sync":
            await _ends(play, disk, node, busy)
        else:
            await _refuses(play, disk, node, busy)
        await at_rest(play.caller, busy)
        await play.asks_for_approval()
        await play.works()

    return await staged(f"disk: {what}", site, [node], work)


async def _refuses(play: Play, disk: Disk, node: Node, session: str) -> None:
    """Raises Failed: what could not be written was accepted, or what could be read was not given."""
    path, once = f"/api/sessions/{session}/messages", mint("once")
    body = {"content": LONG}
    status, told = 0, "no answer"
    with anyio.move_on_after(REFUSED_S):
        status, read = await play.caller.try_once("POST", path, body, once=once)
        told = str(read)
    if status != 503:
        raise Failed(f"with no way to write, a message was answered with {status} {told}")
    for path_read in (f"/api/sessions/{session}", f"/api/sessions/{session}/events", "/api/runs"):
        status, read = await play.caller.try_once("GET", path_read)
        if status != 200:
            raise Failed(f"with no way to write, GET {path_read} was answered with {status} {read}")
    if node.exits:
        raise Failed("with no way to write, the node ended")
    disk.set(None)
    _, given = await play.caller.ask("POST", path, body, once=once)
    play.caller.told.inputs.append(Input.of(given, LONG))


async def _ends(play: Play, disk: Disk, node: Node, session: str) -> None:
    """Raises Failed: a node went on after a sync that failed."""
    path, once = f"/api/sessions/{session}/messages", mint("once")
    body = {"content": LONG}
    accepted = list[int]()

    async def ask() -> None:
        while not node.exits:
            try:
                status, _ = await play.caller.try_once("POST", path, body, once=once)
                accepted.append(status)
            except BROKEN:
                pass
            await anyio.sleep(LOOK_S)

    with anyio.move_on_after(REFUSED_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await until(lambda: bool(node.exits))
            tasks.cancel_scope.cancel()
    disk.set(None)
    if node.exits != [EXIT_IO_ERROR] or 202 in accepted:
        raise Failed(f"after a sync that failed: {accepted} was answered, ends: {node.exits}")
    await node.ready()
    _, given = await play.caller.ask("POST", path, body, once=once)
    play.caller.told.inputs.append(Input.of(given, LONG))
