"""Reading the documentation as a stranger would: follow each link, type each command, compare.

How a page is written so that it can be tried (`CONTRIBUTING.md` tells writers the same):

    ```sh                       typed into one shell, block after block; must succeed
    ```python                   run as a script
    ```text                     right after one of these: what it prints; … stands for anything
    ```json title="a.json"      any language with a title: written to that file
    ```sh not-run: REASON       not tried, and says why

A page has a folder of its own, in which `.venv` and `examples` are the repository's, and so are the
packages from npm; with them, if it is given, is our own.  A block that
begins with `make run` or `hostler serve` starts a server, which runs until the end of the page on
a free port instead of 8420; models that nobody names are `scripted:demo`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream
from tests.canaries import printed as heard
from tests.canaries import provider_keys
from tests.programs import node, npm_packages

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
WRITTEN = [
    page for page in PAGES if "reference" not in page.parts and "decisions" not in page.parts
]
PORT = "8420"
LARGEST_OUTPUT = 1 << 20
TRIED = ("sh", "python")

_FENCE = re.compile(r"^(`{3,})([a-z]*)[ \t]*([^\n]*)\n(.*?)^\1[ \t]*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of code, with what the page says that it prints."""

    language: str
    text: str
    title: str = ""
    reason: str = ""
    """Why it is not tried."""
    prints: str | None = None

    @property
    def is_server(self) -> bool:
        return self.language == "sh" and self.text.startswith(("make run", "hostler serve"))


def blocks(text: str) -> list[Block]:
    """Return a page's blocks; a `text` block is part of the one that it follows."""
    found, ends = list[Block](), list[int]()
    for match in _FENCE.finditer(text):
        _, language, info, body = match.groups()
        follows = bool(ends) and not text[ends[-1] : match.start()].strip()
        if language == "text" and follows and found[-1].language in TRIED:
            found[-1] = Block(**{**vars(found[-1]), "prints": body})
        else:
            titled, why_not = re.match(r'title="([^"]+)"', info), re.match("not-run: (.+)", info)
            found.append(
                Block(
                    language=language,
                    text=body,
                    title=titled[1] if titled else "",
                    reason=why_not[1] if why_not else "",
                )
            )
        ends.append(match.end())
    return found


def links(text: str) -> list[str]:
    """Return where a page links to, outside of its blocks."""
    return _LINK.findall(_FENCE.sub("", text))


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", one) for one in _HEADING.findall(text)]
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in plain}


def fits(printed: str, told: str) -> bool:
    """Whether what was printed is what the page told, where … is anything."""
    parts = [re.escape(part) for part in told.strip().split("…")]
    return re.fullmatch(".*?".join(parts), printed.strip(), re.DOTALL) is not None


@dataclass(kw_only=True)
class Shell:
    """What a reader has open: one terminal for commands and, if need be, another for a server."""

    folder: Path
    environment: Mapping[str, str]
    typed: Process
    server: Process | None = None
    port: str = PORT
    _out: BufferedByteReceiveStream
    _scripts: int = 0

    async def try_out(self, block: Block) -> None:
        """Do what a reader would do with a block, and compare."""
        if block.title:
            file = self.folder / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text.replace(PORT, self.port), encoding="utf-8")
        elif block.is_server and not block.reason:
            await self._serve(block.text)
        elif block.language in TRIED and not block.reason:
            printed = await self._run(self._as_commands(block))
            if block.prints is not None:
                told = block.prints.replace(PORT, self.port)
                assert fits(printed, told), f"{block.text}\nprinted\n{printed}\nnot\n{told}"

    async def close(self) -> None:
        """Leave both terminals; a server must end well when it is told to."""
        assert self.typed.stdin is not None
        await self.typed.stdin.aclose()
        assert await self.typed.wait() == 0
        if self.server is not None:
            self.server.terminate()
            assert self.server.stdout is not None
            async for said in self.server.stdout:
                heard(said)
            assert await self.server.wait() == 0

    def kill(self) -> None:
        """End what a page that failed has left."""
        for process in (self.typed, self.server):
            if process is not None and process.returncode is None:
                with suppress(ProcessLookupError):  # it ended, and is not waited for yet
                    os.killpg(process.pid, signal.SIGKILL)

    async def _run(self, commands: str) -> str:
        """Return what commands print; a failure is an AssertionError."""
        assert self.typed.stdin is not None
        text = f"{{\n{commands}\n}} </dev/null 2>&1\nprintf '\\036'\n"
        await self.typed.stdin.send(text.replace(PORT, self.port).encode())
        try:
            printed = await self._out.receive_until(b"\x1e", LARGEST_OUTPUT)
        except anyio.IncompleteRead:
            raise AssertionError(f"{commands}\nfailed:\n{self._out.buffer.decode()}") from None
        heard(printed)
        return printed.decode()

    async def _serve(self, command: str) -> None:
        """Start a server and wait until it listens."""
        assert self.server is None, "a page has one server, until its end"
        command = command.replace("make run", "hostler serve", 1)
        self.server = await anyio.open_process(
            ["bash", "-c", f"exec {command}"],
            cwd=self.folder,
            env=self.environment,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self.server.stdout is not None
        said = ""
        while not (match := re.search(r"serving .* http://127\.0\.0\.1:(\d+)", said)):
            try:
                said += (await self.server.stdout.receive()).decode()
            except anyio.EndOfStream:
                raise AssertionError(f"{command}\nfailed:\n{said}") from None
        heard(said)
        self.port = match[1]
        await self._run(f"export HOSTLER_PORT={self.port}")

    def _as_commands(self, block: Block) -> str:
        if block.language == "sh":
            return block.text
        self._scripts += 1
        file = self.folder / f"script_{self._scripts}.py"
        file.write_text(block.text.replace(PORT, self.port), encoding="utf-8")
        return f"python {file.name}"


@asynccontextmanager
async def shell(folder: Path, package: Path | None = None) -> AsyncGenerator[Shell]:
    """Open a shell in a folder, with a home of its own and, if need be, our package for npm."""
    home, venv = folder / "home", Path(sys.prefix)
    home.mkdir()
    (folder / ".venv").symlink_to(venv)
    (folder / "examples").symlink_to(ROOT / "examples")
    modules = folder / "node_modules"
    modules.mkdir()
    for one in (npm_packages() / "node_modules").iterdir():
        (modules / one.name).symlink_to(one)
    if package is not None:
        (modules / "@hostler").mkdir()
        (modules / "@hostler" / "client").symlink_to(package)
    environment = {
        "HOME": str(home),
        **provider_keys(),
        "HOSTLER_MODEL": "scripted:demo",
        "HOSTLER_PORT": "0",
        "LANG": "C.UTF-8",
        "NO_COLOR": "1",
        "PATH": os.pathsep.join((f"{venv / 'bin'}", f"{Path(node()).parent}", os.environ["PATH"])),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TERM": "dumb",
    }
    command = ["bash", "--norc", "-eu", "-o", "pipefail"]
    async with AsyncExitStack() as stack:
        typed = await anyio.open_process(
            command, cwd=folder, env=environment, start_new_session=True
        )
        stack.push_async_callback(typed.aclose)
        assert typed.stdout is not None
        one = Shell(
            folder=folder,
            environment=environment,
            typed=typed,
            _out=BufferedByteReceiveStream(typed.stdout),
        )
        try:
            yield one
        finally:
            one.kill()
            if one.server is not None:
                stack.push_async_callback(one.server.aclose)
