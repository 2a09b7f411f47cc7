"""Known values are masked in every form, however the text that holds them was cut."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import AsyncGenerator
from typing import Literal
from urllib.parse import quote

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.core.codec import dump, load
from hostler.core.events import (
    AttemptId,
    CallId,
    InputId,
    ModelReplied,
    PrincipalId,
    RunId,
    Seq,
    ToolCall,
    Usage,
    UserSpoke,
)
from hostler.core.ports import Delta, Reply
from hostler.core.said import ToolSaid
from hostler.core.sealed import Part
from hostler.testing.canaries import ODD, Canaries, spellings
from hostler.vault.forms import forms
from hostler.vault.masker import Masker
from hostler.vault.tails import Tail

KEY = "sk-0123456789abcdef"
LETTERS = 'ab"é\\'
VALUES = st.lists(
    st.text(LETTERS, min_size=8, max_size=12).filter(lambda one: len(one.strip()) >= 8),
    min_size=1,
    max_size=4,
)


def streamed(masker: Masker, text: str, cuts: list[int]) -> str:
    """Return a text masked in the pieces that `cuts` make of it."""
    tail, places = Tail(masker), sorted({0, len(text), *cuts})
    pieces = [text[a:b] for a, b in itertools.pairwise(places)]
    return "".join([*map(tail.feed, pieces), tail.end()])


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_text_cut_anywhere_is_masked_as_the_whole(data: st.DataObject) -> None:
    values = data.draw(VALUES)
    masker = Masker((f"n{i}", value) for i, value in enumerate(values))
    known = st.sampled_from(sorted({form for value in values for form in forms(value)}))
    begun = known.map(lambda form: form[: len(form) // 2])
    pieces = data.draw(st.lists(st.one_of(st.text(f"{LETTERS}x", max_size=12), known, begun)))
    text = "".join(pieces[:6])
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=10))

    masked = streamed(masker, text, cuts)

    assert masked == masker.text(text)
    assert not any(value in masked for value in values)


ODD_VALUE = f"canary{ODD}0123456789"
HOLDERS = {
    **{name: f"<{one.decode()}>" for name, one in spellings(ODD_VALUE).items() if "64" not in name},
    **{
        f"base64, shifted by {n}": base64.b64encode(
            b"x" * n + ODD_VALUE.encode() + b"more"
        ).decode()
        for n in range(3)
    },
}


@pytest.mark.parametrize("form", HOLDERS)
def test_a_form_is_masked_at_every_cut(form: str) -> None:
    masker, canaries, text = Masker([("k", ODD_VALUE)]), Canaries({"k": ODD_VALUE}), HOLDERS[form]

    assert canaries.seen(text, "before")
    for cut in range(len(text)):
        told = streamed(masker, text, [cut])
        assert not canaries.seen(told, "after")
        assert "[secret:k]" in told


@pytest.mark.parametrize("shift", range(3))
def test_base64_of_a_text_around_it_gives_nothing_away(shift: int) -> None:
    whole = base64.b64encode(b"x" * shift + KEY.encode() + b"more").decode()

    masked = Masker([("k", KEY)]).text(whole)

    assert "[secret:k]" in masked
    assert len(masked.replace("[secret:k]", "")) <= 12


def test_only_a_tail_that_may_begin_a_value_is_held_back() -> None:
    tail = Tail(Masker([("k", "QQQQ-0123456789")]))

    assert tail.feed("Hello there") == "Hello there"
    assert tail.feed(" QQQ") == " "
    assert tail.feed("!") == "QQQ!"
    assert tail.feed("QQQQ-01") == ""
    assert tail.feed("23456789, that") == "[secret:k], that"


def test_values_that_overlap_are_masked_as_one() -> None:
    masker = Masker([("a", "abcdefgh"), ("b", "efghijkl")])

    assert masker.text("-abcdefghijkl-") == "-[secret:a]-"
    assert streamed(masker, "-abcdefghijkl-", [9]) == "-[secret:a]-"


def test_a_fact_that_holds_nothing_is_the_same_fact() -> None:
    fact, masker = reply("nothing"), Masker([("k", KEY)])
    raw = dump(fact)

    assert masker.fact(fact, raw) == (fact, raw)
    assert masker.fact(fact, raw)[0] is fact


def test_a_fact_keeps_its_form_whatever_the_value() -> None:
    hostile = ["model_replied", '","text":"', 'text":"ab', "nabcdefgh", "att_00000001"]
    for value in (one for one in hostile if len(one) >= 8):
        fact = reply(f"line\nabcdefgh {value}")
        masked, raw = Masker([("k", value)]).fact(fact, dump(fact))

        assert load(raw) == masked
        assert isinstance(masked, ModelReplied)
        assert value not in masked.text
        assert (masked.attempt, masked.run) == (fact.attempt, fact.run)


def test_what_a_provider_signed_is_not_played_back_changed() -> None:
    masker = Masker([("k", KEY)])
    said = Reply(text="", stop="end", replay={"thinking": KEY, "signature": "s"})
    other = Reply(text="", stop="end", replay={"thinking": "fine", "signature": "s"})

    assert masker.value(said).replay is None
    assert masker.value(other) is other


Way = tuple[Literal["text", "thinking", "arguments"], CallId | None]
WAYS: list[Way] = [
    ("text", None),
    ("thinking", None),
    ("arguments", CallId("call_1")),
    ("arguments", CallId("call_2")),
]


async def told(masker: Masker, given: list[Delta | Reply]) -> tuple[dict[Way, str], list[Part]]:
    """Return what each way of a masked answer joins to, and all that was passed on."""

    async def parts() -> AsyncGenerator[Part, None]:
        for one in given:
            yield one

    joined, got = dict[Way, str](), [part async for part in masker.stream(parts())]
    for part in got:
        if isinstance(part, Delta):
            joined[part.part, part.call] = joined.get((part.part, part.call), "") + part.text
    return joined, got


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_parts_that_take_turns_anywhere_join_to_their_masked_wholes(data: st.DataObject) -> None:
    values = data.draw(VALUES)
    masker = Masker((f"n{i}", value) for i, value in enumerate(values))
    known = st.sampled_from(sorted({form for value in values for form in forms(value)}))
    texts = st.lists(st.one_of(known, st.text(f"{LETTERS}x", max_size=6)), max_size=3).map("".join)
    wholes = {way: data.draw(texts) for way in WAYS}
    left, turns = dict(wholes), list[Delta | Reply]()
    while any(left.values()):
        way = data.draw(st.sampled_from([way for way, text in left.items() if text]))
        size = data.draw(st.integers(1, 6))
        turns.append(Delta(way[0], left[way][:size], way[1]))
        left[way] = left[way][size:]

    joined, _ = anyio.run(told, masker, [*turns, Reply(text=wholes[WAYS[0]], stop="end")])

    for way, whole in wholes.items():
        assert joined.get(way, "") == masker.text(whole)


@pytest.mark.anyio
async def test_parts_that_take_turns_never_show_a_value_and_join_to_the_reply() -> None:
    masker, given = Masker([("k", KEY)]), list[Delta | Reply]()
    for at in range(0, len(KEY), 3):
        given += [Delta("text", KEY[at : at + 3]), Delta("thinking", "-")]

    joined, got = await told(masker, [*given, Reply(text=KEY, stop="end")])

    last = got[-1]
    assert isinstance(last, Reply)
    assert joined["text", None] == last.text == "[secret:k]"
    assert joined["thinking", None] == "-" * (len(given) // 2)


@pytest.mark.anyio
async def test_a_tool_that_a_model_calls_by_a_secret_is_not_named() -> None:
    call = CallId("call_1")

    _, (first, second, _) = await told(
        Masker([("k", KEY)]),
        [
            Delta("arguments", "", call, KEY),
            Delta("arguments", "{}", call),
            Reply(text="", stop="end"),
        ],
    )

    assert first == Delta("arguments", "", call, "[secret:k]")
    assert second == Delta("arguments", "{}", call)


def test_the_search_for_canaries_finds_every_form() -> None:
    canaries = Canaries()
    value = canaries.new("k", odd=True)
    told = [
        value,
        json.dumps({"a": value}),
        json.dumps(json.dumps(value)),
        quote(value),
        *(base64.b64encode(b"x" * n + value.encode()).decode() for n in range(3)),
    ]

    for one in told:
        assert canaries.seen(one, "here"), one
        assert not canaries.seen(Masker([("k", value)]).text(one), "here"), one
    assert not canaries.seen("nothing", "here")


def reply(text: str) -> ModelReplied:
    return ModelReplied(
        run=RunId("run_1"),
        attempt=AttemptId("att_00000001"),
        seen=Seq(1),
        text=text,
        calls=(),
        stop="end",
        usage=Usage(),
    )


def test_a_call_that_a_history_answers_is_masked_like_the_one_it_makes() -> None:
    call = ToolCall(id=CallId("call_1"), name="push", arguments={"token": KEY})
    spoke = UserSpoke(
        run=RunId("run_1"),
        input=InputId("inp_1"),
        content="go on",
        policy="queue",
        principal=PrincipalId("p"),
        metadata={},
        history=(ToolSaid(call, "pushed"),),
    )

    masked, raw = Masker([("github", KEY)]).fact(spoke, dump(spoke))

    assert isinstance(masked, UserSpoke)
    assert KEY.encode() not in raw
    assert load(raw) == masked
