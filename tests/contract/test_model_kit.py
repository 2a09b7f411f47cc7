"""Every model that speaks to a provider keeps the promises of the port, whatever the provider does."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
import pytest

from hostler.core.ports import Delta, Failure, Model, Reply, Request
from hostler.models.exchange import Bounds, Patience
from hostler.models.openai_chat import OpenAIChat
from hostler.models.transport import Aiohttp
from hostler.testing import model_kit
from hostler.testing.chat_quirks import CHAT_QUIRKS
from hostler.testing.model_kit import Case
from hostler.testing.model_trial import KEY, Setup
from hostler.testing.wire_chat import CHAT

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def chat(setup: Setup) -> AsyncGenerator[OpenAIChat]:
    bounds = Bounds(event_bytes=setup.event_bytes, body_bytes=setup.body_bytes)
    transport = Aiohttp(bounds=bounds)
    try:
        yield OpenAIChat(
            name="kit",
            base_url=setup.base_url,
            transport=transport,
            key=setup.key,
            provider="somebody",
            able={"context_window": setup.context_window},
            patience=Patience(first_byte_s=setup.first_byte_s, idle_s=setup.idle_s),
        )
    finally:
        await transport.aclose()


CASES = model_kit.cases(CHAT, CHAT_QUIRKS)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_openai_chat(case: Case) -> None:
    await case.check(chat)


def test_every_case_has_a_name_of_its_own() -> None:
    names = [case.name for case in CASES]

    assert len(set(names)) == len(names)


# -- the kit itself: a model that breaks a promise must not pass ---------------------------------

Part = Delta | Reply | Failure


@dataclass
class Broken:
    """A good model whose every part is tampered with."""

    inner: Model
    tamper: Callable[[Part], list[Part]]
    provider: str = "somebody"
    name: str = "kit"

    async def stream(self, request: Request) -> AsyncGenerator[Part, None]:
        async for part in self.inner.stream(request):
            for one in self.tamper(part):
                yield one


def takes_a_cut_stream_for_an_answer(part: Part) -> list[Part]:
    return [Reply(text="", stop="end") if isinstance(part, Failure) else part]


def raises_failures(part: Part) -> list[Part]:
    if isinstance(part, Failure):
        raise ZeroDivisionError(part.message)
    return [part]


def ends_twice(part: Part) -> list[Part]:
    return [part, part]


def never_ends(part: Part) -> list[Part]:
    return [part] if isinstance(part, Delta) else []


def loses_calls(part: Part) -> list[Part]:
    if isinstance(part, Reply):
        return [msgspec.structs.replace(part, calls=part.calls[:1])]
    return [part]


def gives_two_calls_one_id(part: Part) -> list[Part]:
    if isinstance(part, Reply):
        calls = tuple(msgspec.structs.replace(one, id=part.calls[0].id) for one in part.calls)
        return [msgspec.structs.replace(part, calls=calls)]
    return [part]


def keeps_deltas_to_itself(part: Part) -> list[Part]:
    return [] if isinstance(part, Delta) else [part]


def tells_the_key(part: Part) -> list[Part]:
    if isinstance(part, Failure):
        return [msgspec.structs.replace(part, message=f"somebody: {KEY}")]
    return [part]


def says_trying_again_helps(part: Part) -> list[Part]:
    return [msgspec.structs.replace(part, again=True) if isinstance(part, Failure) else part]


@pytest.mark.parametrize(
    ("tamper", "name"),
    [
        (takes_a_cut_stream_for_an_answer, "it ends the body in the middle of a text"),
        (raises_failures, "it resets the connection in the middle of a text"),
        (ends_twice, "it says something"),
        (never_ends, "it says something"),
        (loses_calls, "two whole calls both have index 0 (Ollama)"),
        (gives_two_calls_one_id, "two calls share one id"),
        (keeps_deltas_to_itself, "it thinks, then speaks"),
        (tells_the_key, "status 500"),
        (says_trying_again_helps, "status 401"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_the_kit_refuses_a_model_that(
    tamper: Callable[[Part], list[Part]], name: str
) -> None:
    @asynccontextmanager
    async def broken(setup: Setup) -> AsyncGenerator[Model]:
        async with chat(setup) as good:
            yield Broken(good, tamper)

    (case,) = [case for case in CASES if case.name == name]

    with pytest.raises((AssertionError, ZeroDivisionError)):
        await case.check(broken)
