"""The Gemini adapter keeps the promises of the port, whatever the provider does."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from hostler.models.exchange import Bounds, Patience
from hostler.models.gemini import Gemini
from hostler.models.transport import Aiohttp
from hostler.testing import model_kit
from hostler.testing.gemini_quirks import GEMINI_QUIRKS
from hostler.testing.model_kit import SCENARIOS, Case
from hostler.testing.model_trial import SHORT_S, Setup
from hostler.testing.wire_gemini import GEMINI, UNSAID

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def gemini(setup: Setup) -> AsyncGenerator[Gemini]:
    bounds = Bounds(event_bytes=setup.event_bytes, body_bytes=setup.body_bytes)
    patience = Patience(first_byte_s=setup.first_byte_s, idle_s=setup.idle_s, tail_s=SHORT_S)
    transport = Aiohttp(bounds=bounds)
    try:
        yield Gemini(
            name="kit",
            base_url=setup.base_url,
            transport=transport,
            key=setup.key,
            provider="somebody",
            able={"context_window": setup.context_window},
            patience=patience,
        )
    finally:
        await transport.aclose()


CASES = [case for case in model_kit.cases(GEMINI, GEMINI_QUIRKS) if case.name not in UNSAID]


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_gemini(case: Case) -> None:
    await case.check(gemini)


def test_every_gemini_case_has_a_name_of_its_own() -> None:
    names = [case.name for case in CASES]

    assert len(set(names)) == len(names)
    assert {scenario.name for scenario in SCENARIOS} - set(names) == UNSAID
