"""Files that no session could have: refused with the line, and nothing of them is kept."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.archives import ABOUT, HEAD, SPOKE, a_line, as_file, imported
from tests.serving import Json, Serve, quick

from hostler.service.limits import LONGEST_TEXT, MOST_CLIENT_TOOLS
from hostler.testing.doubles import an_agent

pytestmark = pytest.mark.anyio


STARTED: Json = {"kind": "run_started", "run": "run_1"}
ENDED: Json = {"kind": "run_ended", "run": "run_1", "status": "done", "usage": {}}
REWOUND: Json = {"kind": "session_rewound", "run": None, "before": "run_1", "principal": "p"}

SPENT: Json = {
    "kind": "model_failed",
    "run": "run_1",
    "attempt": "att_1",
    "error": {"code": "server", "message": "oh"},
    "retry_after_s": None,
}
TOO_MANY: Json = {"input_tokens": 2**63}
NO_COST: Json = {"cost": "NaN"}
NEVER: Json = {
    "kind": "approval_asked",
    "run": "run_1",
    "call": "call_1",
    "name": "tool",
    "arguments": {},
    "digest": "d",
    "expires_at": "0001-01-01T00:00:00+14:00",
}


ASKED: Json = {
    "kind": "model_asked",
    "run": "run_1",
    "attempt": "att_1",
    "provider": "p",
    "model": "m",
}
NOTHING: Json = {}
CALL: Json = {"id": "call_1", "name": "look", "arguments": NOTHING}
REPLIED: Json = {
    "kind": "model_replied",
    "run": "run_1",
    "attempt": "att_1",
    "seen": 3,
    "text": "abc",
    "calls": [],
    "stop": "end",
    "usage": {},
}
CALLED: Json = REPLIED | {"calls": [CALL], "stop": "tools"}
OF_CALL: Json = {"run": "run_1", "call": "call_1"}
TOOL_STARTED: Json = {**OF_CALL, "kind": "tool_started", "name": "look", "arguments": NOTHING}
TOOL_FINISHED: Json = OF_CALL | {"kind": "tool_finished", "outcome": "ok", "output": "o"}
PUT_BEFORE: Json = NEVER | {"expires_at": "2026-02-01T00:00:00Z"}
DECIDED: Json = OF_CALL | {"kind": "approval_given", "decision": "allow", "principal": "p"}


def a_log(*facts: Json) -> Sequence[object]:
    """Return the lines of a file in which this follows what somebody said."""
    lines = [a_line(place, fact) for place, fact in enumerate((SPOKE, *facts), 1)]
    return [{**HEAD, "events": len(lines)}, *lines]


GOOD = [HEAD, a_line(1, SPOKE), a_line(2, STARTED)]
DAMAGE: dict[str, tuple[Sequence[object], int]] = {
    "nothing": ([], 1),
    "no header": (GOOD[1:], 1),
    "not JSON": ([HEAD, "raw:{", *GOOD[2:]], 2),
    "not UTF-8": ([HEAD, "raw:\xff", *GOOD[2:]], 2),
    "another version": ([{**HEAD, "hostler": 2}, *GOOD[1:]], 1),
    "an id of another form": ([{**HEAD, "session": {**ABOUT, "id": "x"}}, *GOOD[1:]], 1),
    "a title that is too long": (
        [{**HEAD, "session": {**ABOUT, "title": "x" * 501}}, *GOOD[1:]],
        1,
    ),
    "a fact is missing": ([HEAD, a_line(1, SPOKE), a_line(3, STARTED)], 3),
    "a fact is there twice": ([HEAD, a_line(1, SPOKE), a_line(1, SPOKE)], 3),
    "it does not begin with the first": ([HEAD, a_line(2, SPOKE), a_line(3, STARTED)], 2),
    "it was cut": ([HEAD, a_line(1, SPOKE)], 3),
    "there is more": ([*GOOD, a_line(3, ENDED)], 4),
    "an unknown kind": ([HEAD, a_line(1, SPOKE), a_line(2, {"kind": "song", "run": None})], 3),
    "no kind": ([HEAD, a_line(1, {"run": "run_1"}), a_line(2, STARTED)], 2),
    "a kind without its form": ([HEAD, a_line(1, {"kind": "user_spoke"}), a_line(2, STARTED)], 2),
    "no time": ([HEAD, a_line(1, SPOKE, None), a_line(2, STARTED)], 2),
    "a time without a zone": ([HEAD, a_line(1, SPOKE, "2026-01-01T00:00:00"), GOOD[2]], 2),
    "a run that nobody asked for": ([HEAD, a_line(1, STARTED), a_line(2, SPOKE)], 2),
    "a run that ends twice": (
        [{**HEAD, "events": 3}, a_line(1, SPOKE), a_line(2, ENDED), a_line(3, ENDED)],
        4,
    ),
    "a run that starts twice": (
        [{**HEAD, "events": 3}, a_line(1, SPOKE), a_line(2, STARTED), a_line(3, STARTED)],
        4,
    ),
    "said to a run that had ended": (
        [{**HEAD, "events": 3}, a_line(1, SPOKE), a_line(2, ENDED), a_line(3, SPOKE)],
        4,
    ),
    "a time before there were any": (
        [HEAD, a_line(1, SPOKE, "0001-01-01T00:00:00+14:00"), a_line(2, STARTED)],
        2,
    ),
    "a time after all others": (
        [{**HEAD, "session": {**ABOUT, "created_at": "9999-12-31T23:59:59-14:00"}}, *GOOD[1:]],
        1,
    ),
    "an agent's name that is too long": (
        [{**HEAD, "session": {**ABOUT, "agent": "x" * 129}}, *GOOD[1:]],
        1,
    ),
    "an id of a run that is none of ours": (
        [HEAD, a_line(1, {**SPOKE, "run": "run_" + "x" * 65}), a_line(2, STARTED)],
        2,
    ),
    "an id of an input that is none of ours": (
        [HEAD, a_line(1, {**SPOKE, "input": "inp/1"}), a_line(2, STARTED)],
        2,
    ),
    "a count that is none": ([HEAD, a_line(1, SPOKE), a_line(2, SPENT | {"usage": TOO_MANY})], 3),
    "a cost that is none": ([HEAD, a_line(1, SPOKE), a_line(2, SPENT | {"usage": NO_COST})], 3),
    "a fence beyond all others": (
        [
            HEAD,
            a_line(1, SPOKE),
            a_line(2, {"kind": "run_claimed", "run": "run_1", "claim": 2**63, "worker": "w"}),
        ],
        3,
    ),
    "a score that is none": (
        [
            HEAD,
            a_line(1, SPOKE),
            a_line(2, {"kind": "run_rated", "run": "run_1", "principal": "p", "score": 1e300}),
        ],
        3,
    ),
    "a deadline that is no time": ([HEAD, a_line(1, SPOKE), a_line(2, NEVER)], 3),
    "more that wait than may": (
        [
            {**HEAD, "events": 103},
            *(a_line(at, {**SPOKE, "run": f"run_{at}"}) for at in range(1, 104)),
        ],
        103,
    ),
    "what goes is taken back": ([HEAD, a_line(1, SPOKE), a_line(2, REWOUND)], 3),
    "a run takes back": ([HEAD, a_line(1, {**REWOUND, "run": "run_1"}), GOOD[1]], 2),
    "no id of ours is taken back": ([HEAD, a_line(1, {**REWOUND, "before": "x"}), GOOD[1]], 2),
    "more tools than may be": (
        [
            HEAD,
            a_line(1, {**SPOKE, "client_tools": [{"name": "t"}] * (MOST_CLIENT_TOOLS + 1)}),
            a_line(2, STARTED),
        ],
        2,
    ),
    "a reply to nothing": (a_log(STARTED, REPLIED), 4),
    "a reply to another question": (a_log(STARTED, ASKED, REPLIED | {"attempt": "att_2"}), 5),
    "a fault of no question": (a_log(STARTED, SPENT), 4),
    "a question before the run began": (a_log(ASKED), 3),
    "a call that nobody made begins": (a_log(STARTED, TOOL_STARTED), 4),
    "a call that nobody made ends": (a_log(STARTED, TOOL_FINISHED), 4),
    "a call that nobody made waits": (a_log(STARTED, PUT_BEFORE), 4),
    "a call that nobody made is decided": (a_log(STARTED, DECIDED), 4),
    "a question while a call is open": (a_log(STARTED, ASKED, CALLED, ASKED), 6),
    "an end while a call is open": (a_log(STARTED, ASKED, CALLED, PUT_BEFORE, ENDED), 7),
    "one call made twice": (a_log(STARTED, ASKED, CALLED | {"calls": [CALL, CALL]}), 5),
    "a call of another run": (
        a_log(
            *(STARTED, ASKED, CALLED, TOOL_FINISHED, ENDED),
            *(
                {**one, "run": "run_2"}
                for one in (SPOKE, STARTED, ASKED, CALLED | {"text": "again"})
            ),
        ),
        11,
    ),
    "pieces of less than nothing": (
        a_log(STARTED, ASKED, REPLIED | {"streamed": [["text", [3, -3, 3]]]}),
        5,
    ),
    "pieces of less than nothing that were dropped": (
        a_log(
            STARTED,
            ASKED,
            {
                "kind": "attempt_dropped",
                "run": "run_1",
                "attempt": "att_1",
                "reason": "r",
                "text": "abc",
                "streamed": [["text", [3, -3]]],
            },
        ),
        5,
    ),
    "pieces of a call that is none of ours": (
        a_log(STARTED, ASKED, REPLIED | {"streamed": [["arguments", [1], "x"]]}),
        5,
    ),
    "an agent of its terms with a name that is too long": (
        [HEAD, a_line(1, {**SPOKE, "terms": {"agent": "x" * 129}}), GOOD[2]],
        2,
    ),
    "terms of less than nothing": (
        [HEAD, a_line(1, {**SPOKE, "terms": {"max_output_tokens": -1}}), GOOD[2]],
        2,
    ),
    "terms that are too long": (
        [HEAD, a_line(1, {**SPOKE, "terms": {"instructions": "x" * (LONGEST_TEXT + 1)}}), GOOD[2]],
        2,
    ),
    "of no run": ([HEAD, a_line(1, SPOKE), a_line(2, {**STARTED, "run": None})], 3),
}


@pytest.mark.parametrize("case", DAMAGE)
async def test_a_damaged_file_is_refused_with_the_line_and_stores_nothing(
    serve: Serve, case: str
) -> None:
    lines, number = DAMAGE[case]
    async with serve(an_agent(quick(), name="plain")) as client:
        status, problem = await imported(client, as_file(lines))

        assert (status, problem["code"], problem["line"]) == (422, "bad_archive", number), problem
        assert str(problem["detail"]).startswith(f"line {number}: ")
        assert (await client.get("/api/sessions"))["items"] == []
        assert (await imported(client, as_file(GOOD)))[0] == 201
