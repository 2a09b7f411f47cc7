"""Requests to webhooks are what the reference library and OpenAI's SDK take; tries have a schedule."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from itertools import pairwise

import pytest
from msgspec.structs import replace
from openai import InvalidWebhookSignatureError, OpenAI
from openai.types.webhooks import ResponseCompletedWebhookEvent
from standardwebhooks import Webhook as Receiver
from standardwebhooks import WebhookVerificationError

from hostler.beside.webhooks import Delivery, Posted, Webhook
from hostler.service.sending import (
    FAILING_S,
    MOST_WAIT_S,
    after,
    asked_to_wait_s,
    headers_of,
    new_secret,
)
from hostler.testing.webhook_suite import a_delivery, a_webhook

BODY = json.dumps({"type": "webhook.test", "said": "grüß dich"}, ensure_ascii=False).encode()
TAKEN, FAILED = Posted(204), Posted(500)
DAY_S = 86_400.0


def signed(*keys: str, at: float | None = None) -> Mapping[str, str]:
    return headers_of(keys, "evt_1", at=time.time() if at is None else at, body=BODY)


# -- signatures ------------------------------------------------------------------------------


def test_the_reference_library_takes_what_is_signed() -> None:
    key = new_secret()

    assert Receiver(key).verify(BODY, dict(signed(key))) == json.loads(BODY)


def test_the_signature_is_that_of_the_specification_s_own_example() -> None:
    headers = headers_of(
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        at=1614265330.9,
        body=b'{"test": 2432232314}',
    )

    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert headers["webhook-timestamp"] == "1614265330"
    assert headers["webhook-id"] == "msg_p5jXN8AQM9LWM0D4loKWxJek"


def test_while_two_secrets_are_good_receivers_with_either_take_it() -> None:
    old, new, other = new_secret(), new_secret(), new_secret()
    headers = dict(signed(new, old))

    for key in (old, new):
        assert Receiver(key).verify(BODY, headers)
    with pytest.raises(WebhookVerificationError):
        Receiver(other).verify(BODY, headers)


@pytest.mark.parametrize("change", ["body", "id", "time"])
def test_what_was_changed_on_the_way_or_is_old_is_not_taken(change: str) -> None:
    key, body = new_secret(), BODY
    headers = dict(signed(key, at=time.time() - 600 if change == "time" else None))
    if change == "body":
        body += b" "
    if change == "id":
        headers["webhook-id"] = "evt_2"

    with pytest.raises(WebhookVerificationError):
        Receiver(key).verify(body, headers)


def test_openai_s_sdk_takes_and_reads_what_its_clients_are_told() -> None:
    key = new_secret()
    body = (
        b'{"id":"evt_1","object":"event","created_at":1700000000,"type":"response.completed",'
        b'"data":{"id":"resp_0123abc"}}'
    )
    headers = dict(headers_of([key], "evt_1", at=time.time(), body=body))
    client = OpenAI(api_key="none", webhook_secret=key)

    event = client.webhooks.unwrap(body, headers)

    assert isinstance(event, ResponseCompletedWebhookEvent)
    assert (event.id, event.data.id) == ("evt_1", "resp_0123abc")
    with pytest.raises(InvalidWebhookSignatureError):
        client.webhooks.unwrap(body + b" ", headers)


def test_secrets_are_new_each_time_and_as_long_as_the_specification_wants() -> None:
    assert len({new_secret() for _ in range(9)}) == 9
    assert len(new_secret()) == len("whsec_") + 44


@pytest.mark.parametrize("key", ["whsec_?", "whsec_é", "whsec_abc"])
def test_what_is_no_secret_signs_nothing(key: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        headers_of([key], "evt_1", at=1.0, body=b"")


# -- tries -----------------------------------------------------------------------------------


def tried(
    *answers: Posted, step_s: float | None = None, chance: float = 0.0
) -> list[tuple[float, Webhook, Delivery]]:
    """Try a delivery when it is due, or each `step_s`; return when, and what became of both."""
    hook, row, now = a_webhook(), a_delivery("1", 0.0), 0.0
    found = list[tuple[float, Webhook, Delivery]]()
    for came in answers:
        hook, row = after(hook, row, row, came, now=now, chance=chance)
        found.append((now, hook, row))
        now = now + step_s if step_s is not None else row.next_at or now
    return found


def test_tries_are_as_far_apart_as_the_specification_proposes_and_then_given_up() -> None:
    found = tried(*[FAILED] * 10)

    times = [at for at, _, _ in found]
    waits = [later - before for before, later in pairwise(times)]
    minute, hour = 60, 3600
    assert waits == [5, 5 * minute, 30 * minute, *(one * hour for one in (2, 5, 10, 14, 20, 24))]
    states = [(row.status, row.tries) for _, _, row in found]
    assert states == [*(("pending", one) for one in range(1, 10)), ("given_up", 10)]
    assert found[-1][2].next_at is None


def test_chance_makes_a_wait_longer_by_a_tenth_at_most() -> None:
    found = [tried(FAILED, chance=chance)[0][2].next_at for chance in (0.0, 0.5, 1.0)]

    assert found == [5.0, 5.25, 5.5]


@pytest.mark.parametrize("code", [200, 201, 202, 204, 299])
def test_a_2xx_is_the_end(code: int) -> None:
    ((_, hook, row),) = tried(Posted(code))

    assert (row.status, row.next_at, row.code, row.tries) == ("delivered", None, code, 1)
    assert (hook.failures, hook.failing_since) == (0, None)


@pytest.mark.parametrize(
    "came",
    [*map(Posted, (100, 199, 300, 301, 307, 400, 404, 429, 500, 599)), Posted(error="no")],
    ids=str,
)
def test_all_else_is_a_failure_redirects_too(came: Posted) -> None:
    ((_, hook, row),) = tried(came)

    assert (row.status, row.code, row.error) == ("pending", came.code, came.error)
    assert (hook.failures, hook.failing_since) == (1, 0.0)


def test_a_receiver_that_is_gone_is_told_nothing_more() -> None:
    ((_, hook, row),) = tried(Posted(410))

    assert (hook.disabled_at, hook.disabled_because) == (0.0, "gone")
    assert (row.status, row.next_at) == ("given_up", None)


def test_what_fails_for_days_without_one_success_is_disabled_and_says_so() -> None:
    days = [hook.disabled_because for _, hook, _ in tried(*[FAILED] * 12, step_s=DAY_S)]
    often = [hook.disabled_because for _, hook, _ in tried(*[FAILED] * 30, step_s=60.0)]
    between = tried(*[FAILED] * 9, TAKEN, *[FAILED] * 9, step_s=DAY_S)

    assert days == [None] * 9 + ["failing"] * 3
    assert set(often) == {None}, "many in one hour are no days"
    assert {hook.disabled_because for _, hook, _ in between} == {None}
    assert FAILING_S == 5 * DAY_S


def test_what_is_this_server_s_own_fault_is_tried_again_and_disables_nothing() -> None:
    found = tried(*[Posted(error="no key", is_theirs=False)] * 10, step_s=DAY_S)

    assert {(hook.failures, hook.disabled_at) for _, hook, _ in found} == {(0, None)}
    assert found[-1][2].status == "given_up"


def test_a_try_of_what_was_replayed_meanwhile_leaves_it_due() -> None:
    sent = a_delivery("1", 0.0)
    again = replace(sent, replays=1, next_at=3.0)

    for came in (TAKEN, FAILED):
        _, row = after(a_webhook(), again, sent, came, now=4.0, chance=0.0)
        assert (row.status, row.next_at, row.tries) == ("pending", 3.0, 1)


def test_a_try_that_ends_after_its_webhook_was_disabled_is_not_due_again() -> None:
    off = replace(a_webhook(), disabled_at=1.0, disabled_because="asked")

    hook, row = after(off, a_delivery("1", 0.0), a_delivery("1", 0.0), FAILED, now=4.0, chance=0.0)

    assert (row.status, row.next_at, hook.disabled_because) == ("pending", None, "asked")


# -- Retry-After -----------------------------------------------------------------------------


@pytest.mark.parametrize("code", [429, 502, 503, 504])
def test_a_receiver_that_says_how_long_is_left_alone_for_so_long(code: int) -> None:
    ((_, _, row),) = tried(Posted(code, "100"))
    ((_, _, sooner),) = tried(Posted(code, "1"))

    assert (row.next_at, sooner.next_at) == (100.0, 5.0)


RETRY_AFTER: Sequence[tuple[str, float | None]] = [
    ("0", 0.0),
    (" 7 ", 7.0),
    ("9" * 5000, MOST_WAIT_S),
    (formatdate(1_000_050, usegmt=True), 50.0),
    (formatdate(999_000, usegmt=True), 0.0),
    ("Fri, 31 Dec 9999 23:59:59 GMT", MOST_WAIT_S),
    ("-5", None),
    ("1.5", None),
    ("soon", None),
    ("", None),
    ("٣", None),
    ("Mon, 99 Foo 2026 99:99:99 GMT", None),
]


@pytest.mark.parametrize(("text", "wait_s"), RETRY_AFTER, ids=range(len(RETRY_AFTER)))
def test_what_it_says_is_read_in_both_forms_and_bounded(text: str, wait_s: float | None) -> None:
    assert asked_to_wait_s(Posted(429, text), 1_000_000.0) == wait_s


def test_other_answers_are_not_asked_how_long() -> None:
    assert asked_to_wait_s(Posted(500, "100"), 0.0) is None
    assert asked_to_wait_s(Posted(200, "100"), 0.0) is None
