"""The isolation matrix' table of OpenAI's Responses and conversations."""

from __future__ import annotations

from collections.abc import Mapping

from hostler.core.events import JsonObject
from hostler.testing.isolation_policy import ONCE, Kind, Policy, in_body, plain

RESPONSE: Mapping[str, Kind] = {"path.response": "response"}
CONVERSATION: Mapping[str, Kind] = {"path.conversation": "conversation"}
_FOLLOWS: Mapping[str, Kind] = {
    "body.previous_response_id": "response",
    "body.conversation": "conversation",
}
_QUESTION = (
    "model input instructions tools tool_choice parallel_tool_calls reasoning text truncation"
)
_LIST = plain("query.order", "query.after", "query.include")
_ASKED: JsonObject = {"model": "nobody:nothing", "input": "hello"}
OF_RESPONSES: Mapping[str, Policy] = {
    # No model is asked for anything; that there is none tells whoever may ask that they may.
    "create_response": Policy(
        needs="write",
        ids={**_FOLLOWS, **ONCE},
        plain=in_body(
            f"{_QUESTION} stream store background include max_output_tokens max_tool_calls "
            "temperature top_p metadata prompt_cache_key safety_identifier user service_tier"
        ),
        body=_ASKED,
        answers=(404,),
    ),
    "get_response": Policy(
        ids=RESPONSE,
        plain=plain(
            "query.stream", "query.starting_after", "query.include", "query.include_obfuscation"
        ),
    ),
    "delete_response": Policy(needs="write", ids=RESPONSE),
    # It is none in the background; what is not theirs is not there.
    "cancel_response": Policy(needs="write", ids=RESPONSE, answers=(400,)),
    "response_input_items": Policy(ids=RESPONSE, plain=_LIST),
    "count_response_tokens": Policy(
        ids=_FOLLOWS, plain=in_body(_QUESTION), body={"input": "hello"}
    ),
    "compact_response": Policy(
        needs="write",
        ids=_FOLLOWS,
        plain=in_body(f"{_QUESTION} prompt_cache_key"),
        body=_ASKED,
        answers=(404,),
    ),
    "create_conversation": Policy(
        needs="write", ids=ONCE, plain=in_body("items metadata"), body={"metadata": {"a": "b"}}
    ),
    "get_conversation": Policy(ids=CONVERSATION),
    "change_conversation": Policy(
        needs="write", ids=CONVERSATION, plain=in_body("metadata"), body={"metadata": {"a": "b"}}
    ),
    "delete_conversation": Policy(needs="admin", ids=CONVERSATION),
    "conversation_items": Policy(ids=CONVERSATION, plain=_LIST),
    "add_items": Policy(
        needs="write",
        ids={**CONVERSATION, **ONCE},
        plain=in_body("items"),
        body={},
        answers=(400,),
    ),
    "conversation_item": Policy(ids=CONVERSATION, plain=plain("path.item"), answers=(404,)),
    "remove_item": Policy(
        needs="write", ids=CONVERSATION, plain=plain("path.item"), answers=(404,)
    ),
}
"""By the operation's id."""
