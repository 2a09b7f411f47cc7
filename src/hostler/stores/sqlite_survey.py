"""What a build finds in a SQLite file before it opens it.

Invariant: nothing is changed, and nobody who has the file open is kept waiting.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from hostler.core.errors import SetupError
from hostler.stores.sqlite_file import holder, migrations
from hostler.stores.survey import KNOWN, Survey


def survey_file(path: Path) -> Survey:
    """Look at a SQLite file.  Raises SetupError: it cannot be read."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            return _survey(db, path)
    except sqlite3.Error as error:
        raise SetupError(f"{path} cannot be read as a SQLite database: {error}") from error


def _survey(db: sqlite3.Connection, path: Path) -> Survey:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    ours, process = len(migrations()), holder(path)
    places = ", ".join("?" * len(KNOWN))
    foreign = f"FROM events e WHERE e.kind NOT IN ({places})"
    kinds = db.execute(f"SELECT DISTINCT e.kind {foreign} ORDER BY 1", KNOWN)
    held_up = (
        f"SELECT count(*) FROM heads h WHERE h.active IS NOT NULL AND EXISTS (SELECT 1 {foreign} "  # noqa: S608
        "AND e.tenant = h.tenant AND e.session = h.session)"
    )
    return Survey(
        server=f"SQLite {sqlite3.sqlite_version}",
        expand=range(version + 1, ours + 1),
        newer=range(ours + 1, version + 1),
        is_usable=version <= ours,
        kinds=[str(kind) for (kind,) in kinds] if version else (),
        held_up=int(db.execute(held_up, KNOWN).fetchone()[0]) if version else 0,
        processes=() if process is None else (f"process {process}",),
        size=path.stat().st_size,
        free=shutil.disk_usage(path.parent).free,
    )
