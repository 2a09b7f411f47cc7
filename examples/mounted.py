"""An agent inside a web application of yours.  Serve it with `uvicorn mounted:app`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from forecast import agent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

agents = agent.asgi(data="data")


async def home(request: Request) -> PlainTextResponse:
    """Answer for the part of the site that is not ours."""
    return PlainTextResponse(f"Agents are at {request.base_url}agents/api\n")


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[None]:
    """Stop the agents' work when the application stops; open runs go on at the next start."""
    del app
    yield
    await agents.aclose()


app = Starlette(routes=[Route("/", home), Mount("/agents", agents)], lifespan=lifespan)
