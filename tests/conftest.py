"""What tests share: one event loop implementation, and a server on a free port of loopback."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.canaries import EARS, heard_lines
from tests.services import a_server
from tests.serving import Client, Serve, serving
from tests.typescript import build

from hostler.core.ports import AgentSpec
from hostler.engine import reconcile


@pytest.fixture(scope="session", autouse=True)
def no_canary_is_left(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """Search what all tests wrote for this run's canaries, if it has any."""
    yield
    if EARS is not None:
        found = EARS.sightings_in(tmp_path_factory.getbasetemp())
        assert not found, "\n".join(map(str, found))


@pytest.fixture(autouse=True)
def no_canary_is_told() -> Generator[None]:
    """Search what this test was told, and all that was logged meanwhile, likewise."""
    if EARS is None:
        yield
        return
    with heard_lines(EARS):
        yield
    found = EARS.sightings()
    assert not found, "\n".join(map(str, found))


@pytest.fixture
def anyio_backend() -> str:
    """The server runs on asyncio (its HTTP parts do), so that is what is tested."""
    return "asyncio"


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Return a way to serve agents on SQLite in this test's folder; leaving it stops the server."""

    @asynccontextmanager
    async def one(*agents: AgentSpec) -> AsyncGenerator[Client]:
        async with serving(*agents, file=tmp_path / "log.db") as client:
            yield client

    return one


@pytest.fixture(scope="session")
def postgres_server() -> Generator[str]:
    """Return the URL of a database whose channels may be used: nothing is written there."""
    with a_server() as url:
        yield url


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for waits that are over more often than every ten seconds."""
    monkeypatch.setattr(reconcile, "EVERY_S", 0.05)


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of our client for TypeScript, built as npm would have it."""
    return build(tmp_path_factory.mktemp("hostler-client"))
