"""Tool calls are put together from whatever fragments a server makes of them."""

from __future__ import annotations

import json
import re
import time
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.core.events import CallId, ToolCall
from hostler.models.calls import DEEPEST, PLAIN_ID, Calls, parsed, wire_id

Fragment = tuple[int | None, str | None, str | None, str | None]
"""Index, id, name, arguments."""

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(alphabet='ab"\\{}[]€🦄 '),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz"), inner, max_size=3),
    max_leaves=4,
)
OBJECTS = st.dictionaries(st.text(alphabet="kl{}", max_size=3), VALUES, max_size=4)


def put_together(*fragments: Fragment, cut: bool = False) -> tuple[ToolCall, ...]:
    calls = Calls()
    for index, provider_id, name, arguments in fragments:
        calls.add(index=index, provider_id=provider_id, name=name, arguments=arguments)
    return calls.end(cut=cut)


@given(
    objects=st.lists(OBJECTS, min_size=1, max_size=4),
    seed=st.randoms(use_true_random=False),
    ids=st.booleans(),
)
@settings(deadline=None, max_examples=50)
def test_interleaved_fragments_of_any_size_give_the_calls(
    objects: list[dict[str, object]], seed: Random, *, ids: bool
) -> None:
    queues: list[list[Fragment]] = []
    for index, one in enumerate(objects):
        text, queue = json.dumps(one), list[Fragment]()
        queue.append((index, f"id{index}" if ids else None, f"tool{index}", ""))
        while text:
            size = seed.randint(1, 6)
            queue.append((index, None, None, text[:size]))
            text = text[size:]
        queues.append(queue)
    fragments = list[Fragment]()
    while any(queues):
        queue = seed.choice([one for one in queues if one])
        fragments.append(queue.pop(0))

    calls = put_together(*fragments)

    assert {call.name: call.arguments for call in calls} == {
        f"tool{index}": one for index, one in enumerate(objects)
    }
    assert all(call.unparsed is None for call in calls)


@given(
    fragments=st.lists(
        st.tuples(
            st.none() | st.integers(0, 2),
            st.none() | st.sampled_from(["", "a", "b"]),
            st.none() | st.sampled_from(["", "one", "two"]),
            st.none() | st.sampled_from(["", "{}", '{"a":', "1}", '{"a":1}', "null", "x", "}"]),
        ),
        max_size=8,
    ),
    cut=st.booleans(),
)
@settings(deadline=None)
def test_any_fragments_give_calls_with_ids_of_their_own(
    fragments: list[Fragment], *, cut: bool
) -> None:
    calls = put_together(*fragments, cut=cut)

    ids = [call.id for call in calls]
    theirs = [call.provider_id for call in calls if call.provider_id is not None]
    assert len(set(ids)) == len(ids)
    assert len(set(theirs)) == len(theirs)
    assert bool(calls) == bool(fragments)
    assert all(not call.arguments for call in calls if call.unparsed is not None)


def test_a_name_that_comes_late_is_told_late() -> None:
    calls = Calls()

    first = calls.add(index=0, arguments='{"a"')
    second = calls.add(index=0, name="late", arguments=":1}")

    assert first[1:] == (None, '{"a"')
    assert second == (first[0], "late", ":1}")
    assert [call.name for call in calls.end(cut=False)] == ["late"]


def test_a_call_is_cut_only_where_the_limit_fell() -> None:
    whole, half = put_together((0, "a", "one", '{"x":1}'), (1, "b", "two", '{"x":'), cut=True)

    assert (whole.cut, whole.arguments) == (False, {"x": 1})
    assert (half.cut, half.arguments, half.unparsed) == (True, {}, '{"x":')


def test_an_earlier_call_without_arguments_is_not_cut() -> None:
    first, second = put_together((0, "a", "one", ""), (1, "b", "two", ""), cut=True)

    assert (first.cut, second.cut) == (False, True)


def test_broken_arguments_are_kept_as_they_came() -> None:
    (call,) = put_together((0, "a", "one", '{"x": tru}'))

    assert (call.arguments, call.unparsed, call.cut) == ({}, '{"x": tru}', False)


def test_arguments_may_be_as_deep_as_the_limit_and_no_deeper() -> None:
    deep = '{"a":' * DEEPEST + "1" + "}" * DEEPEST

    assert parsed(deep) is not None
    assert parsed('{"a":' + deep + "}") is None
    assert parsed('{"a":' * 100_000) is None
    assert parsed('{"a":"' + "{[" * 100 + '"}') is not None


def test_many_glued_objects_are_not_taken_for_calls() -> None:
    text = "".join(f'{{"a":{n}}}' for n in range(100))

    (call,) = put_together((0, "a", "one", text))

    assert call.unparsed == text


def test_names_that_are_repeated_cost_no_parse_each_time() -> None:
    calls = Calls()
    started = time.process_time()

    calls.add(index=0, provider_id="a", name="write", arguments='{"text":"')
    for _ in range(20_000):
        calls.add(index=0, provider_id="a", name="write", arguments="some words of it ")
    calls.add(index=0, provider_id="a", name="write", arguments='"}')

    assert len(str(calls.end(cut=False)[0].arguments["text"])) == 20_000 * 17
    assert time.process_time() - started < 3.0  # parsing 340 kB each time would take an hour


def call_named(ours: str, theirs: str | None) -> ToolCall:
    return ToolCall(id=CallId(ours), name="x", arguments={}, provider_id=theirs)


def test_a_call_goes_back_under_the_providers_id() -> None:
    assert wire_id(call_named("call_1", "toolu_9")) == "toolu_9"


def test_an_id_that_does_not_fit_is_replaced_by_ours() -> None:
    assert wire_id(call_named("call_1", "functions.x:0")) == "call_1"
    assert wire_id(call_named("call_1", "y" * 65)) == "call_1"
    assert wire_id(call_named("call_1", None)) == "call_1"


@given(ours=st.text(min_size=1), theirs=st.none() | st.text())
@settings(deadline=None)
def test_whatever_the_ids_what_goes_back_fits_and_stays(ours: str, theirs: str | None) -> None:
    nine = re.compile(r"[A-Za-z0-9]{9}")
    call = call_named(ours, theirs)

    for fits in (PLAIN_ID, nine):
        assert fits.fullmatch(wire_id(call, fits))
        assert wire_id(call, fits) == wire_id(call, fits)
