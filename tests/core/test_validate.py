"""What comes out of `fit` is what the schema wants, or a refusal that a model can act on."""

from __future__ import annotations

import copy
import time

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostler.core.errors import SetupError, ToolError
from hostler.core.events import JsonObject
from hostler.harness.repair import DEEPEST, Mended
from hostler.harness.validate import LARGEST_MENDED, Schema, is_loss


def an_object(*required: str, more: object = False, **properties: object) -> JsonObject:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": more,
    }


INTEGER: JsonObject = {"type": "integer"}
NUMBER: JsonObject = {"type": "number"}
TEXT: JsonObject = {"type": "string"}
FLAG: JsonObject = {"type": "boolean"}
NULL: JsonObject = {"type": "null"}
TREE: JsonObject = {"$ref": "#/$defs/tree"}
INTEGERS: JsonObject = {"type": "array", "items": INTEGER}


def fit(schema: JsonObject, **arguments: object) -> Mended[JsonObject]:
    return Schema("tool", schema).fit(arguments)


def refusal(schema: JsonObject, **arguments: object) -> str:
    with pytest.raises(ToolError) as refused:
        fit(schema, **arguments)
    return str(refused.value)


# -- mending ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "sent", "meant"),
    [
        (INTEGER, "3", 3),
        (INTEGER, " -3 ", -3),
        (INTEGER, "3.0", 3),
        (INTEGER, 3.0, 3),
        (NUMBER, "3", 3),
        (NUMBER, "2.5e1", 25.0),
        (FLAG, "true", True),
        (FLAG, "False", False),
        (TEXT, 75001, "75001"),
        (NULL, "null", None),
        (INTEGERS, 3, [3]),
        (INTEGERS, "3", [3]),
        (INTEGERS, "[1, 2]", [1, 2]),
        (INTEGERS, ["1", 2.0], [1, 2]),
        ({"type": "array", "items": TEXT}, "a, b", ["a, b"]),
        ({"type": "array", "items": {"type": "object"}}, {"a": 1}, [{"a": 1}]),
        (an_object(x=INTEGER), '{"x": "3"}', {"x": 3}),
        ({"type": ["integer", "null"]}, "3", 3),
        ({"type": ["null", "integer"]}, "null", None),
        ({"type": ["array", "integer"]}, "3", 3),
        ({"enum": [1, 2, None]}, "2", 2),
        ({"enum": [True]}, "true", True),
        ({"const": 7}, "7", 7),
        ({"anyOf": [INTEGER, NULL]}, "3", 3),
        ({"anyOf": [INTEGER, NULL]}, 3.0, 3),
        ({"oneOf": [an_object("a", a=INTEGER), INTEGERS]}, {"a": "1"}, {"a": 1}),
        ({"oneOf": [an_object("a", a=INTEGER), INTEGERS]}, ["1"], [1]),
        ({"allOf": [INTEGER, {"minimum": 3}]}, "3", 3),
        ({"type": "array", "prefixItems": [INTEGER], "items": FLAG}, ["1", "true"], [1, True]),
        ({"type": "object", "additionalProperties": INTEGER}, {"any": "1"}, {"any": 1}),
    ],
)
def test_a_value_that_can_only_mean_one_thing_is_read_so_and_that_is_said(
    schema: JsonObject, sent: object, meant: object
) -> None:
    value, repairs = fit(an_object("x", x=schema), x=sent)
    assert value == {"x": meant}
    assert type(value["x"]) is type(meant)
    assert repairs
    assert all("$.x" in one for one in repairs)
    assert not any(is_loss(one) for one in repairs)


