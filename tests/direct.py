"""Direct calls in tests: a service without a face, a question, and what is kept of it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import anyio

from hostler.app.house import open_house
from hostler.core.events import Principal, PrincipalId, TenantId, Usage
from hostler.core.ports import Delta, Failure, Model, Reply, Request
from hostler.core.said import UserSaid
from hostler.core.sealed import Part
from hostler.service.service import Service
from hostler.testing.doubles import an_agent

REQUEST = Request(system="be brief", transcript=[UserSaid(content="hello")])
USED = Usage(input_tokens=10, output_tokens=3)


def somebody(name: str = "ann", *, tenant: str = "default", **more: object) -> Principal:
    return Principal(id=PrincipalId(name), tenant=TenantId(tenant), **more)  # type: ignore[arg-type]


@dataclass
class Says:
    """A model that says these parts; before the last one it waits, if it is told to."""

    parts: Sequence[Part] = (
        Delta("text", "well "),
        Delta("text", "then"),
        Reply(text="well then", stop="end", usage=USED),
    )
    wait: anyio.Event | None = None
    first: Callable[[], object] = lambda: None
    """Called when it is asked."""
    provider: str = "p"
    name: str = "m"
    asked: list[Request] = field(default_factory=list[Request])
    closed: int = 0

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
        self.asked.append(request)
        self.first()
        try:
            for part in self.parts:
                if self.wait is not None and not isinstance(part, Delta):
                    await self.wait.wait()
                yield part
        finally:
            self.closed += 1


@asynccontextmanager
async def direct_house(*models: Model, file: Path | None) -> AsyncGenerator[Service]:
    """Open a house whose agent has these models."""
    agent = an_agent(*models)
    async with open_house({agent.name: agent}, default_agent=agent.name, file=file) as service:
        yield service


async def answer(
    service: Service,
    model: Model,
    who: Principal | None = None,
    request: Request = REQUEST,
    *,
    purpose: str | None = None,
) -> list[Part]:
    """Ask, and return all parts of the answer."""
    parts = service.direct.ask(who or somebody(), model, request, purpose=purpose)
    async with aclosing(parts):
        return [part async for part in parts]


class Row(NamedTuple):
    status: str
    error_type: str | None
    unpriced: int


def rows(file: Path) -> list[Row]:
    """Return what is kept on disk, oldest first."""
    with closing(sqlite3.connect(file)) as db:
        found = db.execute("SELECT status, error_type, unpriced FROM direct_calls ORDER BY id")
        return [Row(*row) for row in found]


def columns(file: Path, *names: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(file)) as db:
        return db.execute(f"SELECT {', '.join(names)} FROM direct_calls ORDER BY id").fetchall()
