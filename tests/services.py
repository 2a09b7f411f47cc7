"""Services that tests need, and that no test may take for granted: a PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import cast

import anyio
import asyncpg  # pyright: ignore[reportMissingTypeStubs]  it brings annotations for some of itself
import pytest

from hostler.signals.notify_wire import TROUBLE, Connection

GIVEN = "HOSTLER_TEST_POSTGRES"
REQUIRED = "HOSTLER_REQUIRE_SERVICES"
LOCAL = "postgresql://postgres@127.0.0.1:5432/postgres"
ANSWERS_S = 5.0

_connect = cast("Callable[..., Awaitable[Connection]]", asyncpg.connect)  # pyright: ignore[reportUnknownMemberType]


@contextmanager
def a_server() -> Generator[str]:
    """Yield the URL of a database whose channels may be used; skip, or fail where services are required, without one."""
    given = os.environ.get(GIVEN)
    if given:
        yield given
        return
    # On a loop of its own: fixtures are made beside a running one, too.
    with ThreadPoolExecutor(1) as thread:
        trouble = thread.submit(anyio.run, _trouble).result()
    if trouble is not None:
        told = f"no PostgreSQL: {GIVEN} is not set, and {LOCAL}: {trouble!r}"
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(told)
        pytest.skip(told)
    yield LOCAL


async def _trouble() -> Exception | None:
    """Return why nothing can be asked there, if so."""
    try:
        (await _connect(LOCAL, timeout=ANSWERS_S)).terminate()
    except TROUBLE as error:
        return error
    return None
