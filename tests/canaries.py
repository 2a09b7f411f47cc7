"""With `HOSTLER_TEST_CANARIES=1`, secrets of all tests are canaries, and all that is told searched.

What tests call `canary` is one: admin and provider keys, keys of tenants' models, headers.  So are
secrets that are set over HTTP, of tools for one, and API keys, tokens of shares and tickets of sockets once a server has made them: the answer
that shows one is searched for all but it.

After each test it is searched what the test was told: answers, frames, messages, scrapes, spans,
exports, lines of the log, and what processes printed.  At the end of each worker, all files.
"""

from __future__ import annotations

import io
import logging
import os
import re
import subprocess
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hostler.app.providers import table
from hostler.core.events import TenantId
from hostler.telemetry.logs import formatter
from hostler.telemetry.masking import set_mask
from hostler.testing.canaries import KEEPS_IT, Canaries, Sighting
from hostler.testing.model_trial import KEY as KEY_OF_THE_KIT
from hostler.vault.envelope import MasterKey, new_key
from hostler.vault.vault import SealedVault

ON = os.environ.get("HOSTLER_TEST_CANARIES", "") not in ("", "0")
TENANT = TenantId("default")
WRITTEN_BY_TESTS = frozenset({"hostler.toml", "share.json", "webhook.json"})
"""Settings hold what their writer put there, and pages of the documentation keep a new link and a new webhook."""
SHOWN_ONCE = re.compile(rb"(?:hk_[0-9a-f]{8}_|hs_|ht_)[\w-]{43}|whsec_[\w+/]{43}=", re.ASCII)
SHOWING = re.compile(r"/(?:keys|shares|socket-tickets|webhooks|rotate)$")
"""Paths whose answers to a POST show what opens something, once."""
SETTING = re.compile(r"/secrets/[^/]+$")
UNIQUE = 16
"""Characters: shorter values may be anywhere by chance."""
_SAID = re.compile(rb'"text":"((?:[^"\\]|\\.)*)"')


class _Set(msgspec.Struct, forbid_unknown_fields=True):
    value: str


@dataclass
class Ears:
    """What was heard, and the canaries that may not be in it."""

    canaries: Canaries = field(default_factory=Canaries)
    made: Canaries = field(default_factory=Canaries)
    """Keys, tokens and tickets that servers have made, of all tests so far."""
    heard: list[tuple[str, bytes | str]] = field(default_factory=list[tuple[str, bytes | str]])
    _new: Canaries = field(default_factory=Canaries)
    _found: list[Sighting] = field(default_factory=list[Sighting])

    def hear(self, where: str, told: bytes | str) -> None:
        self.heard.append((where, told))

    def learn(self, value: str) -> None:
        """Take a value that was made elsewhere for a canary."""
        name = f"made {len(self.made.values)}"
        self.made.values[name] = self._new.values[name] = value

    def answer(self, method: str, path: str, told: bytes) -> None:
        """Hear an answer, and the text of its frames put together."""
        if method == "POST" and SHOWING.search(path):
            told = self.shown_once(told)
        self.hear(f"the answer to {method} {path}", told)
        if len(said := _SAID.findall(told)) > 1:
            self.hear(f"the joined text of {method} {path}", b"".join(said))

    def set_secret(self, body: bytes) -> None:
        """Learn the secret that somebody sets, if it is one that is nowhere else."""
        with suppress(msgspec.MsgspecError):
            value = msgspec.json.decode(body, type=_Set).value
            if len(value) >= UNIQUE:
                self._found += self._search()  # before, it was none
                self.learn(value)

    def shown_once(self, told: bytes) -> bytes:
        """Learn the keys, tokens and tickets that something shows; return the rest of it."""
        for value in SHOWN_ONCE.findall(told):
            self.learn(value.decode())
        return SHOWN_ONCE.sub(b"<new>", told)

    def served(self, app: ASGIApp) -> ASGIApp:
        """Return an application of which all is heard that it sends."""

        async def overheard(scope: Scope, receive: Receive, send: Send) -> None:
            sent, got, good = list[bytes](), list[bytes](), False

            async def take() -> Message:
                message = await receive()
                got.extend(_bytes_of(message))
                return message

            async def tell(message: Message) -> None:
                nonlocal good
                good = good or message.get("status") in (200, 201)
                sent.extend(_bytes_of(message))
                await send(message)

            try:
                await app(scope, take, tell)
            finally:
                method, path = scope.get("method", "socket"), scope.get("path", "")
                if good and method == "PUT" and SETTING.search(path):
                    self.set_secret(b"".join(got))
                self.answer(method, path, b"\n".join(sent))

        return overheard

    def sightings(self) -> list[Sighting]:
        """Search what was heard since this was called last."""
        found, self._found = [*self._found, *self._search()], []
        self._new = Canaries()
        return found

    def _search(self) -> list[Sighting]:
        told, self.heard = self.heard, []
        return Canaries({**self.canaries.values, **self._new.values}).seen_among(told)

    def sightings_in(self, folder: Path) -> list[Sighting]:
        known = Canaries({**self.canaries.values, **self.made.values})
        return known.seen_in(folder, but=KEEPS_IT | WRITTEN_BY_TESTS)


