"""`hostler sessions`: what was talked about, newest first, and what can be done with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

from hostler.app import wiring

F = TypeVar("F", bound=Callable[..., object])
_OF_THE_LIST = ("limit", "agent", "status", "json")
_session = click.argument("session", metavar="ID")


def where(function: F) -> F:
    """Add the options that say which server is meant."""
    data = click.option("--data", type=click.Path(), help="Folder for all that is kept.")
    return click.option("--url", help="The server; default the local one, or none.")(data(function))


@click.group(invoke_without_command=True, subcommand_metavar="[COMMAND [ARGS]...]")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many; default all.")
@click.option("--agent", help="Only of this agent.")
@click.option("--status", help="Only idle, queued, running or waiting ones.")
@click.option("--json", is_flag=True, help="One JSON object a line.")
@where
@click.pass_context
def sessions(context: click.Context, **given: object) -> None:
    """List sessions, newest first; or do something with one."""
    if context.invoked_subcommand is None:
        wiring.terminal("listing", "sessions")(**given)
        return
    for name in _OF_THE_LIST:
        if given[name]:
            raise click.UsageError(f"--{name} is for the list, not for one session")


@sessions.command()
@_session
@click.option("--at", type=click.IntRange(min=0), help="Up to this event; default the last step.")
@where
def fork(**given: object) -> None:
    """Make a session that begins with what session ID said, and print its id."""
    _do("fork", given)


@sessions.command()
@_session
@click.argument("title")
@where
def rename(**given: object) -> None:
    """Give session ID a TITLE; an empty one takes it away."""
    _do("rename", given)


@sessions.command()
@_session
@click.option("--yes", is_flag=True, help="Do not ask whether it is meant.")
@where
def delete(**given: object) -> None:
    """Delete session ID and all that was said in it; a run that is going is cancelled."""
    _do("delete", given)


@sessions.command()
@_session
@where
def move(**given: object) -> None:
    """Have the run of session ID go on on another node, and print which."""
    _do("move", given)


@sessions.command()
@_session
@where
def export(**given: object) -> None:
    """Write session ID to the standard output, as JSON lines that `import` reads."""
    _do("export", given)


@sessions.command("import")
@click.argument("file", type=click.File("rb"))
@click.option("--id", "session", metavar="ID", help="Of the new session; default as in the file.")
@where
def import_(**given: object) -> None:
    """Make a session of what `export` wrote to FILE (- for the standard input); print its id."""
    _do("restore", given)


def _do(what: str, given: dict[str, object]) -> None:
    """Do it; where the server is may be said before the command, too."""
    parent = click.get_current_context().parent
    above = {} if parent is None else parent.params
    place = {name: given[name] or above.get(name) for name in ("url", "data")}
    wiring.terminal("keeping", what)(**given | place)
