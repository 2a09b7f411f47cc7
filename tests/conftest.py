"""What tests share: one event loop implementation, and a server on a free port of loopback."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.serving import Client, Serve, serving

from hostler.core.ports import AgentSpec


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
