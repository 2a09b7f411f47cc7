"""`hostler doctor`: whether this installation is well."""

from __future__ import annotations

import click

from hostler.app import wiring


@click.group(invoke_without_command=True, subcommand_metavar="[stream [URL]]")
@click.option("--model", help="Ask this one, provider:model, for one call of a tool instead.")
@click.option("--json", is_flag=True, help="One JSON object a line.")
@click.option("--url", help="The server; default the local one.")
@click.option("--data", type=click.Path(), help="Folder for all that is kept.")
@click.pass_context
def doctor(context: click.Context, **given: object) -> None:
    """Look at disk, database, server and models, and say what to do; exit with 1 if one is broken."""
    if context.invoked_subcommand is None:
        wiring.terminal("doctor", "doctor")(**given)
    elif given["model"]:
        raise click.UsageError("--model has nothing to do with streams")


@doctor.command()
@click.argument("url", required=False)
@click.option("--json", is_flag=True, help="One JSON object.")
@click.option("--data", type=click.Path(), help="Folder with the server's key.")
@click.pass_context
def stream(context: click.Context, **given: object) -> None:
    """Measure whether anything between here and the server at URL holds streams back.

    URL is where users reach it, proxies and all; default as for other commands.  The key is that
    of HOSTLER_ADMIN_KEY, or of the data folder.
    """
    above = {} if context.parent is None else context.parent.params
    merged = {name: value or above.get(name) for name, value in given.items()}
    wiring.terminal("doctor", "stream")(**merged)
