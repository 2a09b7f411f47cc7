"""Responses in tests: a model with a script, a server, OpenAI's client, and the bytes of streams."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import anyio
from openai.types.responses import FunctionToolParam
from tests.direct import USED
from tests.serving import Client, Json, serving

from hostler.core.events import CallId, ToolCall
from hostler.core.ports import AgentSpec, Delta, Failure, Reply, Request
from hostler.core.sealed import Part
from hostler.testing.doubles import an_agent

PATH = "/v1/responses"
TOOL: FunctionToolParam = {
    "type": "function",
    "name": "look",
    "description": "Look at a place.",
    "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
    "strict": None,
}
CALL = ToolCall(id=CallId("call_a"), name="look", arguments={"at": "sea"})
CALLING: Sequence[Part] = (
    Delta("thinking", "Where "),
    Delta("thinking", "is it?"),
    Delta("text", "I look."),
    Delta("arguments", '{"at":', CALL.id, "look"),
    Delta("arguments", '"sea"}', CALL.id),
    Reply(
        text="I look.",
        thinking="Where is it?",
        stop="tools",
        calls=(CALL,),
        usage=USED,
        replay={"signed": "thought"},
    ),
)
SAYING: Sequence[Part] = (
    Delta("text", "well "),
    Delta("text", "then"),
    Reply(text="well then", stop="end", usage=USED),
)


@dataclass
class Plays:
    """A model that plays replies one after the other, the last one again and again."""

    replies: Sequence[Sequence[Part]] = (SAYING,)
    provider: str = "p"
    name: str = "m"
    gates: dict[int, anyio.Event] = field(default_factory=dict[int, anyio.Event])
    """By the number of the reply: what it waits for before its last part."""
    asked: list[Request] = field(default_factory=list[Request])
    closed: int = 0
    begun: anyio.Event = field(default_factory=anyio.Event)

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
        number = len(self.asked)
        self.asked.append(
            Request(
                system=request.system,
                transcript=tuple(request.transcript),
                tools=request.tools,
                wanted=request.wanted,
                max_output_tokens=request.max_output_tokens,
            )
        )
        self.begun.set()
        *pieces, last = self.replies[min(number, len(self.replies) - 1)]
        try:
            for part in pieces:
                yield part
            if number in self.gates:
                await self.gates[number].wait()
            yield last
        finally:
            self.closed += 1


@asynccontextmanager
async def answering(model: Plays, *agents: AgentSpec, **more: object) -> AsyncGenerator[Client]:
    """Serve these agents, or one that has the model; the model may be asked itself."""
    served = agents or (an_agent(model),)
    async with serving(*served, file=None, **more) as client:  # type: ignore[arg-type]
        yield client


def asked(text: object = "hello", **more: object) -> Json:
    return {"model": "p:m", "input": text, **more}


async def post(client: Client, body: Json, path: str = "") -> tuple[int, Json]:
    return await client.call("POST", f"{PATH}{path}", body)


async def made(client: Client, body: Json) -> Json:
    """Return the response to a request that is good."""
    status, told = await post(client, body)
    assert status == 200, told
    return told


def items(response: Json, kind: str | None = None) -> list[Json]:
    found = cast("list[Json]", response["output"])
    return [one for one in found if kind in (None, one["type"])]


async def raw(client: Client, method: str, path: str, body: Json | None = None) -> bytes:
    """Return the bytes of a stream that is whole."""
    headers = {"Authorization": f"Bearer {client.key}"}
    url = f"{client.url}{PATH}{path}"
    async with client.http.request(method, url, json=body, headers=headers) as answer:
        told = await answer.read()
        assert answer.status == 200, told
        return told


async def streamed(client: Client, body: Json) -> bytes:
    return await raw(client, "POST", "", {**body, "stream": True})


def events(stream: bytes) -> list[Json]:
    """Return the events of a stream, each of which is named as it says, and which ends as it should."""
    *frames, done, rest = stream.decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    found = list[Json]()
    for frame in frames:
        if frame.startswith(":"):
            continue
        name, _, data = frame.partition("\n")
        event: Json = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return found


def numbered(stream: bytes) -> list[tuple[int, bytes]]:
    """Return the events of a stream with their numbers, without comments."""
    frames = [one for one in stream.split(b"\n\n") if one.startswith(b"event: ")]
    return [(json.loads(one.partition(b"\ndata: ")[2])["sequence_number"], one) for one in frames]


def response(stream: bytes) -> Json:
    """Return the response that a stream ends with."""
    return cast("Json", events(stream)[-1]["response"])