@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        (INTEGER, "three"),
        (INTEGER, "3.5"),
        (INTEGER, 3.5),
        (INTEGER, True),
        (INTEGER, "\N{ARABIC-INDIC DIGIT ONE}"),
        (INTEGER, "9" * 5_000),
        (INTEGER, ""),
        (INTEGER, [3]),
        (NUMBER, "nan"),
        (NUMBER, "1e999"),
        (NUMBER, False),
        (FLAG, "yes"),
        (FLAG, 1),
        (TEXT, 1.1),
        (TEXT, True),
        (TEXT, ["a"]),
        (TEXT, None),
        (INTEGERS, None),
        (INTEGERS, ["a"]),
        (INTEGERS, "[1, "),
        ({"type": "object"}, "[1]"),
        ({"type": "object"}, "{'a': 1}"),
        ({"enum": ["celsius"]}, "Celsius"),
        ({"enum": [1, 2]}, "3"),
        ({"type": "string", "pattern": "^a$"}, "b"),
        ({"type": "integer", "minimum": 5}, "3"),
        ({"anyOf": [INTEGER, FLAG]}, "maybe"),
        ({"not": INTEGER}, 3),
    ],
)
def test_a_value_that_may_mean_something_else_is_refused_with_its_place_in_the_schema(
    schema: JsonObject, sent: object
) -> None:
    told = refusal(an_object("x", x=schema), x=sent)
    assert "do not fit tool" in told
    assert "$.x" in told
    assert "(schema: /properties/x" in told
    assert "It takes: x" in told


@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        ({"anyOf": [TEXT, INTEGER]}, "3"),
        ({"anyOf": [INTEGER, TEXT]}, "true"),
        ({"type": ["string", "null"]}, "null"),
        (NUMBER, 3.0),
        ({}, "3"),
        ({"type": "array", "items": {}}, ["3", 3.5]),
    ],
)
def test_what_fits_already_stays_what_it_is(schema: JsonObject, sent: object) -> None:
    value, repairs = fit(an_object("x", x=schema), x=sent)
    assert value == {"x": sent}
    assert type(value["x"]) is type(sent)
    assert repairs == ()


def test_null_stands_for_an_optional_key_that_was_left_out() -> None:
    schema = an_object("x", x=INTEGER, y=INTEGER, z={"anyOf": [INTEGER, NULL]})
    value, repairs = fit(schema, x=1, y=None, z=None)
    assert value == {"x": 1, "z": None}
    assert repairs == ("left out $.y, which was null",)


def test_null_does_not_stand_for_a_key_that_must_be_there() -> None:
    assert '$.x: null is not of type "integer"' in refusal(an_object("x", x=INTEGER), x=None)


def test_an_unknown_key_is_dropped_where_none_is_allowed_and_the_model_can_be_told() -> None:
    value, repairs = fit(an_object(x=INTEGER), x=1, limit=5)
    assert value == {"x": 1}
    assert repairs == ("dropped $.limit, which is not known here",)
    assert is_loss(repairs[0])


def test_an_unknown_key_is_kept_where_the_schema_lets_it() -> None:
    assert fit(an_object(x=INTEGER, more=True), x="1", limit=5).value == {"x": 1, "limit": 5}
    patterns: JsonObject = {**an_object(x=INTEGER), "patternProperties": {"^l": INTEGER}}
    assert fit(patterns, x="1", limit=5).value == {"x": 1, "limit": 5}


def test_a_misnamed_required_key_is_refused_with_the_names_there_are() -> None:
    told = refusal(an_object("city", city=TEXT, days=INTEGER), town="Paris")
    assert '"city" is a required property' in told
    assert "dropped $.town" in told
    assert "It takes: city (string, required), days (integer)." in told


