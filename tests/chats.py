"""Chat Completions in tests: a server whose agent has these models, and OpenAI's own client."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import openai
from tests.serving import Client, Json, serving

from hostler.core.ports import Model
from hostler.service.rates import Rates
from hostler.service.service import Service
from hostler.testing.doubles import an_agent

HELLO: Json = {"role": "user", "content": "hello"}
PATH = "/v1/chat/completions"


@asynccontextmanager
async def chatting(
    *models: Model,
    file: Path | None = None,
    rates: Rates | None = None,
    entered: Callable[[Service], object] = lambda _: None,
) -> AsyncGenerator[Client]:
    agent = an_agent(*models)
    async with serving(agent, file=file, rates=rates, entered=entered) as client:
        yield client


@asynccontextmanager
async def the_sdk(client: Client, *, retries: int = 0) -> AsyncGenerator[openai.AsyncOpenAI]:
    sdk = openai.AsyncOpenAI(
        base_url=f"{client.url}/v1", api_key=client.key, max_retries=retries, timeout=10
    )
    async with sdk:
        yield sdk


def asked(model: str = "p:m", **more: object) -> Json:
    return {"model": model, "messages": [HELLO], **more}


async def events(client: Client, body: Json) -> tuple[int, list[str]]:
    """Return the status and the data of all events of a stream."""
    headers = {"Authorization": f"Bearer {client.key}"}
    async with client.http.post(f"{client.url}{PATH}", json=body, headers=headers) as answer:
        told = (await answer.read()).decode()
    return answer.status, [
        one.removeprefix("data: ") for one in told.split("\n\n") if one.startswith("data: ")
    ]


async def chunks(client: Client, body: Json) -> list[Json]:
    """Return the chunks of a stream that is whole."""
    status, told = await events(client, {**body, "stream": True})
    assert status == 200, told
    assert told.pop() == "[DONE]"
    return [json.loads(one) for one in told]
