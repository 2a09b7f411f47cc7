"""The house rules that a machine can check.  A rule that is not here is only a wish."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SRC = ROOT / "src" / "hostler"
MODULES = sorted(SRC.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

SERVICES = ROOT / "tests" / "services.py"
"""It skips what needs a service that this machine lacks, unless services are required."""

LINES_PER_FILE = 500
LINES_PER_FUNCTION = 50
LINES_OF = {
    # docs/decisions/0003-size-of-the-core.md, 0011, 0017, 0019 to 0022, 0025 to 0028, 0032, 0034, 0036 to 0038, 0041, 0044, 0048 and 0049 say why these are so
    "core": 4760,
    "core/audited.py": 255,
    "core/errors.py": 140,
    "core/events.py": 475,
    "core/said.py": 85,
    "core/directory.py": 180,
    "core/codec.py": 145,
    "core/head.py": 170,
    "core/ledger.py": 215,
    "core/memory.py": 120,
    "core/records.py": 185,
    "core/state.py": 420,
    "core/decide.py": 255,
    "core/gate.py": 130,
    "core/ports.py": 395,
    "core/store.py": 250,
    "core/sealed.py": 180,
    "core/news.py": 140,
    "core/trail.py": 120,
    "core/streamed.py": 150,
    "core/terms.py": 65,
    "core/shown.py": 200,
    "core/loop.py": 485,
}
LINES_IN = {
    "beside": 300,
    "models": 400,
    "tools": 200,
    "stores": 400,
    "signals": 260,
    "harness": 400,
    "telemetry": 300,
    "vault": 300,
    "engine": 400,
    "service": 300,
    "faces": 400,
    "testing": 500,
    "app": 400,
}
MAY_CATCH_EVERYTHING = {
    "harness/toolbox.py",  # around a tool: a stranger's code
    "engine/drive.py",  # around one session: its trouble must not end the others
    "engine/queuer.py",  # around one handler, for the same reason
    "engine/desk.py",  # likewise, and around what takes jobs, which has to go on
    "faces/http/endpoint.py",  # at the edge of a face: a 500
    "stores/sqlite_writer.py",  # around one order: its trouble must not fail those beside it
    "stores/postgres_writer.py",  # likewise
    "stores/sqlite_reader.py",  # around one read, likewise
    "telemetry/timeline.py",  # what is told of a run must not become its trouble
    "vault/logs.py",  # around what a line is made of: whoever logs must not fail by it
    "telemetry/export.py",  # around an exporter: a stranger's code
}


def name(path: Path) -> str:
    return str(path.relative_to(SRC))


def lines(path: Path) -> int:
    files = path.rglob("*.py") if path.is_dir() else [path]
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


def tracked() -> list[Path]:
    told = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    return [ROOT / one for one in told.split("\0") if one and (ROOT / one).is_file()]


@pytest.mark.parametrize("path", [*MODULES, *TESTS], ids=str)
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    assert lines(path) <= LINES_PER_FILE


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_keeps_the_size_of_its_floor(path: Path) -> None:
    assert lines(path) <= LINES_IN.get(name(path).split("/")[0], LINES_PER_FILE)


@pytest.mark.parametrize("what", LINES_OF)
def test_the_heart_stays_small(what: str) -> None:
    assert lines(SRC / what) <= LINES_OF[what]


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_functions_are_short(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < LINES_PER_FUNCTION or is_a_table(node), node.name


def is_a_table(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """A function that does nothing but return one literal is data."""
    return node.name == "table"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_everything_is_caught_only_where_a_stranger_s_code_runs(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler) and catches_everything(node):
            assert reraises(node) or name(path) in MAY_CATCH_EVERYTHING


def catches_everything(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(
        kind is None or getattr(kind, "id", "") in ("Exception", "BaseException") for kind in kinds
    )


def reraises(handler: ast.ExceptHandler) -> bool:
    return any(isinstance(node, ast.Raise) and node.exc is None for node in ast.walk(handler))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_are_at_the_top_but_in_wiring(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = [
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert not inner or name(path) == "app/wiring.py"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_no_name_says_nothing() -> None:
    empty = re.compile(r"(manager|helper|utils|base)s?$", re.IGNORECASE)
    assert [name(path) for path in MODULES if empty.search(path.stem)] == []


def test_tests_do_not_sleep_and_skip_nothing() -> None:
    sleeping = re.compile(
        r"\b(time|asyncio|anyio)\.sleep\((?!0\))|pytest\.skip|mark\.skip|mark\.xfail"
    )
    found = [
        f"{path.name}: {line.strip()}"
        for path in TESTS
        if path not in (Path(__file__), SERVICES)
        for line in path.read_text(encoding="utf-8").splitlines()
        if sleeping.search(line)
    ]
    assert found == []


def test_nothing_tracked_names_this_machine_or_a_registry() -> None:
    machine = re.compile(
        r"/(?:root|work|farm|home/\w+)/|/tmp/bash_jobs|pypi\.org|pythonhosted|registry\.npmjs",
        re.ASCII,
    )
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in tracked()
        if path != Path(__file__)
        and path.suffix not in (".png", ".gguf")
        and (match := machine.search(path.read_text(encoding="utf-8", errors="replace")))
    ]
    assert found == []


def test_every_dependency_is_locked_with_hashes_and_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    reasons = (ROOT / "docs/decisions/0002-dependencies.md").read_text(encoding="utf-8")
    groups = [
        project["project"]["dependencies"],
        *project["project"]["optional-dependencies"].values(),
        *project["dependency-groups"].values(),
    ]
    for requirement in (one for group in groups for one in group):
        package = re.match(r"[A-Za-z0-9-]+", requirement)
        assert package is not None
        assert re.search(rf"^{package[0].lower()}==\S+.*\\\n    --hash=sha256:", lock, re.MULTILINE)
        assert f"`{package[0]}`" in reasons, f"no reason for {package[0]}"


def test_importing_the_package_is_cheap() -> None:
    heavy = ("aiohttp", "uvicorn", "pgqueuer", "pydantic", "starlette", "rich", "sqlite3")
    code = f"import hostler, sys; print([m for m in {heavy!r} if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert told.stdout.strip() == "[]"
