"""A process dies while it makes its keys: the next one starts, and both know the same key."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from hostler.app.keys import kept_key
from hostler.core.errors import SetupError
from hostler.faults import DIES_AT, KILLED, TOLD

MAKES = "import sys; from pathlib import Path; from hostler.app.keys import kept_key; print(kept_key(Path(sys.argv[1]), sys.argv[2])[0])"


def made(path: Path, key: str, dies_at: int) -> subprocess.CompletedProcess[str]:
    """Make a key in a process that dies at one of the places."""
    lab = {DIES_AT: str(dies_at), TOLD: str(path.with_name("told"))}
    return subprocess.run(
        [sys.executable, "-c", MAKES, str(path), key],
        env={**os.environ, **lab},
        capture_output=True,
        check=False,
        text=True,
    )


@pytest.mark.timeout(60)
def test_a_death_at_any_place_leaves_a_key_or_none(tmp_path: Path) -> None:
    deaths = 0
    while True:
        path = tmp_path / str(deaths) / "admin-key"
        path.parent.mkdir()
        done = made(path, "first", deaths + 1)
        if done.returncode != KILLED:
            break
        deaths += 1
        there = path.read_text().strip() if path.exists() else None

        key, is_new = kept_key(path, "second")

        assert there in (None, "first")
        assert (key, is_new) == ((there, False) if there else ("second", True))
        assert path.read_text().strip() == key
        assert [one.name for one in path.parent.iterdir() if one.name != "told"] == ["admin-key"]
    assert done.returncode == 0, done.stderr
    assert deaths >= 3


def test_of_many_that_make_a_key_at_once_all_have_the_same(tmp_path: Path) -> None:
    path = tmp_path / "data" / "master-key"
    with ThreadPoolExecutor(8) as threads:
        known = [*threads.map(partial(kept_key, path), map(str, range(40)))]

    assert {key for key, _ in known} == {path.read_text().strip()}
    assert sum(is_new for _, is_new in known) == 1
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_empty_key_file_is_told_and_is_no_key(tmp_path: Path) -> None:
    path = tmp_path / "admin-key"
    path.touch()

    with pytest.raises(SetupError, match="is empty"):
        kept_key(path, "new")
