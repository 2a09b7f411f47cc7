"""Servers of a command's own, in its process, when none runs: to work with, or only to read.

Invariant: what is done here is stored where `hostler serve` looks, so that it goes on there.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from socket import socket

import anyio
import click
from starlette.types import ASGIApp

from hostler.app.agent import Agent, load_target
from hostler.app.building import RESULTS, build_agents
from hostler.app.commands.serve import ASSISTANT
from hostler.app.endpoints import make_endpoints
from hostler.app.first_model import first_model, needs_model
from hostler.app.house import open_house
from hostler.app.keys import AdminGate, admin_key
from hostler.app.server import listen, make_app, serve_http
from hostler.app.settings import Settings
from hostler.app.storage import open_storage
from hostler.app.terminal.reach import Own
from hostler.app.vaults import make_vault
from hostler.app.whereabouts import server_url
from hostler.core.errors import SetupError
from hostler.core.ports import World
from hostler.engine.queuer import EmbeddedEngine
from hostler.faces.http.open_streams import OpenStreams
from hostler.harness.results import Results
from hostler.service.secrets import Sealing
from hostler.service.service import Service, make_service
from hostler.signals.local import LocalSignals
from hostler.stores.sqlite_file import holder
from hostler.vault.logs import mask_logs

LOOPBACK = "127.0.0.1"
AGENTS = Path("agents")
"""Folder of agent files that is looked into when it is there."""
LOG = "terminal.log"
"""In the data folder: warnings, which would spoil what the terminal shows."""


@asynccontextmanager
async def working(settings: Settings, agent: str | None, model: str | None) -> AsyncGenerator[Own]:
    """Run agents, and yield where they can be reached.

    Raises:
        SetupError: another process has the data folder, or there is no such agent or model.
    """
    _see_that_it_is_free(settings)
    agents, chosen = _agents(agent, model), None
    if needs_model(agents, settings):
        chosen = await first_model(settings, os.environ)
        click.echo(f"model: {chosen.model}, as {chosen.why}", err=True)
    key, _ = admin_key(settings.given_key, settings.data)
    _log_to(settings.data / LOG)
    vault = make_vault(settings, admin_key=key, environ=os.environ)
    endpoints = make_endpoints(settings)
    mask_logs(vault)
    async with (
        build_agents(agents, settings, chosen=chosen, vault=vault, endpoints=endpoints) as specs,
        open_house(
            specs,
            default_agent=agents[0].name,
            file=settings.place,
            is_server=False,
            vault=vault,
            endpoints=endpoints,
        ) as service,
        _serving(service, key) as url,
    ):
        yield Own(url, key, agents[0].name)


@asynccontextmanager
async def reading(settings: Settings) -> AsyncGenerator[Own]:
    """Show what is stored, and yield where it can be read; no run goes on.

    Raises:
        SetupError: nothing is stored, or another process has the data folder.
    """
    if isinstance(settings.place, Path) and not settings.place.exists():
        _see_that_it_is_free(settings)
        raise SetupError(
            f"nothing is stored in {settings.data} yet, and no server answers at "
            f"{server_url(settings)}: begin with `hostler chat`"
        )
    async with deciding(settings) as own:
        yield own


@asynccontextmanager
async def deciding(settings: Settings) -> AsyncGenerator[Own]:
    """As `reading`, and nothing need be stored yet: tenants and keys come before sessions.

    Raises:
        SetupError: another process has the data folder.
    """
    _see_that_it_is_free(settings)
    key, _ = admin_key(settings.given_key, settings.data)
    vault = make_vault(settings, admin_key=key, environ=os.environ)
    async with open_storage(settings.place, mask=vault.mask) as beside:
        await vault.open(beside.sealed)
        endpoints = make_endpoints(settings)
        await endpoints.open(beside.directory)
        service = make_service(
            store=beside.store,
            audits=beside.audits,
            directory=beside.directory,
            engine=EmbeddedEngine(),
            signals=LocalSignals(),
            agents={},
            default_agent="",
            world=World(f"reader-{os.getpid()}"),
            sealing=Sealing(vault, beside.sealed, Results(settings.data / RESULTS)),
            endpoints=endpoints,
        )
        async with _serving(service, key) as url:
            yield Own(url, key, None)


@asynccontextmanager
async def _serving(service: Service, key: str) -> AsyncGenerator[str]:
    streams = OpenStreams()
    app = make_app(service, AdminGate(key.encode()), streams, hosts=())
    with listen(LOOPBACK, 0) as listening:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_serve, app, listening, streams)
            try:
                yield f"http://{LOOPBACK}:{listening.getsockname()[1]}"
            finally:
                streams.close()
                tasks.cancel_scope.cancel()


async def _serve(app: ASGIApp, listening: socket, streams: OpenStreams) -> None:
    await serve_http(app, listening, streams, signals=())


def _agents(name: str | None, model: str | None) -> list[Agent]:
    """Return the agents that there are here, the one to talk to first."""
    if name is not None and (":" in name or Path(name).exists()):
        agents = load_target(name)
    else:
        agents = [ASSISTANT, *(load_target(os.fspath(AGENTS)) if any(AGENTS.glob("*.md")) else ())]
        wanted = [one for one in agents if one.name == (name or ASSISTANT.name)]
        if not wanted:
            raise SetupError(
                f"there is no agent {name!r} here; there are: "
                f"{', '.join(one.name for one in agents)}.  MODULE:AGENT and a file work, too"
            )
        agents = [wanted[-1], *(one for one in agents if one.name != wanted[-1].name)]
    return agents if model is None else [dataclasses.replace(one, model=model) for one in agents]


def _see_that_it_is_free(settings: Settings) -> None:
    process = holder(settings.place) if isinstance(settings.place, Path) else None
    if process is not None:
        raise SetupError(
            f"process {process} has {settings.place} open, and no server that knows this "
            f"key answers at {server_url(settings)}: name its address with --url, end it, or use "
            "another folder with --data"
        )


def _log_to(file: Path) -> None:
    handler = logging.FileHandler(file, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
