"""One try of a model against a scripted provider, and what is checked of every try.

Whatever the scenario: the model never raises and ends exactly once; the deltas add up to the
reply; every call has an id of ours, which no other has; no call is lost, doubled or half; a
stream without the provider's own end is a failure; a failure is one line that names the provider
and holds no key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field, replace

from hostler.core.events import CallId, ToolCall, Usage
from hostler.core.ports import Delta, Failure, Model, Reply, Request
from hostler.core.said import UserSaid
from hostler.testing.model_script import Fails, Fault, Replies, Scenario, Shape, WireFormat
from hostler.testing.provider_server import (
    Close,
    Flood,
    Hang,
    Move,
    Reset,
    Send,
    Trickle,
    chunk,
    head,
    provider_server,
)

KEY = "sk-kit-7f3a9c51d2e84b60"
DEADLINE_S = 15.0
SHORT_S = 0.25
"""The model's patience in the cases that play with it."""
FLOOD_BYTES = 1 << 30
MOST_TAKEN_BYTES = 48 << 20
"""Of a flood, what may leave the server: the bounds of `Setup`, and the buffers of two sockets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How the model under test must be made."""

    base_url: str
    """Ends in `/v1`; any path below it is answered."""
    key: Callable[[str], str | None] = lambda _: KEY
    """To be asked for each question."""
    first_byte_s: float = DEADLINE_S
    idle_s: float = DEADLINE_S
    event_bytes: int = 1 << 20
    body_bytes: int = 4 << 20
    context_window: int | None = None


Make = Callable[[Setup], AbstractAsyncContextManager[Model]]


QUESTION = Request(system="Be brief.", transcript=[UserSaid("What is the weather?")])


@dataclass(frozen=True, slots=True)
class Heard:
    """What a model yielded."""

    ending: Reply | Failure
    deltas: list[Delta] = field(default_factory=list[Delta])

    def said(self, part: str) -> str:
        return "".join(delta.text for delta in self.deltas if delta.part == part)


async def listen(model: Model, request: Request = QUESTION) -> Heard:
    """Ask, and return all that comes; it must end once, and with its end."""
    deltas: list[Delta] = []
    endings: list[Reply | Failure] = []
    async with aclosing(model.stream(request)) as parts:
        async for part in parts:
            assert not endings, f"{part} came after {endings}"
            if isinstance(part, Delta):
                deltas.append(part)
            else:
                endings.append(part)
    assert endings, f"no ending came after {deltas}"
    return Heard(endings[0], deltas)


# -- scenarios -------------------------------------------------------------------------------


def moves(scenario: Scenario, wire: WireFormat) -> list[Move]:
    """Return what the server does to play a scenario."""
    made: list[Move] = []
    events = _events(scenario, wire)
    if scenario.head:
        named = {"content-type": "text/event-stream", **_lower(scenario)}
        content_type = named.pop("content-type")
        lines = [f"{name}: {value}" for name, value in named.items()]
        made.append(Send(head(scenario.status, content_type=content_type, headers=lines)))
        made += [Send(chunk(piece)) for piece in _pieces(events, scenario.shape)]
    match scenario.after:
        case "end":
            made.append(Send(chunk(b"")))
        case "cut":
            made.append(Close())
        case "reset":
            made.append(Reset())
        case "stall":
            made.append(Hang())
        case "comments":
            made.append(Trickle(chunk(b": still here\n\n"), SHORT_S / 10))
        case "flood":
            made.append(Flood(chunk(events[-1]), FLOOD_BYTES))
        case "garbage":
            made += [Send(b"\x16\x03 what? \r\n\r\n"), Close()]
    return made


def _lower(scenario: Scenario) -> dict[str, str]:
    return {name.lower(): value for name, value in scenario.headers.items()}


def _events(scenario: Scenario, wire: WireFormat) -> list[bytes]:
    if scenario.body is not None:
        return [scenario.body] if scenario.body else []
    if scenario.status != 200 and isinstance(scenario.steps[0], Fault):
        fault = scenario.steps[0]
        return [wire.refusal(fault.kind, fault.message)]
    return list(wire.events(scenario.steps)) if scenario.steps else []


