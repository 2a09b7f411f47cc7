"""OpenAI's client for JavaScript, and an agent behind Chat Completions."""

from __future__ import annotations

import json
from typing import cast

import anyio
import pytest
from tests.carried import AGENT, Plays, agents, calls, says, sessions, until
from tests.programs import node, npm_packages
from tests.serving import Json

pytestmark = pytest.mark.anyio
WAIT_S = 60
"""For Node to start, too, on a machine with much else to do."""


async def test_the_client_for_javascript_runs_an_agent_s_client_tools_and_streams() -> None:
    asks = calls("look", text="Let me look.", at="sky")
    blue = says("It is blue.")
    never = [*says("well")[:1], anyio.Event()]
    model = Plays([asks, blue, asks, blue, says("well then"), never])
    async with agents(model) as client:
        command = [node(), str(npm_packages() / "completions.mjs"), client.url, client.key, AGENT]
        with anyio.fail_after(WAIT_S):
            ended = await anyio.run_process(command, check=False)
            assert ended.returncode == 0, ended.stderr.decode()
        found = await sessions(client)
        left = await until(client, str(found[-1]["id"]), "run_ended")
    seen: Json = json.loads(ended.stdout)
    deltas, usages = cast("list[str]", seen["deltas"]), cast("list[object]", seen["usages"])

    assert seen["models"] == [AGENT, "p:m"]
    assert (seen["ran"], seen["again"]) == (["sky"], ["sky"])
    assert "".join(deltas) == "Let me look.It is blue."
    assert seen["said"] == seen["whole"] == "It is blue."
    assert seen["roles"] == ["user", "assistant", "tool", "assistant"]
    assert cast("Json", seen["used"])["total_tokens"] == 26
    assert [one for one in usages if one is not None] == [13]
    assert usages[-1] == 13
    assert seen["ends"] == ["stop"]
    assert seen["refused"] == ["NotFoundError", "model_not_found", True]
    assert seen["unknown"] == "AuthenticationError"
    assert len(found) == 4  # one for each conversation, and none for each request
    assert (left["status"], left["reason"]) == ("cancelled", "client went away")
