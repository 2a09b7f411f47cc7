"""`hostler run`: one message and its answer, for scripts and pipes."""

from __future__ import annotations

import click

from hostler.app import wiring


@click.command()
@click.argument("prompt", required=False)
@click.option("--agent", help="Its name; without a server also MODULE:AGENT or a file.")
@click.option("--model", help="provider:model, in place of what the agent names.")
@click.option("--session", metavar="ID", help="Say it in this one.")
@click.option("--json", is_flag=True, help="Print all frames, one JSON object a line.")
@click.option("--timeout-s", type=click.FloatRange(min=0.1), help="Cancel the run after this long.")
@click.option("--allow", is_flag=True, help="Allow every call that has to be approved.")
@click.option("--url", help="The server; default the local one, or none.")
@click.option("--data", type=click.Path(), help="Folder for all that is kept.")
def run(**given: object) -> None:
    """Say PROMPT, print the answer, and exit with 0, 1 if it failed, 130 if it was cancelled.

    What is piped in stands below the prompt, or is the prompt.  The answer goes to the standard
    output as it comes, everything else to the standard error.  Ctrl-C cancels the run.  A run that
    waits for an approval or an answer is cancelled, and counts as failed.
    """
    wiring.terminal("run", "run")(**given)
