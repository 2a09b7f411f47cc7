"""Two servers of one fleet in this process: it does not matter which of them is asked, and which drives."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from tests.fleets import a_redis
from tests.services import Database
from tests.serving import quick, serving

from hostler.app.engines import OnRedis
from hostler.app.part import Part
from hostler.testing.doubles import an_agent

pytestmark = pytest.mark.anyio
WITHIN_S = 60.0


async def test_what_is_said_at_a_server_that_drives_nothing_is_answered_there_by_one_that_does(
    postgres: Database, tmp_path: Path
) -> None:
    async with a_redis(tmp_path) as redis:
        queue, agent = OnRedis(redis.url, "test"), an_agent(quick())
        asked = serving(agent, file=postgres.url, part=Part(queue=queue, role="api"))
        drives = serving(agent, file=postgres.url, part=Part(queue=queue))
        async with drives, asked as client:
            with anyio.fail_after(WITHIN_S):
                frames = await client.speak(await client.session())

    assert frames[-1].event == "run_ended"
    assert frames[-1].data["status"] == "done"
