"""Coding CLIs that are not ours, headless, in front of a server of ours and a fake that codes.

A page of `docs/howto` says how a program is set up; its very lines are what is run here.  Each has
a folder with a home of its own, and a network that ends at loopback.

Invariant: nothing of the machine's own settings, keys and sessions is read or written.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import anyio
from msgspec.structs import replace
from tests.observed import Series, parsed
from tests.pages import PORT, ROOT, Block, blocks
from tests.programs import node
from tests.serving import KEY, Client, Json, serving

from hostler.app.measuring import measuring
from hostler.core.events import CallId, JsonObject, ToolCall, Usage
from hostler.core.ports import Delta, Reply, Request, ToolSpec, mint
from hostler.core.said import ModelSaid, Said, TextPart, ToolSaid, UserSaid
from hostler.faces.http.open_streams import OpenStreams
from hostler.models.scripted import sample
from hostler.testing.doubles import ToolboxDouble, an_agent

PACKAGES = ROOT / "tests/cli/node_modules"
PATIENCE_S = 90.0
NOWHERE = "http://127.0.0.1:9"
"""Port of the discard service, where nobody listens: the way to everything but loopback."""
USED = Usage(input_tokens=11, output_tokens=5)
THOUGHT = "Let me look at what is wanted."
_ORDER = re.compile(r"Please (read|run) `([^`]+)`")
_TOOLS = {"read": ("read",), "run": ("bash", "exec_command")}
_ARGUMENTS = {"read": ("file_path", "filePath", "path"), "run": ("command", "cmd")}


# -- the fake ------------------------------------------------------------------------------------


@dataclass
class Coder:
    """A fake model that does what the user asks for with the tools that its client offers.

    ``Please read `FILE` `` and ``Please run `COMMAND` `` are one call each; then it says what came
    out.  ``What was first?`` is answered with the first of these.  It thinks before all that it
    does, and wants to see again what it thought.
    """

    provider: str = "openai"
    name: str = "gpt-5"
    asked: list[Request] = field(default_factory=list[Request])
    when_asked: Callable[[], Awaitable[None]] | None = None
    """Called before it answers."""

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply, None]:
        said = tuple(request.transcript)
        self.asked.append(replace(request, transcript=said))
        if self.when_asked is not None:
            await self.when_asked()
        call = _call(said, request.tools)
        text = "" if call is not None else _answer(said)
        yield Delta("thinking", THOUGHT)
        for word in text.splitlines(keepends=True):
            yield Delta("text", word)
        yield Reply(
            text=text,
            thinking=THOUGHT,
            calls=() if call is None else (call,),
            stop="end" if call is None else "tools",
            usage=USED,
            replay=self.sealed(len(said)),
        )

    def sealed(self, place: int) -> JsonObject:
        """Return what it wants to see again of a reply to so many messages."""
        return {"model": self.name, "sealed": f"thought {place}"}

    @property
    def worked(self) -> list[Request]:
        """What it was asked with tools; without them clients ask for titles and the like."""
        return [one for one in self.asked if one.tools]


def words(said: Said) -> str:
    """Return what somebody said, without pictures."""
    if not isinstance(said, UserSaid):
        return said.text if isinstance(said, ModelSaid) else said.output
    if isinstance(said.content, str):
        return said.content
    return "\n".join(one.text for one in said.content if isinstance(one, TextPart))


def _new(said: Sequence[Said]) -> Sequence[Said]:
    """Return what came since the model spoke last."""
    replies = [place for place, one in enumerate(said) if isinstance(one, ModelSaid)]
    return said[replies[-1] + 1 if replies else 0 :]


def _orders(said: Sequence[Said]) -> list[tuple[str, str]]:
    spoken = [words(one) for one in said if isinstance(one, UserSaid)]
    return [found for text in spoken for found in _ORDER.findall(text)]


def _call(said: Sequence[Said], tools: Sequence[ToolSpec]) -> ToolCall | None:
    new = _new(said)
    orders = _orders(new)
    if not tools or not orders or any(isinstance(one, ToolSaid) for one in new):
        return None
    verb, what = orders[-1]
    tool = next(one for one in tools if one.name.lower() in _TOOLS[verb])
    required, known = sample(tool.parameters, "as told"), tool.parameters["properties"]
    assert isinstance(required, dict)
    assert isinstance(known, dict)
    told = {name: what for name in _ARGUMENTS[verb] if name in known}
    return ToolCall(id=CallId(mint("call")), name=tool.name, arguments={**required, **told})


def _answer(said: Sequence[Said]) -> str:
    results = [one.output for one in _new(said) if isinstance(one, ToolSaid)]
    if results:
        return f"It says: {results[-1]}"
    if any("What was first?" in words(one) for one in _new(said)):
        return f"First was: {_orders(said)[0][1]}"
    return "Hello from the fake."


# -- the programs --------------------------------------------------------------------------------


@dataclass
class Desk:
    """A folder in which somebody works with a program, and the server that it is set up for."""

    folder: Path
    client: Client
    coder: Coder
    setup: str
    """What the page has one type first."""
    use: str
    """And then."""

    async def run(self, command: str | None = None) -> str:
        """Type a command after the setup, or the page's own; return what it prints."""
        typed = f"{self.setup}\n{self.use if command is None else command}"
        with anyio.fail_after(PATIENCE_S):
            ended = await anyio.run_process(
                ["bash", "--norc", "-eu", "-o", "pipefail", "-c", typed],
                check=False,
                cwd=self.folder,
                env=_environment(self.folder),
                input=b"",
            )
        told, wrong = ended.stdout.decode(), ended.stderr.decode()
        assert ended.returncode == 0, f"{typed}\n{told}\n{wrong}"
        return told

    async def series(self) -> Series:
        """Return the figures of the server."""
        headers = {"Authorization": f"Bearer {KEY}"}
        async with self.client.http.get(f"{self.client.url}/metrics", headers=headers) as answer:
            return parsed(await answer.text())

    async def usage(self) -> list[Json]:
        """Return the sums of what was used."""
        return cast("list[Json]", (await self.client.get("/api/usage"))["items"])


