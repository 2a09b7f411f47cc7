"""Events of the Messages API: however an answer was cut, it adds up to the same one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TypeAlias, cast

from hypothesis import given, settings
from hypothesis import strategies as some

from hostler.core.events import CallId, JsonObject, TenantId, ToolCall
from hostler.core.ports import Delta, Reply
from hostler.faces.http.keepsakes import KeepsakesOf
from hostler.faces.messages.writer import Writer, message

Json: TypeAlias = dict[str, object]
REPLAY: JsonObject = {"model": "m"}
KEEPSAKES = KeepsakesOf()(TenantId("t"))


ARGUMENTS = some.dictionaries(some.text(max_size=4), some.text(max_size=4), max_size=2)
SPOKEN = some.tuples(some.sampled_from(["thinking", "text"]), some.text(max_size=8))
CALLED = some.tuples(some.just("call"), ARGUMENTS, some.integers(0, 20))


def cut(
    steps: Sequence[tuple[str, str] | tuple[str, dict[str, str], int]], late: int
) -> tuple[list[Delta], Reply]:
    """Return the deltas of a reply, and the reply; the rest of each call comes `late` deltas later."""
    deltas, calls, said = list[Delta](), list[ToolCall](), {"thinking": "", "text": ""}
    rests = list[tuple[int, Delta]]()
    for step in steps:
        if len(step) == 2:
            part, text = step
            said[part] += text
            deltas.append(Delta("text" if part == "text" else "thinking", text))
        else:
            _, arguments, at = step
            call = CallId(f"call_{len(calls)}")
            calls.append(ToolCall(id=call, name="act", arguments={**arguments}))
            text = json.dumps(arguments, ensure_ascii=False)
            deltas.append(Delta("arguments", text[:at], call, "act"))
            rests.append((len(deltas) + late, Delta("arguments", text[at:], call)))
    for place, rest in reversed(rests):
        deltas.insert(place, rest)
    reply = Reply(
        text=said["text"],
        thinking=said["thinking"] or None,
        calls=tuple(calls),
        stop="tools" if calls else "end",
        replay=REPLAY if late else None,
    )
    return deltas, reply


def blocks(wire: bytes) -> list[Json]:
    """Return the blocks that a client puts together; each begins, grows and stops in its turn."""
    found, open_ = list[Json](), False
    for frame in wire.decode().split("\n\n")[:-1]:
        kind, _, data = frame.partition("\n")
        event = cast("Json", json.loads(data.removeprefix("data: ")))
        assert kind == f"event: {event['type']}"
        match event["type"]:
            case "content_block_start":
                assert (open_, event["index"]) == (False, len(found))
                found.append({**cast("Json", event["content_block"]), "grown": ""})
                open_ = True
            case "content_block_delta":
                assert (open_, event["index"]) == (True, len(found) - 1)
                delta = cast("Json", event["delta"])
                if delta["type"] == "signature_delta":
                    found[-1]["signature"] = delta["signature"]
                else:
                    grown = delta.get("text", delta.get("thinking", delta.get("partial_json")))
                    found[-1]["grown"] = f"{found[-1]['grown']}{grown}"
            case "content_block_stop":
                assert (open_, event["index"]) == (True, len(found) - 1)
                open_ = False
            case _:
                pass
    assert not open_
    return found


@settings(deadline=None)  # the machine may be busy
@given(
    some.lists(SPOKEN | CALLED, max_size=8),
    some.integers(0, 3),
    some.booleans(),
)
def test_however_an_answer_is_cut_its_blocks_add_up_to_it(
    steps: list[tuple[str, str] | tuple[str, dict[str, str], int]],
    late: int,
    shows: bool,  # noqa: FBT001  hypothesis passes it by position
) -> None:
    deltas, reply = cut(steps, late)
    writer = Writer("msg_1", "m", KEEPSAKES, shows_thinking=shows)
    frames = [*writer.begin()]
    for delta in deltas:
        frames += writer.add(delta)
    found = blocks(b"".join([*frames, *writer.end(reply)]))

    def told(kind: str) -> str:
        return "".join(str(one["grown"]) for one in found if one["type"] == kind)

    assert told("text") == reply.text
    assert told("thinking") == ((reply.thinking or "") if shows else "")
    calls = [one for one in found if one["type"] == "tool_use"]
    assert {one["id"]: json.loads(str(one["grown"]) or "{}") for one in calls} == {
        one.id: one.arguments for one in reply.calls
    }
    whole = message("msg_1", "m", reply, KEEPSAKES, shown=shows)
    for content in (found, whole.content):
        kept = [KEEPSAKES.take(one.get("signature", one.get("data"))) for one in content]
        if reply.calls:
            assert [one.replay for one in kept if one.replay] == ([REPLAY] if reply.replay else [])
