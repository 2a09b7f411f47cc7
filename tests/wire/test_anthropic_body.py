"""What a Messages request holds, and what it never does."""

from __future__ import annotations

import base64

import msgspec
import pytest

from hostler.core.events import (
    CallId,
    JsonObject,
    ToolCall,
)
from hostler.core.ports import Request, ToolSpec
from hostler.core.said import ImagePart, ModelSaid, Said, TextPart, ToolSaid, UserSaid
from hostler.core.shown import FilePart
from hostler.models.anthropic_request import body
from hostler.models.capabilities import Capabilities, capabilities

PDF = base64.b64encode(b"%PDF-1.7").decode()
WEATHER = ToolSpec(name="weather", description="Say the weather.", parameters={"type": "object"})
CLOCK = ToolSpec(name="clock", description="Say the time.", parameters={"type": "object"})
PARIS = ToolCall(
    id=CallId("call_1"), name="weather", arguments={"city": "Paris"}, provider_id="toolu_01"
)
ROME = ToolCall(id=CallId("call_2"), name="weather", arguments={"city": "Rome €"})
MARK: JsonObject = {"cache_control": {"type": "ephemeral"}}


def asking(*said: Said, system: str = "") -> Request:
    return Request(system=system, transcript=said)


def written(request: Request, able: JsonObject | None = None, model: str = "m") -> JsonObject:
    raw = body(request, model=model, able=msgspec.convert(able or {}, Capabilities))
    return msgspec.json.decode(raw, type=dict[str, object])


def contents(
    request: Request, able: JsonObject | None = None, model: str = "m"
) -> list[list[JsonObject]]:
    """Return the blocks of each message, without marks."""
    sent = written(request, {"cache_markers": False, **(able or {})}, model)
    messages = msgspec.convert(sent["messages"], list[dict[str, object]])
    return [msgspec.convert(one["content"], list[dict[str, object]]) for one in messages]


def loop(turns: int) -> Request:
    said: list[Said] = [UserSaid("Weather?")]
    for turn in range(turns):
        call = msgspec.structs.replace(PARIS, id=CallId(f"c{turn}"), provider_id=f"toolu_{turn}")
        said += [ModelSaid("", calls=(call,)), ToolSaid(call, f"sun {turn}")]
    return Request(system="s", transcript=said, tools=[WEATHER, CLOCK])


def test_options_may_not_change_what_is_ours() -> None:
    options: JsonObject = {
        "model": "evil",
        "messages": [],
        "system": "evil",
        "stream": False,
        "top_k": 3,
    }

    sent = written(Request(system="s", transcript=[UserSaid("Hi.")], options=options))

    assert (sent["model"], sent["stream"], sent["top_k"]) == ("m", True, 3)
    assert sent["system"] == [{"type": "text", "text": "s", **MARK}]
    assert sent["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "Hi.", **MARK}]}
    ]


def test_tools_among_the_options_come_after_ours() -> None:
    search: JsonObject = {"type": "web_search_20250305", "name": "web_search"}
    options: JsonObject = {"tools": [search]}

    both = written(Request(system="s", transcript=[], tools=[CLOCK], options=options))
    theirs = written(Request(system="s", transcript=[], options=options))

    schema = {"type": "object"}
    ours = {"name": "clock", "description": "Say the time.", "input_schema": schema}
    assert both["tools"] == [ours, search]
    assert theirs["tools"] == [search]


def test_the_limit_is_the_caller_s_or_the_options_or_the_model_s() -> None:
    def limit(able: JsonObject | None = None, **fields: object) -> object:
        request = Request(system="", transcript=[])
        return written(msgspec.structs.replace(request, **fields), able)["max_tokens"]

    assert limit() == 8192
    assert limit({"max_output_tokens": 5}) == 5
    assert limit({"max_output_tokens": 5}, max_output_tokens=7) == 7
    assert limit(max_output_tokens=7, options={"max_tokens": 9}) == 9


