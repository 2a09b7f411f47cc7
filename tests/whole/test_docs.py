"""The documentation says what the code says, its links lead somewhere, and its commands work."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar, cast, get_args

import click
import pytest
from docs.build import errors, limits, reliability
from docs.build import socket as sockets
from docs.build.__main__ import main as build
from docs.build.cli import commands
from docs.build.http import document
from docs.build.pages import stale, write
from docs.build.source import Undocumented, about
from msgspec import to_builtins
from tests.pages import PAGES, ROOT, WRITTEN, Block, anchors, blocks, fits, links, shell

import hostler
from hostler.app import wiring
from hostler.app.agent import read_agent
from hostler.app.providers import providers
from hostler.app.settings import Settings
from hostler.core.errors import CallerError
from hostler.core.events import KIND_OF, Policy
from hostler.core.ports import FaultCode
from hostler.faces.http.sockets import CLOSING
from hostler.faces.native.socket import VERBS
from hostler.models.capabilities import Capabilities
from hostler.testing.crash.families import ON
from hostler.testing.crash.invariants import Violation
from hostler.testing.crash.results import keep, row_of
from hostler.testing.crash.scene import Case

K = TypeVar("K")
DOCS = ROOT / "docs"
CONTENTS = {page: blocks(page.read_text(encoding="utf-8")) for page in WRITTEN}
TRIED = [
    page
    for page, found in CONTENTS.items()
    if any(one.language in ("sh", "python") and not one.reason for one in found)
]
PARSED = {"json": json.loads, "toml": tomllib.loads}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def untold(page: str, wanted: Iterable[str]) -> list[str]:
    text = (DOCS / "reference" / page).read_text(encoding="utf-8")
    return [one for one in wanted if f"`{one}`" not in text]


def without(table: dict[K, str], key: K) -> dict[K, str]:
    """Return a copy: an item that is taken out and put back stands last, and pages have an order."""
    return {one: said for one, said in table.items() if one != key}


# -- the reference ---------------------------------------------------------------------------


def test_the_reference_is_what_the_code_says_today(capsys: pytest.CaptureFixture[str]) -> None:
    assert build(["--check"]) == 0, capsys.readouterr().err


def test_the_reference_names_everything_that_users_meet() -> None:
    problems = [*errors.PROBLEMS, *(one.code for one in CallerError.__subclasses__())]
    routes = [
        f"{method.upper()} {path}"
        for path, methods in to_builtins(document()["paths"]).items()
        for method in methods
    ]
    assert untold("facts.md", [*KIND_OF.values(), *get_args(Policy)]) == []
    assert untold("errors.md", [*problems, *get_args(FaultCode)]) == []
    assert untold("settings.md", [f"HOSTLER_{one.upper()}" for one in Settings.model_fields]) == []
    assert untold("http.md", [*routes, *VERBS, "ping"]) == []
    assert untold("cli.md", [f"hostler {one}" for one in wiring.COMMANDS]) == []
    assert untold("python.md", hostler.__all__) == []
    assert untold("providers.md", [*providers(), *Capabilities.__struct_fields__]) == []


def test_a_close_code_without_a_meaning_fails_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    number, _ = CLOSING["draining"]
    monkeypatch.setattr(sockets, "MEANS", without(sockets.MEANS, number))
    with pytest.raises(Undocumented, match=f"close code {number} has no meaning"):
        sockets.socket()


def test_a_limit_that_no_page_explains_fails_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HELD", without(limits.HELD, "MOST_PARTS"))
    with pytest.raises(Undocumented, match="MOST_PARTS"):
        limits.limits()


def test_a_page_that_is_stale_missing_or_superfluous_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert build([], folder=tmp_path) == 0
    assert build(["--check"], folder=tmp_path) == 0
    (tmp_path / "facts.md").write_text("nothing", encoding="utf-8")
    (tmp_path / "http.md").unlink()
    (tmp_path / "old.md").touch()

    assert build(["--check"], folder=tmp_path) == 1

    told = [line.partition(";")[0] for line in capsys.readouterr().err.splitlines()]
    assert told == [
        "docs/reference/facts.md is out of date",
        "docs/reference/http.md is missing",
        "docs/reference/old.md is superfluous",
    ]


def test_writing_the_reference_removes_what_does_not_belong_there(tmp_path: Path) -> None:
    (tmp_path / "old.md").touch()
    write(tmp_path, {"new.md": "new\n"})
    assert [file.name for file in tmp_path.iterdir()] == ["new.md"]
    assert stale(tmp_path, {"new.md": "new\n"}) == []


def test_a_public_thing_without_a_docstring_fails_the_build() -> None:
    class Silent(CallerError):
        pass

    with pytest.raises(Undocumented, match="Silent has no docstring"):
        about(Silent, "Silent")  # its parent's is about something else


def test_a_code_without_a_meaning_fails_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    known = errors.PROBLEMS
    monkeypatch.setattr(errors, "PROBLEMS", without(known, "busy"))
    with pytest.raises(Undocumented, match="problem code busy has no meaning"):
        errors.errors()
    monkeypatch.setattr(errors, "PROBLEMS", known | {"lazy": "Nothing has this code."})
    with pytest.raises(Undocumented, match="problem code lazy, which is gone"):
        errors.errors()


def test_every_flag_of_every_command_says_what_it_does() -> None:
    silent = [
        f"{context.command_path} {parameter.opts[0]}"
        for context in commands()
        for parameter in context.command.params
        if isinstance(parameter, click.Option) and not parameter.help
    ]
    assert silent == []


# -- the pages -------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in links(text):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


def test_every_page_can_be_reached_from_the_index() -> None:
    index = DOCS / "README.md"
    reached, fresh = {index}, [index]
    while fresh:
        page = fresh.pop()
        for link in links(page.read_text(encoding="utf-8")):
            target = (page.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target.exists() and target not in reached:
                reached.add(target)
                fresh.append(target)
    wanted = [page for page in PAGES if DOCS in page.parents and "decisions" not in page.parts]
    assert [name(page) for page in wanted if page not in reached] == []


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_a_block_is_tried_or_says_why_not(page: Path, tmp_path: Path) -> None:
    for block in CONTENTS[page]:
        if block.language in PARSED and not block.reason:
            PARSED[block.language](block.text)
        if block.language == "yaml":
            agent = tmp_path / "an-agent-s.md"
            agent.write_text(f"---\n{block.text}---\n", encoding="utf-8")
            read_agent(agent)
        assert block.language not in ("bash", "shell", "console", "py"), "it would not be tried"


@pytest.mark.anyio
@pytest.mark.timeout(60)
@pytest.mark.parametrize("page", TRIED, ids=name)
async def test_a_page_works_as_it_is_written(
    page: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    is_ours = any("@hostler/client" in one.text for one in CONTENTS[page])
    package = cast("Path", request.getfixturevalue("package")) if is_ours else None
    async with shell(tmp_path, package) as one:
        for block in CONTENTS[page]:
            await one.try_out(block)
        await one.close()


def test_the_glossary_has_each_word_once_and_in_order() -> None:
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    words = [word.lower() for word in re.findall(r"^\*\*(.+?)\*\*", text, re.MULTILINE)]
    assert words == sorted(set(words))


# -- the trial itself ------------------------------------------------------------------------


def test_blocks_are_read_with_what_they_print() -> None:
    page = (
        'One:\n```json title="a.json"\n[]\n```\nTwo:\n\n```sh\nls\n```\n```text\na.json\n```\n'
        "Three:\n```sh not-run: it costs money\nspend\n```\nFour:\n\n```text\nalone\n```\n"
    )
    assert blocks(page) == [
        Block(language="json", text="[]\n", title="a.json"),
        Block(language="sh", text="ls\n", prints="a.json\n"),
        Block(language="sh", text="spend\n", reason="it costs money"),
        Block(language="text", text="alone\n"),
    ]


def test_an_ellipsis_stands_for_anything_and_nothing_else_does() -> None:
    assert fits("id: ses_1\nok\n", "id: ses_…\nok")
    assert fits("a\nb\nc", "a\n…\nc")
    assert not fits("id: ses_1\nbad\n", "id: ses_…\nok")
    assert not fits("a.c", "abc")


@pytest.mark.anyio
@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("block", "told"),
    [
        (Block(language="sh", text="echo this\n", prints="that\n"), "this"),
        (Block(language="sh", text="echo before; false\n"), "before"),
        (Block(language="python", text="raise SystemExit('oh')\n"), "oh"),
        (Block(language="sh", text="hostler serve --port nonsense\n"), "nonsense"),
    ],
    ids=["other output", "a failing command", "a failing script", "a server that does not start"],
)
async def test_a_page_that_is_wrong_fails(block: Block, told: str, tmp_path: Path) -> None:
    async with shell(tmp_path) as one:
        with pytest.raises(AssertionError, match=told):
            await one.try_out(block)


# -- what changed ----------------------------------------------------------------------------


def test_every_note_on_a_change_has_a_place_in_the_change_log() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "next"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    for note in (ROOT / "changelog.d").glob("*.*.md"):
        assert " ".join(note.read_text(encoding="utf-8").split()) in " ".join(told.split())


def test_a_family_of_the_crash_lab_that_was_never_tried_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(reliability, "RECORD", tmp_path / "reliability.json")

    with pytest.raises(Undocumented, match="points on sqlite was never tried"):
        reliability.reliability()


def test_what_the_crash_lab_found_broken_is_on_its_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "reliability.json"
    monkeypatch.setattr(reliability, "RECORD", file)
    broken = Case("one", found=[Violation("I1", "lost")] * 7, recoveries=[1.25])
    for family, stores in ON.items():
        for store in stores:
            keep(file, row_of(family, store, 1, [broken]))

    told = reliability.reliability()

    lines = [line for line in told.splitlines() if line.startswith("| `points` | sqlite")]
    assert len(lines) == 1
    assert "| 1 | 1 | 7 | 1.25 s |  | 1.25 s |" in lines[0]
