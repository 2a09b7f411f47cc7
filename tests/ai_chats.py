"""Apps that chat through the AI SDK: its own packages under Node, told what to do from here."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream
from tests.programs import node, npm_packages
from tests.serving import Client, Json

PATIENCE_S = 10


@dataclass
class App:
    """One tab with a chat."""

    process: anyio.abc.Process
    state: Json = field(default_factory=dict[str, object])
    finishes: list[Json] = field(default_factory=list[Json])
    calls: list[Json] = field(default_factory=list[Json])
    """Tools that the app was asked to run."""
    data: list[Json] = field(default_factory=list[Json])
    """Data that the app was handed as it came."""
    done: list[str] = field(default_factory=list[str])
    news: anyio.Event = field(default_factory=anyio.Event)

    @property
    def messages(self) -> list[Json]:
        return cast("list[Json]", self.state.get("messages", []))

    @property
    def parts(self) -> list[Json]:
        """Return what the newest message has, without the marks of steps."""
        parts = cast("list[Json]", self.messages[-1]["parts"]) if self.messages else []
        return [one for one in parts if one["type"] != "step-start"]

    @property
    def text(self) -> str:
        return "".join(str(part["text"]) for part in self.parts if part["type"] == "text")

    async def begin(self, do: str, **more: object) -> None:
        """Give an order, and wait for nothing."""
        assert self.process.stdin is not None
        await self.process.stdin.send(json.dumps({"do": do, **more}).encode() + b"\n")

    async def do(self, do: str, **more: object) -> None:
        """Give an order, and wait until it is carried out."""
        before = self.done.count(do)
        await self.begin(do, **more)
        await self.comes_to(lambda app: app.done.count(do) > before)

    async def say(self, text: str, **more: object) -> None:
        await self.do("send", message={"text": text}, **more)

    async def comes_to(self, wanted: Callable[[App], bool]) -> None:
        with anyio.move_on_after(PATIENCE_S):
            while not wanted(self):
                await self.news.wait()
            return
        raise AssertionError(f"it did not come to this: {json.dumps(self.state)[:3000]}")

    async def listen(self) -> None:
        assert self.process.stdout is not None
        lines = BufferedByteReceiveStream(self.process.stdout)
        while True:
            told = json.loads(await lines.receive_until(b"\n", 1 << 24))
            match told.pop("event"):
                case "state":
                    self.state = told["state"]
                case "finish":
                    self.finishes.append(told)
                case "data":
                    self.data.append(told["data"])
                case "call":
                    self.calls.append(told["call"])
                case _:
                    self.done.append(told["of"])
            self.news.set()
            self.news = anyio.Event()


@asynccontextmanager
async def app(
    client: Client, chat: str, *, script: str = "chat.mjs", **options: object
) -> AsyncGenerator[App]:
    """Open a tab with a chat; leaving it closes the tab."""
    given = json.dumps({"id": chat, **options})
    command = [node(), str(npm_packages() / script), client.url, client.key, given]
    async with await anyio.open_process(command, stderr=None) as process:
        one = App(process)
        async with anyio.create_task_group() as tasks:
            try:
                tasks.start_soon(one.listen)
                await one.comes_to(lambda app: "open" in app.done)
                yield one
            finally:
                tasks.cancel_scope.cancel()
                process.kill()
