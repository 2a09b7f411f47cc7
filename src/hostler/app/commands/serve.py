"""`hostler serve`: the server, in the foreground."""

from __future__ import annotations

import gc
import logging
import os
import shlex
import shutil
import sys
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
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
from hostler.app.engines import OnRedis
from hostler.app.first_model import first_model, needs_model
from hostler.app.house import open_house
from hostler.app.keys import AdminGate, admin_key, key_file
from hostler.app.observing import Observing
from hostler.app.part import Part
from hostler.app.processes import Born, Children
from hostler.app.server import allow_connections, listen, make_app, opened_ways, serve_http
from hostler.app.settings import LOOPBACK, Settings, default_data, load_settings, unknown_variables
from hostler.app.vaults import kept_by_clients, limit_news, make_vault
from hostler.core.errors import SetupError
from hostler.core.ports import AgentSpec
from hostler.faces.http.endpoint import VERSION
from hostler.faces.http.entry import Ways
from hostler.faces.http.guard import hosts_of
from hostler.faces.http.open_streams import OpenStreams
from hostler.harness.key_limits import KeyLimits
from hostler.models.discover import Chosen
from hostler.service.rates import Rates
from hostler.service.service import Service
from hostler.vault.vault import SealedVault

log = logging.getLogger("hostler")

