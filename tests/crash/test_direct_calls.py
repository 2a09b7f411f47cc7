"""A server dies at each of its writes of a direct call: there is no row, or one that ends as dropped."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from tests.direct import REQUEST, Row, Says, direct_house, rows, somebody

from hostler.core.ledger import DirectCall
from hostler.core.ports import Reply
from hostler.service.service import Service
from hostler.stores.sqlite import SqliteStore
from hostler.testing.crashing import every_death
from hostler.testing.doubles import Crash

pytestmark = pytest.mark.anyio
DROPPED, REPLIED = Row("dropped", None, 1), Row("replied", None, 1)


class Dying:
    """A store whose process dies at its n-th write of a call, before or after that is on disk."""

    def __init__(self, service: Service, at: int, *, after: bool) -> None:
        self._keep, self._left, self._after = service.store.ledger.keep_direct, at, after
        self.ledger = self

    async def keep_direct(self, call: DirectCall) -> None:
        self._left -= 1
        if self._left > 0 or (self._left == 0 and self._after):
            await self._keep(call)
        if self._left <= 0:
            raise Crash


async def died(file: Path, at: int, *, after: bool, told: list[object]) -> bool:
    """Ask until the answer is there or the process is gone; return whether it is gone."""
    model = Says()
    async with direct_house(model, file=file) as service:
        store: object = Dying(service, at, after=after)
        direct = replace(service.direct, store=store)  # type: ignore[arg-type]
        try:
            async with aclosing(direct.ask(somebody(), model, REQUEST)) as parts:
                async for part in parts:
                    told.append(part)  # noqa: PERF401  what came before a death counts
        except Crash:
            assert bool(model.asked) == (at > 1), "asked without a row"
            return True
    return False


async def test_a_death_at_any_write_leaves_no_row_or_one_that_ends(tmp_path: Path) -> None:
    seen = dict[tuple[int, bool], list[Row]]()

    async def play(at: int, after: bool) -> bool:  # noqa: FBT001  as it is called
        file, told = tmp_path / f"{at}-{after}.db", list[object]()
        is_dead = await died(file, at, after=after, told=told)
        SqliteStore.open(file).close()
        seen[at, after] = rows(file)
        if any(isinstance(one, Reply) for one in told):
            assert seen[at, after] == [REPLIED], "an end was told that is not kept"
        return is_dead

    deaths = [one async for one in every_death(play)]

    assert len(deaths) == 4
    assert seen == {
        (1, False): [],
        (1, True): [DROPPED],
        (2, False): [DROPPED],
        (2, True): [REPLIED],
        (3, False): [REPLIED],
        (3, True): [REPLIED],
    }
