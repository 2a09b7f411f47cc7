"""Chunks of Chat Completions: whatever is cut how, the parts add up to the whole answer."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise
from typing import cast

from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from hostler.core.events import CallId, JsonObject, TenantId, ToolCall
from hostler.core.ports import Delta, Reply
from hostler.faces.chat.writing import DONE, Named, Writer, completion, encode
from hostler.faces.http.keepsakes import KeepsakesOf

NAMED = Named(id='chatcmpl-"1"', created=7, model="p:ünïcode")
KEEPSAKES = KeepsakesOf()(TenantId("t"))
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
KNOWN: st.SearchStrategy[JsonObject] = st.dictionaries(
    TEXT, cast("st.SearchStrategy[object]", TEXT | st.integers(-9, 9) | st.none()), max_size=3
)


@st.composite
def answers(draw: st.DrawFn) -> tuple[Sequence[Delta], Reply]:
    """Return a reply, and it cut into deltas anywhere; some calls have none."""
    thought, text = draw(TEXT), draw(TEXT)
    calls = tuple(
        ToolCall(id=CallId(f"call_{place}"), name=draw(TEXT), arguments=arguments)
        for place, arguments in enumerate(draw(st.lists(KNOWN, max_size=3)))
    )
    deltas = [*_cut(draw, "thinking", thought), *_cut(draw, "text", text)]
    told = draw(st.integers(0, len(calls)))
    for call in calls[:told]:
        first, *rest = [one.text for one in _cut(draw, "text", encode(call.arguments).decode())]
        deltas.append(Delta("arguments", first, call.id, call.name))
        deltas += [Delta("arguments", one, call.id) for one in rest]
    reply = Reply(
        text=text,
        thinking=thought or None,
        calls=calls,
        stop="tools" if calls else "end",
        replay=draw(st.none() | KNOWN),
    )
    return deltas, reply


def _cut(draw: st.DrawFn, part: str, text: str) -> list[Delta]:
    places = sorted({0, *draw(st.lists(st.integers(0, len(text)), max_size=4)), len(text)})
    pieces = [text[a:b] for a, b in pairwise(places)] or [text]
    return [Delta(part, piece) for piece in pieces]  # type: ignore[arg-type]


@given(answer=answers(), usage=st.booleans())
def test_the_chunks_of_any_cut_add_up_to_the_whole_answer(
    *, answer: tuple[Sequence[Delta], Reply], usage: bool
) -> None:
    deltas, reply = answer
    writer = Writer(NAMED, KEEPSAKES, usage=usage)
    made = [*writer.begin(), *chain.from_iterable(map(writer.add, deltas)), *writer.end(reply)]
    raw = b"".join(made)

    assert raw.endswith(DONE)
    events = [one.removeprefix(b"data: ") for one in raw.removesuffix(DONE).split(b"\n\n")[:-1]]
    read = [ChatCompletionChunk.model_validate_json(one, strict=True) for one in events]
    whole = ChatCompletion.model_validate_json(
        encode(completion(NAMED, reply, KEEPSAKES)), strict=True
    )
    message = whole.choices[0].message
    assert {(one.id, one.created, one.model) for one in read} == {
        (whole.id, whole.created, whole.model)
    }
    told = [one.choices[0] for one in read if one.choices]
    assert "".join(one.delta.content or "" for one in told) == (message.content or "")
    thought = [cast("str", getattr(one.delta, "reasoning_content", "")) for one in told]
    assert "".join(thought) == (reply.thinking or "")
    called = dict[int, list[str]]()
    for one in told:
        for call in one.delta.tool_calls or ():
            assert call.function is not None
            if call.index not in called:
                called[call.index] = [call.id or "", call.function.name or "", ""]
            else:
                assert call.id is call.function.name is None
            called[call.index][2] += call.function.arguments or ""
    expected = [[one.id, one.name, encode(one.arguments).decode()] for one in reply.calls]
    assert [called[place] for place in sorted(called)] == expected
    assert [one.finish_reason for one in told if one.finish_reason] == [
        whole.choices[0].finish_reason
    ]
    assert [one.usage for one in read if one.usage is not None] == ([whole.usage] * usage)
