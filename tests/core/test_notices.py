"""What webhooks are told of facts: thin, bounded, always the same, in each client's words."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hostler.beside.notices import Began, Happened, notices
from hostler.core.events import (
    ApprovalAsked,
    CallId,
    Event,
    Fact,
    JsonObject,
    Key,
    RunEnded,
    RunId,
    RunStarted,
    RunStatus,
    Seq,
    SessionId,
    TenantId,
    Usage,
)

KEY = Key(TenantId("acme"), SessionId("ses_1"))
RUN = RunId("run_0123abc")
LARGEST = 20_000
ENDED = RunEnded(run=RUN, status="done", usage=Usage(input_tokens=3, cost=Decimal("0.10")))
ASKED = ApprovalAsked(
    run=RUN,
    call=CallId("call_1"),
    name="pay",
    arguments={"to": "a secret friend"},
    digest="d",
    expires_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
)


def happened(
    fact: Fact, *, metadata: JsonObject | None = None, at: float = 1_700_000_000.25
) -> Happened:
    began = Began(purpose="nightly", metadata=metadata or {})
    event = Event(session=KEY.session, seq=Seq(7), at=at, fact=fact, raw=b"")
    return Happened(KEY, "helper", event, began)


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
    ("status", "reason", "native", "openai"),
    [
        ("done", None, "run.completed", "response.completed"),
        ("done", "length", "run.completed", "response.incomplete"),
        ("failed", "model_error", "run.failed", "response.failed"),
        ("failed", "step_limit", "run.failed", "response.incomplete"),
        ("cancelled", None, "run.cancelled", "response.cancelled"),
        ("cancelled", "budget", "run.cancelled", "response.cancelled"),
    ],
)
def test_an_end_of_a_background_response_is_told_in_openai_s_words_too(
    status: RunStatus, reason: str | None, native: str, openai: str
) -> None:
    fact = replace(ENDED, status=status, reason=reason)

    found = told(happened(fact, metadata={"openai": {"background": True, "x": 1}}))

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


def test_a_run_of_which_nobody_knows_who_began_it_is_told_without_a_purpose() -> None:
    (notice,) = notices(happened(ENDED)._replace(began=Began()))

    assert json.loads(notice.body)["data"]["purpose"] is None


def test_other_facts_are_told_to_nobody() -> None:
    assert notices(happened(RunStarted(run=RUN))) == []


def test_the_same_fact_gives_the_same_notice_and_another_one_another_id() -> None:
    of = happened(ENDED, metadata={"openai": {"background": True}})
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
    of = happened(replace(ENDED, reason=long), metadata={"openai": {"background": True}}, at=at)
    of = of._replace(agent=long, began=replace(of.began, purpose=long))
    asked = happened(replace(ASKED, name=long, expires_at=until), at=at)

    for one in (*notices(of), *notices(asked)):
        assert len(one.body) < LARGEST
        assert json.loads(one.body)["type"] == one.type
