"""What a server can do is data, and can be overridden."""

from __future__ import annotations

import pytest

from hostler.core.errors import SetupError
from hostler.models.capabilities import Capabilities, capabilities

OPENAI = "https://api.openai.com/v1"


def test_an_unknown_server_is_taken_for_an_ordinary_one() -> None:
    assert capabilities("mine", "http://10.0.0.7:9000/v1", "whatever") == Capabilities()


def test_openai_is_known_by_its_host_not_its_label() -> None:
    there = capabilities("openai", OPENAI, "gpt-5")
    elsewhere = capabilities("openai", "http://localhost:8000/v1", "gpt-5")

    assert (there.max_tokens_field, there.cache_key, there.prices) == (
        "max_completion_tokens",
        True,
        "openai",
    )
    assert (elsewhere.max_tokens_field, elsewhere.cache_key, elsewhere.prices) == (
        "max_tokens",
        False,
        None,
    )


def test_later_rules_are_laid_over_earlier_ones() -> None:
    assert capabilities("openai", OPENAI, "gpt-4o").system_role == "system"
    assert capabilities("openai", OPENAI, "gpt-5-mini").system_role == "developer"


def test_a_vendor_before_the_name_does_not_matter() -> None:
    assert capabilities("vllm", "http://x/v1", "openai/GPT-OSS-120b").thinking_field == "reasoning"


def test_the_window_is_known_where_the_price_is() -> None:
    assert capabilities("openai", OPENAI, "gpt-5").context_window == 400_000
    assert capabilities("ollama", "http://localhost:11434/v1", "gpt-5").context_window is None


def test_an_override_is_laid_over_all() -> None:
    able = capabilities("openai", OPENAI, "gpt-5", {"context_window": 7, "images": False})

    assert (able.context_window, able.images, able.cache_key) == (7, False, True)


@pytest.mark.parametrize("override", [{"immages": False}, {"images": "maybe"}])
def test_a_wrong_override_names_itself_and_what_is_known(override: dict[str, object]) -> None:
    with pytest.raises(SetupError, match=r"capabilities of x:y: .*im+ages.*think_tags"):
        capabilities("x", "http://x", "y", override)


def test_a_base_url_that_is_none_is_no_error_here() -> None:
    assert capabilities("x", "nonsense", "y") == Capabilities()


def test_no_bill_is_guessed_for_a_server_of_ones_own() -> None:
    assert capabilities("deepseek", "https://api.deepseek.com/v1", "deepseek-chat").prices
    assert capabilities("deepseek", "http://localhost:8000/v1", "deepseek-chat").prices is None
