"""Clients that send each request until it is answered, and may send it again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias, TypeVar, cast

import msgspec
from tests.crash.session_house import ME, House

from hostler.core.errors import CallerError
from hostler.core.events import Key
from hostler.service.once import Answering, Asked
from hostler.testing.doubles import Crash

T = TypeVar("T")
Answered: TypeAlias = bytes | CallerError


class Sent(NamedTuple):
    """A request that was answered, to be sent again."""

    what: str
    key: str
    body: bytes
    verb: Callable[[Answering[object]], Awaitable[object]]
    view: Callable[[object], object]
    answer: bytes


@dataclass
class Desk:
    """Sends requests as the faces do: what is kept for the idempotency key, or the verb."""

    house: House
    sent: list[Sent] = field(default_factory=list[Sent])
    keys: int = 0
    overtake: Callable[[], Awaitable[None]] | None = None
    """Done between what the next request sees and what it writes."""

    async def post(
        self,
        what: str,
        verb: Callable[[Answering[T]], Awaitable[T]],
        view: Callable[[T], object],
        body: bytes = b"",
    ) -> Answered:
        """Send a request as often as it takes to get an answer, with one idempotency key."""
        self.keys += 1
        key = f"k-{self.keys}"
        answer = await self.request(what, key, body, verb, view)
        if isinstance(answer, bytes):
            any_verb = cast("Callable[[Answering[object]], Awaitable[object]]", verb)
            any_view = cast("Callable[[object], object]", view)
            self.sent.append(Sent(what, key, body, any_verb, any_view, answer))
        return answer

    async def request(
        self,
        what: str,
        key: str,
        body: bytes,
        verb: Callable[[Answering[T]], Awaitable[T]],
        view: Callable[[T], object],
    ) -> Answered:
        asked = Asked.by(ME, what, key, body)
        answering: Answering[T] = Answering(asked, lambda done: msgspec.json.encode(view(done)))
        while True:
            before, self.house.overtaken = self.written(), None
            self.house.overtake = self._overtaking()
            try:
                kept = await self.house.service.answered(ME, asked)
                if kept is not None:
                    return kept
                return answering.write(await verb(answering))
            except CallerError as refusal:
                before = self.house.overtaken or before
                assert self.written() == before, "what was refused has written something"
                return refusal
            except Crash:
                await self.house.restart()
            finally:
                self.house.overtake = None

    def _overtaking(self) -> Callable[[], Awaitable[None]] | None:
        overtake, self.overtake = self.overtake, None
        return overtake

    def written(self) -> dict[Key, int]:
        return self.house.written()


def code(answer: Answered) -> str | None:
    """Return why a request was refused; None when it was not."""
    return answer.code if isinstance(answer, CallerError) else None