def _pieces(events: Sequence[bytes], shape: Shape) -> list[bytes]:
    before = b": ping\n\n" if shape.comments else b""
    shaped = [before + event for event in events]
    if not shape.space:
        shaped = [re.sub(rb"(?m)^data: ", b"data:", event) for event in shaped]
    if shaped:
        shaped[0] = shape.start + shaped[0]
    shaped = [event.replace(b"\n", shape.line_end) for event in shaped]
    size = shape.piece_bytes
    if size is None:
        return shaped
    whole = b"".join(shaped)
    return [whole[at : at + size] for at in range(0, len(whole), size)] if size else [whole]


async def play(scenario: Scenario, wire: WireFormat, make: Make) -> None:
    """Play a scenario to a model, once, and judge what it makes of it."""
    async with provider_server(lambda _: moves(scenario, wire)) as server:
        setup = Setup(base_url=f"{server.url}/v1", context_window=scenario.window)
        if scenario.after in {"stall", "comments"}:
            begun = scenario.head and scenario.steps
            setup = replace(setup, **{"idle_s" if begun else "first_byte_s": SHORT_S})
        async with make(setup) as model:
            heard = await listen(model)
        judge(heard, scenario.expect, model.provider)
        assert server.sent_bytes < MOST_TAKEN_BYTES, "it read on and on"
        assert len(server.asked) == 1, "it asked again by itself"


# -- judging ---------------------------------------------------------------------------------


def judge(heard: Heard, expect: Replies | Fails, provider: str) -> None:
    ending = heard.ending
    if isinstance(expect, Replies):
        assert isinstance(ending, Reply), ending
        _judge_reply(heard, ending, expect)
    else:
        assert isinstance(ending, Failure), ending
        _judge_failure(heard, ending, expect, provider)


def _judge_reply(heard: Heard, reply: Reply, expect: Replies) -> None:
    assert reply.text == expect.text
    assert (reply.thinking or None) == expect.thinking
    assert heard.said("text") == reply.text
    assert heard.said("thinking") == (reply.thinking or "")
    assert reply.stop == expect.stop
    if expect.usage is not None:
        assert _tokens(reply.usage) == expect.usage
    assert len(reply.calls) == len(expect.calls), reply.calls
    for call, expected in zip(reply.calls, expect.calls, strict=True):
        assert call.name == expected.name
        assert call.arguments == (expected.arguments or {})
        assert call.cut == expected.cut
        assert expected.arguments is None or call.unparsed is None, call
        assert expected.arguments is not None or call.cut or call.unparsed, call
    _judge_ids(heard, reply.calls)


def _judge_ids(heard: Heard, calls: Sequence[ToolCall]) -> None:
    ids = [call.id for call in calls]
    assert all(ids), ids
    assert len(set(ids)) == len(ids), ids
    theirs = [call.provider_id for call in calls if call.provider_id is not None]
    assert all(theirs), theirs
    assert len(set(theirs)) == len(theirs), theirs
    names: dict[CallId, str | None] = {}
    for delta in heard.deltas:
        if delta.part == "arguments" and delta.call is not None:
            assert delta.call in ids, f"{delta} is of no call in {ids}"
            assert delta.call in names or delta.name is not None, f"{delta} has no name"
            names.setdefault(delta.call, delta.name)


def _judge_failure(heard: Heard, failure: Failure, expect: Fails, provider: str) -> None:
    assert failure.code in expect.codes, failure
    assert failure.again == expect.again, failure
    assert failure.retry_after_s == expect.retry_after_s, failure
    assert expect.text is None or heard.said("text") == expect.text
    assert expect.says in failure.message, failure
    assert provider in failure.message, failure
    assert KEY not in failure.message
    assert "\n" not in failure.message
    assert len(failure.message) < 600


def _tokens(usage: Usage) -> Usage:
    """Return the usage without its cost, which is the model's own affair."""
    return Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        reasoning_tokens=usage.reasoning_tokens,
    )
