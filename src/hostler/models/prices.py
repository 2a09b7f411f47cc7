"""What a call cost, from a dated table; and how much its model can read, from the same.

The table is a snapshot of the data of `genai-prices`, list prices in US dollars.  Of prices that
depend on the hour it has the highest, and of cache writes the usual five-minute ones.

Invariant: an unknown price gives an unknown cost, never 0.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec
from msgspec import Struct

from hostler.core.events import Usage

_FILE = Path(__file__).parent / "data" / "prices.json"
_MILLION = Decimal(1_000_000)


class Rates(Struct, frozen=True, kw_only=True):
    """US dollars per million tokens.  A cache rate that is not listed is that of input."""

    input: Decimal
    output: Decimal
    cache_read: Decimal | None = None
    cache_write: Decimal | None = None


class Tier(Rates, frozen=True, kw_only=True):
    """The rates for the whole of a call with more than `tokens` of input."""

    tokens: int


class Price(Rates, frozen=True, kw_only=True):
    """One model's."""

    also: Sequence[str] = ()
    """Its other names, as globs."""
    window: int | None = None
    """Tokens of context."""
    over: Sequence[Tier] = ()
    """Smallest `tokens` first."""


class Table(Struct, frozen=True, kw_only=True):
    version: str
    source: str
    models: Mapping[str, Price]
    """By `provider/name`."""


@functools.cache
def table() -> Table:
    """Return the snapshot; the file is read once, by the first to ask."""
    return msgspec.json.decode(_FILE.read_bytes(), type=Table)


@functools.lru_cache(maxsize=1024)
def find(provider: str, model: str) -> Price | None:
    """Return a model's price: by its name, else by the longest of the globs that fit."""
    models, name = table().models, model.lower()
    if (exact := models.get(f"{provider}/{name}")) is not None:
        return exact
    best, best_length = None, -1
    for key, price in models.items():
        if not key.startswith(f"{provider}/"):
            continue
        for glob in price.also:
            length = len(glob) + (0 if "*" in glob or "?" in glob else 1000)
            if length > best_length and fnmatchcase(name, glob.lower()):
                best, best_length = price, length
    return best


def window(provider: str | None, model: str) -> int | None:
    """Return how many tokens a model can read; None when that is not known."""
    price = None if provider is None else find(provider, model)
    return None if price is None else price.window


def priced(provider: str | None, model: str, usage: Usage) -> Usage:
    """Return the usage with its cost and the table's version, if the price is known.

    A cost that is there already, because the provider told it, is left alone.
    """
    price = None if provider is None or usage.cost is not None else find(provider, model)
    if price is None or not (usage.input_tokens or usage.output_tokens):
        return usage
    rates: Rates = price
    for tier in price.over:
        if usage.input_tokens > tier.tokens:
            rates = tier
    cached = usage.cache_read_tokens + usage.cache_write_tokens
    read = rates.input if rates.cache_read is None else rates.cache_read
    write = rates.input if rates.cache_write is None else rates.cache_write
    total = (
        max(0, usage.input_tokens - cached) * rates.input
        + usage.cache_read_tokens * read
        + usage.cache_write_tokens * write
        + usage.output_tokens * rates.output
    )
    return msgspec.structs.replace(usage, cost=total / _MILLION, price=table().version)
