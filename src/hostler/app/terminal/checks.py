"""What `hostler doctor` looks at: each thing by itself, with what to do if it is not well.

Invariant: nothing is changed but a file of a few bytes, written to time the disk and removed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Literal, TypeAlias

import anyio
import anyio.to_thread
from msgspec import Struct

from hostler.app import wiring
from hostler.app.building import Parts
from hostler.app.client import Client
from hostler.app.settings import Settings, unknown_variables
from hostler.app.terminal.reach import check
from hostler.app.terminal.words import brief, seconds
from hostler.app.whereabouts import known_key, own_cert, server_url
from hostler.core.errors import HostlerError, SetupError
from hostler.core.ports import Delta, Failure, Model, Reply, Request, ToolSpec
from hostler.core.said import UserSaid
from hostler.models import weights
from hostler.models.discover import PROBE_S, PROVIDERS, SERVERS, discover, served
from hostler.models.faults import Failed
from hostler.models.transport import Aiohttp
from hostler.stores.sqlite_file import OLDEST_SQLITE, holder, migrations

LITTLE_BYTES, TOO_LITTLE_BYTES = 1 << 30, 50 << 20
SLOW_FSYNC_S = 0.05
"""Each message waits for a commit or two; a disk without a cache of its own takes about 0.01 s."""
FSYNCS = 5
PATIENCE_S = 120.0
"""For one small request: a model of this machine has to be loaded first."""
ADD = ToolSpec(
    name="add",
    description="Add two whole numbers.",
    parameters={
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    },
)

Health: TypeAlias = Literal["ok", "warn", "fail"]


class Check(Struct, frozen=True, kw_only=True):
    name: str
    health: Health
    found: str
    advice: str | None = None


async def installation(
    settings: Settings, environ: Mapping[str, str]
) -> AsyncGenerator[Check, None]:
    """Yield what there is to say of this installation."""
    yield _python()
    yield _sqlite()
    for remark in unknown_variables(environ):
        yield Check(name="environment", health="warn", found=remark, advice="Correct its name.")
    yield await anyio.to_thread.run_sync(_folder, settings.data)
    if settings.data.is_dir():
        yield await anyio.to_thread.run_sync(_fsync, settings.data)
    try:
        place = settings.place
    except SetupError as error:
        yield Check(name="database", health="fail", found=str(error))
        return
    if isinstance(place, Path):
        yield await anyio.to_thread.run_sync(_database, place)
    else:
        yield await _postgres(place)
    yield await _server(settings, holder(place) if isinstance(place, Path) else None)
    yield _keys(environ)
    yield await _model_servers()
    yield _local(settings.data)
    if settings.model is None:
        yield await _choice(environ)


async def one_model(name: str, settings: Settings, environ: Mapping[str, str]) -> Check:
    """Ask a model for one call of a tool, and time it."""
    parts = Parts(settings, environ)
    try:
        return await _asked(name, parts.model(name))
    except SetupError as error:
        return Check(name=name, health="fail", found=str(error))
    finally:
        await parts.aclose()


async def _asked(name: str, model: Model) -> Check:
    request = Request(
        system="You are tested. Do what you are told, with the tool.",
        transcript=[UserSaid("Call the tool `add` with a=2 and b=3.")],
        tools=[ADD],
        max_output_tokens=1024,
    )
    since, first_s, last = time.monotonic(), None, None
    with anyio.move_on_after(PATIENCE_S):
        async with aclosing(model.stream(request)) as stream:
            async for one in stream:
                first_s = first_s or time.monotonic() - since
                last = one
    whole = f"whole reply after {seconds(time.monotonic() - since)}"
    match last:
        case Reply(calls=calls):
            began = f"first token after {seconds(first_s or 0.0)}, {whole}"
            right = [one for one in calls if one.name == ADD.name and not one.unparsed]
            if right:
                return Check(name=name, health="ok", found=f"calls tools; {began}")
            return Check(
                name=name,
                health="warn",
                found=f"answers, and did not call the tool; {began}",
                advice="Agents with tools need a model that calls them.",
            )
        case Failure(code=code, message=message):
            return Check(name=name, health="fail", found=f"{code}: {brief(message, 300)}")
        case Delta() | None:
            told = f"no whole reply within {PATIENCE_S:g} s"
            return Check(name=name, health="fail", found=told)


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    return Check(name="Python", health="ok", found=f"{found} ({sys.executable})")


def _sqlite() -> Check:
    if sqlite3.sqlite_version_info >= OLDEST_SQLITE:
        return Check(name="SQLite", health="ok", found=sqlite3.sqlite_version)
    return Check(
        name="SQLite",
        health="fail",
        found=sqlite3.sqlite_version,
        advice=f"A Python with SQLite {'.'.join(map(str, OLDEST_SQLITE))} or newer is needed.",
    )


def _folder(data: Path) -> Check:
    there = next(one for one in (data, *data.absolute().parents) if one.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Check(
            name="data folder",
            health="fail",
            found=f"{there} cannot be written to",
            advice="Make it this user's, or name another folder with --data.",
        )
    free = shutil.disk_usage(there).free
    health: Health = "ok" if free > LITTLE_BYTES else "warn" if free > TOO_LITTLE_BYTES else "fail"
    new = "" if there == data else ", made when it is needed"
    return Check(
        name="data folder",
        health=health,
        found=f"{data}{new}; {free >> 20:,} MiB free",
        advice=None if health == "ok" else "Make room: without it nothing can be stored.",
    )


def _fsync(data: Path) -> Check:
    try:
        with tempfile.NamedTemporaryFile(dir=data, prefix=".doctor-") as file:
            took = sorted(_timed(file.fileno()) for _ in range(FSYNCS))[FSYNCS // 2]
    except OSError as error:
        return Check(name="disk", health="fail", found=f"a file cannot be written: {error}")
    slow = took > SLOW_FSYNC_S
    return Check(
        name="disk",
        health="warn" if slow else "ok",
        found=f"fsync takes {1000 * took:.1f} ms",
        advice="Each message waits that long: take a faster disk, not one of a network."
        if slow
        else None,
    )


def _timed(fd: int) -> float:
    os.write(fd, bytes(4096))
    since = time.perf_counter()
    os.fsync(fd)
    return time.perf_counter() - since


def _database(file: Path) -> Check:
    if not file.exists():
        return Check(name="database", health="ok", found=f"{file}, made when it is needed")
    try:
        db = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
        try:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            complaints = [str(row[0]) for row in db.execute("PRAGMA quick_check(3)")]
        finally:
            db.close()
    except sqlite3.Error as error:
        complaints, version = [str(error)], 0
    if complaints != ["ok"]:
        return Check(
            name="database",
            health="fail",
            found=f"{file}: {'; '.join(complaints)}",
            advice="Copy the file, then `sqlite3 COPY .recover`; or go back to a backup.",
        )
    if version > len(migrations()):
        return Check(
            name="database",
            health="fail",
            found=f"{file} has schema {version}, this build knows {len(migrations())}",
            advice="Use the newer build.",
        )
    size = file.stat().st_size
    return Check(name="database", health="ok", found=f"{file}, {size >> 20:,} MiB, sound")


async def _postgres(url: str) -> Check:
    try:
        version, is_guarded, left = await wiring.postgres_schema().look(url)
    except HostlerError as error:
        advice = "Look whether it runs, and at name and password in `database`."
        return Check(name="database", health="fail", found=str(error), advice=advice)
    found = f"PostgreSQL {version}"
    if left:
        found, advice = (
            f"{found}, behind by {len(left)} steps",
            "`hostler migrate`, or start a server.",
        )
        return Check(name="database", health="warn", found=found, advice=advice)
    if not is_guarded:
        found = f"{found}; its role passes row-level security"
        advice = "Connect as a role that is no superuser: docs/howto/use-postgresql.md."
        return Check(name="database", health="warn", found=found, advice=advice)
    return Check(name="database", health="ok", found=found)


async def _server(settings: Settings, process: str | None) -> Check:
    url = server_url(settings)
    async with Client(url, known_key(settings) or "", tls_cert=own_cert(settings)) as client:
        try:
            await check(client, settings)
        except HostlerError as error:
            told = str(error)
        else:
            return Check(name="server", health="ok", found=f"{url} answers and knows the key")
    if settings.url is not None:
        return Check(name="server", health="fail", found=told)
    if process is not None:
        return Check(
            name="server",
            health="warn",
            found=f"process {process} has the database open; {told}",
            advice="If that is a server, give its address: --url.",
        )
    if told.startswith("no server"):
        found = f"none at {url}; `hostler chat` and `hostler run` do without"
        return Check(name="server", health="ok", found=found)
    return Check(name="server", health="warn", found=told)


def _keys(environ: Mapping[str, str]) -> Check:
    found = [one for each in PROVIDERS for one in each.keys if environ.get(one, "").strip()]
    return Check(name="keys", health="ok", found=", ".join(found) or "none in the environment")


async def _model_servers() -> Check:
    running: dict[str, int] = {}
    transport = Aiohttp()

    async def look(called: str, port: int) -> None:
        try:
            url = f"http://127.0.0.1:{port}/v1"
            running[called] = len(await served(transport, url, None, timeout_s=PROBE_S))
        except Failed:
            return

    try:
        async with anyio.create_task_group() as tasks:
            for server in SERVERS:
                tasks.start_soon(look, server.called, server.port)
    finally:
        await transport.aclose()
    told = ", ".join(f"{called} ({count} models)" for called, count in running.items())
    return Check(name="model servers", health="ok", found=told or "none on this machine")


def _local(data: Path) -> Check:
    here = [f"local:{name}" for name in weights.KNOWN if weights.have(name, data)]
    if importlib.util.find_spec("xllamacpp") is None:
        found = "llama.cpp is not installed"
        return Check(
            name="local models",
            health="warn" if here else "ok",
            found=found,
            advice="pip install 'hostler[local]', to use one." if here else None,
        )
    told = ", ".join(here) or f"none yet; `hostler models get {next(iter(weights.KNOWN))}`"
    return Check(name="local models", health="ok", found=told)


async def _choice(environ: Mapping[str, str]) -> Check:
    transport = Aiohttp()
    try:
        chosen = await discover(environ, transport)
    except SetupError as error:
        return Check(name="model", health="fail", found=str(error))
    finally:
        await transport.aclose()
    return Check(name="model", health="ok", found=f"{chosen.model}: {chosen.why}")
