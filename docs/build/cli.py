"""The page on the command line: the help of every command, as it is printed."""

from __future__ import annotations

from collections.abc import Iterator

import click
from docs.build.markdown import fence, page
from docs.build.source import Undocumented

from hostler.app.cli import MISTAKE, hostler

COLUMNS = 90
INTRO = f"""
`hostler COMMAND --help` prints what is here. Settings that have a flag can also be given as a
variable or in a file: see [settings](settings.md). A mistake in settings, arguments or files is
told in words, with exit status {MISTAKE}.
"""


def cli() -> str:
    """Return the page.  Raises Undocumented: a command has no help."""
    parts: list[str] = []
    for context in commands():
        name = context.command_path
        if not context.command.help:
            raise Undocumented(f"the command `{name}` has no help")
        parts += [f"## `{name}`", fence(context.get_help())]
    return page("Command line", INTRO, *parts)


def commands() -> Iterator[click.Context]:
    """Yield every command in the context it is called in, groups before their members."""
    top = click.Context(
        hostler,
        info_name="hostler",
        terminal_width=COLUMNS,
        max_content_width=COLUMNS,
        help_option_names=hostler.context_settings.get("help_option_names"),
    )
    yield from _below(top)


def _below(context: click.Context) -> Iterator[click.Context]:
    yield context
    command = context.command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            if found is not None and not found.hidden:
                yield from _below(click.Context(found, info_name=name, parent=context))
