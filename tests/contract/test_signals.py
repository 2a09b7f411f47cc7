"""Signals of every kind keep the promises of the port."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.fleets import a_name, a_node, a_redis

from hostler.core.news import Signals
from hostler.signals.local import LocalSignals
from hostler.signals.notify_wire import NotifyWire
from hostler.signals.redis_wire import RedisWire
from hostler.testing.signals_suite import SIGNALS_SUITE, Check

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("check", SIGNALS_SUITE, ids=lambda check: check.__name__)
async def test_local_signals(check: Check) -> None:
    @asynccontextmanager
    async def make() -> AsyncGenerator[tuple[Signals, Signals]]:
        signals = LocalSignals()
        yield signals, signals

    await check(make)


@pytest.mark.parametrize("check", SIGNALS_SUITE, ids=lambda check: check.__name__)
async def test_a_fleet_over_redis(check: Check, tmp_path: Path) -> None:
    @asynccontextmanager
    async def make() -> AsyncGenerator[tuple[Signals, Signals]]:
        fleet = a_name()
        async with (
            a_redis(tmp_path) as redis,
            a_node(RedisWire(redis.url), fleet) as here,
            a_node(RedisWire(redis.url), fleet) as there,
        ):
            yield here, there

    await check(make)


@pytest.mark.parametrize("check", SIGNALS_SUITE, ids=lambda check: check.__name__)
async def test_a_fleet_over_notify(check: Check, postgres_server: str) -> None:
    @asynccontextmanager
    async def make() -> AsyncGenerator[tuple[Signals, Signals]]:
        fleet = a_name()
        async with (
            a_node(NotifyWire(postgres_server), fleet) as here,
            a_node(NotifyWire(postgres_server), fleet) as there,
        ):
            yield here, there

    await check(make)
