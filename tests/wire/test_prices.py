"""Costs are computed from a dated table, and are unknown when the price is."""

from __future__ import annotations

from decimal import Decimal

import pytest

from hostler.core.events import Usage
from hostler.models.prices import find, priced, table, window


def cost(
    provider: str, model: str, *, input_tokens: int, output_tokens: int = 0, cache_read: int = 0
) -> Decimal | None:
    usage = Usage(
        input_tokens=input_tokens, output_tokens=output_tokens, cache_read_tokens=cache_read
    )
    return priced(provider, model, usage).cost


def test_each_kind_of_token_has_its_price() -> None:
    usage = Usage(
        input_tokens=1_000_000,
        cache_read_tokens=400_000,
        cache_write_tokens=100_000,
        output_tokens=10_000,
    )

    done = priced("anthropic", "claude-sonnet-4-5", usage)

    price = find("anthropic", "claude-sonnet-4-5")
    assert price is not None
    rates = price.over[0] if price.over else price
    assert rates.cache_read is not None
    assert rates.cache_write is not None
    assert done.cost == (
        Decimal("0.5") * rates.input
        + Decimal("0.4") * rates.cache_read
        + Decimal("0.1") * rates.cache_write
        + Decimal("0.01") * rates.output
    )
    assert done.price == table().version
    assert done.input_tokens == 1_000_000


def test_a_plain_call_costs_what_the_list_says() -> None:
    assert cost("openai", "gpt-5-mini", input_tokens=1000, output_tokens=100) == Decimal("0.00045")


def test_the_higher_rates_hold_for_all_of_a_long_call() -> None:
    short = cost("openai", "gpt-5.5", input_tokens=272_000, output_tokens=1_000_000)
    long = cost("openai", "gpt-5.5", input_tokens=272_001, output_tokens=1_000_000)

    assert short == Decimal("1.36") + 30
    assert long == Decimal("2.72001") + 45


def test_a_cache_rate_that_is_not_listed_is_that_of_input() -> None:
    price = find("openai", "gpt-4")
    assert price is not None
    assert price.cache_read is None

    fresh = cost("openai", "gpt-4", input_tokens=1000)
    cached = cost("openai", "gpt-4", input_tokens=1000, cache_read=900)

    assert fresh == cached


@pytest.mark.parametrize(
    ("provider", "model"), [("openai", "gpt-99"), ("nobody", "gpt-5"), (None, "gpt-5")]
)
def test_an_unknown_price_gives_no_cost(provider: str | None, model: str) -> None:
    done = priced(provider, model, Usage(input_tokens=10, output_tokens=10))

    assert (done.cost, done.price) == (None, None)


def test_a_call_without_usage_has_no_cost() -> None:
    assert cost("openai", "gpt-5", input_tokens=0) is None


def test_a_cost_that_the_provider_told_is_kept() -> None:
    told = Usage(input_tokens=10, cost=Decimal("0.07"), price="provider")

    assert priced("openai", "gpt-5", told) is told


def test_more_cached_than_read_does_not_cost_less_than_nothing() -> None:
    assert cost("openai", "gpt-5", input_tokens=1, cache_read=1_000_000) == Decimal("0.125")


@pytest.mark.parametrize(
    ("provider", "asked", "listed"),
    [
        ("openai", "gpt-5-2025-08-07", "openai/gpt-5"),
        ("openai", "GPT-5", "openai/gpt-5"),
        ("openai", "gpt-5.6-sol-2026-08-21", "openai/gpt-5.6-sol"),
        ("anthropic", "claude-sonnet-5-5-20261001", "anthropic/claude-sonnet-5-5"),
        ("anthropic", "claude-sonnet-5-20260801", "anthropic/claude-sonnet-5"),
        ("gemini", "gemini-2.5-pro-preview-06-05", "gemini/gemini-2.5-pro"),
    ],
)
def test_dated_and_other_names_are_found(provider: str, asked: str, listed: str) -> None:
    assert find(provider, asked) is table().models[listed]


def test_windows_come_from_the_same_table() -> None:
    assert window("openai", "gpt-5") == 400_000
    assert window("openai", "gpt-99") is None
    assert window(None, "gpt-5") is None


def test_every_price_of_the_table_makes_sense() -> None:
    for name, price in table().models.items():
        assert price.input <= price.output or name.startswith(("groq/", "mistral/", "openai/")), (
            name
        )
        assert (price.cache_read or 0) <= price.input, name
        assert [tier.tokens for tier in price.over] == sorted(tier.tokens for tier in price.over)
        assert all(tier.input >= price.input for tier in price.over), name
