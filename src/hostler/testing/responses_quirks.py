"""The ways in which servers of Responses differ from each other and from the book.

The names in brackets are where.  Only events as such servers send them, and what must come of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from hostler.core.events import JsonObject
from hostler.testing.chat_quirks import quirk
from hostler.testing.model_script import Call, Fails, Replies, Scenario
from hostler.testing.responses_faults import ENDS, EVENTS, FAULTS, says
from hostler.testing.wire_responses import (
    added,
    argued,
    call,
    done,
    end,
    event,
    message,
    text,
    thought,
)

WEATHER = Call(name="weather", arguments={"city": "Paris"})
TIME = Call(name="time", arguments={"zone": "CET"})
_PARIS, _CET = '{"city":"Paris"}', '{"zone":"CET"}'


def _calls(name: str, raw: Sequence[bytes], *calls: Call) -> Scenario:
    return quirk(name, raw, Replies(calls=calls, stop="tools"))


_WHOLE: Sequence[JsonObject] = (
    {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]},
    message("Let me see.", id="msg_1"),
    call("weather", _PARIS, id="fc_1", call_id="a"),
    call("time", _CET, id="fc_2", call_id="b"),
)
_TOLD = Replies(text="Let me see.", thinking="Hm.", calls=[WEATHER, TIME], stop="tools")
_BEGUN = [
    added(call("weather", "", id="fc_1", call_id="a"), output_index=0),
    argued(_PARIS, output_index=0, item_id="fc_1"),
]

ITEMS: Sequence[Scenario] = (
    quirk("items come with the end only", [end(*_WHOLE)], _TOLD),
    quirk(
        "items come when they are done only",
        [*(done(item, output_index=at) for at, item in enumerate(_WHOLE)), end(*_WHOLE)],
        _TOLD,
    ),
    quirk(
        "items come when they are done only, without index or id, and the end is empty",
        [*(done(item | {"id": None}) for item in _WHOLE), end()],
        _TOLD,
    ),
    quirk(
        "items that are done come twice",
        [*(done(item, output_index=at) for at, item in enumerate(_WHOLE) for _ in "ab"), end()],
        _TOLD,
    ),
    says("the end has an empty list of items", [text("Hi."), end()], "Hi."),
    says(
        "the end has neither items nor usage",
        [text("Hi."), event("response.completed", response={"status": "completed"})],
        "Hi.",
    ),
    says("the end has no response", [text("Hi."), event("response.completed")], "Hi."),
    says("the end is called done", [text("Hi."), event("response.done", response=None)], "Hi."),
    _calls(
        "the end has one call more than was told",
        [*_BEGUN, end(*_WHOLE[2:])],
        WEATHER,
        TIME,
    ),
    _calls(
        "the end has other ids than the events (GitHub Copilot)",
        [*_BEGUN, end(_WHOLE[2] | {"id": "other"})],
        WEATHER,
    ),
    _calls(
        "the id of an item changes with every event (GitHub Copilot)",
        [
            added(call("weather", "", id="x1", call_id="a"), output_index=0),
            argued('{"city":', output_index=0, item_id="x2"),
            argued('"Paris"}', output_index=0, item_id="x3"),
            done(call("weather", _PARIS, id="x4", call_id="a"), output_index=0),
            end(call("weather", _PARIS, id="x5", call_id="a")),
        ],
        WEATHER,
    ),
    _calls(
        "all items have index 0, one after the other",
        [
            *_BEGUN,
            done(_WHOLE[2], output_index=0),
            added(call("time", "", id="fc_2", call_id="b"), output_index=0),
            argued(_CET, output_index=0, item_id="fc_2"),
            done(_WHOLE[3], output_index=0),
            end(*_WHOLE[2:]),
        ],
        WEATHER,
        TIME,
    ),
    _calls(
        "items have no index",
        [
            added(call("weather", "", id="fc_1", call_id="a")),
            added(call("time", "", id="fc_2", call_id="b")),
            argued(_PARIS, item_id="fc_1"),
            argued(_CET, item_id="fc_2"),
            done(_WHOLE[2]),
            done(_WHOLE[3]),
            end(),
        ],
        WEATHER,
        TIME,
    ),
    _calls("an item begins twice", [_BEGUN[0], *_BEGUN, done(_WHOLE[2]), end()], WEATHER),
    says(
        "text comes for an item that never began",
        [text("Hi", output_index=0, item_id="msg_1"), text(".", output_index=0), end()],
        "Hi.",
    ),
    says(
        "two messages are two paragraphs",
        [
            added(message("", phase="commentary"), output_index=0),
            text("I'll look.", output_index=0),
            done(message("I'll look.", phase="commentary"), output_index=0),
            added(message("", phase="final_answer"), output_index=1),
            text("", output_index=1),
            text("Done", output_index=1),
            text(".", output_index=1),
            end(),
        ],
        "I'll look.\n\nDone.",
    ),
    says(
        "a search stands between two messages",
        [
            done(message("I'll look."), output_index=0),
            done({"type": "web_search_call", "id": "ws_1", "status": "completed"}, output_index=1),
            done(message("Done."), output_index=2),
            end(),
        ],
        "I'll look.\n\nDone.",
    ),
    quirk(
        "it calls a tool that is no function",
        [done({"type": "custom_tool_call", "name": "sh", "call_id": "a", "input": "ls"}), end()],
        Fails(codes=["invalid_request"], again=False, says="custom_tool_call"),
    ),
)
"""How items are told."""

CALLS: Sequence[Scenario] = (
    _calls(
        "the name of a tool comes when the call is done",
        [
            added({"type": "function_call", "id": "fc_1"}, output_index=0),
            argued(_PARIS, output_index=0),
            done(_WHOLE[2], output_index=0),
            end(),
        ],
        WEATHER,
    ),
    _calls(
        "arguments come whole, in three places (xAI)",
        [
            added(_WHOLE[2], output_index=0),
            event("response.function_call_arguments.done", output_index=0, arguments=_PARIS),
            done(_WHOLE[2], output_index=0),
            end(_WHOLE[2]),
        ],
        WEATHER,
    ),
    _calls(
        "a call has a name when its arguments are whole, and is never done",
        [
            event("response.function_call_arguments.done", name="weather", arguments=_PARIS),
            end(),
        ],
        WEATHER,
    ),
    _calls("arguments are an object", [done(call("weather", {"city": "Paris"})), end()], WEATHER),
    _calls(
        "arguments are missing",
        [done({"type": "function_call", "name": "ping", "call_id": "a"}), end()],
        Call(name="ping", arguments={}),
    ),
    _calls(
        "two calls share one id",
        [
            done(call("weather", _PARIS, id="fc_1", call_id="a"), output_index=0),
            done(call("time", _CET, id="fc_2", call_id="a"), output_index=1),
            end(),
        ],
        WEATHER,
        TIME,
    ),
    _calls(
        "a call without a name",
        [*_BEGUN, end(*_WHOLE[2:3], call("", "{}"))],
        WEATHER,
        Call(name="", arguments={}),
    ),
)
"""How calls are told."""

THOUGHTS: Sequence[Scenario] = (
    says(
        "a summary has two parts",
        [
            thought("Hm", output_index=0, summary_index=0),
            thought(".", output_index=0, summary_index=0),
            thought("So.", output_index=0, summary_index=1),
            text("Yes.", output_index=1),
            end(),
        ],
        "Yes.",
        "Hm.\n\nSo.",
    ),
    says(
        "there are two thoughts",
        [thought("Hm.", output_index=0), thought("So.", output_index=1), text("Yes."), end()],
        "Yes.",
        "Hm.\n\nSo.",
    ),
    says(
        "thoughts are told in full (vLLM)",
        [thought("Hm.", "reasoning_text", content_index=0), text("Yes."), end()],
        "Yes.",
        "Hm.",
    ),
    says(
        "thoughts are told in full and in short",
        [
            thought("Hm, hm", "reasoning_text", output_index=0),
            thought(".", "reasoning_text", output_index=0),
            thought("Hm.", output_index=0),
            text("Yes."),
            end(),
        ],
        "Yes.",
        "Hm, hm.",
    ),
    says(
        "thoughts come as reasoning.delta (OpenRouter)",
        [thought("Hm.", "reasoning"), text("Yes."), end()],
        "Yes.",
        "Hm.",
    ),
    says(
        "thoughts come inside of the text",
        [
            text("<thi"),
            text("nk>Hm.</think>"),
            text("Yes."),
            end(message("<think>Hm.</think>Yes.")),
        ],
        "Yes.",
        "Hm.",
    ),
    says(
        "a thought is whole, and in full",
        [
            done({"type": "reasoning", "content": [{"type": "reasoning_text", "text": "Hm."}]}),
            done(message("Yes.")),
            end(),
        ],
        "Yes.",
        "Hm.",
    ),
)
"""How thoughts are told."""

RESPONSES_QUIRKS: Sequence[Scenario] = (*ITEMS, *CALLS, *THOUGHTS, *FAULTS, *ENDS, *EVENTS)
