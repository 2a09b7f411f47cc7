"""Keepsakes: what a model wants back comes back as it was, to the tenant it was made for, or not at all."""

from __future__ import annotations

import base64
from typing import cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.core.events import CallId, JsonObject, TenantId, ToolCall
from hostler.core.ports import Reply
from hostler.faces.http.keepsakes import NOTHING, VERSION, Keepsake, KeepsakesOf, keepsake_of

ACME, OTHER = TenantId("acme"), TenantId("other")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
KEPT = Keepsake(replay={"model": "m"}, thinking="a secret thought", calls={"call_1": "their_1"})


@settings(deadline=None)
@given(
    replay=st.none() | st.dictionaries(TEXT, TEXT | st.integers(-9, 9) | st.none(), max_size=3),
    thinking=st.none() | TEXT,
    calls=st.dictionaries(TEXT, TEXT, max_size=3),
)
def test_what_is_kept_comes_back_as_it_was_as_often_as_it_is_sent(
    *, replay: dict[str, object] | None, thinking: str | None, calls: dict[str, str]
) -> None:
    kept, keepsakes = Keepsake(replay=replay, thinking=thinking, calls=calls), KeepsakesOf()(ACME)

    token = keepsakes.give(kept)

    assert [keepsakes.take(token), keepsakes.take(token)] == [kept, kept]


def test_it_comes_back_after_a_restart_and_on_another_server_with_the_same_secret() -> None:
    secret = b"s" * 32

    token = KeepsakesOf((secret,))(ACME).give(KEPT)

    assert KeepsakesOf((secret,))(ACME).take(token) == KEPT
    assert KeepsakesOf((b"new" * 11, secret))(ACME).take(token) == KEPT
    assert KeepsakesOf((b"new" * 11,))(ACME).take(token) == NOTHING
    assert KeepsakesOf()(ACME).take(token) == NOTHING


def test_another_tenant_s_is_as_good_as_none() -> None:
    of = KeepsakesOf()

    assert of(OTHER).take(of(ACME).give(KEPT)) == NOTHING


def test_a_client_reads_nothing_in_it_and_no_two_are_alike() -> None:
    keepsakes = KeepsakesOf()(ACME)

    first, second = keepsakes.give(KEPT), keepsakes.give(KEPT)

    raw = base64.urlsafe_b64decode(first.removeprefix(VERSION))
    assert b"thought" not in raw
    assert b"their" not in raw
    assert first != second


def test_one_that_is_cut_anywhere_is_as_good_as_none() -> None:
    keepsakes = KeepsakesOf()(ACME)
    token = keepsakes.give(KEPT)

    assert {keepsakes.take(token[:end]) == NOTHING for end in range(len(token))} == {True}
    assert {keepsakes.take(token[at:]) == NOTHING for at in range(1, len(token))} == {True}


def test_one_that_is_changed_anywhere_is_as_good_as_none() -> None:
    keepsakes = KeepsakesOf()(ACME)
    token = keepsakes.give(KEPT)

    for at, old in enumerate(token):
        for new in ("B" if old == "A" else "A", "", f"{old}!", f"{old}\n", "=", "é", "\udfff"):
            assert keepsakes.take(token[:at] + new + token[at + 1 :]) == NOTHING, (at, new)


def test_the_last_bits_that_base64_does_not_need_are_no_other_way_to_write_it() -> None:
    keepsakes = KeepsakesOf()(ACME)
    for more in range(3):
        token = keepsakes.give(Keepsake(thinking="x" * more))
        end = token.rstrip("=")
        for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
            other = end[:-1] + last + token[len(end) :]
            assert other == token or keepsakes.take(other) == NOTHING


@given(
    token=st.text(max_size=80)
    | st.binary(max_size=60).map(lambda raw: VERSION + base64.urlsafe_b64encode(raw).decode())
)
def test_what_somebody_made_up_is_as_good_as_none(*, token: str) -> None:
    assert KeepsakesOf()(ACME).take(token) == NOTHING


@pytest.mark.parametrize("token", [None, 7, b"hostler2.", [], {}, "", VERSION, VERSION + "A" * 9])
def test_what_has_another_type_or_nothing_in_it_is_as_good_as_none(token: object) -> None:
    assert KeepsakesOf()(ACME).take(token) == NOTHING


@pytest.mark.parametrize("version", ["hostler1.", ""])
def test_one_of_before_they_were_sealed_is_as_good_as_none(version: str) -> None:
    old = version + base64.urlsafe_b64encode(msgspec.json.encode(KEPT)).decode()

    assert KeepsakesOf()(ACME).take(old) == NOTHING


def test_a_huge_one_comes_back_and_a_huge_false_one_does_not() -> None:
    keepsakes, huge = KeepsakesOf()(ACME), Keepsake(thinking="x" * 5_000_000)

    token = keepsakes.give(huge)

    assert keepsakes.take(token) == huge
    assert keepsakes.take(token[:-4] + "AAAA") == NOTHING
    assert keepsakes.take(VERSION + "A" * 8_000_000) == NOTHING


def test_what_is_sealed_in_a_form_that_is_not_known_is_as_good_as_none() -> None:
    keepsakes = KeepsakesOf()(ACME)
    for odd in ({"replay": 7}, {"calls": {"a": 1}}):
        token = keepsakes.give(cast("Keepsake", odd))
        assert keepsakes.take(token) == NOTHING


CALL = ToolCall(id=CallId("call_1"), name="look", arguments={}, provider_id="their_1")
REPLAY: JsonObject = {"model": "m"}


@pytest.mark.parametrize(
    ("reply", "shown", "kept"),
    [
        (Reply(text="x", stop="end"), True, NOTHING),
        (Reply(text="x", stop="end", thinking="hm"), True, NOTHING),
        (Reply(text="x", stop="end", thinking="hm"), False, Keepsake(thinking="hm")),
        (Reply(text="", stop="tools", calls=(CALL,)), False, NOTHING),
        (
            Reply(text="", stop="tools", calls=(CALL,), thinking="hm", replay=REPLAY),
            True,
            Keepsake(replay=REPLAY, calls={"call_1": "their_1"}),
        ),
    ],
)
def test_what_the_client_has_in_words_is_not_kept_twice(
    reply: Reply, kept: Keepsake, *, shown: bool
) -> None:
    assert keepsake_of(reply, shown=shown) == kept
