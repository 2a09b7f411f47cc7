"""What a worker of Docket's has in hand, and what its loop asks of Redis.

Invariant: of a job that another worker has taken over, this one changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TypeAlias, TypeVar, cast
from uuid import uuid4

from docket import Execution
from redis.exceptions import NoScriptError, ResponseError

from hostler.engine.desk import NOW, Claim, Desk
from hostler.engine.docket_queue import TROUBLE, Held, Queue, is_job, key_of

T = TypeVar("T")
Messages: TypeAlias = list[tuple[bytes, Mapping[bytes, bytes]]]
log = logging.getLogger(__name__)

FULL_S = 0.05
"""Before it is looked again whether there is room."""
AGAIN_S = (0.1, 0.5, 1.0)
"""Before Redis is asked again that was in trouble so often in a row."""
SPARED = 0.5
"""Leases: after trouble, the dead are not looked for until the living could say that they live."""


class Hands:
    """What a worker has, and how it is kept and ended."""

    def __init__(
        self, queue: Queue, desk: Desk, clock: Callable[[], float], ends: asyncio.Event
    ) -> None:
        self.queue, self.desk, self._clock, self.ends = queue, desk, clock, ends
        self.worker = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:12]}"
        self.lease_s = desk.lease_s
        self.begun = set[bytes]()
        """Messages that were taken, and are not over."""
        self._held: dict[bytes, tuple[Held, Claim]] = {}
        self._memory = ""

    @property
    def room(self) -> int:
        return max(0, self.desk.room() - (len(self.begun) - len(self._held)))

    async def begin(self) -> None:
        """Take in who Redis is."""
        told = await self._until_told(
            lambda: self.queue.beat([], worker=self.worker, known="", lease_s=self.lease_s)
        )
        self._memory = told[0] if told else ""

    async def handle(self, execution: Execution) -> None:
        """Have a job handled, and end it."""
        message = execution.message_id or b""
        held = Held(message, execution.key, f"{self.worker} {message.decode()}")
        try:
            if await self._until_told(lambda: execution.claim(held.claim)):
                again = await self._outcome(held)
                await self._until_told(lambda: self.queue.finish(held, again, self._clock()))
        finally:
            self._held.pop(message, None)
            self.begun.discard(message)
        execution._acked = True  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  else it is ended again

    async def _outcome(self, held: Held) -> float | None:
        """Return when to handle a key again, once it was handled."""
        if not self.desk.takes:  # since Redis was asked, and waited for a job
            return NOW
        claim = self.desk.hand_over(key_of(held.key))
        self._held[held.message] = held, claim
        return await claim.outcome

    async def beat(self) -> None:
        """Keep what is held; what others have taken over, this worker does not go on with."""
        held = {message: one for message, (one, _) in self._held.items()}
        self._memory, ours = await self.queue.beat(
            list(held.values()), worker=self.worker, known=self._memory, lease_s=self.lease_s
        )
        for message in held.keys() - {one.message for one in ours}:
            if message in self._held:
                self.desk.lose(self._held[message][1])

    async def leave(self) -> None:
        await self._until_told(lambda: self.queue.leave(self.worker))

    async def _until_told(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        """Return what Redis answers, however long that takes; None if this is to end meanwhile."""
        failed = 0
        while True:
            try:
                return await ask()
            except TROUBLE as error:
                if self.ends.is_set():
                    log.warning("what is held is not given back, its lease runs out: %s", error)
                    return None
                await asyncio.sleep(AGAIN_S[min(failed, len(AGAIN_S) - 1)])
                failed += 1


class Asked:
    """What Docket's loop asks of Redis.

    None of it raises: Docket would wait for all that it has before it asked again, and would keep
    none of it meanwhile.
    """

    def __init__(self, hands: Hands) -> None:
        self._hands, self._client = hands, hands.queue.client
        self._failed, self._failed_at = 0, -SPARED * hands.lease_s

    async def xreadgroup(self, **given: object) -> list[tuple[bytes, Messages]]:
        """Take jobs while there is room."""
        await asyncio.sleep(0)  # what was just taken is handed over, and counts
        room = self._hands.room
        if room == 0:
            await asyncio.sleep(FULL_S)
            return []
        given["count"] = min(cast("int", given["count"]), room)
        found = await self._ask(self._client.xreadgroup, given)
        streams = cast("list[tuple[bytes, Messages]]", found or [])
        return [(name, await self._jobs(messages)) for name, messages in streams]

    async def xautoclaim(self, **given: object) -> tuple[bytes, Messages]:
        """Take what the dead had."""
        room = self._hands.room
        spared = time.monotonic() - self._failed_at < SPARED * self._hands.lease_s
        if room == 0 or spared:
            return b"0-0", []
        given["count"] = min(cast("int", given["count"]), room)
        found = await self._ask(self._client.xautoclaim, given)
        if found is None:
            return b"0-0", []
        cursor, messages = cast("tuple[bytes, Messages]", found[:2])
        return cursor, await self._jobs(messages)

    async def xclaim(self, **given: object) -> None:
        """Renew leases, of what is still this worker's."""
        del given
        try:
            await self._hands.beat()
        except TROUBLE as error:
            log.warning("runs cannot be kept now: %s", error)

    async def set(self, *args: object, **given: object) -> object:
        return await self._ask(partial(self._client.set, *args), given)

    async def evalsha(self, *args: object) -> object:
        """Run a script: in trouble, nothing is due, and the dead are looked for in vain."""
        found = await self._ask(partial(self._client.evalsha, *args), {})
        return [0, 0] if found is None else found

    async def script_load(self, script: str) -> object:
        return await self._ask(partial(self._client.script_load, script), {})

    async def _jobs(self, messages: Messages) -> Messages:
        """Return the jobs that are not in hand already; what is none is removed."""
        jobs: Messages = []
        for number, message in messages:
            if number in self._hands.begun:
                continue
            if is_job(message):
                self._hands.begun.add(number)
                jobs.append((number, message))
            else:
                log.error("a message in %s is no job of ours: removed", self._hands.queue.name)
                await self._ask(partial(self._hands.queue.drop, number), {})
        return jobs

    async def _ask(
        self, ask: Callable[..., Awaitable[object]], given: Mapping[str, object]
    ) -> list[object] | None:
        """Return what Redis answers, None if it is in trouble."""
        try:
            found = await ask(**given)
        except NoScriptError:
            raise
        except TROUBLE as error:
            await self._waited(error)
            return None
        self._failed = 0
        self._hands.desk.looked()
        return cast("list[object] | None", found)

    async def _waited(self, error: Exception) -> None:
        """Wait for a while, or make what is missing."""
        self._failed_at = time.monotonic()
        if isinstance(error, ResponseError) and str(error).startswith("NOGROUP"):
            with suppress(*TROUBLE):
                await self._hands.queue.begin()
                return
        if not self._failed:
            log.warning("jobs cannot be taken now: %s", error)
        await asyncio.sleep(AGAIN_S[min(self._failed, len(AGAIN_S) - 1)])
        self._failed += 1
