"""The places at which the lab ends a process do nothing without it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hostler import faults
from hostler.faults import DIES_AT, KILLED, TOLD, fault_point, made

PASSES = "from hostler.faults import fault_point\nfor one in 'abcde': fault_point(one); print(one, flush=True)"


def test_a_process_that_the_lab_did_not_start_passes_by(tmp_path: Path) -> None:
    passes = made({TOLD: str(tmp_path / "told"), "HOSTLER_PORT": "1"})

    passes("before a write")

    assert [*tmp_path.iterdir()] == []
    assert fault_point.__code__ is faults.made({}).__code__, "nor does the one that runs this"


def test_a_process_dies_at_the_place_that_it_was_told(tmp_path: Path) -> None:
    told = tmp_path / "told"
    done = subprocess.run(
        [sys.executable, "-c", PASSES],
        env={DIES_AT: "3", TOLD: str(told), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        check=False,
        text=True,
    )

    assert done.returncode == KILLED, done.stderr
    assert done.stdout == "a\nb\n"
    assert told.read_text() == "a\nb\nc\n"


def test_the_places_of_a_run_without_a_death_are_told(tmp_path: Path) -> None:
    passes = made({DIES_AT: "0", TOLD: str(tmp_path / "told")})

    for place in ("before a write", "after a write"):
        passes(place)

    assert (tmp_path / "told").read_text() == "before a write\nafter a write\n"
