"""Agents whose runs wait for somebody, served over HTTP, and what their clients do."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import anyio
from tests.serving import Client, Json, serving

from hostler import Agent, tool
from hostler.app.building import build_agents
from hostler.app.settings import load_settings
from hostler.core.events import ToolCall
from hostler.core.ports import Reply, Request
from hostler.core.said import ToolSaid, UserSaid
from hostler.testing.doubles import ModelDouble, a_call

Calls = Callable[[str], Sequence[ToolCall]]


def a_model(calls: Calls) -> ModelDouble:
    """Return a model that makes `calls` of what was said, then says what it read."""

    def answer(request: Request) -> Reply:
        last = request.transcript[-1]
        if isinstance(last, ToolSaid):
            return Reply(text=last.output, stop="end")
        said = last.content if isinstance(last, UserSaid) else ""
        made = tuple(calls(str(said)))
        return Reply(text="" if made else "well", stop="tools" if made else "end", calls=made)

    return ModelDouble(answer)


@asynccontextmanager
async def serving_agents(folder: Path, *agents: Agent) -> AsyncGenerator[Client]:
    """Serve agents as `hostler serve` builds them, on the log in a folder."""
    async with (
        build_agents(agents, load_settings({"data": folder})) as specs,
        serving(*specs.values(), file=folder / "log.db") as client,
    ):
        yield client


async def parked(client: Client, session: str, content: str = "go", **more: object) -> Json:
    """Say something and return what the run then waits for: `call` and `kind`."""
    with anyio.fail_after(10):
        status, body = await client.call(
            "POST",
            f"/api/sessions/{session}/messages",
            {"content": content, **more},
            headers={"Prefer": "wait=300"},
        )
    assert status == 202, body
    return cast("Json", body["waiting"])


async def over(client: Client, session: str, after: object = 0) -> list[Json]:
    """Wait for the end of the run and return all facts."""
    path = f"/api/sessions/{session}/events?until=run_end&after={after}"
    with anyio.fail_after(10):
        async for _ in client.frames(path):
            pass
    return await client.facts(session)


def of_kind(facts: Sequence[Json], kind: str) -> list[Json]:
    return [fact for fact in facts if fact["kind"] == kind]


class Removals(list[str]):
    """What was removed; `tool` is the tool that does it, after a person has allowed it."""

    @property
    def tool(self) -> object:
        @tool(approval=True)
        async def remove(path: str, times: int = 1) -> str:
            """Remove a file."""
            self.append(f"{path} x{times}")
            return f"{path} is gone"

        return remove

    def agent(self, **changes: object) -> Agent:
        model = a_model(lambda said: [a_call("remove", path=said)])
        return Agent("remover", model=model, tools=[self.tool], **changes)  # type: ignore[arg-type, list-item]


async def approve(client: Client, session: str, call: object, **body: object) -> tuple[int, Json]:
    path = f"/api/sessions/{session}/approvals/{call}"
    return await client.call("POST", path, {"decision": "allow", **body})


async def answer(client: Client, session: str, call: object, **body: object) -> tuple[int, Json]:
    return await client.call("POST", f"/api/sessions/{session}/calls/{call}/result", body)
