"""How a reply came is kept: whoever reads it again has the pieces of those who watched."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hostler.core.codec import dump, load
from hostler.core.events import (
    AttemptDropped,
    AttemptId,
    CallId,
    ModelReplied,
    RunId,
    Seq,
    ToolCall,
    Usage,
)
from hostler.core.ports import Delta, Reply
from hostler.core.streamed import Streamed, each, joined, pieces
from hostler.service.position import rest_of

CALLS = (
    ToolCall(id=CallId("call_a"), name="look", arguments={"at": [1, 2], "k": "ä"}),
    ToolCall(id=CallId("call_b"), name="say", arguments={}),
)
SPACED = {"call_a": '{"at": [1, 2], "k": "ä"}', "call_b": "{}"}


def cut(text: str, sizes: list[int]) -> list[str]:
    parts, at = list[str](), 0
    for size in sizes:
        parts.append(text[at : at + size])
        at += size
    return [*parts, text[at:]]


sizes = st.lists(st.integers(0, 5), max_size=6)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@st.composite
def streams(draw: st.DrawFn) -> list[Delta]:
    """Deltas of a reply: parts in any order, cut anywhere, each call's arguments as a whole."""
    made = list[Delta]()
    for part in draw(st.lists(st.sampled_from(["text", "thinking"]), max_size=5)):
        made += [Delta(part, one) for one in cut(draw(texts), draw(sizes))]  # type: ignore[arg-type]
    for call in CALLS:
        name: str | None = call.name
        for one in cut(SPACED[call.id], draw(sizes)):
            made.append(Delta("arguments", one, call.id, name))
            name = None
    return made


def reply_of(deltas: list[Delta], tail: str = "") -> Reply:
    said = {
        part: "".join(one.text for one in deltas if one.part == part)
        for part in ("text", "thinking")
    }
    return Reply(text=said["text"] + tail, stop="tools", calls=CALLS, thinking=said["thinking"])


def noted(deltas: list[Delta]) -> Streamed:
    streamed = Streamed()
    for one in deltas:
        streamed.add(one)
    return streamed


@given(deltas=streams(), tail=texts)
def test_a_reply_has_the_very_deltas_that_were_streamed(deltas: list[Delta], tail: str) -> None:
    reply = reply_of(deltas, tail)
    fact = ModelReplied(
        run=RunId("run_a"),
        attempt=AttemptId("att_a"),
        seen=Seq(1),
        text=reply.text,
        calls=reply.calls,
        stop=reply.stop,
        usage=Usage(),
        thinking=reply.thinking,
        streamed=noted(deltas).stretches(reply),
    )
    kept = load(dump(fact))

    assert isinstance(kept, ModelReplied)
    assert [*pieces(kept)] == deltas


@given(deltas=streams())
def test_so_has_an_attempt_that_came_to_nothing(deltas: list[Delta]) -> None:
    streamed = noted(deltas)
    fact = AttemptDropped(
        run=RunId("run_a"),
        attempt=AttemptId("att_a"),
        reason="failed",
        text=streamed.text() or None,
        streamed=streamed.stretches(),
    )
    kept = load(dump(fact))

    assert isinstance(kept, AttemptDropped)
    assert [*pieces(kept)] == deltas


def test_text_that_the_fact_has_is_not_kept_twice() -> None:
    deltas = [Delta("text", "good "), Delta("text", "day")]

    (stretch,) = noted(deltas).stretches(reply_of(deltas))
    assert (stretch.sizes, stretch.said) == ((5, 3), None)


@given(parts=st.lists(texts, min_size=1, max_size=8), seen=st.integers(0, 200))
def test_joined_deltas_come_apart_as_they_were_and_so_does_what_is_left_of_them(
    parts: list[str], seen: int
) -> None:
    deltas = [Delta("text", one) for one in parts]
    whole = joined(*deltas)
    seen = min(seen, len(whole.text))
    rest = rest_of(whole, seen)

    assert [*each(whole)] == deltas
    assert rest.text == whole.text[seen:]
    ends = {sum(map(len, parts[: place + 1])) for place in range(len(parts))}
    left, at = set[int](), seen
    for one in each(rest):
        at += len(one.text)
        left.add(at)
    assert left <= ends | {seen}
