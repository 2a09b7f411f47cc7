"""Responses told from facts and pieces: what nobody knows any more, and what comes in any form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import msgspec
from tests.serving import Json

from hostler.core.events import (
    AttemptDropped,
    AttemptId,
    CallId,
    Event,
    Fact,
    ModelAsked,
    ModelReplied,
    RunEnded,
    RunId,
    Seq,
    SessionId,
    ToolCall,
    Usage,
)
from hostler.core.news import Piece
from hostler.core.ports import Delta, Reply
from hostler.core.streamed import Streamed, joined
from hostler.faces.responses.echo import About
from hostler.faces.responses.telling import Part, Teller
from hostler.faces.responses.writer import LEAP, Writer

RUN, SESSION = RunId("run_1"), SessionId("ses_1")


def event(seq: int, fact: Fact) -> Event:
    return Event(session=SESSION, seq=Seq(seq), at=5.0, fact=fact, raw=b"")


def asked(seq: int) -> Event:
    attempt = AttemptId(f"att_{seq}")
    return event(seq, ModelAsked(run=RUN, attempt=attempt, provider="p", model="m"))


def piece(at: int, first: Delta, *more: Delta) -> Piece:
    attempt = AttemptId(f"att_{at}")
    return Piece(
        session=SESSION,
        run=RUN,
        asked=Seq(at),
        attempt=attempt,
        seq=Seq(at),
        start=0,
        delta=joined(first, *more) if more else first,
    )


def replied(seq: int, at: int, *deltas: Delta, calls: Sequence[ToolCall] = ()) -> Event:
    said, text = Streamed(), "".join(one.text for one in deltas if one.part == "text")
    for delta in deltas:
        said.add(delta)
    reply = Reply(text=text, stop="end", calls=tuple(calls))
    fact = ModelReplied(
        run=RUN,
        attempt=AttemptId(f"att_{at}"),
        seen=Seq(at),
        text=text,
        calls=tuple(calls),
        stop="end",
        usage=Usage(),
        streamed=said.stretches(reply),
    )
    return event(seq, fact)


def ended(seq: int) -> Event:
    return event(seq, RunEnded(run=RUN, status="done", usage=Usage()))


def told(*items: Event | Piece) -> list[Json]:
    teller = Teller(
        Part(run=RUN, since=Seq(1)),
        Writer(About(id="resp_1", created_at=1, model="p:m"), tail="1", sse=False),
    )
    teller.begin()
    frames = teller.taken()
    for item in items:
        more = teller.more([item])
        if more is None:
            teller.take(item)
            frames += teller.taken()
        elif more:
            teller.note()
            frames += more.replace(b"}{", b"}\n{").split(b"\n")
    return [msgspec.json.decode(one) for one in frames]


def test_what_was_lost_with_its_worker_is_left_behind_by_all() -> None:
    lost = event(4, AttemptDropped(run=RUN, attempt=AttemptId("att_2"), reason="worker_lost"))
    said = (Delta("text", "we"), Delta("text", "ll"))
    rest = (lost, asked(5), replied(6, 5, *said), ended(7))

    live = told(asked(2), piece(2, Delta("text", "so")), piece(2, Delta("text", " far")), *rest)
    again = told(asked(2), *rest)

    after = [one for one in live if int(str(one["sequence_number"])) >= LEAP]
    assert after == [one for one in again if int(str(one["sequence_number"])) >= LEAP]
    assert [one["sequence_number"] for one in after] == [*range(LEAP, LEAP + len(after))]
    before = [one["type"] for one in live if int(str(one["sequence_number"])) < LEAP]
    assert before[-1] == "response.output_item.done"
    output = cast("Json", after[-1]["response"])["output"]
    assert len(cast("list[Json]", output)) == 1


def test_pieces_that_come_joined_are_told_apart() -> None:
    said = (Delta("text", "a"), Delta("text", ""), Delta("text", "bc"), Delta("text", "d"))
    rest = (replied(3, 2, *said), ended(4))

    apart = told(asked(2), *(piece(2, one) for one in said), *rest)

    assert told(asked(2), piece(2, *said), *rest) == apart
    assert told(asked(2), piece(2, *said[:2]), piece(2, *said[2:]), *rest) == apart
    assert told(asked(2), piece(2, said[0]), *rest) == apart
    assert told(asked(2), *rest) == apart
    assert [one["delta"] for one in apart if "delta" in one] == ["a", "bc", "d"]


def test_a_call_whose_name_is_not_known_waits_for_the_reply() -> None:
    call = ToolCall(id=CallId("call_a"), name="look", arguments={"at": 1})
    said = (
        Delta("text", "so"),
        Delta("arguments", '{"at":', call.id, "look"),
        Delta("arguments", "1}", call.id),
        Delta("text", "!"),
    )
    rest = (replied(3, 2, *said, calls=[call]), ended(4))

    unnamed = Delta("arguments", '{"at":', call.id)
    live = told(
        asked(2), piece(2, said[0]), piece(2, unnamed), *(piece(2, one) for one in said[2:]), *rest
    )

    assert live == told(asked(2), *rest)
