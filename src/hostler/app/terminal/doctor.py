"""`hostler doctor`: what was looked at, as it is found out.

Invariant: the exit status is 1 if something is broken, and 0 if something could only be better.
"""

from __future__ import annotations

import os
import sys
from contextlib import aclosing

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hostler.app.commands.doctor_stream import check_stream
from hostler.app.settings import load_settings
from hostler.app.terminal.canvas import THEME, drawn
from hostler.app.terminal.checks import Check, Health, installation, one_model
from hostler.app.terminal.reach import perform
from hostler.app.terminal.words import printable
from hostler.app.whereabouts import known_key, server_url

_STYLE = {"ok": "good", "warn": "warn", "fail": "bad"}
_NAME_WIDTH = 13
WIDE = 1000
"""Columns of what is no terminal."""


def doctor(*, model: str | None, json: bool, **flags: object) -> None:
    """Look at everything, or at one model."""
    settings = load_settings(flags)

    async def work() -> int:
        if model is not None:
            return 0 if tell(await one_model(model, settings, os.environ), json) else 1
        async with aclosing(installation(settings, os.environ)) as checks:
            well = [tell(check, json) async for check in checks]
        return 0 if all(well) else 1

    perform(work)


def stream(*, json: bool, **flags: object) -> None:
    """Look at what becomes of a stream on its way."""
    settings = load_settings(flags)

    async def work() -> int:
        found = await check_stream(server_url(settings), known_key(settings) or "")
        health: Health = "ok" if found.is_well else "fail"
        return 0 if tell(Check(name="stream", health=health, found=found.words), json) else 1

    perform(work)


def tell(check: Check, as_json: bool) -> bool:  # noqa: FBT001
    """Say what was found; return whether that is well."""
    if as_json:
        sys.stdout.write(f"{msgspec.json.encode(check).decode()}\n")
    else:
        console = Console(theme=THEME, highlight=False)
        if not console.is_terminal:
            console.width = WIDE
        sys.stdout.write(drawn(console, _row(check)))
    sys.stdout.flush()
    return check.health != "fail"


def _row(check: Check) -> Table:
    row = Table.grid(padding=(0, 1))
    row.add_column(width=4)
    row.add_column(width=_NAME_WIDTH)
    row.add_column()
    told = Text(printable(check.found))
    if check.advice:
        told.append(f"\n{check.advice}", _STYLE[check.health])
    row.add_row(Text(check.health, _STYLE[check.health]), Text(check.name), told)
    return row
