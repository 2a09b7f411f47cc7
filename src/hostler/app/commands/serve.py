"""`hostler serve`: the server, in the foreground."""

from __future__ import annotations

import gc
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import anyio
import click
from starlette.types import ASGIApp

from hostler.app import wiring
from hostler.app.agent import Agent, load_target
from hostler.app.building import RESULTS, build_agents
from hostler.app.bus import make_bus
from hostler.app.catalogue import Catalogue, make_catalogue
from hostler.app.endpoints import egress_guard, make_endpoints
from hostler.app.first_model import first_model, needs_model
from hostler.app.house import open_house
from hostler.app.keys import AdminGate, admin_key, key_file
from hostler.app.observing import Observing
from hostler.app.server import allow_connections, listen, make_app, opened_ways, serve_http
from hostler.app.settings import LOOPBACK, Settings, default_data, load_settings, unknown_variables
from hostler.app.vaults import kept_by_clients, make_vault
from hostler.core.ports import AgentSpec
from hostler.faces.http.endpoint import VERSION
from hostler.faces.http.entry import Ways
from hostler.faces.http.guard import hosts_of
from hostler.faces.http.open_streams import OpenStreams
from hostler.harness.breakers import Breakers
from hostler.models.discover import Chosen
from hostler.service.rates import Rates
from hostler.service.service import Service
from hostler.vault.vault import SealedVault

log = logging.getLogger("hostler")

COLLECT = (10_000, 10, 100)
"""New objects before the young are looked at; looks at these before the older are; looks at those
before the old are.  Of 10,000 turns nothing was garbage in cycles that got old."""
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
@click.option(
    "--database", help="sqlite:///PATH or postgresql://…; default hostler.db in the data."
)
@click.option("--redis", help="redis://…: the live bus between the nodes of a fleet.")
@click.option("--model", help="provider:model for agents that name none.")
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Certificate chain, PEM.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Its key, PEM.")
@click.option("--metrics-open", is_flag=True, default=None, help="Show /metrics without a key.")
@click.option("--log", type=click.Choice(["auto", "json", "text"]), help="Form of log lines.")
@click.option("--log-level", help="debug, info (default), warning or error.")
@click.option("--insecure", is_flag=True, default=None, help="Allow other addresses without TLS.")
def serve(target: str | None, **flags: object) -> None:
    """Serve TARGET: MODULE:AGENT, a folder of agent files, or the built-in assistant."""
    settings = load_settings(flags)
    wiring.configure_logs(settings.log, settings.log_level)
    for remark in unknown_variables(os.environ):
        log.warning("%s", remark)
    agents = load_target(target) if target else [ASSISTANT]
    allow_connections()
    anyio.run(_serve, agents, settings, backend_options={"use_uvloop": True})


async def _serve(agents: list[Agent], settings: Settings) -> None:
    streams = OpenStreams()
    with listen(settings.host, settings.port) as listening:
        chosen = await _chosen(agents, settings)
        # Made last: who is told of a new key is told what to do with it.
        key, is_new = admin_key(settings.given_key, settings.data)
        vault, breakers = make_vault(settings, admin_key=key, environ=os.environ), Breakers()
        wiring.mask_telemetry(vault.hide)
        endpoints, catalogue = make_endpoints(settings), make_catalogue(settings)
        async with (
            build_agents(
                agents,
                settings,
                chosen=chosen,
                breakers=breakers,
                vault=vault,
                endpoints=endpoints,
                catalogue=catalogue,
            ) as specs,
            _measuring(specs, settings, streams, breakers, catalogue) as observing,
            open_house(
                specs,
                default_agent=agents[0].name,
                file=settings.place,
                results=settings.data / RESULTS,
                keep=settings.keep,
                rates=Rates(settings.rates.limits()),
                observing=observing,
                vault=vault,
                endpoints=endpoints,
                catalog=catalogue,
                outbound=egress_guard(settings.egress),
                bus=make_bus(settings),
            ) as service,
            opened_ways(settings.identity, service) as ways,
        ):
            if settings.given_key is None:
                log.info("admin key: %s%s", key_file(settings.data), " (new)" if is_new else "")
            where = _url(settings, listening.getsockname()[1])
            spare_the_collector()
            await serve_http(
                await _app(service, key, streams, settings, ways=ways, vault=vault),
                listening,
                streams,
                tls_cert=settings.tls_cert,
                tls_key=settings.tls_key,
                ready=partial(_greet, specs, settings, where, is_new=is_new),
            )


async def _chosen(agents: list[Agent], settings: Settings) -> Chosen | None:
    if not needs_model(agents, settings):
        return None
    chosen = await first_model(settings, os.environ)
    log.info("model: %s, as %s", chosen.model, chosen.why)
    return chosen


def _greet(specs: Iterable[str], settings: Settings, where: str, *, is_new: bool) -> None:
    log.info("serving %s on %s", ", ".join(specs), where)
    if is_new or sys.stderr.isatty():
        click.echo(_next_steps(settings, where), err=True)


def spare_the_collector() -> None:
    """Let the collector of cycles look less often.

    What is loaded by now stays, so it need not look at that at all.  A stream that is open is some
    two hundred objects; at Python's thresholds thousands of them were walked through several times
    a second, a third of a second each time.
    """
    gc.freeze()
    gc.set_threshold(*COLLECT)


async def _app(
    service: Service,
    key: str,
    streams: OpenStreams,
    settings: Settings,
    *,
    ways: Ways,
    vault: SealedVault,
) -> ASGIApp:
    hosts = hosts_of(
        settings.named_hosts, bound_to=settings.host, is_loopback=settings.host in LOOPBACK
    )
    return make_app(
        service,
        AdminGate(key.encode()),
        streams,
        ways=ways,
        keepsakes=await kept_by_clients(vault),
        hosts=hosts,
        origins=settings.named_origins,
    )


def _measuring(
    specs: Mapping[str, AgentSpec],
    settings: Settings,
    streams: OpenStreams,
    breakers: Breakers,
    catalogue: Catalogue,
) -> AbstractAsyncContextManager[Observing]:
    return wiring.measuring()(
        specs,
        version=VERSION,
        metrics=settings.metrics,
        is_open=settings.metrics_open,
        streams=lambda: streams.by_kind,
        breakers=breakers.worst,
        models=catalogue.names(),
    )


def _url(settings: Settings, port: int) -> str:
    scheme = "https" if settings.tls_cert else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{scheme}://{host}:{port}"


def _next_steps(settings: Settings, where: str) -> str:
    """Return what to type now, ready to be copied."""
    key = "$HOSTLER_ADMIN_KEY"
    if settings.given_key is None:
        key = f"$(cat {shlex.quote(str(key_file(settings.data).absolute()))})"
    typed = Path(sys.argv[0])
    command = "hostler" if shutil.which("hostler") == str(typed) else str(typed)
    if typed.name != "hostler":
        command = "python -m hostler"
    data = "" if settings.data == default_data() else f" --data {shlex.quote(str(settings.data))}"
    return f"""
To talk to it in another terminal:

    {command} chat --url {where}{data}

or over HTTP, where a session keeps a conversation:

    KEY="{key}"
    curl -s -H "Authorization: Bearer $KEY" {where}/api/sessions -d '{{"id": "ses_firststeps"}}'
    curl -sN -H "Authorization: Bearer $KEY" -H "Accept: text/event-stream" \\
      {where}/api/sessions/ses_firststeps/messages -d '{{"content": "What is the capital of France?"}}'
"""
