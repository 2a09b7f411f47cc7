"""Any program of clients, workers and accidents leaves sessions as a simple model of them says.

A program is a list of steps that Hypothesis makes up, and makes shorter when it fails.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from tests.crash.session_checks import check_rest, rest
from tests.crash.session_house import PATIENCE_S, House
from tests.crash.session_node import Opens, on_postgres, on_sqlite
from tests.crash.session_play import Play, Step
from tests.services import Database, emptied

pytestmark = pytest.mark.anyio
FULL = bool(os.environ.get("HOSTLER_TEST_FULL"))
some = st.builds(
    Step,
    verb=st.sampled_from([verb for verb, often in Play.VERBS.items() for _ in range(often)]),
    which=st.sampled_from([0, 0, 0, 1, 1, 2]),
    how=st.integers(0, 11),
)
programs = st.lists(some, min_size=50, max_size=50)
"""Those that do not matter to a failure become `nothing`, which is left out when it is told."""


def leave_alone_what_asyncpg_tells_nobody() -> None:
    """Pass over a future of its own that fails as a node dies while it connects; over nothing else."""
    loop = asyncio.get_running_loop()
    tell = loop.get_exception_handler()

    def told(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if str(context.get("exception")) != "unexpected connection_lost() call" and tell:
            tell(loop, context)

    loop.set_exception_handler(told)


async def play(program: list[Step], opens: Opens, nodes: int = 1) -> None:
    leave_alone_what_asyncpg_tells_nobody()
    note(f"program: {[step for step in program if step.verb != 'nothing']}")
    house = House(opens, nodes)
    with anyio.fail_after(PATIENCE_S * nodes):
        async with anyio.create_task_group() as lives:
            await house.begin(lives)
            played = Play(house)
            for step in (Step("create"), *program):
                await played.step(step)
            await rest(house, played.sketches)
            await check_rest(house, played.sketches)
            await house.end()


async def play_on_sqlite(program: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        await play(program, on_sqlite(Path(folder) / "log.db"))


@pytest.mark.timeout(300)
@given(program=programs)
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)
async def test_any_program_leaves_sessions_as_a_simple_model_says(program: list[Step]) -> None:
    await play_on_sqlite(program)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@given(program=programs)
@settings(
    max_examples=500 if FULL else 5,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)
async def test_five_hundred_programs_leave_sessions_as_a_simple_model_says(
    program: list[Step],
) -> None:
    await play_on_sqlite(program)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("nodes", [1, 2])
@given(program=programs)
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)
async def test_any_program_on_nodes_of_one_database_leaves_sessions_so(
    nodes: int, postgres_database: Database, program: list[Step]
) -> None:
    await play(program, on_postgres(emptied(postgres_database).url), nodes)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("nodes", [1, 2, 3])
@given(program=programs)
@settings(
    max_examples=200 if FULL else 5,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)
async def test_hundreds_of_programs_on_nodes_of_one_database_leave_sessions_so(
    nodes: int, postgres_database: Database, program: list[Step]
) -> None:
    await play(program, on_postgres(emptied(postgres_database).url), nodes)
