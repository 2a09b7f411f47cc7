"""A node of a fleet, to be killed: `python -m tests.engine.worker URL LEASE_S SPEED [REDIS FLEET]`.

Its model takes as many seconds as the last message says, divided by its speed.  It prints a line for each question.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import anyio

from hostler.app.engines import OnRedis
from hostler.app.house import open_house
from hostler.app.part import Part
from hostler.core.ports import Delta, Failure, Reply, Request
from hostler.core.state import UserSaid
from hostler.testing.doubles import ModelDouble, an_agent


@dataclass
class Slow(ModelDouble):
    """Takes its time."""

    speed: float = 1.0

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
        said = next(one for one in reversed(request.transcript) if isinstance(one, UserSaid))
        tell("asked")
        with anyio.move_on_after(float(str(said.content)) / self.speed):
            await anyio.sleep_forever()
        async for one in super().stream(request):
            yield one


def tell(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


async def main(url: str, lease_s: float, speed: float, queue: OnRedis | None) -> None:
    model = Slow(lambda _: Reply(text="well said", stop="end"), speed=speed)
    agent = an_agent(model)
    house = open_house(
        {"double": agent},
        default_agent="double",
        file=url,
        part=Part(lease_s=lease_s, queue=queue),
    )
    async with house:
        tell("ready")
        await anyio.sleep_forever()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    queue = OnRedis(*sys.argv[4:]) if sys.argv[4:] else None
    anyio.run(main, sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), queue)
