"""The command line: finds the command, runs it, and tells errors in words.

Invariant: a user never sees a traceback for something that a user can mend.
"""

from __future__ import annotations

import sys
from typing import cast

import click

from hostler.app import wiring
from hostler.core.errors import HostlerError

MISTAKE = 2
"""Exit status for wrong settings and arguments, as click has it."""


class Commands(click.Group):
    """Loads a command's module when it is called, so that each starts as fast as it can."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(wiring.COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        return cast("click.Command | None", wiring.command(cmd_name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(wiring.COMMANDS.items()))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hostler")
def hostler() -> None:
    """Run agents as a service: durable sessions, any model, any client."""


def main() -> None:
    """Run the command that the arguments name."""
    try:
        hostler()
    except HostlerError as error:
        click.echo(f"hostler: {error}", err=True)
        sys.exit(MISTAKE)
