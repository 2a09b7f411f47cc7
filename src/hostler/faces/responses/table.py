"""The operations of this face, from which its documentation is made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.types import ASGIApp

from hostler.core.events import JsonObject
from hostler.faces.http.endpoint import Call, Operation
from hostler.faces.http.keepsakes import KeepsakesOf
from hostler.faces.http.open_streams import OpenStreams
from hostler.faces.http.openai import OpenAiError
from hostler.faces.responses.beside import Beside, Counted, Long
from hostler.faces.responses.bodies import NewResponse
from hostler.faces.responses.conversations import (
    ChangedConversation,
    Conversations,
    NewConversation,
    NewItems,
)
from hostler.faces.responses.errors import tell
from hostler.faces.responses.face import Responses
from hostler.service.service import Service

_WATCH: Mapping[str, str] = {
    "stream": "true: as events, from the first on, and then as they come",
    "starting_after": "only events past this number",
    "include": "accepted; all that there is, is there",
    "include_obfuscation": "accepted; there is none",
}
_LIST: Mapping[str, str] = {
    "limit": "how many, 20 unless it is said, up to 100",
    "order": "asc or desc, which it is unless it is said",
    "after": "the last id of the page before",
    "include": "accepted; all that there is, is there",
}


def responses_operations(
    service: Service, streams: OpenStreams, keepsakes: KeepsakesOf
) -> list[Operation]:
    """Return the operations, in the order of the documentation."""
    do = Responses(service, streams, keepsakes)
    return [
        *_responses(do),
        *_beside(Beside(service, streams, keepsakes)),
        *_conversations(Conversations(service, keepsakes)),
    ]


def _operation(
    method: str,
    path: str,
    name: str,
    summary: str,
    run: Callable[[Call], Awaitable[ASGIApp]],
    *,
    body: object = None,
    query: Mapping[str, str] | None = None,
    keeps: bool = False,
) -> Operation:
    return Operation(
        method=method,
        path=path,
        name=name,
        summary=summary,
        run=run,
        body=body,
        query=query or {},
        returns={200: JsonObject},
        keeps=keeps,
        tell=tell,
        tells=OpenAiError,
        errors=(400, 404, 409, 413, *((422,) if keeps else ()))
        if body is not None
        else (400, 404, 409),
    )


def _responses(do: Responses) -> list[Operation]:
    one = "/v1/responses/{response}"
    return [
        Operation(
            method="POST",
            path="/v1/responses",
            name="create_response",
            summary="Ask an agent or a model, as OpenAI's Responses do",
            run=do.create,
            begins="run",
            body=NewResponse,
            returns={200: JsonObject},
            streams=True,
            tell=tell,
            tells=OpenAiError,
            errors=(400, 404, 409, 413, 422, 500, 502, 504),
        ),
        Operation(
            method="GET",
            path=one,
            name="get_response",
            summary="A response as it is now, or its events from any number on",
            run=do.get,
            query=_WATCH,
            returns={200: JsonObject},
            streams=True,
            keeps=False,
            tell=tell,
            tells=OpenAiError,
            errors=(400, 404),
        ),
        *_one(do, one),
    ]


def _one(do: Responses, one: str) -> list[Operation]:
    return [
        _operation(
            "DELETE",
            one,
            "delete_response",
            "Have a response given out no more; one whose run goes on ends it",
            do.delete,
        ),
        _operation(
            "POST",
            f"{one}/cancel",
            "cancel_response",
            "End a response in the background; safe to repeat",
            do.cancel,
        ),
        _operation(
            "GET",
            f"{one}/input_items",
            "response_input_items",
            "What the request of a response brought",
            do.items,
            query=_LIST,
        ),
    ]


def _beside(do: Beside) -> list[Operation]:
    return [
        _operation(
            "POST",
            "/v1/responses/input_tokens",
            "count_response_tokens",
            "Estimate how many tokens a request has, by its characters",
            do.count,
            body=Counted,
        ),
        Operation(
            method="POST",
            path="/v1/responses/compact",
            name="compact_response",
            summary="Have a model make a conversation short; costs one question to it",
            run=do.compact,
            begins="run",
            body=Long,
            returns={200: JsonObject},
            keeps=False,
            tell=tell,
            tells=OpenAiError,
            errors=(400, 404, 413, 500, 502, 504),
        ),
    ]


def _conversations(do: Conversations) -> list[Operation]:
    all_, one = "/v1/conversations", "/v1/conversations/{conversation}"
    items, item = f"{one}/items", f"{one}/items/{{item}}"
    new, changed, added = NewConversation, ChangedConversation, NewItems
    made, listed = "Make a conversation, which is a session", "What was said in a conversation"
    put, out = "Put items at its end", "Take one out of it; a call goes with its result"
    return [
        _operation("POST", all_, "create_conversation", made, do.create, body=new, keeps=True),
        _operation("GET", one, "get_conversation", "A conversation", do.get),
        _operation("POST", one, "change_conversation", "Label it", do.change, body=changed),
        _operation("DELETE", one, "delete_conversation", "Delete it, as a session", do.delete),
        _operation("GET", items, "conversation_items", listed, do.items, query=_LIST),
        _operation("POST", items, "add_items", put, do.add, body=added, keeps=True),
        _operation("GET", item, "conversation_item", "One item of it", do.item),
        _operation("DELETE", item, "remove_item", out, do.remove),
    ]
