"""Facts survive being written down, by this build, an older or a newer one."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostler.core import codec
from hostler.core.codec import CorruptFact, dump, load
from hostler.core.events import (
    ApprovalAsked,
    ApprovalGiven,
    CallId,
    ConversationEdited,
    Fact,
    InputId,
    JsonObject,
    MessageScheduled,
    ModelReplied,
    PartShown,
    PrincipalId,
    RunId,
    ToolCall,
    ToolFinished,
    ToolStarted,
    Unknown,
    Usage,
    UserSpoke,
)
from hostler.core.said import ModelSaid, TextPart, UserSaid
from hostler.core.shown import DataPart, FilePart, SourcePart

unhurried = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
GOLDEN = sorted((Path(__file__).parents[1] / "logs").glob("*.jsonl"))

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=8,
)
json_objects: st.SearchStrategy[JsonObject] = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5), json_values, max_size=3
)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
st.register_type_strategy(str, words)
st.register_type_strategy(
    datetime,
    st.datetimes(timezones=st.just(UTC), min_value=datetime(2000, 1, 1)),  # noqa: DTZ001
)
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))
st.register_type_strategy(Decimal, st.decimals(allow_nan=False, allow_infinity=False))
large = (
    ModelReplied,
    UserSpoke,
    ToolStarted,
    ApprovalAsked,
    ApprovalGiven,
    PartShown,
    ConversationEdited,
    MessageScheduled,
)
small = [kind for kind in get_args(Fact) if kind not in large]
facts = st.one_of(
    *(st.builds(kind) for kind in small),
    st.builds(ToolStarted, arguments=json_objects),
    st.builds(ApprovalAsked, arguments=json_objects),
    st.builds(ApprovalGiven, arguments=json_objects | st.none()),
    st.builds(
        PartShown,
        part=st.builds(DataPart, value=json_values) | st.builds(SourcePart) | st.builds(FilePart),
    ),
    st.builds(
        MessageScheduled,
        message=st.builds(
            UserSpoke,
            content=words,
            metadata=json_objects,
            client_tools=st.none(),
            history=st.just(()),
            terms=st.none(),
        ),
    ),
    st.builds(
        ConversationEdited,
        said=st.lists(st.builds(UserSaid) | st.builds(ModelSaid, replay=json_objects)).map(tuple),
        metadata=json_objects,
    ),
    st.builds(
        ModelReplied,
        calls=st.lists(st.builds(ToolCall, arguments=json_objects), max_size=2).map(tuple),
        replay=json_objects | st.none(),
        raw_usage=json_objects | st.none(),
    ),
)


@pytest.mark.timeout(120)
@given(fact=facts)
@unhurried
def test_what_is_dumped_is_loaded_back(fact: Fact) -> None:
    assert load(dump(fact)) == fact


@pytest.mark.timeout(120)
@given(text=words, metadata=json_objects)
@unhurried
def test_any_text_and_any_metadata_survive(text: str, metadata: JsonObject) -> None:
    said = UserSpoke(
        run=RunId("run_1"),
        input=InputId("inp_1"),
        content=(TextPart(text=text),),
        policy="queue",
        principal=PrincipalId("p"),
        metadata=metadata,
    )
    assert load(dump(said)) == said


def test_the_kind_comes_first_so_that_a_frame_can_be_made_by_joining_bytes() -> None:
    for kind in get_args(Fact):
        assert kind.__struct_config__.tag_field == "kind"
    finished = ToolFinished(run=None, call=CallId("c"), outcome="ok", output="")
    assert dump(finished).startswith(b'{"kind":"tool_finished",')


def test_money_is_written_as_a_string_and_read_back_exactly() -> None:
    usage = Usage(cost=Decimal("0.000123456789012345"))
    assert b'"cost":"0.000123456789012345"' in dump(usage)  # type: ignore[arg-type]


def test_a_field_of_a_newer_build_is_passed_over() -> None:
    raw = b'{"kind":"run_started","run":"run_1","colour":"blue"}'
    assert load(raw) == load(b'{"kind":"run_started","run":"run_1"}')


def test_a_field_that_an_older_build_did_not_write_has_its_default() -> None:
    call = b'{"id":"call_1","name":"look","arguments":{}}'
    raw = b'{"kind":"model_replied","run":"r","attempt":"a","seen":1,"text":"","stop":"tools",'
    fact = load(raw + b'"usage":{},"calls":[' + call + b"]}")
    assert isinstance(fact, ModelReplied)
    assert fact.calls == (ToolCall(id=CallId("call_1"), name="look", arguments={}),)


def test_a_kind_of_a_newer_build_is_unknown_and_keeps_its_run() -> None:
    assert load(b'{"kind":"run_teleported","run":"run_1","to":{"x":1}}') == Unknown(
        run=RunId("run_1"), kind="run_teleported"
    )
    assert load(b'{"kind":"run_teleported","run":{"of":1}}') == Unknown(
        run=None, kind="run_teleported"
    )


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b'{"run":"r"}',
        b'{"kind":5}',
        b'{"kind":"run_started","run":5}',
        b'{"kind":"run_claimed","run":"r","claim":"one","worker":"w"}',
        b"\xff",
        b'{"kind":"from_the_future","x":' + b"[" * 100_000,
    ],
)
def test_damage_is_told_as_such_and_not_as_something_else(raw: bytes) -> None:
    with pytest.raises(CorruptFact):
        load(raw)


def test_an_upcaster_brings_an_old_form_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    def from_text(old: JsonObject) -> JsonObject:
        return {**old, "output": str(old["text"])}

    monkeypatch.setattr(codec, "UPCASTERS", {"tool_finished": from_text})

    fact = load(b'{"kind":"tool_finished","run":"r","call":"c","outcome":"ok","text":"old"}')

    assert fact == ToolFinished(run=RunId("r"), call=CallId("c"), outcome="ok", output="old")


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_a_log_of_every_release_can_still_be_read_and_is_written_the_same(file: Path) -> None:
    for line in file.read_bytes().splitlines():
        fact = load(line)
        assert not isinstance(fact, Unknown)
        assert dump(fact) == line


def test_the_golden_logs_hold_every_kind() -> None:
    lines = [line for file in GOLDEN for line in file.read_bytes().splitlines()]
    assert {line.split(b'"', 4)[3].decode() for line in lines} == set(codec.KINDS)
