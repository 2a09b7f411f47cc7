"""Files of sessions whose conversation was edited: what no server could have written is refused."""

from __future__ import annotations

import json

import pytest
from tests.serving import Json, Serve

from hostler.core.ports import Reply
from hostler.testing.doubles import ModelDouble, an_agent

pytestmark = pytest.mark.anyio

SPOKE: Json = {
    "kind": "user_spoke",
    "run": "run_1",
    "input": "inp_1",
    "content": "x",
    "policy": "queue",
    "principal": "p",
    "metadata": {},
}
EDITED: Json = {"kind": "conversation_edited", "run": None, "principal": "p"}
A_CALL: Json = {"id": "c", "name": "look", "arguments": {}}
CALLS: Json = {"by": "model", "text": "", "calls": [A_CALL]}
RESULT: Json = {"by": "tool", "call": A_CALL, "output": "x"}
PAIR: Json = {**EDITED, "said": [CALLS, RESULT]}


def as_file(*facts: Json) -> bytes:
    about = {"id": "ses_damaged0", "agent": "double", "created_at": "2026-01-01T00:00:00Z"}
    head: Json = {"hostler": 1, "events": len(facts), "session": about}
    lines: list[object] = [
        {"seq": at, "at": "2026-01-01T00:00:00Z", "fact": fact} for at, fact in enumerate(facts, 1)
    ]
    return b"\n".join(json.dumps(line).encode() for line in [head, *lines])


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param([SPOKE, EDITED], id="what goes is edited"),
        pytest.param([{**EDITED, "run": "run_1"}], id="a run edits"),
        pytest.param([{**EDITED, "said": [CALLS]}], id="a call without a result is put in"),
        pytest.param([PAIR, {**EDITED, "place": 0, "taken": 1}], id="a call is cut alone"),
        pytest.param([PAIR, {**EDITED, "place": 1, "taken": 1}], id="a result is cut alone"),
        pytest.param([{**EDITED, "taken": -1}], id="less than nothing is cut"),
        pytest.param([{**EDITED, "place": -1}], id="it is before all else"),
        pytest.param([{**EDITED, "taken": 2**63}], id="more is cut than can be counted"),
    ],
)
async def test_an_edit_that_no_log_could_have_is_refused(serve: Serve, facts: list[Json]) -> None:
    async with serve(an_agent(ModelDouble(lambda _: Reply(text="well", stop="end")))) as client:
        status, problem = await client.call("POST", "/api/sessions/import", raw=as_file(*facts))
        whole, _ = await client.call("POST", "/api/sessions/import", raw=as_file(PAIR))

    assert (status, problem.get("code")) == (422, "bad_archive"), problem
    assert whole == 201
