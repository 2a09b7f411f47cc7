"""Agents asked by clients that carry their conversation: a model that plays steps, and looks inside."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import anyio
from tests.serving import Client, Json, serving

from hostler.core.decide import Limits
from hostler.core.events import Usage
from hostler.core.ports import Delta, Failure, Reply, Request, ToolSpec
from hostler.core.sealed import Part
from hostler.testing.doubles import Effect, ToolboxDouble, a_call, an_agent

USED = Usage(input_tokens=10, output_tokens=3)
AGENT = "agent:double"
LOOK: Json = {"name": "look", "description": "Look.", "parameters": {"type": "object"}}


def says(text: str, *, thinking: str | None = None) -> list[Part]:
    """Return a last step."""
    told = [Delta("thinking", thinking)] if thinking else list[Delta]()
    deltas = [Delta("text", text[:4]), Delta("text", text[4:])]
    return [*told, *deltas, Reply(text=text, thinking=thinking, stop="end", usage=USED)]


def calls(*names: str, text: str = "", **arguments: object) -> list[Part]:
    """Return a step that calls tools."""
    made = tuple(a_call(name, **arguments) for name in names)
    told = [Delta("text", text)] if text else list[Delta]()
    streamed = [Delta("arguments", "{}", one.id, one.name) for one in made]
    return [*told, *streamed, Reply(text=text, stop="tools", calls=made, usage=USED)]


@dataclass
class Plays:
    """A model that says its steps one after the other, and then the last one again."""

    steps: Sequence[Sequence[Part | anyio.Event]]
    """An event in a step is waited for."""
    provider: str = "p"
    name: str = "m"
    asked: list[Request] = field(default_factory=list[Request])

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
        kept = Request(
            system=request.system,
            transcript=tuple(request.transcript),
            tools=request.tools,
            max_output_tokens=request.max_output_tokens,
            wanted=request.wanted,
        )
        self.asked.append(kept)
        step = self.steps[min(len(self.asked), len(self.steps)) - 1]
        for part in step:
            if isinstance(part, anyio.Event):
                await part.wait()
            else:
                yield part


@asynccontextmanager
async def agents(
    model: Plays,
    *tools: ToolSpec,
    effects: Mapping[str, Effect] | None = None,
    file: Path | None = None,
    limits: Limits | None = None,
) -> AsyncGenerator[Client]:
    """Serve an agent that has this model and these tools."""
    box = ToolboxDouble({one.name: one for one in tools}, effects or {})
    agent = an_agent(model, tools=box, limits=limits)
    async with serving(agent, file=file) as client:
        yield client


async def sessions(client: Client) -> list[Json]:
    """Return the sessions there are, oldest first."""
    page = await client.get("/api/sessions?limit=100")
    return [*reversed(cast("list[Json]", page["items"]))]


async def the_session(client: Client) -> str:
    """Return the one session there is, as soon as there is one."""
    with anyio.fail_after(10):
        while not (found := await sessions(client)):
            pass
    (only,) = found
    return str(only["id"])


async def until(client: Client, session: str, kind: str, times: int = 1) -> Json:
    """Return the fact of a kind with which a session has so many of them."""
    seen, path = 0, f"/api/sessions/{session}/events"
    with anyio.fail_after(10):
        async for frame in client.frames(path):
            seen += frame.event == kind
            if seen == times:
                return frame.data
    raise AssertionError(f"the stream of {session} ended")
