"""The items of a request as a conversation: order, results, what is passed over, names both ways."""

from __future__ import annotations

import msgspec
import pytest
from tests.serving import Json

from hostler.beside import responses
from hostler.core.errors import Invalid
from hostler.core.events import CallId, RunId, Seq, SessionId
from hostler.core.said import ModelSaid, Said, ToolSaid, UserSaid
from hostler.faces.http.keepsakes import KeepsakesOf
from hostler.faces.responses import ids
from hostler.faces.responses.bodies import InputItem
from hostler.faces.responses.items import Conversation, conversation
from hostler.service.waits import Decision, Result


def read(*items: Json) -> Conversation:
    from_json = msgspec.convert(list(items), list[InputItem])
    return conversation(from_json, KeepsakesOf()("default"), {})  # type: ignore[arg-type]


def user(text: str) -> Json:
    return {"role": "user", "content": text}


def call(id_: str) -> Json:
    return {"type": "function_call", "call_id": id_, "name": "look", "arguments": "{}"}


def output(id_: str, text: str) -> Json:
    return {"type": "function_call_output", "call_id": id_, "output": text}


def shape(said: list[Said]) -> list[object]:
    """Return a conversation as what matters here."""
    made = list[object]()
    for one in said:
        if isinstance(one, UserSaid):
            made.append(one.content)
        elif isinstance(one, ToolSaid):
            made.append((one.call.id, one.output))
        else:
            made.append([one.text, *(call_.id for call_ in one.calls)])
    return made


@pytest.mark.parametrize(
    "items",
    [
        [call("a"), call("b"), output("a", "1"), output("b", "2")],
        [call("a"), call("b"), output("b", "2"), output("a", "1")],
        [output("b", "2"), call("a"), call("b"), output("a", "1")],
    ],
)
def test_results_stand_after_the_reply_that_made_the_calls(items: list[Json]) -> None:
    made = read(user("go"), *items, user("and?"))

    assert shape(made.said) == ["go", ["", "a", "b"], ("a", "1"), ("b", "2"), "and?"]


def test_calls_that_were_answered_one_by_one_are_replies_of_their_own() -> None:
    made = read(call("a"), output("a", "1"), call("b"), output("b", "2"))

    assert shape(made.said) == [["", "a"], ("a", "1"), ["", "b"], ("b", "2")]


def test_what_is_said_by_developers_later_is_marked() -> None:
    made = read(
        {"role": "developer", "content": "x"}, user("a"), {"role": "system", "content": "y"}
    )

    assert (made.lead, shape(made.said)) == (["x"], ["a", "[system] y"])


def test_all_that_is_in_one_system_message_is_said() -> None:
    made = read({"role": "system", "content": "do it"})

    assert (made.lead, shape(made.said)) == ([], ["do it"])


def test_what_an_agent_ran_and_asked_about_is_read_again() -> None:
    ran: Json = {
        "type": "mcp_call",
        "id": "mcp_1",
        "name": "dig",
        "arguments": "{}",
        "output": "ok",
    }
    asked: Json = {"type": "mcp_approval_request", "id": "mcpr_1", "name": "dig", "arguments": "{}"}
    listed: Json = {"type": "mcp_list_tools", "id": "mcpl_1", "tools": []}
    made = read(user("a"), listed, asked, ran, {"role": "assistant", "content": "dug"})

    assert shape(made.said) == ["a", ["", "mcp_1"], ("mcp_1", "ok"), ["dug"]]


def test_answers_to_what_is_not_there_are_kept_apart() -> None:
    answer: Json = {
        "type": "mcp_approval_response",
        "approval_request_id": "mcpr_1",
        "approve": False,
        "reason": "no",
    }
    made = read(output("call_x", "1"), answer)

    assert made.answers == {
        "call_x": Result(output="1"),
        "call_1": Decision(verdict="deny", reason="no"),
    }
    assert made.split() == ([], "")


@pytest.mark.parametrize(
    "item",
    [
        {"type": "web_search_call", "action": {"type": "search"}},
        {"type": "slug:thing", "arguments": {"a": 1}},
        {"type": "reasoning", "summary": "odd", "encrypted_content": 5},
        {"type": "compaction", "encrypted_content": "forged"},
        {"type": "mcp_approval_response", "approval_request_id": 5, "approve": "yes"},
        {},
    ],
)
def test_what_means_nothing_here_is_passed_over(item: Json) -> None:
    assert shape(read(user("a"), item, user("b")).said) == ["a", "b"]


@pytest.mark.parametrize(
    "item",
    [
        {"type": "function_call", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "output": "x"},
        {"role": "user", "content": [{"type": "input_image"}]},
        {"role": "user", "content": 5},
        call("a"),
    ],
)
def test_what_cannot_be_shown_to_a_model_is_refused(item: Json) -> None:
    with pytest.raises(Invalid):
        read(user("a"), item)


def test_arguments_that_are_no_object_are_kept_as_they_are() -> None:
    odd = {**call("a"), "arguments": "{never"}
    (reply, _) = read(odd, output("a", "1")).said

    assert isinstance(reply, ModelSaid)
    assert reply.calls[0].unparsed == "{never"


def test_names_lead_both_ways() -> None:
    run, session = RunId("run_01ab"), SessionId("ses_my-own_one")
    own, other = CallId("call_01ab"), CallId("toolu_1")

    assert responses.read_response(responses.response_id(run)) == (run, None)
    assert responses.read_response(responses.response_id(run, Seq(12))) == (run, 12)
    assert ids.read_item(ids.item_id("msg", "01ab", 3, 1)) == (run, 3, 1)
    assert ids.read_conversation(ids.conversation_id(session)) == session
    assert [ids.read_approval(ids.approval_id(one)) for one in (own, other)] == [own, other]


@pytest.mark.parametrize(
    "name", ["", "resp_", "resp_a_b_c", "run_1", "resp_1_x", "resp_\n", "r" * 999]
)
def test_other_names_are_none(name: str) -> None:
    assert responses.read_response(name) is None
    assert ids.read_item(name) is None
    assert ids.read_approval(name) is None
