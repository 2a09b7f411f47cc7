"""What does a limited key cost a hundred sessions?  Refusals, and time against what is possible.

The key bears five questions at once, of 50 ms each, and says nothing of when to come back.  *found
out*: from its refusals; the first burst opens the breaker, so some 2 s are lost, which is much of what
would take one second.  *told*: set by the operator.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import anyio

from bench.setting import Figures, Row, Setting
from hostler.core.ports import Delta, Failure, Reply, Request
from hostler.core.said import UserSaid
from hostler.harness.key_limits import KeyLimits
from hostler.models.breaker import Breaking

SESSIONS, BEARS, TAKES_S = 100, 5, 0.05
IDEAL_S = SESSIONS / BEARS * TAKES_S


@dataclass
class Limiting:
    """A model that bears little at once."""

    provider: str = "bench"
    name: str = "m"
    in_flight: int = 0
    refused: int = 0

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
        del request
        await anyio.sleep(0.001)  # on its way
        if self.in_flight >= BEARS:
            self.refused += 1
            yield Failure(code="rate_limit", message="too many", again=True)
            return
        self.in_flight += 1
        try:
            yield Delta("text", "Hi.")
            await anyio.sleep(TAKES_S)
        finally:
            self.in_flight -= 1
        yield Reply(text="Hi.", stop="end")


async def run(setting: Setting) -> list[Row]:
    figures = Figures("limited")
    for _ in range(setting.size.reps):
        for case, at_once in (("found out", None), ("told", BEARS)):
            model = Limiting()
            ring = Breaking(model, KeyLimits(), place="", key=lambda _: "k", at_once=at_once)
            began = time.monotonic()
            async with anyio.create_task_group() as tasks:
                for number in range(SESSIONS):
                    tasks.start_soon(_session, ring, f"s{number}")
            took_s = time.monotonic() - began
            figures.add("hostler", case, "refused of 100 sessions", model.refused, "")
            figures.add("hostler", case, "of what is possible", IDEAL_S / took_s * 100, "%")
    return figures.rows()


async def _session(model: Breaking, session: str) -> None:
    asked = Request(system="", transcript=[UserSaid("Hi.")], tenant="t", session=session)
    while True:
        last = [part async for part in model.stream(asked)][-1]
        if not isinstance(last, Failure):
            return
        chance_s = random.random() / 10
        await anyio.sleep(last.retry_after_s if last.retry_after_s is not None else chance_s)
