"""A server has as many connections as its system allows, whatever its shell was set to."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from hostler.app.server import allow_connections
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))
told = allow_connections()
print(told, *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "then"),
    [
        pytest.param(64, 200, "200 200 200", id="a shell's limit is raised to the system's"),
        pytest.param(200, 200, "200 200 200", id="the system's own is left alone"),
    ],
)
def test_a_process_takes_what_it_is_allowed(soft: int, hard: int, then: str) -> None:
    command = [sys.executable, "-c", PROGRAM, str(soft), str(hard)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (done.stdout.strip(), done.returncode) == (then, 0), done.stderr
