"""A process of `local_worker`, and the line to it.

Invariant: it is never waited for on the event loop, and none is left when `end` has returned.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from hostler.core.events import JsonObject
from hostler.models.local_answer import Line

EXIT_S = 2.0
"""For a process that hung up to be gone as well."""
LAST_WORDS = 400
"""Characters of what it wrote to its error output that are told when it dies."""

_WORKER = Path(__file__).with_name("local_worker.py")
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH|COOKIE", re.IGNORECASE)
"""Names of variables that it is not given: weights and their templates come from strangers."""
_lines = msgspec.json.Decoder(Line)


class Process:
    """The process, and the line to it."""

    def __init__(self, setup: JsonObject) -> None:
        # On the loop's thread, for 2 ms: Linux kills the process with the thread that began it.
        self.ready = False
        self._line, theirs = socket.socketpair()
        self._rest = b""
        self.ended = ""
        """How it did, with its last words."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        try:
            self.process = subprocess.Popen(  # noqa: S603 - a file of ours
                [sys.executable, "-P", _WORKER, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,  # a Ctrl-C in the terminal is not meant for it
                env={name: value for name, value in os.environ.items() if not _SECRET.search(name)},
            )
        except OSError:
            self._line.close()
            self._log.close()
            raise
        finally:
            theirs.close()
        self._line.sendall(msgspec.json.encode(setup | {"parent": os.getpid()}) + b"\n")
        self._line.settimeout(0)

    async def send(self, order: bytes) -> None:
        rest = memoryview(order)
        try:
            while rest:
                try:
                    rest = rest[self._line.send(rest) :]
                except BlockingIOError:
                    await anyio.wait_writable(self._line)
        except OSError:
            pass  # it is gone; who reads next will see that
        finally:
            if rest:
                self.process.kill()  # half an order cannot be taken back

    def stop(self, ask: int) -> None:
        """Have it leave a request; it ends itself if it cannot."""
        try:
            self._line.send(b'{"stop":%d}\n' % ask)
        except OSError:
            self.process.kill()

    async def lines(self) -> list[Line] | None:
        """Wait, and return what came; None: the process is gone."""
        try:
            await anyio.wait_readable(self._line)
            came = self._line.recv(1 << 18)
        except (OSError, anyio.ClosedResourceError):
            return None
        if not came:
            return None
        *whole, self._rest = (self._rest + came).split(b"\n")
        return [_lines.decode(one) for one in whole]

    async def end(self, *, now: bool) -> None:
        """See it to its end, killing it if that is to be `now`."""
        if self._line.fileno() >= 0:
            anyio.notify_closing(self._line)
            self._line.close()
            if now:
                self.process.kill()
            await anyio.to_thread.run_sync(self._wait)

    def _wait(self) -> None:
        try:
            self.process.wait(timeout=EXIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        code = self.process.returncode
        how = signal.Signals(-code).name if code < 0 else f"exit {code}"
        with self._log as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LAST_WORDS))
            words = " ".join(log.read().decode(errors="replace").split())
        self.ended = f"{how}. {words}".strip()
