"""Where a fleet's queue is, as a setting: what does not go together is refused with what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.canaries import provider_keys

POSTGRES = ("--database", "postgresql://nobody@127.0.0.1:1/none")
REFUSED = {
    "redis with none": (("--engine", "redis", *POSTGRES), "needs one: --redis"),
    "redis beside a file": (("--engine", "redis", "--redis", "redis://127.0.0.1:1"), "--database"),
    "postgres beside a file": (("--engine", "postgres"), "--database postgresql://"),
    "one that there is not": (("--engine", "rabbit", *POSTGRES), "engine: Input should be"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("options", "told"), REFUSED.values(), ids=REFUSED.keys())
def test_an_engine_that_cannot_be_had_is_refused_with_what_to_do(
    tmp_path: Path, options: tuple[str, ...], told: str
) -> None:
    command = [sys.executable, "-m", "hostler", "serve", "--port", "0", "--data", str(tmp_path)]
    env = {"PYTHONPATH": ":".join(one for one in sys.path if one), "PATH": "", **provider_keys()}
    done = subprocess.run(
        [*command, "--model", "scripted:none", *options],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode != 0
    assert told in done.stderr
    assert "Traceback" not in done.stderr