@pytest.mark.parametrize(
    ("model", "most"),
    [
        ("claude-opus-4-1-20250805", 32000),
        ("claude-sonnet-5-5", 32000),
        ("claude-3-7-sonnet-latest", 32000),
        ("claude-3-5-haiku-latest", 8192),
        ("claude-3-haiku-20240307", 4096),
        ("anthropic/claude-3-opus-latest", 4096),
    ],
)
def test_no_model_is_asked_for_more_than_it_can_write(model: str, most: int) -> None:
    assert capabilities("anthropic", "https://api.anthropic.com", model).max_output_tokens == most


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
def test_the_marks_are_on_the_system_and_the_last_three_messages(turns: int) -> None:
    raw = body(loop(turns), model="m", able=Capabilities())

    sent = msgspec.json.decode(raw, type=dict[str, object])
    messages = msgspec.convert(sent["messages"], list[dict[str, object]])
    marked = ["cache_control" in str(one) for one in messages]
    assert raw.count(b"cache_control") == min(4, 1 + len(messages))
    assert "cache_control" in str(sent["system"])
    assert marked == [False] * (len(messages) - 3) + [True] * min(3, len(messages))


def test_without_a_system_the_tools_are_marked() -> None:
    sent = written(Request(system=" ", transcript=[], tools=[WEATHER, CLOCK]))

    first, last = msgspec.convert(sent["tools"], list[dict[str, object]])
    assert "system" not in sent
    assert "cache_control" not in first
    assert last["cache_control"] == MARK["cache_control"]


def test_thinking_is_never_marked() -> None:
    thinking: JsonObject = {"type": "thinking", "chars": 0, "signature": "s"}
    kept: list[JsonObject] = [{"type": "text", "chars": 1}, thinking]
    said = asking(UserSaid("a"), ModelSaid("b", replay={"model": "m", "content": kept}))

    raw = written(said)["messages"]

    assert msgspec.convert(raw, list[JsonObject])[1]["content"] == [
        {"type": "text", "text": "b", **MARK},
        {"type": "thinking", "thinking": "", "signature": "s"},
    ]
    assert "cache_control" not in str(kept), "the log was changed"


def test_nothing_is_marked_where_that_is_switched_off_or_done_by_the_options() -> None:
    options: JsonObject = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    request = loop(2)

    off = written(request, {"cache_markers": False})
    automatic = written(msgspec.structs.replace(request, options=options))

    assert "cache_control" not in str(off)
    assert automatic["cache_control"] == options["cache_control"]
    assert str(automatic).count("cache_control") == 1


def test_a_longer_conversation_begins_with_the_bytes_of_the_shorter() -> None:
    short, long = (body(loop(n), model="m", able=Capabilities(cache_markers=False)) for n in (2, 3))

    assert long.startswith(short.removesuffix(b"]}"))


def test_thinking_goes_back_to_the_model_that_thought_it_and_to_no_other() -> None:
    replay: JsonObject = {
        "model": "m",
        "content": [
            {"type": "thinking", "chars": 2, "signature": "s1"},
            {"type": "text", "chars": 1},
            {"type": "thinking", "chars": 3, "signature": "s2"},
            {"type": "tool_use", "caller": {"type": "direct"}},
        ],
    }
    said = asking(
        UserSaid("a"), ModelSaid("b", calls=(PARIS, ROME), thinking="Hm. So", replay=replay)
    )
    exact = msgspec.structs.replace(
        said, transcript=[ModelSaid("b", (PARIS, ROME), "Hm.So", replay)]
    )

    (same,) = contents(exact)
    _, shortened = contents(said)
    (other,) = contents(exact, model="n")

    paris: JsonObject = {
        "type": "tool_use",
        "id": "toolu_01",
        "name": "weather",
        "input": {"city": "Paris"},
    }
    rome: JsonObject = paris | {"id": "call_2", "input": {"city": "Rome €"}}
    assert same == [
        {"type": "thinking", "thinking": "Hm", "signature": "s1"},
        {"type": "text", "text": "b"},
        {"type": "thinking", "thinking": ".So", "signature": "s2"},
        paris | {"caller": {"type": "direct"}},
        rome,
    ]
    assert other == shortened == [{"type": "text", "text": "b"}, paris, rome]


