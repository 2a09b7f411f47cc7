"""Commands in processes of their own: on a terminal that is read back, or on pipes."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.canaries import Process, printed, provider_keys
from tests.serving import KEY

import hostler
from hostler.app.server import listen

PATIENCE_S = 30.0
SOURCES = Path(hostler.__file__).parents[1]
"""The commands are those of the package that is tested, wherever another one is installed."""
COMMAND = (sys.executable, "-m", "hostler")
TAKE_TERMINAL = "import os, sys; os.close(os.open(os.ttyname(0), os.O_RDWR)); os.execv(sys.argv[1], sys.argv[1:])"
"""The first terminal that the leader of a session opens is the one whose Ctrl-C it gets."""
KEYS = {**provider_keys(), **({"HOSTLER_MODEL": "scripted:demo"} if provider_keys() else {})}
"""With keys, and no model that is named, a provider would be asked."""
_ESCAPE = re.compile(r"\x1b(?:\[([?\d;]*)([A-Za-z])|\][^\x07]*\x07|[()].|.)", re.DOTALL)


def script(folder: Path, *replies: object) -> str:
    """Return the name of a model that plays these replies."""
    path = folder / "script.json"
    path.write_text(json.dumps(replies))
    return f"scripted:{path}"


def free_port() -> int:
    with listen("127.0.0.1", 0) as taken:
        return taken.getsockname()[1]


def environment(data: Path, **more: str) -> dict[str, str]:
    """Return an environment in which no other server, key or model is found."""
    return {
        "HOSTLER_DATA": str(data),
        "HOSTLER_ADMIN_KEY": KEY,
        "HOSTLER_PORT": "9",
        "PYTHONPATH": str(SOURCES),
        "PATH": "",
        "HOME": str(data),
        **KEYS,
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        **more,
    }


@dataclass
class Home:
    """A data folder, and commands that use it."""

    folder: Path
    more: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def env(self) -> dict[str, str]:
        return environment(self.folder / "data", **self.more)

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command to its end, on pipes."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            env=self.env,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
            input=stdin,
        )
        printed(done.stdout, done.stderr)
        return done

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return Process(
            [*COMMAND, *arguments],
            env=self.env,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    @contextmanager
    def terminal(self, *arguments: str, **more: str) -> Generator[Terminal]:
        """Run a command on a terminal of 80 columns."""
        terminal = Terminal([*COMMAND, *arguments], {**self.env, **more}, self.folder)
        try:
            yield terminal
        finally:
            terminal.close()

    @contextmanager
    def server(self, model: str, *target: str) -> Generator[Serving]:
        """Run a server on this data folder; commands find it."""
        serving = Serving(self, model, free_port(), target)
        self.more["HOSTLER_PORT"] = str(serving.port)
        serving.start()
        try:
            yield serving
        finally:
            serving.kill()


@dataclass
class Serving:
    home: Home
    model: str
    port: int
    target: tuple[str, ...] = ()
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and wait until it serves."""
        process = self.home.start("serve", *self.target, "--model", self.model)
        self.process = process
        assert process.stderr is not None
        said: list[str] = []
        for line in process.stderr:
            said.append(line)
            if "serving " in line:
                return
        raise AssertionError("".join(said))

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


class Terminal:
    """A process on a pseudo-terminal, and what stands on its screen and above it."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], folder: Path) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 80, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-ISc", TAKE_TERMINAL, *command],
            env=dict(env),
            cwd=folder,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.raw = ""
        self._bytes = b""

    def until(self, *texts: str, after: int = 0) -> str:
        """Wait until all the texts stand there; return the screen."""
        deadline = time.monotonic() + PATIENCE_S
        while not all(text in self.screen[after:] for text in texts):
            assert self._read(deadline), (
                f"{texts} did not come:\n{self.screen}\n{self.raw[-2000:]!r}"
            )
        return self.screen

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def end(self) -> int:
        """Wait for the process's end; return its status."""
        deadline = time.monotonic() + PATIENCE_S
        while self._read(deadline):
            pass
        return self._process.wait(max(0.1, deadline - time.monotonic()))

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._master)
        printed(self.raw, self.screen)

    @property
    def screen(self) -> str:
        return shown(self.raw)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            more = os.read(self._master, 65536)
        except OSError:  # how Linux tells that nobody has the other end any more
            return False
        self._bytes += more
        self.raw = self._bytes.decode(errors="ignore")
        return bool(more)


class Screen:
    """A terminal of endless height."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = [[]]
        self.row = self.column = 0

    def obey(self, order: str, number: int) -> None:
        match order:
            case "A":
                self.row = max(0, self.row - max(1, number))
            case "B":
                self.row += max(1, number)
            case "C":
                self.column += max(1, number)
            case "D":
                self.column = max(0, self.column - max(1, number))
            case "K" | "J":
                del self.rows[self.row][self.column :]
                del self.rows[self.row + 1 : None if order == "J" else self.row + 1]
            case _:
                pass

    def write(self, sign: str) -> None:
        if sign == "\r":
            self.column = 0
        elif sign == "\n":
            self.row += 1
        elif sign == "\b":
            self.column = max(0, self.column - 1)
        elif sign >= " ":
            line = self.rows[self.row]
            line += " " * (self.column + 1 - len(line))
            line[self.column] = sign
            self.column += 1


def shown(raw: str) -> str:
    """Return what stands on a terminal after `raw` was written to it."""
    screen, place = Screen(), 0
    while place < len(raw):
        match = _ESCAPE.match(raw, place)
        if match is None:
            screen.write(raw[place])
            place += 1
        else:
            number = match[1] or ""
            screen.obey(match[2] or "", int(number) if number.isdigit() else 0)
            place = match.end()
        screen.rows += [[] for _ in range(screen.row + 1 - len(screen.rows))]
    return "\n".join("".join(line).rstrip() for line in screen.rows)
