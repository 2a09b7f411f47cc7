"""What webhooks are told of facts: thin, bounded, always the same, in each client's words."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hostler.beside.notices import Began, Happened, began, notices, tellable
from hostler.core.codec import dump
from hostler.core.events import (
    ApprovalAsked,
    AttemptId,
    CallId,
    CancelRequested,
    Event,
    Fact,
    JsonObject,
    Key,
    ModelReplied,
    PrincipalId,
    RunEnded,
    RunId,
    RunStarted,
    RunStatus,
    Seq,
    SessionId,
    Stop,
    TenantId,
    ToolCall,
    Usage,
    UserSpoke,
)
from hostler.core.head import Head, Wait
from hostler.testing.store_kit import finished, spoke, started

KEY = Key(TenantId("acme"), SessionId("ses_1"))
RUN = RunId("run_0123abc")
LARGEST = 20_000
ENDED = RunEnded(run=RUN, status="done", usage=Usage(input_tokens=3, cost=Decimal("0.10")))
MARK: JsonObject = {"openai": {"background": True, "x": 1}}
ASKED = ApprovalAsked(
    run=RUN,
    call=CallId("call_1"),
    name="pay",
    arguments={"to": "a secret friend"},
    digest="d",
    expires_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
)
CALL = CallId("call_1")
REPLIED = ModelReplied(
    run=RUN,
    attempt=AttemptId("att_1"),
    seen=Seq(1),
    text="",
    calls=(ToolCall(id=CALL, name="pay", arguments={}),),
    stop="tools",
    usage=Usage(),
)
HANDED = started(RUN, CALL, expires_at=2e9)
DONE = finished(RUN, CALL)
ANSWER = replace(
    spoke(RUN), policy="steer", metadata={"openai": {"background": True, "answers": 1}}
)


def response_of(of: Happened) -> tuple[str, str] | None:
    """Return which response is told to be over, and as what."""
    for kind, body in told(of).items():
        if kind.startswith("response."):
            return str(cast("JsonObject", body["data"])["id"]), kind
    return None


def happened(
    fact: Fact,
    *before: Fact,
    metadata: JsonObject | None = None,
    at: float = 1_700_000_000.25,
) -> Happened:
    """Return the last fact of a run that a message with this metadata began at 3."""
    said = replace(spoke(RUN), metadata=metadata or {}, purpose="nightly")
    facts: list[Fact] = [said, *before, fact]
    events = [
        Event(session=KEY.session, seq=Seq(3 + place), at=at, fact=one, raw=dump(one))
        for place, one in enumerate(facts)
    ]
    messages = [(one.seq, one.raw) for one in events if isinstance(one.fact, UserSpoke)]
    known = began(RUN, messages)
    since = known.since
    so_far = [] if since is None else [one for one in events if one.seq >= since]
    return Happened(KEY, "helper", events[-1], known, so_far)


def told(of: Happened) -> dict[str, JsonObject]:
    """Return the bodies of what is told, by type."""
    found = notices(of)
    assert all(one.id.startswith("evt_") and "." not in one.id for one in found)
    return {one.type: json.loads(one.body) for one in found}


def test_an_end_of_a_run_is_told_with_ids_usage_and_status_and_nothing_that_was_said() -> None:
    assert told(happened(ENDED)) == {
        "run.completed": {
            "type": "run.completed",
            "timestamp": "2023-11-14T22:13:20.250000Z",
            "data": {
                "session": "ses_1",
                "run": RUN,
                "agent": "helper",
                "purpose": "nightly",
                "status": "done",
                "reason": None,
                "usage": {
                    "input_tokens": 3,
                    "output_tokens": 0,
                    "cache_read_tokens": 0,
                    "cache_write_tokens": 0,
                    "reasoning_tokens": 0,
                    "cost": "0.10",
                    "price": None,
                },
            },
        }
    }


def test_a_request_for_an_approval_is_told_without_arguments() -> None:
    (notice,) = notices(happened(ASKED))

    assert json.loads(notice.body)["data"] == {
        "session": "ses_1",
        "run": RUN,
        "call": "call_1",
        "tool": "pay",
        "expires_at": "2026-01-02T03:04:05.000000Z",
    }
    assert b"friend" not in notice.body


@pytest.mark.parametrize(
    ("status", "reason", "stop", "native", "openai"),
    [
        ("done", None, "end", "run.completed", "response.completed"),
        ("done", None, "length", "run.completed", "response.incomplete"),
        ("done", None, "refusal", "run.completed", "response.incomplete"),
        ("failed", "model_error", "end", "run.failed", "response.failed"),
        ("failed", "step_limit", "length", "run.failed", "response.failed"),
        ("cancelled", None, "end", "run.cancelled", "response.cancelled"),
        ("cancelled", "budget", "end", "run.cancelled", "response.cancelled"),
    ],
)
def test_an_end_of_a_background_response_is_told_in_openai_s_words_too(
    status: RunStatus, reason: str | None, stop: Stop, native: str, openai: str
) -> None:
    reply = replace(REPLIED, stop=stop)
    fact = replace(ENDED, status=status, reason=reason)

    found = told(happened(fact, reply, metadata=MARK))

    assert list(found) == [native, openai]
    body = found[openai]
    name = str(body.pop("id"))
    assert name.startswith("evt_")
    assert body == {
        "object": "event",
        "created_at": 1_700_000_000,
        "type": openai,
        "data": {"id": "resp_0123abc"},
    }


@pytest.mark.parametrize(
    "mark", [None, True, "background", [], {}, {"background": "true"}, {"background": 1}]
)
def test_what_is_no_background_response_is_not_told_as_one(mark: object) -> None:
    assert list(told(happened(ENDED, metadata={"openai": mark}))) == ["run.completed"]


def test_what_came_with_another_client_s_metadata_under_that_name_is_not_told() -> None:
    mark: JsonObject = {"openai": {"background": True, "model": 5}}

    assert response_of(happened(ENDED, metadata=mark)) is None


@pytest.mark.parametrize("stops", [HANDED, ASKED], ids=["tool", "approval"])
def test_a_response_that_stops_for_its_client_is_completed(stops: Fact) -> None:
    of = happened(stops, REPLIED, metadata=MARK)

    assert response_of(of) == ("resp_0123abc", "response.completed")


def test_what_waits_beside_a_call_that_goes_on_is_not_over_yet() -> None:
    two = replace(
        REPLIED, calls=(*REPLIED.calls, ToolCall(id=CallId("call_2"), name="dig", arguments={}))
    )
    running, done = started(RUN, "call_2"), finished(RUN, "call_2")

    assert response_of(happened(HANDED, two, running, metadata=MARK)) is None
    assert response_of(happened(done, two, running, HANDED, metadata=MARK)) is not None


def test_what_a_client_goes_on_with_has_the_name_of_where_it_begins() -> None:
    before = (REPLIED, HANDED, ANSWER, DONE)

    assert response_of(happened(DONE, *before[:-1], metadata=MARK)) is None
    assert response_of(happened(HANDED, *before, REPLIED, metadata=MARK)) == (
        "resp_0123abc_6",
        "response.completed",
    )
    assert response_of(happened(ENDED, *before, metadata=MARK)) == (
        "resp_0123abc_6",
        "response.completed",
    )


def test_what_goes_on_in_front_of_its_client_is_told_no_more() -> None:
    waiting = replace(ANSWER, metadata={"openai": {"answers": 1}})

    assert response_of(happened(ENDED, REPLIED, HANDED, waiting, DONE, metadata=MARK)) is None


def test_what_goes_on_in_the_background_alone_is_told() -> None:
    of = happened(ENDED, REPLIED, HANDED, ANSWER, DONE, metadata={"openai": {}})

    assert response_of(of) == ("resp_0123abc_6", "response.completed")


def test_what_was_answered_in_another_protocol_goes_on_under_the_name_of_the_answer() -> None:
    of = happened(ENDED, REPLIED, HANDED, DONE, metadata=MARK)

    assert response_of(of) == ("resp_0123abc_6", "response.completed")


def test_a_cancel_of_what_had_stopped_for_its_client_ends_no_response() -> None:
    cancel = CancelRequested(run=RUN, principal=PrincipalId("p"), reason=None)
    end = replace(ENDED, status="cancelled")

    assert response_of(happened(end, REPLIED, HANDED, cancel, DONE, metadata=MARK)) is None


def test_tellable_is_what_leaves_a_run_waiting_and_not_what_leaves_it_going() -> None:
    first = happened(HANDED, REPLIED).event
    head = Head(active=RUN, started=True, unanswered=1)
    waiting = replace(head, waits=(Wait(CALL, "client_tool", 2e9),))
    going = replace(first, fact=started(RUN, CALL))

    assert tellable(head, [first]) == [first]
    assert tellable(head, [going]) == []
    assert tellable(waiting, [replace(first, fact=DONE)]) == []


def test_a_run_of_which_nobody_knows_who_began_it_is_told_without_a_purpose() -> None:
    (notice,) = notices(happened(ENDED)._replace(began=Began()))

    assert json.loads(notice.body)["data"]["purpose"] is None


def test_other_facts_are_told_to_nobody() -> None:
    assert notices(happened(RunStarted(run=RUN))) == []


def test_the_same_fact_gives_the_same_notice_and_another_one_another_id() -> None:
    of = happened(ENDED, metadata=MARK)
    here, again = notices(of), notices(of)
    there = notices(of._replace(key=KEY._replace(tenant=TenantId("other"))))

    assert here == again
    assert len({one.id for one in (*here, *there)}) == 4


def test_ids_sort_by_time() -> None:
    (first,), (second,) = (notices(happened(ENDED, at=at)) for at in (999_999_999.9, 1e9))

    assert first.id < second.id


@given(
    st.text(),
    st.floats(min_value=-1e18, max_value=1e18),
    st.datetimes(timezones=st.just(UTC)),
)
def test_whatever_a_fact_says_it_can_be_told_in_20_kilobytes(
    text: str, at: float, until: datetime
) -> None:
    long = (text.encode("utf-8", "ignore").decode() or "ü") * 50_000
    of = happened(replace(ENDED, reason=long), metadata=MARK, at=at)
    of = of._replace(agent=long, began=replace(of.began, purpose=long))
    asked = happened(replace(ASKED, name=long, expires_at=until), at=at)

    for one in (*notices(of), *notices(asked)):
        assert len(one.body) < LARGEST
        assert json.loads(one.body)["type"] == one.type
