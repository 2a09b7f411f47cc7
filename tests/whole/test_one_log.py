"""One run, seen at the same time by clients of three protocols, each of which is cut in mid-answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import anyio
import pytest
from openai import AsyncOpenAI, omit
from openai.types.responses import Response
from tests.ai_chats import App, app
from tests.responses import numbered, raw
from tests.serving import Client, Json
from tests.waiting import Removals, approve, of_kind, over, serving_agents

from hostler import Agent
from hostler import Client as Hostler
from hostler.core.ports import Delta, Reply, Request
from hostler.core.said import ToolSaid
from hostler.testing.doubles import a_call

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

BEFORE = ("I ", "will ", "remove ", "it. ")
AFTER = ("It ", "is ", "gone ", "now.")
HALF = 2


@dataclass
class Halting:
    """A model that stops in the middle of each answer until it may go on."""

    provider: str = "double"
    name: str = "double"
    goes_on: Sequence[anyio.Event] = field(default_factory=lambda: (anyio.Event(), anyio.Event()))

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply, None]:
        is_last = isinstance(request.transcript[-1], ToolSaid)
        words = AFTER if is_last else BEFORE
        for place, word in enumerate(words):
            if place == HALF:
                await self.goes_on[is_last].wait()
            yield Delta("text", word)
        calls = () if is_last else (a_call("remove", path="old.txt"),)
        yield Reply(text="".join(words), stop="tools" if calls else "end", calls=calls)


@dataclass
class Watcher:
    """Somebody who watches a run through OpenAI's client, and comes back with the last number."""

    client: AsyncOpenAI
    response: str
    seen: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    text: str = ""
    ended: Response | None = None

    async def until(self, text: str | None) -> None:
        """Watch until this much was said, or to the end; then be cut."""
        after = self.seen[-1][0] if self.seen else omit
        stream = await self.client.responses.retrieve(
            self.response, stream=True, starting_after=after
        )
        async with stream:
            async for event in stream:
                self.seen.append((event.sequence_number, event.type))
                if event.type == "response.output_text.delta":
                    self.text += event.delta
                elif event.type == "response.completed":
                    self.ended = event.response
                if text is not None and self.text == text:
                    return


@dataclass
class Follower:
    """Somebody who follows the session natively, and comes back with the cursor."""

    client: Hostler
    session: str = ""
    cursor: str = "0"
    said: dict[str, str] = field(default_factory=dict[str, str])
    """By attempt: its reply takes the place of what was streamed of it."""

    @property
    def text(self) -> str:
        return "".join(self.said.values())

    async def until(self, text: str | None) -> None:
        """Follow until this much was said, or to the end of the run; then be cut."""
        async with aclosing(self.client.follow(self.session, after=self.cursor)) as frames:
            async for frame in frames:
                self.cursor, attempt = frame.id, str(frame.data.get("attempt"))
                if frame.event == "model_replied":
                    self.said[attempt] = str(frame.data["text"])
                elif frame.event == "delta":
                    self.said[attempt] = self.said.get(attempt, "") + frame.text
                if self.text == text or frame.event == "run_ended":
                    return


async def tab(client: Client, stack: AsyncExitStack, *, resume: bool = False) -> App:
    return await stack.enter_async_context(app(client, "all", script="use_chat.mjs", resume=resume))


@dataclass
class Room:
    """The three of them."""

    client: Client
    ours: Follower
    watcher: Watcher
    parts: list[Json] = field(default_factory=list[Json])

    async def look(self, text: str | None) -> None:
        """Have the two that watch see this much, or all, and be cut."""
        await self.watcher.until(text)
        await self.ours.until(text)

    async def ask(self, half: str) -> None:
        """Ask in useChat, and be cut in the middle of the answer."""
        async with AsyncExitStack() as page:
            shown = await tab(self.client, page)
            await shown.begin("send", message={"text": "old.txt"})
            await shown.comes_to(lambda one: one.text == half)
            about = cast("Json", shown.messages[-1]["metadata"])
        self.ours.session = str(about["session"])
        self.watcher.response = f"resp_{str(about['run']).removeprefix('run_')}"

    async def wait(self, half: str, goes_on: anyio.Event) -> str:
        """Come back in the middle of the first answer; return the call that is asked about then."""
        async with AsyncExitStack() as page:
            shown = await tab(self.client, page, resume=True)
            await shown.comes_to(lambda one: one.text == half)
            goes_on.set()
            await shown.comes_to(lambda one: one.parts[-1].get("state") == "approval-requested")
            return str(cast("Json", shown.parts[-1]["approval"])["id"])

    async def end(self, half: str, goes_on: anyio.Event) -> None:
        """Come back in the middle of the second answer, and see all of it to its end."""
        async with AsyncExitStack() as page:
            shown = await tab(self.client, page, resume=True)
            await shown.comes_to(lambda one: one.text.endswith(half))
            goes_on.set()
            await shown.comes_to(lambda one: one.state["status"] == "ready" and "now." in one.text)
            await self.look(None)
            self.parts = shown.parts


async def test_one_asks_in_use_chat_one_approves_natively_and_one_watches_responses(
    tmp_path: Path,
) -> None:
    model, removed = Halting(), Removals()
    agent = Agent("remover", model=model, tools=[removed.tool])  # type: ignore[list-item]
    (first, rest), second = halves(BEFORE), halves(AFTER)[0]
    async with (
        serving_agents(tmp_path, agent) as client,
        Hostler(client.url, client.key) as ours,
        AsyncOpenAI(base_url=f"{client.url}/v1", api_key=client.key, max_retries=0) as theirs,
    ):
        room = Room(client, Follower(ours), Watcher(theirs, ""))
        await room.ask(first)
        await room.look(first)
        call = await room.wait(first, model.goes_on[0])
        status, _ = await approve(client, room.ours.session, call)
        assert status == 200
        await room.look(first + rest + second)
        await room.end(second, model.goes_on[1])
        facts = await over(client, room.ours.session)
        whole = await raw(client, "GET", f"/{room.watcher.response}?stream=true")

    replies = [str(fact["text"]) for fact in of_kind(facts, "model_replied")]
    outputs = [str(fact["output"]) for fact in of_kind(facts, "tool_finished")]
    assert (replies, outputs) == (["".join(BEFORE), "".join(AFTER)], ["old.txt is gone"])
    assert removed == ["old.txt x1"]
    # What the two that watched were shown, across the cuts.
    watcher = room.watcher
    assert room.ours.text == watcher.text == "".join(replies)
    assert watcher.seen == [(number, kind_of(event)) for number, event in numbered(whole)]
    assert [number for number, _ in watcher.seen] == [*range(len(watcher.seen))]
    # What each of the three has in the end.
    assert [one["text"] for one in room.parts if one["type"] == "text"] == replies
    assert [one["output"] for one in room.parts if "output" in one] == outputs
    assert watcher.ended is not None
    assert texts(watcher.ended) == replies
    assert [one.output for one in watcher.ended.output if one.type == "mcp_call"] == outputs


def halves(words: Sequence[str]) -> tuple[str, str]:
    return "".join(words[:HALF]), "".join(words[HALF:])


def kind_of(event: bytes) -> str:
    return event.partition(b"\n")[0].removeprefix(b"event: ").decode()


def texts(response: Response) -> list[str]:
    return [
        "".join(part.text for part in one.content if part.type == "output_text")
        for one in response.output
        if one.type == "message"
    ]