def test_references_are_followed_into_a_schema_that_contains_itself() -> None:
    schema: JsonObject = {
        **an_object("tree", tree={"$ref": "#/$defs/a~1b%20c"}),
        "$defs": {
            "a/b c": an_object(
                "value",
                value=INTEGER,
                inner={"type": "array", "items": {"$ref": "#/$defs/a~1b%20c"}},
            )
        },
    }
    value, repairs = fit(schema, tree={"value": "1", "inner": {"value": "2"}})
    assert value == {"tree": {"value": 1, "inner": [{"value": 2}]}}
    assert 'read "2" as 2 at $.tree.inner[0].value' in repairs


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/properties/x"},
        {"$ref": "#"},
        {"allOf": [{"$ref": "#/properties/x"}, INTEGER]},
        {"anyOf": [{"$ref": "#/properties/x"}, {"$ref": "#/properties/x"}]},
    ],
)
def test_a_schema_that_goes_in_circles_ends(schema: JsonObject) -> None:
    try:
        assert fit(an_object("x", x=schema), x="3", y=1).value in ({"x": "3"}, {"x": 3})
    except ToolError as refused:
        assert "do not fit" in str(refused)  # noqa: PT017  either end is one


def test_a_mend_of_an_alternative_that_is_not_taken_is_not_said() -> None:
    first = an_object("a", "b", a=INTEGER, b=INTEGER)
    second = an_object("a", a=FLAG)
    value, repairs = fit(an_object("x", x={"anyOf": [first, second]}), x={"a": "true"})
    assert value == {"x": {"a": True}}
    assert repairs == ('read "true" as true at $.x.a',)


# -- bounds ----------------------------------------------------------------------------------


def test_alternatives_within_alternatives_do_not_multiply() -> None:
    branch = an_object("x", x=TREE, more=True)
    schema = {**branch, "$defs": {"tree": {"anyOf": [branch, branch, branch, INTEGER]}}}
    value: object = "three"
    for _ in range(40):
        value = {"x": value}
    began = time.process_time()
    assert "do not fit" in refusal(schema, x=value)
    assert time.process_time() - began < 5


def test_a_mistake_deep_in_a_schema_of_many_alternatives_is_explained_quickly() -> None:
    kinds = [an_object("kind", "of", kind={"const": kind}, of=TREE) for kind in "abc"]
    schema: JsonObject = {**an_object(x=TREE), "$defs": {"tree": {"anyOf": [*kinds, INTEGER]}}}
    value: object = "three"
    for _ in range(25):
        value = {"kind": "c", "of": value}
    began = time.process_time()
    assert len(refusal(schema, x=value)) < 3_000
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "sent",
    [
        ["x"] * 300_000,
        "x" * 3_000_000,
        {f"key {i}": None for i in range(100_000)},
        [[[i]] for i in range(50_000)],
    ],
    ids=["list", "text", "object", "nested"],
)
def test_a_huge_misfit_is_refused_quickly_and_briefly(sent: object) -> None:
    schema = Schema("tool", an_object("x", x=INTEGERS))
    began = time.process_time()
    with pytest.raises(ToolError) as refused:
        schema.fit({"x": sent})
    assert time.process_time() - began < 2
    assert len(str(refused.value)) < 1_500


def test_huge_arguments_that_fit_are_taken_as_they_are() -> None:
    sent = list(range(LARGEST_MENDED * 10))
    assert fit(an_object(x=INTEGERS), x=sent) == ({"x": sent}, ())


TREES: JsonObject = {
    **an_object(x=TREE),
    "$defs": {"tree": {"anyOf": [INTEGER, {"type": "array", "items": TREE}]}},
}


def tree(depth: int, leaf: object) -> object:
    for _ in range(depth):
        leaf = [leaf]
    return leaf


@pytest.mark.parametrize("leaf", [3, 3.0, "three"])
@pytest.mark.parametrize("depth", [DEEPEST, 900, 100_000])
def test_arguments_nested_too_deep_are_refused_before_anything_recurses(
    depth: int, leaf: object
) -> None:
    # jsonschema-rs recurses without a limit: past some depth, the process would be gone.
    assert "levels deep" in refusal(TREES, x=tree(depth, leaf))


def test_arguments_as_deep_as_the_limit_are_validated() -> None:
    deepest = tree(DEEPEST - 1, 3)
    assert fit(TREES, x=deepest) == ({"x": deepest}, ())
    assert "do not fit" in refusal(TREES, x=tree(DEEPEST - 1, "three"))


