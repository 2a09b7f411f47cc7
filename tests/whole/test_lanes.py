"""Whoever asks a lane is answered, even when its work or what follows it has a bug."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest

from hostler.core.errors import Unavailable
from hostler.stores.lanes import Lane

pytestmark = pytest.mark.anyio


class Broken(BaseException):
    """What nobody expects of work."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_those_behind_the_batch_that_ends_a_lane_are_answered() -> None:
    begun, go_on = anyio.Event(), threading.Event()
    token = anyio.lowlevel.current_token()

    def work(_: Sequence[int]) -> Sequence[int]:
        anyio.from_thread.run_sync(begun.set, token=token)
        go_on.wait(10)
        raise Broken

    lane: Lane[int, int] = Lane("broken", work, largest=1)
    refusals: list[int] = []

    async def ask(order: int) -> None:
        with pytest.raises(Unavailable):
            await lane.ask(order)
        refusals.append(order)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, 1)
            await begun.wait()
            for order in (2, 3):
                tasks.start_soon(ask, order)
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            go_on.set()
        await ask(4)

    assert sorted(refusals) == [1, 2, 3, 4]
    lane.close()


async def test_those_who_asked_are_answered_when_what_is_told_of_it_fails() -> None:
    def deliver(_: object) -> None:
        raise ValueError("a bug in an observer")

    loop = asyncio.get_running_loop()
    told: list[object] = []
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
    lane: Lane[int, int] = Lane("told", lambda orders: [2 * one for one in orders], deliver)
    with anyio.fail_after(10):
        assert await lane.ask(4) == 8
    assert [type(one) for one in told] == [ValueError]
    loop.set_exception_handler(before)
    lane.close()
