"""`hostler serve`: the server, in the foreground."""

from __future__ import annotations

import gc
import logging
import os
from pathlib import Path

import anyio
import click

from hostler.app.agent import Agent, load_target
from hostler.app.building import build_agents
from hostler.app.house import open_house
from hostler.app.keys import AdminGate, admin_key, key_file
from hostler.app.server import listen, make_app, serve_http
from hostler.app.settings import Settings, load_settings, unknown_variables
from hostler.faces.native.stream import OpenStreams

log = logging.getLogger("hostler")

ASSISTANT = Agent(
    "assistant",
    description="Answers questions; calculates with a sandboxed Python.",
    instructions=(
        "You are a helpful assistant. Answer briefly and exactly. "
        "Use the python tool for arithmetic and for work on text."
    ),
    tools=["python"],
)


@click.command()
@click.argument("target", required=False)
@click.option("--host", help="Address to listen on; default 127.0.0.1.")
@click.option("--port", type=int, help="Port to listen on; default 8420.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder for all that is kept.")
@click.option("--database", help="sqlite:///PATH; default hostler.db in the data folder.")
@click.option("--model", help="provider:model for agents that name none.")
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Certificate chain, PEM.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Its key, PEM.")
@click.option("--insecure", is_flag=True, default=None, help="Allow other addresses without TLS.")
def serve(target: str | None, **flags: object) -> None:
    """Serve TARGET: MODULE:AGENT, a folder of agent files, or the built-in assistant."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = load_settings(flags)
    for remark in unknown_variables(os.environ):
        log.warning("%s", remark)
    agents = load_target(target) if target else [ASSISTANT]
    anyio.run(_serve, agents, settings, backend_options={"use_uvloop": True})


async def _serve(agents: list[Agent], settings: Settings) -> None:
    key, is_new = admin_key(settings.given_key, settings.data)
    streams = OpenStreams()
    with listen(settings.host, settings.port) as listening:
        async with (
            build_agents(agents, settings) as specs,
            open_house(specs, default_agent=agents[0].name, file=settings.database_file) as service,
        ):
            if settings.given_key is None:
                log.info("admin key: %s%s", key_file(settings.data), " (new)" if is_new else "")
            scheme = "https" if settings.tls_cert else "http"
            where = f"{scheme}://{settings.host}:{listening.getsockname()[1]}"
            # What is loaded by now stays: the collector need not look at it again and again.
            gc.freeze()
            await serve_http(
                make_app(service, AdminGate(key.encode()), streams),
                listening,
                streams,
                tls_cert=settings.tls_cert,
                tls_key=settings.tls_key,
                ready=lambda: log.info("serving %s on %s", ", ".join(specs), where),
            )