@asynccontextmanager
async def desk(
    folder: Path, page: str, *, tools: ToolboxDouble | None = None
) -> AsyncGenerator[Desk]:
    """Set up a program as a page of `docs/howto` says, before a server with the fake.

    `tools`: of the agent `double`, which has the fake as its model.
    """
    coder, streams = Coder(), OpenStreams()
    agent = an_agent(coder, tools=tools)
    async with AsyncExitStack() as stack:
        measured = measuring({"double": agent}, version="1", streams=lambda: streams.by_kind)
        look = await stack.enter_async_context(measured)
        served = serving(agent, file=folder / "log.db", observing=look, streams=streams)
        client = await stack.enter_async_context(served)
        found = blocks((ROOT / "docs/howto" / page).read_text(encoding="utf-8"))
        work = folder / "work"
        _furnish(work, found, client)
        setup, use = [
            _here(one, client) for one in found if one.language == "sh" and not one.is_server
        ]
        yield Desk(work, client, coder, setup, use)


def _furnish(work: Path, found: Sequence[Block], client: Client) -> None:
    """Make home, key, programs and the files of a page."""
    home = work / "home"
    kept = home / ".local/share/hostler/admin-key"
    kept.parent.mkdir(parents=True)
    kept.write_text(client.key, encoding="utf-8")
    for one in found:
        if one.title:
            file = Path(one.title.replace("~", str(home), 1))
            file = file if file.is_absolute() else work / file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(_here(one, client), encoding="utf-8")
    programs = work / "programs"
    programs.mkdir()
    for name, target in _programs().items():
        (programs / name).write_text(f'#!/bin/sh\nexec {target} "$@"\n', encoding="utf-8")
        (programs / name).chmod(0o755)


def _here(block: Block, client: Client) -> str:
    return block.text.replace(PORT, client.url.rpartition(":")[2])


def _programs() -> dict[str, str]:
    """Return how each program is started: those that are binaries without what npm puts round them."""
    assert PACKAGES.is_dir(), (
        "this test needs the packages of tests/cli: `make check-full` has them"
    )
    here = {"x86_64": "x64", "AMD64": "x64", "aarch64": "arm64"}
    machine = here.get(platform.machine(), platform.machine())
    system = f"{sys.platform}-{machine}"
    pi = PACKAGES / "@earendil-works/pi-coding-agent/dist/bundle/cli.js"
    return {
        "claude": f"{PACKAGES}/@anthropic-ai/claude-code-{system}/claude",
        "codex": f"{node()} {PACKAGES}/@openai/codex/bin/codex.js",
        "opencode": f"{PACKAGES}/opencode-{system}/bin/opencode",
        "pi": f"{node()} {pi}",
    }


def _environment(work: Path) -> dict[str, str]:
    home = work / "home"
    return {
        "HOME": str(home),
        "HTTP_PROXY": NOWHERE,
        "HTTPS_PROXY": NOWHERE,
        "NO_PROXY": "127.0.0.1,localhost",
        "LANG": "C.UTF-8",
        "NO_COLOR": "1",
        "PATH": os.pathsep.join((str(work / "programs"), str(Path(node()).parent), os.defpath)),
        "TERM": "dumb",
        "TMPDIR": str(home),
    }
