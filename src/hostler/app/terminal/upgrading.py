"""`hostler upgrade --check` on the terminal: each thing by itself, and what to do about it.

Invariant: nothing is changed; the exit status is 1 if something has to be done first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hostler.app import wiring
from hostler.app.settings import load_settings
from hostler.app.terminal.checks import Check
from hostler.app.terminal.doctor import tell
from hostler.app.terminal.reach import perform
from hostler.core.errors import SetupError
from hostler.faces.http.endpoint import VERSION
from hostler.stores.sqlite_survey import survey_file
from hostler.stores.survey import Survey


def upgrade(*, check: bool, data: Path | None, database: str | None, as_json: bool) -> None:
    """Look at the database that settings name."""
    assert check
    place = load_settings({"data": data, "database": database}).place

    async def work() -> int:
        if isinstance(place, Path):
            if not place.exists():
                raise SetupError(f"there is no file {place}: nothing to upgrade")
            found = survey_file(place)
        else:
            found = await wiring.postgres_survey()(place)
        well = [tell(one, as_json) for one in checks(found, is_file=isinstance(place, Path))]
        return 0 if all(well) else 1

    perform(work)


def checks(found: Survey, *, is_file: bool) -> Iterator[Check]:
    """Yield what there is to say of a database and this build."""
    yield Check(name="build", health="ok", found=f"{VERSION}, on {found.server}")
    yield _schema(found)
    if found.contract:
        yield Check(
            name="removals",
            health="warn",
            found=f"steps {_listed(found.contract)} wait",
            advice="`hostler migrate --contract`, once no server of an older build runs.",
        )
    yield _facts(found)
    yield _processes(found, is_file=is_file)
    yield _room(found)


def _schema(found: Survey) -> Check:
    if not found.is_usable:
        return Check(
            name="schema",
            health="fail",
            found=f"a newer build took step {_listed(found.newer)}, and this one cannot use it",
            advice="Use that build; to go back, restore a backup of before.",
        )
    if found.newer:
        told = f"a newer build took step {_listed(found.newer)}, which this one does not mind"
        return Check(name="schema", health="ok", found=told)
    if found.expand:
        told = f"step {_listed(found.expand)} is taken when a server of this build starts"
        return Check(name="schema", health="ok", found=told)
    return Check(name="schema", health="ok", found="as this build wants it")


def _facts(found: Survey) -> Check:
    if found.kinds is None:
        kinds = "there are too many to look at each"
    elif found.kinds:
        kinds = f"this build does not know {', '.join(found.kinds)}"
    else:
        return Check(name="facts", health="ok", found="of kinds that this build knows")
    if found.held_up:
        return Check(
            name="facts",
            health="fail",
            found=f"{kinds}; {found.held_up} sessions with runs that go on have such",
            advice="Keep a server of the build that wrote them: this one does not drive these runs.",
        )
    return Check(name="facts", health="warn", found=kinds, advice="They are passed on as they are.")


def _processes(found: Survey, *, is_file: bool) -> Check:
    told = ", ".join(found.processes)
    if not told:
        return Check(name="processes", health="ok", found="nobody has it open")
    if is_file:
        advice = "Stop it, then start this build: one process may open a SQLite file."
        return Check(name="processes", health="warn", found=told, advice=advice)
    return Check(name="processes", health="ok", found=told)


def _room(found: Survey) -> Check:
    size = f"{found.size >> 20:,} MiB"
    if found.free is None:
        told = f"{size}; how much is left is known to PostgreSQL's machine"
        return Check(name="room", health="ok", found=told)
    told = f"{size}, and {found.free >> 20:,} MiB free"
    if found.expand and found.free < found.size:
        advice = "Make room: a step may write as much as there is."
        return Check(name="room", health="fail", found=told, advice=advice)
    return Check(name="room", health="ok", found=told)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