COLLECT = (10_000, 10, 100)
"""New objects before the young are looked at; looks at these before the older are; looks at those
before the old are.  Of 10,000 turns nothing was garbage in cycles that got old."""
HEALTH = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths of a worker."""
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
@click.option("--engine", help="postgres (default there) or redis: where a fleet's queue is.")
@click.option("--model", help="provider:model for agents that name none.")
@click.option("--tls-cert", type=click.Path(path_type=Path), help="Certificate chain, PEM.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Its key, PEM.")
@click.option("--metrics-open", is_flag=True, default=None, help="Show /metrics without a key.")
@click.option("--log", type=click.Choice(["auto", "json", "text"]), help="Form of log lines.")
@click.option("--log-level", help="debug, info (default), warning or error.")
@click.option("--role", help="all (default), api or worker: what this node does in its fleet.")
@click.option("--processes", type=int, help="Servers that share the port; needs PostgreSQL.")
@click.option("--drain-s", type=float, help="Seconds for runs to end their step at a stop; 20.")
@click.option("--born", hidden=True, help="What a parent gives its children (--processes).")
@click.option("--insecure", is_flag=True, default=None, help="Allow other addresses without TLS.")
def serve(target: str | None, born: str | None, **flags: object) -> None:
    """Serve TARGET: MODULE:AGENT, a folder of agent files, or the built-in assistant."""
    settings, parent = load_settings(flags), None if born is None else Born.read(born)
    wiring.configure_logs(settings.log, settings.log_level)
    if parent is None:
        for remark in unknown_variables(os.environ):
            log.warning("%s", remark)
    agents = load_target(target) if target else [ASSISTANT]
    allow_connections()
    if parent is None and settings.processes > 1:
        sys.exit(anyio.run(_keep_many, [one.name for one in agents], settings))
    anyio.run(_serve, agents, settings, parent, backend_options={"use_uvloop": True})


async def _keep_many(names: Sequence[str], settings: Settings) -> int:
    """Have several processes serve on one socket; return the code to exit with."""
    if not isinstance(settings.place, str):
        raise SetupError(
            "several processes need a log that they can share: --database postgresql://…"
        )
    with listen(settings.host, settings.port) as listening:
        _, is_new = admin_key(settings.given_key, settings.data)
        where = _url(settings, listening.getsockname()[1])
        children = Children([sys.executable, "-m", "hostler", *sys.argv[1:]], listening)
        return await children.serve(
            settings.processes, partial(_greet, names, settings, where, None, is_new=is_new)
        )


async def _serve(agents: list[Agent], settings: Settings, parent: Born | None) -> None:
    streams, part = OpenStreams(), _part(settings)
    with parent.listening() if parent else listen(settings.host, settings.port) as listening:
        chosen = await _chosen(agents, settings)
        # Made last: who is told of a new key is told what to do with it.
        key, is_new = admin_key(settings.given_key, settings.data)
        vault, bus = make_vault(settings, admin_key=key, environ=os.environ), make_bus(settings)
        part.limits = await limit_news(vault, bus)
        limits = KeyLimits(news=part.limits)
        wiring.mask_telemetry(vault.hide)
        endpoints, catalogue = make_endpoints(settings), make_catalogue(settings)
        async with (
            build_agents(
                agents,
                settings,
                chosen=chosen,
                key_limits=limits,
                vault=vault,
                endpoints=endpoints,
                catalogue=catalogue,
            ) as specs,
            _measuring(specs, settings, streams, limits, catalogue) as observing,
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
                bus=bus,
                part=part,
            ) as service,
            opened_ways(settings.identity, service) as ways,
        ):
            if settings.given_key is None:
                log.info("admin key: %s%s", key_file(settings.data), " (new)" if is_new else "")
            where = _url(settings, listening.getsockname()[1])
            spare_the_collector()
            app = await _app(service, key, streams, settings, ways=ways, vault=vault)
            greet = partial(_greet, specs, settings, where, parent, is_new=is_new)
            serving = partial(serve_http, app, listening, streams, ready=greet, stop=part.stop)
            async with _watching(parent):
                await serving(tls_cert=settings.tls_cert, tls_key=settings.tls_key)


@asynccontextmanager
async def _watching(parent: Born | None) -> AsyncGenerator[None]:
    """Stop when the parent is gone, if there is one."""
    if parent is None:
        yield
        return
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(parent.end_alone)
        yield
        tasks.cancel_scope.cancel()


def _part(settings: Settings) -> Part:
    """Return what this process does in its fleet.  Raises SetupError: it would be alone with that."""
    if isinstance(settings.place, str):
        return Part(
            role=settings.role,
            lease_s=settings.lease_s,
            drain_s=settings.drain_s,
            queue=_queue(settings),
        )
    if settings.engine is not None:
        raise SetupError(
            f"--engine {settings.engine} is for nodes that share the log: --database postgresql://…"
        )
    if settings.role != "all":
        raise SetupError(
            f"--role {settings.role} needs others that share the log: --database postgresql://…"
        )
    return Part()  # nobody else would go on, so nothing is waited for


def _queue(settings: Settings) -> OnRedis | None:
    """Return where the queue is, if it is not beside the log.  Raises SetupError: there is none."""
    if settings.engine != "redis":
        return None
    if settings.redis is None:
        raise SetupError("--engine redis needs one: --redis redis://…")
    return OnRedis(settings.redis.get_secret_value(), settings.fleet)


async def _chosen(agents: list[Agent], settings: Settings) -> Chosen | None:
    if not needs_model(agents, settings):
        return None
    chosen = await first_model(settings, os.environ)
    log.info("model: %s, as %s", chosen.model, chosen.why)
    return chosen


def _greet(
    specs: Iterable[str], settings: Settings, where: str, parent: Born | None, *, is_new: bool
) -> None:
    log.info("serving %s on %s", ", ".join(specs), where)
    if parent is not None:
        parent.say_ready()
    elif is_new or sys.stderr.isatty():
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
        only=HEALTH if settings.role == "worker" else None,
    )


def _measuring(
    specs: Mapping[str, AgentSpec],
    settings: Settings,
    streams: OpenStreams,
    limits: KeyLimits,
    catalogue: Catalogue,
) -> AbstractAsyncContextManager[Observing]:
    return wiring.measuring()(
        specs,
        version=VERSION,
        metrics=settings.metrics,
        is_open=settings.metrics_open,
        streams=lambda: streams.by_kind,
        breakers=limits.breakers.worst,
        limits=limits.figures,
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
