"""A call is read as it was meant where there is one way to mean it, and refused where there is not."""

from __future__ import annotations

import time

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostler.core.errors import ToolError
from hostler.core.events import CallId, JsonObject, ToolCall
from hostler.harness.repair import (
    DEEPEST,
    LARGEST_MENDED,
    LARGEST_TEXT,
    Mended,
    Names,
    read_arguments,
)

unhurried = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
TOOLS = Names(["get_weather", "search", "web_search_tool", "readFile", "delete_all"])
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
OBJECTS = st.dictionaries(st.text(max_size=6), JSON, max_size=4)


def read(text: str) -> Mended[JsonObject]:
    return read_arguments(ToolCall(id=CallId("call_1"), name="any", arguments={}, unparsed=text))


def wrapped(text: str, *, times: int) -> str:
    for _ in range(times):
        text = msgspec.json.encode(text).decode()
    return text


def refusal(text: str) -> str:
    with pytest.raises(ToolError) as refused:
        read(text)
    assert len(str(refused.value)) < 500
    return str(refused.value)


# -- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("GET_WEATHER", "get_weather"),
        ("get-weather", "get_weather"),
        ("get weather", "get_weather"),
        ("getWeather", "get_weather"),
        ("GetWeather", "get_weather"),
        ("read_file", "readFile"),
        ("readfile", "readFile"),
        ("functions.get_weather", "get_weather"),
        ("functions.get_weather:0", "get_weather"),
        ("default_api:get_weather", "get_weather"),
        ("mcp__server__get_weather", "get_weather"),
        ("tools/search", "search"),
        ("search_tool", "search"),
        ("Search-Tool", "search"),
        ("functions.SearchTool", "search"),
        ("web-search-tool", "web_search_tool"),
        ("get_weather<|channel|>commentary", "get_weather"),
        ("<|python_tag|>get_weather", "get_weather"),
        ("<tool_call>get_weather</tool_call>", "get_weather"),
        ("<function=get_weather>", "get_weather"),
        ('<invoke name="get_weather">', "get_weather"),
        ("get_weather</function", "get_weather"),
        (' "get_weather" ', "get_weather"),
        ("`get_weather()`", "get_weather"),
    ],
)
def test_a_name_is_found_by_its_spelling_and_the_mend_is_said(asked: str, meant: str) -> None:
    name, repairs = TOOLS.find(asked)
    assert name == meant
    assert len(repairs) == 1
    assert meant in repairs[0]


@pytest.mark.parametrize("name", ["get_weather", "search", "readFile"])
def test_an_exact_name_is_not_repaired(name: str) -> None:
    assert TOOLS.find(name) == (name, ())


@pytest.mark.parametrize(
    ("asked", "suggested"),
    [
        ("get_wether", "get_weather"),
        ("get_weathers", "get_weather"),
        ("serch", "search"),
        ("delete_al", "delete_all"),
        ("web_search", "web_search_tool"),
    ],
)
def test_a_name_that_is_merely_similar_is_suggested_and_never_run(
    asked: str, suggested: str
) -> None:
    with pytest.raises(ToolError, match=rf"no tool '{asked}'.*Did you mean .*{suggested}"):
        TOOLS.find(asked)


@pytest.mark.parametrize(
    "asked", ["", " ", "_", "weather", "all", "tool", "<>", "...", "get_weather_search", "\ud800"]
)
def test_a_name_that_means_nothing_is_refused_with_the_names_there_are(asked: str) -> None:
    with pytest.raises(ToolError, match="There are: delete_all, get_weather, readFile, search"):
        TOOLS.find(asked)


def test_two_names_of_one_spelling_are_ambiguous_unless_asked_for_exactly() -> None:
    names = Names(["get_weather", "get-weather", "GetWeather"])
    assert names.find("get-weather") == ("get-weather", ())
    with pytest.raises(ToolError, match="may be GetWeather or get-weather or get_weather"):
        names.find("Get Weather")


def test_a_namespace_of_the_tool_s_own_is_not_taken_for_another() -> None:
    names = Names(["github__search", "jira__search"])
    assert names.find("jira.search").value == "jira__search"
    for asked in ("search", "gitlab.search"):
        with pytest.raises(ToolError, match="no tool"):
            names.find(asked)


