"""The way from a command to a server: the one that runs, or one of the command's own.

Invariant: the same client speaks the same API over both.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeAlias, cast

import anyio

from hostler.app import wiring
from hostler.app.asking import CONNECT_S
from hostler.app.client import Client
from hostler.app.keys import key_file
from hostler.app.settings import Settings
from hostler.app.whereabouts import known_key, own_cert, server_url
from hostler.core.errors import CallerError, HostlerError, SetupError, Unauthorised, Unavailable
from hostler.core.events import JsonObject

INTERRUPTED = 130
PIPE_BROKEN = 141
"""Exit statuses as shells have them: 128 and the signal's number."""


class Own(NamedTuple):
    """A server of one's own."""

    url: str
    key: str
    agent: str | None
    """Who is talked to there, by name."""


Instead: TypeAlias = Callable[[], AbstractAsyncContextManager[Own]]
"""Opens a server of one's own."""


@dataclass(frozen=True, slots=True)
class Reached:
    client: Client
    is_ours: bool
    """The server is in this process, and ends with it."""
    agent: str | None = None
    """Of a server of ours: who is talked to."""


@asynccontextmanager
async def reach(settings: Settings, instead: Instead | None = None) -> AsyncGenerator[Reached]:
    """Yield a client of the server that is named or runs here, or of one opened `instead`.

    Raises:
        SetupError: there is none, or it does not know the key; says what to do.
    """
    async with Client(
        server_url(settings), known_key(settings) or "", tls_cert=own_cert(settings)
    ) as client:
        try:
            await check(client, settings)
        except HostlerError:
            if settings.url is not None or instead is None:
                raise
        else:
            yield Reached(client, is_ours=False)
            return
    async with instead() as own, Client(own.url, own.key) as client:
        yield Reached(client, is_ours=True, agent=own.agent)


def own(what: str, settings: Settings, *which: str | None) -> Instead:
    """Return how to open a server of one's own, `working` or only `reading`; see `own.py`."""
    return cast("Instead", partial(wiring.terminal("own", what), settings, *which))


async def check(client: Client, settings: Settings) -> None:
    """See that a server answers and knows the key.

    Raises:
        SetupError: it does not; says what to do.
    """
    try:
        with anyio.fail_after(2 * CONNECT_S):
            health = await client.api.get("/healthz")
            if health.get("status") != "ok":
                raise SetupError(f"what answers at {client.api.url} is no Hostler server")
            await client.api.get("/api/me")
    except Unauthorised as error:
        where = key_file(settings.data)
        raise SetupError(
            f"the server at {client.api.url} does not know this key.  Set HOSTLER_ADMIN_KEY, or name "
            f"the server's folder with --data (looked for {where})"
        ) from error
    except (Unavailable, TimeoutError) as error:
        raise SetupError(
            f"no server answers at {client.api.url}: start one with `hostler serve`, or name one "
            "with --url"
        ) from error
    except CallerError as error:
        raise SetupError(f"what answers at {client.api.url} is no Hostler server") from error


async def agree(reached: Reached, agent: str | None, model: str | None) -> None:
    """See that a server that runs uses the model that was asked for.

    Raises:
        SetupError: it uses another; servers choose the models of their agents.
    """
    if model is None or reached.is_ours:
        return
    page = await reached.client.api.get("/api/agents")
    agents = cast("list[JsonObject]", page["items"])
    served = [one for one in agents if agent is None or one["name"] == agent]
    for one in served:
        if model not in cast("list[str]", one["models"])[:1]:
            raise SetupError(
                f"the server at {reached.client.api.url} chooses its agents' models: "
                f"{one['name']} uses {', '.join(cast('list[str]', one['models']))}.  Leave --model "
                "out, or stop the server to have one of your own"
            )


def come_back(command: str, given: Mapping[str, object]) -> str:
    """Return a command line that leads to the same place as this one."""
    flags = [f"--{name} {shlex.quote(str(value))}" for name, value in given.items() if value]
    return " ".join(["hostler", command, *flags])


def perform(work: Callable[[], Awaitable[int]]) -> None:
    """Do the work of a command, then end the process with the status that it returns.

    Raises:
        HostlerError: also out of a group, in which task groups wrap it.
    """
    try:
        status = anyio.run(partial(_done, work))
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:
        status = _leave_pipe()
    except BaseExceptionGroup as group:
        causes = list(_leaves(group))
        if not all(isinstance(one, HostlerError | KeyboardInterrupt | OSError) for one in causes):
            raise
        if any(isinstance(one, KeyboardInterrupt) for one in causes):
            status = INTERRUPTED
        elif any(isinstance(one, BrokenPipeError) for one in causes):
            status = _leave_pipe()
        else:
            raise causes[0] from None
    sys.exit(status)


async def _done(work: Callable[[], Awaitable[int]]) -> int:
    return await work()


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for one in group.exceptions:
        if isinstance(one, BaseExceptionGroup):
            yield from _leaves(cast("BaseExceptionGroup[BaseException]", one))
        else:
            yield one


def _leave_pipe() -> int:
    # What is left in the buffer would fail again, with words, when the interpreter flushes it.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    return PIPE_BROKEN