def test_thinking_without_a_signature_goes_back_only_where_that_is_taken() -> None:
    replay: JsonObject = {
        "model": "m",
        "content": [{"type": "thinking", "chars": 3}, {"type": "text", "chars": 1}],
    }
    said = asking(ModelSaid("b", thinking="Hm.", replay=replay))

    (loose,), (strict,) = contents(said), contents(said, {"unsigned_thinking": False})

    assert loose[0] == {"type": "thinking", "thinking": "Hm.", "signature": ""}
    assert strict == [{"type": "text", "text": "b"}]
    assert not capabilities("x", "https://gateway.example", "claude-opus-5").unsigned_thinking


def test_no_empty_text_is_ever_sent() -> None:
    blank: JsonObject = {"type": "text", "chars": 2}
    silent = msgspec.structs.replace(PARIS, id=CallId("call_3"), provider_id=None)
    request = asking(
        UserSaid(""),
        ModelSaid(" \n", calls=(PARIS, silent)),
        ToolSaid(PARIS, ""),
        ToolSaid(silent, " ", failed=True),
        UserSaid((TextPart(text=""), TextPart(text="a"))),
        ModelSaid("", thinking="Hm."),
        UserSaid("b"),
        ModelSaid(" \nc", replay={"model": "m", "content": [blank, {"type": "text", "chars": 1}]}),
        system="\n",
    )

    user, model, results, last = contents(request)

    assert user == [{"type": "text", "text": "[An empty message.]"}]
    assert [block["type"] for block in model] == ["tool_use", "tool_use"]
    assert results == [
        {"type": "tool_result", "tool_use_id": "toolu_01"},
        {
            "type": "tool_result",
            "tool_use_id": "call_3",
            "is_error": True,
            "content": "It failed and said nothing.",
        },
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b"},
    ]
    assert last == [{"type": "text", "text": "c"}]


def test_ids_and_names_that_others_made_are_made_fit() -> None:
    first = ToolCall(id=CallId("call_1"), name="weather", arguments={}, provider_id="call_0")
    again = ToolCall(id=CallId("call_2"), name="weather", arguments={}, provider_id="call_0")
    odd = ToolCall(id=CallId("call_3"), name="ns.do it", arguments={}, provider_id="ns.do:0")
    none = ToolCall(id=CallId("call_4"), name="", arguments={})
    request = asking(
        ModelSaid("", calls=(first,)),
        ToolSaid(first, "1"),
        ModelSaid("", calls=(again, odd, none)),
        ToolSaid(again, "2"),
        ToolSaid(odd, "3"),
        ToolSaid(none, "4"),
    )

    a, a_result, b, b_results = contents(request)

    assert [one["id"] for one in (*a, *b)] == ["call_0", "call_2", "call_3", "call_4"]
    assert [one["tool_use_id"] for one in (*a_result, *b_results)] == [
        *("call_0", "call_2", "call_3", "call_4")
    ]
    assert [one["name"] for one in b] == ["weather", "ns_do_it", "unknown"]


def test_what_a_model_cannot_be_shown_is_told_in_words() -> None:
    table = base64.b64encode(b"a,b").decode()
    parts = (
        ImagePart(url="http://example.com/a.png"),
        ImagePart(data="AAAA", media_type="image/tiff"),
        FilePart(data=table, media_type="text/csv", name="t.csv"),
        FilePart(url="https://example.com/z.zip", name="z.zip"),
        FilePart(data=PDF, media_type="application/pdf", name="r.pdf"),
    )

    ((*rest, pdf),) = contents(asking(UserSaid(parts)), {"files": True})
    (plain,) = contents(asking(UserSaid(parts)), {"images": False})

    assert [block["text"] for block in rest] == [
        "[An image at http://example.com/a.png, which you cannot be shown.]",
        "[An image, which you cannot be shown.]",
        "[File t.csv]\na,b\n[End of file t.csv]",
        "[File z.zip (application/octet-stream) at https://example.com/z.zip, which you cannot be shown.]",
    ]
    assert pdf["type"] == "document"
    assert {block["type"] for block in plain} == {"text"}


def test_the_odd_wishes_of_servers_are_granted() -> None:
    request = Request(system="", transcript=[], tools=[WEATHER])

    sent = written(request, {"parallel_tools": False, "strict_schema": True})

    assert sent["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert '"strict":true' in msgspec.json.encode(sent["tools"]).decode()
    assert "eager_input_streaming" not in str(sent)