def test_a_name_of_nothing_but_separators_is_found_by_itself_alone() -> None:
    names = Names(["-", "search"])
    assert names.find("-").value == "-"
    with pytest.raises(ToolError):
        names.find("")


def test_without_tools_that_is_said() -> None:
    with pytest.raises(ToolError, match="no tools at all"):
        Names([]).find("search")


def test_an_endless_name_among_many_tools_is_refused_quickly_and_briefly() -> None:
    names = Names(f"tool_number_{i}" for i in range(5_000))
    began = time.process_time()
    with pytest.raises(ToolError) as refused:
        names.find("tool_numbr_<" * 100_000)
    assert time.process_time() - began < 2
    assert len(str(refused.value)) < 500


@unhurried
@given(st.text(), st.lists(st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True), max_size=5))
def test_whatever_is_asked_for_one_of_the_tools_is_found_or_none(
    asked: str, names: list[str]
) -> None:
    try:
        found = Names(names).find(asked)
    except ToolError:
        assert asked not in names
    else:
        assert found.value in names
        assert bool(found.repairs) == (found.value != asked)


# -- arguments -------------------------------------------------------------------------------


def test_arguments_that_came_as_an_object_are_that_object() -> None:
    arguments: JsonObject = {"city": "Paris"}
    call = ToolCall(id=CallId("call_1"), name="any", arguments=arguments)
    value, repairs = read_arguments(call)
    assert value is arguments
    assert repairs == ()


@unhurried
@given(OBJECTS)
def test_strict_json_is_never_changed(value: JsonObject) -> None:
    assert read(msgspec.json.encode(value).decode()) == (value, ())


@pytest.mark.parametrize(
    ("text", "meant", "mend"),
    [
        ('{"a": 1,}', {"a": 1}, "trailing comma"),
        ('{"a": [1, 2, ], }', {"a": [1, 2]}, "trailing comma"),
        ("{'a': 'it\\'s'}", {"a": "it's"}, "single quotes"),
        ("{'a': 'say \"hi\"'}", {"a": 'say "hi"'}, "single quotes"),
        ('{"a": True, "b": False, "c": None}', {"a": True, "b": False, "c": None}, "Python"),
        ('{"a": "one\ntwo\tthree\x00"}', {"a": "one\ntwo\tthree\x00"}, "control"),
        ('\ufeff{"a": 1}\x00', {"a": 1}, None),
        ('```json\n{"a": 1}\n```', {"a": 1}, "fence"),
        ('  ```\n{"a": 1}```  ', {"a": 1}, "fence"),
        ('"{\\"a\\": 1}"', {"a": 1}, "inside a string"),
        (wrapped('{"a": 1}', times=3), {"a": 1}, "inside a string"),
        ("\"{'a': True,}\"", {"a": True}, "inside a string"),
        ('{"path": "C:\\work"}', {"path": "C:\\work"}, "backslash"),
        ('{"re": "\\d+\\."}', {"re": "\\d+\\."}, "backslash"),
        ("{'a': '\\x41\\u00e9\\\\'}", {"a": "Aé\\"}, "single quotes"),
        ('{"a": "half \ud800"}', {"a": "half \ufffd"}, None),
        ("", {}, "empty"),
        (" \n", {}, "empty"),
        ("{}", {}, None),
    ],
)
def test_arguments_that_are_nearly_json_are_read_and_the_mend_is_said(
    text: str, meant: JsonObject, mend: str | None
) -> None:
    value, repairs = read(text)
    assert value == meant
    assert mend is None or any(mend in one for one in repairs)
    assert (mend is None) == (repairs == ())