def test_nested_values_are_mended_well_below_the_limit() -> None:
    assert fit(TREES, x=tree(30, "3")).value == {"x": tree(30, 3)}


@pytest.mark.parametrize("value", [b"1", {1: 2}, object(), float("nan"), "\ud800"])
def test_values_that_are_no_json_are_refused_and_never_raised(value: object) -> None:
    assert "$.x" in refusal(an_object("x", x=INTEGERS), x=[value])


def test_many_mends_are_summed_up() -> None:
    _, repairs = fit(an_object(x=INTEGERS), x=[str(i) for i in range(100)])
    assert len(repairs) == 21
    assert repairs[-1] == "and 80 more"


# -- the schema itself -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array"},
        {"type": "objekt"},
        {"type": "object", "properties": []},
        {"type": "object", "properties": {"x": {"type": "int"}}},
        {"type": "object", "properties": {"x": {"$ref": "#/$defs/none"}}},
        {"type": "object", "properties": {"x": {"$ref": "http://127.0.0.1:9/schema.json"}}},
        {"type": "object", "properties": {"x": {"$ref": "file:///etc/hostname"}}},
        {"type": "object", "properties": {"x": {"pattern": "("}}},
        {"type": "object", "$schema": "http://127.0.0.1:9/draft"},
        {"type": "object", "properties": {"x": {"default": object()}}},
    ],
)
def test_a_schema_that_is_wrong_is_an_error_of_the_setup(schema: JsonObject) -> None:
    with pytest.raises(SetupError, match="tool weather: "):
        Schema("weather", schema)


def test_a_pattern_that_backtracks_for_ever_is_cut_off() -> None:
    schema = Schema("tool", an_object(x={"type": "string", "pattern": "^(?=a)(a+)+$"}))
    began = time.process_time()
    with pytest.raises(ToolError):
        schema.fit({"x": "a" * 60 + "b"})
    assert time.process_time() - began < 2


# -- for all ---------------------------------------------------------------------------------

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from([3.0, 2.5, "3", "2.5", "true", "null", "a", "[1]", '{"a": "1"}', ""])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=8,
)


def schemas(inner: st.SearchStrategy[JsonObject]) -> st.SearchStrategy[JsonObject]:
    some = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        st.fixed_dictionaries({"type": st.just("array"), "items": inner}),
        *(st.fixed_dictionaries({union: some}) for union in ("anyOf", "oneOf", "allOf")),
        st.fixed_dictionaries(
            {
                "type": st.just("object"),
                "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
                "additionalProperties": st.booleans(),
                "required": st.lists(st.sampled_from("abc"), unique=True),
            }
        ),
    )


SIMPLE: list[JsonObject] = [
    INTEGER,
    NUMBER,
    TEXT,
    FLAG,
    NULL,
    {},
    {"enum": [1, "a", None]},
    {"type": ["integer", "null"]},
    {"$ref": "#/$defs/again"},
]
SCHEMAS = st.recursive(st.sampled_from(SIMPLE), schemas, max_leaves=6)


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from("abc"), SCHEMAS, max_size=3), SCHEMAS, VALUES)
def test_whatever_comes_fits_the_schema_afterwards_or_is_refused(
    properties: JsonObject, again: JsonObject, sent: object
) -> None:
    schema: JsonObject = {**an_object(**properties), "$defs": {"again": again}}
    arguments: JsonObject = {"a": sent, "b": 3.0, "d": sent}
    before, wanted = copy.deepcopy(arguments), jsonschema_rs.validator_for(schema, offline=True)
    compiled = Schema("tool", schema)
    try:
        value, repairs = compiled.fit(arguments)
    except ToolError:
        assert not wanted.is_valid(arguments)
    else:
        assert wanted.is_valid(value)
        assert bool(repairs) == (repr(value) != repr(arguments))
        assert not wanted.is_valid(arguments) or value == arguments
        assert compiled.fit(value) == (value, ())
    assert repr(arguments) == repr(before)
