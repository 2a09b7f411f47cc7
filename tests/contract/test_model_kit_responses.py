"""The model that speaks Responses keeps the promises of the port, whatever the provider does."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from hostler.models.exchange import Bounds, Patience
from hostler.models.openai_responses import OpenAIResponses
from hostler.models.transport import Aiohttp
from hostler.testing import model_kit
from hostler.testing.model_kit import Case
from hostler.testing.model_trial import Setup
from hostler.testing.responses_quirks import RESPONSES_QUIRKS
from hostler.testing.wire_responses import RESPONSES

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def responses(setup: Setup) -> AsyncGenerator[OpenAIResponses]:
    bounds = Bounds(event_bytes=setup.event_bytes, body_bytes=setup.body_bytes)
    transport = Aiohttp(bounds=bounds)
    try:
        yield OpenAIResponses(
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


CASES = model_kit.cases(RESPONSES, RESPONSES_QUIRKS)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_openai_responses(case: Case) -> None:
    await case.check(responses)


def test_every_case_has_a_name_of_its_own() -> None:
    names = [case.name for case in CASES]

    assert len(set(names)) == len(names)