def _bytes_of(message: Message) -> Generator[bytes]:
    for name, value in cast("Iterable[tuple[bytes, bytes]]", message.get("headers", ())):
        yield name + b": " + value
    for part in ("body", "bytes", "text", "reason"):
        told = cast("bytes | str | None", message.get(part))
        if told:
            yield told.encode() if isinstance(told, str) else told


@dataclass
class LogEars(logging.Handler):
    """Hears records as the lines that an operator would have of them."""

    ears: Ears

    def __post_init__(self) -> None:
        super().__init__()
        self.setFormatter(formatter(as_text=False, colours=False))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001  arguments that cannot be told: no line comes of it
            return
        self.ears.hear(f"a line of {record.name}", line)

    __hash__ = logging.Handler.__hash__


@contextmanager
def heard_lines(ears: Ears) -> Generator[None]:
    """Hear what is logged: by us at any level, by libraries what an operator usually has."""
    handler, root, ours = LogEars(ears), logging.getLogger(), logging.getLogger("hostler")
    levels = root.level, ours.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    ours.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(levels[0])
        ours.setLevel(levels[1])


class PrintedLines(io.TextIOWrapper):
    """What a process prints, heard as it is read."""

    def __init__(self, ears: Ears, stream: IO[str]) -> None:
        super().__init__(cast("io.TextIOWrapper", stream).detach())
        self._ears = ears

    def _heard(self, told: str) -> str:
        self._ears.hear("what a process printed", self._ears.shown_once(told.encode()))
        return told

    def read(self, size: int | None = -1, /) -> str:
        return self._heard(super().read(size))

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        return self._heard(super().readline(size))

    def __next__(self) -> str:
        if line := self.readline():
            return line
        raise StopIteration


class Process(subprocess.Popen[str]):
    """A program whose output is searched."""

    def __init__(self, command: Sequence[str], **how: object) -> None:
        super().__init__(command, text=True, **how)  # type: ignore[call-overload]
        if EARS is not None:
            self.stdout = self.stdout and PrintedLines(EARS, self.stdout)
            self.stderr = self.stderr and PrintedLines(EARS, self.stderr)

    def communicate(
        self,
        input: str | None = None,  # noqa: A002  its name there
        timeout: float | None = None,
    ) -> tuple[str, str]:
        told = super().communicate(input, timeout)
        printed(*told)
        return told


CANARIES = Canaries()
EARS = Ears(CANARIES) if ON else None
if ON:
    CANARIES.values["key of the model kit"] = KEY_OF_THE_KIT


def canary(name: str, plain: str) -> str:
    """Return a canary of this name, always the same; in a usual run, the `plain` value."""
    if not ON:
        return plain
    return CANARIES.values.get(name) or CANARIES.new(name)


def learn(value: str) -> str:
    """Take what opens something, and was not given by a test, for a canary; return it."""
    if EARS is not None:
        EARS.learn(value)
    return value


def printed(*told: str | bytes | None) -> None:
    """Hear what a process printed; it may show a key that it made, once."""
    for one in told:
        if EARS is not None and one:
            data = one.encode() if isinstance(one, str) else one
            EARS.hear("what a process printed", EARS.shown_once(data))


def provider_keys() -> Mapping[str, str]:
    """Return each provider's variable with a canary, and what a collector is sent; none usually."""
    if not ON:
        return {}
    names = {name for one in table({}).values() for name in one.key_env}
    sent = {"OTEL_EXPORTER_OTLP_HEADERS": f"x-api-key={canary('a header of a collector', '')}"}
    return {**{name: canary(name, "") for name in sorted(names)}, **sent}


def master_keys(*keys: bytes) -> FixedKeys:
    made = [MasterKey(key, key.hex()) for key in keys or (new_key(),)]
    for one in made:
        learn(one.written)
    return FixedKeys(made)


class FixedKeys:
    """Master keys that a test gives, and may change."""

    def __init__(self, keys: Sequence[MasterKey]) -> None:
        self.keys = keys

    def __call__(self, *, make: bool, again: bool = False) -> Sequence[MasterKey]:
        del make, again
        return self.keys


def canary_vault() -> SealedVault | None:
    """Return a vault that knows this run's canaries; None when it is without."""
    if not ON:
        return None
    vault = SealedVault(master_keys())
    vault.learn(TENANT, "canary", CANARIES.values.get("secret") or CANARIES.new("secret", odd=True))
    return vault


_masking = list[SealedVault]()


@contextmanager
def masked_lines(vault: SealedVault | None) -> Generator[None]:
    """Mask lines, spans and metrics with a vault, as `hostler serve` does."""
    if vault is None:
        yield
        return
    _masking.append(vault)
    set_mask(_hide)
    try:
        yield
    finally:
        _masking.remove(vault)
        set_mask(_hide if _masking else None)


def _hide(text: str) -> str:
    for vault in _masking:
        text = vault.hide(text)
    return text