def test_what_stands_inside_strings_is_left_alone() -> None:
    text = "{'a': \"True, None, 'x',} ```json [,]\", \"b\": 1,}"
    assert read(text).value == {"a": "True, None, 'x',} ```json [,]", "b": 1}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"path": "a.txt", "content": "half of', "end inside a string"),
        ('{"a": [1, 2', "end in the middle"),
        ('{"a": 1, "b":', "end in the middle"),
        ("{'a': 'x", "end inside a string"),
        ('{"a": "say "hi" now"}', "no JSON at character"),
        ('{"a": undefined}', "no JSON at character 6"),
        ('{"a": NaN}', "no JSON at character 6"),
        ('{"a": Infinity}', "no JSON"),
        ('{"a": -Infinity}', "no JSON"),
        ('{"a": 1 2}', "no JSON"),
        ('{"a": 0x10}', "no JSON"),
        ('{"a": 1_000}', "no JSON"),
        ('{"a" 1}', "no JSON"),
        ("{,}", "no JSON"),
        ('{"a": 1,,}', "no JSON"),
        ('{"a": 1}}', "no JSON"),
        ('{"a": 1} {"b": 2}', "no JSON"),
        ('{"a": (1, 2)}', "no JSON"),
        ("{city: 'Paris'}", "no JSON"),
        ("[1]", "not an array"),
        ("3", "not a number"),
        ("true", "not a boolean"),
        ("null", "not null"),
        (wrapped("{}", times=4), "not a string"),
        ("Paris", "no JSON at character 0"),
        ('{"a": "\\ud800", }', "no JSON"),
        ("__import__('os').system('true')", "no JSON"),
        ("{'a': __import__('os')}", "no JSON"),
        ("{'a': 'b' * 10}", "no JSON"),
        ("{'a': f'{1}'}", "no JSON"),
    ],
)
def test_arguments_that_may_mean_anything_are_refused_with_the_reason(text: str, told: str) -> None:
    assert told in refusal(text)


@pytest.mark.parametrize("depth", [DEEPEST + 1, 20_000])
def test_arguments_that_are_no_json_and_nested_too_deep_are_refused(depth: int) -> None:
    assert "levels deep" in refusal("{'a':" * depth + "1" + "}" * depth)


def test_arguments_that_are_nested_deeper_than_json_is_read_are_refused() -> None:
    assert "levels deep" in refusal('{"a":' * 20_000 + "1" + "}" * 20_000)


def test_arguments_may_be_as_deep_as_the_limit() -> None:
    text = "{'a':" * DEEPEST + "1" + "}" * DEEPEST
    assert read(text).value == read(text.replace("'", '"')).value


def test_arguments_that_are_huge_are_refused_unless_they_are_json() -> None:
    assert read(f'{{"a": "{"x" * LARGEST_MENDED * 2}"}}').repairs == ()
    assert "too long to be mended" in refusal(f"{{'a': '{'x' * LARGEST_MENDED}'}}")
    assert "send less" in refusal("x" * (LARGEST_TEXT + 1))


@pytest.mark.parametrize(
    "text",
    [
        "```" + " " * (LARGEST_MENDED - 10),
        "[1," * (LARGEST_MENDED // 4),
        "{'a': '" + "\\" * (LARGEST_MENDED - 10),
        "1 " * (LARGEST_MENDED // 2 - 1),
        "'a'," * (LARGEST_MENDED // 4 - 1),
        '"' + '\\"' * (LARGEST_MENDED // 2 - 2),
    ],
    ids=["fence", "openers", "backslashes", "numbers", "strings", "quotes"],
)
def test_the_worst_arguments_are_refused_in_linear_time(text: str) -> None:
    began = time.process_time()
    refusal(text)
    assert time.process_time() - began < 2


@unhurried
@given(st.text() | st.text(alphabet="{}[]\"':,\\ \n0123456789.eE+-TrueFalsNn`jso"))
def test_reading_gives_an_object_or_a_refusal_whatever_comes(text: str) -> None:
    try:
        value = read(text).value
    except ToolError:
        return
    assert isinstance(value, dict)
    assert msgspec.json.decode(msgspec.json.encode(value)) == value


@unhurried
@given(OBJECTS)
def test_what_python_prints_for_an_object_is_read_as_that_object(value: JsonObject) -> None:
    printed = repr(value)
    try:
        found = read(printed).value
    except ToolError:  # Python escapes what JSON has no escape for, and that is never guessed
        assert "\\" in printed or "e" in printed or "inf" in printed
    else:
        assert found == value or "\\" in printed
