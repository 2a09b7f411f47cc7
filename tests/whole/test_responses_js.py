"""OpenAI's client for JavaScript against our Responses."""

from __future__ import annotations

import json
from typing import cast

import anyio
import pytest
from tests.programs import node, npm_packages
from tests.responses import CALLING, SAYING, Plays, answering, items
from tests.serving import Json

pytestmark = pytest.mark.anyio
WAIT_S = 15


async def test_the_client_for_javascript_streams_answers_and_resumes() -> None:
    async with answering(Plays((CALLING, SAYING))) as client:
        command = [node(), str(npm_packages() / "responses.mjs"), client.url, client.key]
        with anyio.fail_after(WAIT_S):
            ended = await anyio.run_process(command, check=False)
        assert ended.returncode == 0, ended.stderr.decode()
        seen: dict[str, Json] = json.loads(ended.stdout)

    assert cast("list[str]", seen["deltas"]) == ["I look."]
    assert [one["type"] for one in items(seen["first"])] == [
        "reasoning",
        "message",
        "function_call",
    ]
    assert seen["second"]["output_text"] == "well then"
    rest, last = cast("list[int]", seen["rest"]), cast("int", seen["last"])
    assert rest == [*range(last + 1, last + 1 + len(rest))]
    assert seen["resumed"]["status"] == "completed"
    assert items(seen["polled"]) == items(seen["cancelled"])
    assert seen["resumed"]["output_text"] == seen["polled"]["output_text"] == "well then"
    assert cast("int", seen["absent"]) == 404
