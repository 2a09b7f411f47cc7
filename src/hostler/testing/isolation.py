"""Which parameter of which operation names a thing of somebody's: the table behind the matrix.

Every operation of `/openapi.json`, with each of its parameters and the fields of its body, and
every verb of a socket stands here once: it names something (`ids`), or it names nothing (`plain`).
`isolation_matrix` asks for each cell, and holds that what is not the caller's is like what is not.

Invariant: an operation, a parameter or a field that is not here is a finding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

from hostler.core.events import JsonObject
from hostler.testing.isolation_policy import (
    ARCHIVE,
    ONCE,
    RUN,
    SAFE,
    SESSION,
    WEBHOOK,
    Kind,
    Policy,
    in_body,
    plain,
)
from hostler.testing.isolation_responses import OF_RESPONSES

NO_VAULT = (409,)
"""Answered by a house that has no master key."""
NO_HOOKS = (409, 422)
"""Answered by such a house, and by one whose operator closed the place."""
NO_MODEL = (404,)
"""Answered to a question for a model that is not there."""
_ASKED: JsonObject = {"model": "nobody:nothing", "messages": [{"role": "user", "content": "hello"}]}
_COUNTED = (
    "query.beta",
    "header.anthropic-version",
    "header.anthropic-beta",
    "body.model",
    "body.messages",
    "body.system",
    "body.tools",
    "body.tool_choice",
    "body.thinking",
    "body.output_config",
)
_QUESTION = (
    *_COUNTED,
    "body.max_tokens",
    "body.stop_sequences",
    "body.temperature",
    "body.top_p",
    "body.stream",
)
_PAGES: Mapping[str, Kind] = {"query.after": "session"}
_STREAM: tuple[Mapping[str, str], ...] = ({}, {"Accept": "text/event-stream"})
POLICIES: Mapping[str, Policy] = {
    **OF_RESPONSES,
    "create_session": Policy(
        needs="write",
        ids={"body.id": "session", **ONCE},
        taken=plain("body.id"),
        plain=plain("body.agent", "body.title", "body.metadata", "body.client_tools"),
        body={},
    ),
    "chat": Policy(
        needs="write",
        ids={"body.id": "session", **ONCE},
        plain=plain(
            "body.message",
            "body.messages",
            "body.trigger",
            "body.messageId",
            "body.agent",
            "body.purpose",
            "body.policy",
            "body.metadata",
            "body.context",
            "body.tools",
            "header.Hostler-Agent",
        ),
        body={"id": "of nobody", "messages": []},
        answers=(404,),
    ),
    "resume_chat": Policy(ids=SESSION),
    "stop_chat": Policy(needs="write", ids=SESSION),
    "list_sessions": Policy(ids=_PAGES, plain=plain("query.agent", "query.status")),
    "get_session": Policy(ids=SESSION),
    "label_session": Policy(
        needs="write",
        ids=SESSION,
        plain=plain("body.title", "body.metadata"),
        body={"title": "another"},
    ),
    "delete_session": Policy(needs="admin", ids=SESSION),
    "speak": Policy(
        needs="write",
        ids={**SESSION, **ONCE},
        plain=in_body("content policy metadata purpose priority client_tools at"),
        body={"content": "hello"},
        variants=_STREAM,
    ),
    "list_scheduled": Policy(ids=SESSION),
    "withdraw_scheduled": Policy(needs="write", ids={**SESSION, "path.input": "scheduled"}),
    "cancel": Policy(
        needs="write",
        ids={**SESSION, "body.run": "run", **ONCE},
        plain=plain("body.reason"),
        body={},
    ),
    "move_session": Policy(needs="admin", ids=SESSION, answers=(409,)),
    "approve": Policy(
        needs="write",
        ids={**SESSION, "path.call": "call", **ONCE},
        plain=plain(
            "body.decision", "body.arguments", "body.reason", "body.remember", "body.digest"
        ),
        body={"decision": "deny"},
        answers=(409,),
    ),
    "list_approvals": Policy(
        ids={"query.after": "call", "query.session": "session"},
        plain=plain("query.status"),
        query="status=",
    ),
    "answer": Policy(
        needs="write",
        ids={**SESSION, "path.call": "asked", **ONCE},
        plain=plain("body.output", "body.is_error"),
        body={"output": "here"},
        answers=(409,),
    ),
    "fork": Policy(
        needs="write",
        of_session="read",
        ids={**SESSION, **ONCE},
        plain=plain("body.at", "body.title"),
        body={},
    ),
    "export_session": Policy(needs="write", ids=SESSION),
    "import_session": Policy(
        needs="write", ids={"query.id": "session"}, taken=plain("query.id"), body=ARCHIVE
    ),
    "read_events": Policy(
        ids={
            **SESSION,
            "query.after": "cursor",
            "header.Last-Event-ID": "cursor",
            "query.share": "token",
        },
        plain=plain("query.until", "query.wait", "query.deltas", "query.presence"),
        query="until=run_end",
        variants=_STREAM,
    ),
    "open_socket": Policy(
        ids={
            **SESSION,
            "query.after": "cursor",
            "header.Last-Event-ID": "cursor",
            "query.share": "token",
            "query.ticket": "token",
        },
        plain=plain("query.presence"),
        answers=(426,),
    ),
    "give_ticket": Policy(body={}),
    "typing": Policy(needs="write", ids=SESSION, body={}),
    "share": Policy(needs="admin", ids=SESSION, plain=plain("body.expires_in_s"), body={}),
    "list_shares": Policy(needs="admin", ids=SESSION),
    "revoke_share": Policy(needs="admin", ids={**SESSION, "path.share": "share"}),
    "tick": Policy(plain=plain("query.n", "query.every_ms"), query="n=1&every_ms=1"),
    "list_runs": Policy(
        ids={"query.after": "run", "query.session": "session", "query.user": "user"},
        plain=plain("query.status", "query.agent", "query.purpose", "query.from", "query.to"),
    ),
    "get_run": Policy(ids=RUN),
    "get_costs": Policy(ids=RUN),
    "give_feedback": Policy(
        needs="write",
        ids={**RUN, **ONCE},
        plain=plain("body.score", "body.comment", "body.key"),
        body={"score": 1},
    ),
    "usage": Policy(
        plain=plain("query.from", "query.to", "query.by", "query.after"),
        query="from=2020-01-01&by=tenant,user",
    ),
    "search": Policy(plain=plain("query.q"), query="q=canary"),
    "storage": Policy(),
    "list_audit": Policy(
        needs="admin",
        ids={"query.principal": "user"},
        plain=plain("query.after", "query.from", "query.to", "query.action"),
    ),
    "export_audit": Policy(needs="admin", plain=plain("query.after")),
    "audit_head": Policy(needs="admin"),
    "list_secrets": Policy(needs="admin", answers=NO_VAULT),
    "put_secret": Policy(
        needs="admin",
        ids={"path.secret": "secret"},
        plain=plain("body.value", "body.kind"),
        body={"value": "said-by-verify-isolation"},
        answers=NO_VAULT,
    ),
    "remove_secret": Policy(needs="admin", ids={"path.secret": "secret"}, answers=NO_VAULT),
    "rotate_master_key": Policy(needs="operator", answers=NO_VAULT),
    "scrub_secrets": Policy(needs="admin", ids={"body.value": "word"}, body={}, answers=NO_VAULT),
    "list_endpoints": Policy(needs="admin"),
    "put_endpoint": Policy(
        needs="admin",
        ids={"path.provider": "endpoint"},
        plain=plain("body.base_url"),
        body={"base_url": "https://stranger.example/v1"},
        answers=(404, 422),
    ),
    "remove_endpoint": Policy(needs="admin", ids={"path.provider": "endpoint"}, answers=(404,)),
    "create_webhook": Policy(
        needs="admin",
        plain=in_body("url events description"),
        body={"url": "https://stranger.example/hook"},
        answers=NO_HOOKS,
    ),
    "list_webhooks": Policy(needs="admin", ids={"query.after": "webhook"}, answers=NO_VAULT),
    "get_webhook": Policy(needs="admin", ids=WEBHOOK, answers=NO_VAULT),
    "change_webhook": Policy(
        needs="admin",
        ids=WEBHOOK,
        plain=in_body("url events description enabled"),
        body={"description": "another"},
        answers=NO_VAULT,
    ),
    "remove_webhook": Policy(needs="admin", ids=WEBHOOK, answers=NO_VAULT),
    "rotate_webhook": Policy(
        needs="admin", ids=WEBHOOK, plain=in_body("old_good_for_s"), body={}, answers=NO_VAULT
    ),
    "test_webhook": Policy(needs="admin", ids=WEBHOOK, answers=NO_VAULT),
    "list_deliveries": Policy(
        needs="admin",
        ids={**WEBHOOK, "query.after": "delivery"},
        plain=plain("query.status"),
        answers=NO_VAULT,
    ),
    "replay_delivery": Policy(
        needs="admin", ids={**WEBHOOK, "path.delivery": "delivery"}, answers=NO_VAULT
    ),
    "metrics": Policy(needs="operator", answers=(404,), may_be_open=True),
    "create_message": Policy(
        needs="write", ids=ONCE, plain=plain(*_QUESTION), body=_ASKED, answers=NO_MODEL
    ),
    "count_tokens": Policy(plain=plain(*_COUNTED), body=_ASKED, answers=NO_MODEL),
    "list_agents": Policy(),
    "get_agent": Policy(plain=plain("path.agent"), answers=(404,)),
    "me": Policy(),
    "capabilities": Policy(),
    "document": Policy(),
    "alive": Policy(needs="nothing"),
    "ready": Policy(needs="nothing"),
    "list_tenants": Policy(ids={"query.after": "tenant"}),
    "create_tenant": Policy(
        needs="operator",
        ids={"body.id": "tenant"},
        plain=plain("body.title", "body.settings"),
        body={"id": "isolation-a"},
        answers=(409,),
    ),
    "get_tenant": Policy(ids={"path.tenant": "tenant"}),
    "change_tenant": Policy(
        needs="operator",
        ids={"path.tenant": "tenant"},
        plain=plain("body.title", "body.settings"),
        body={"title": "isolation"},
    ),
    "list_keys": Policy(ids={"query.after": "key"}),
    "create_key": Policy(
        needs="admin",
        ids={"body.tenant": "tenant"},
        plain=plain("body.user", "body.role", "body.scopes", "body.title", "body.expires_in_s"),
        body={"role": "viewer", "expires_in_s": 60.0},
    ),
    "revoke_key": Policy(needs="admin", ids={"path.key": "key"}),
    "list_members": Policy(needs="admin", ids=SESSION),
    "add_member": Policy(
        needs="admin", ids=SESSION, plain=plain("path.user", "body.role"), body={}
    ),
    # No model is asked for anything; that there is none tells whoever may ask that they may.
    "chat_completions": Policy(
        needs="write",
        ids=ONCE,
        plain=in_body(
            "model messages stream stream_options tools tool_choice parallel_tool_calls n stop "
            "max_completion_tokens max_tokens temperature top_p response_format reasoning_effort "
            "prompt_cache_key logprobs"
        ),
        body={"model": "isolation", "messages": [{"role": "user", "content": "hello"}]},
        answers=(404,),
    ),
    "models": Policy(
        plain=plain("query.after_id", "query.before_id", "header.Anthropic-Version"),
    ),
    "model": Policy(
        plain=plain("path.model", "header.Anthropic-Version"),
        answers=(404,),
    ),
    "remove_member": Policy(needs="admin", ids=SESSION, plain=plain("path.user")),
}
"""By the operation's id."""


@dataclass(frozen=True, slots=True)
class Verb:
    """What can be said over a socket; all of it takes the right to write."""

    body: JsonObject
    ids: Mapping[str, Kind] = field(default_factory=dict[str, Kind])
    """Fields of the body that name more than the socket's session."""


SOCKET_VERBS: Mapping[str, Verb] = {
    "message": Verb({"content": "hello"}),
    "cancel": Verb({}, {"run": "run"}),
    "approve": Verb({"decision": "deny"}, {"call": "call"}),
    "result": Verb({"output": "here"}, {"call": "asked"}),
    "typing": Verb({}),
}
SOCKET_PLAIN = frozenset({"ping"})
"""Verbs that name nothing and change nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """An operation as the document describes it."""

    name: str
    method: str
    path: str
    parameters: frozenset[str]
    """As `place.name`; the fields of a body are parameters of the place `body`."""
    is_open: bool = False
    """Takes no key."""


def operations(document: JsonObject) -> Iterator[Operation]:
    """Yield what an OpenAPI document describes."""
    paths = cast("dict[str, dict[str, JsonObject]]", document["paths"])
    for path, methods in paths.items():
        for method, described in methods.items():
            told = cast("list[dict[str, str]]", described.get("parameters", []))
            yield Operation(
                name=str(described["operationId"]),
                method=method.upper(),
                path=path,
                parameters=frozenset(
                    {f"{one['in']}.{one['name']}" for one in told}
                    | {f"body.{name}" for name in _fields(document, described)}
                ),
                is_open=described.get("security") == [],
            )


def unknown(operation: Operation) -> list[str]:
    """Return what of an operation the table does not know; the operation itself, if that."""
    policy = POLICIES.get(operation.name)
    if policy is None:
        return ["the operation"]
    return sorted(operation.parameters - set(policy.ids) - policy.plain - SAFE)


def _fields(document: JsonObject, described: JsonObject) -> list[str]:
    """Return the names of a JSON body's fields."""
    body = cast("dict[str, dict[str, dict[str, JsonObject]]]", described.get("requestBody", {}))
    schema = body.get("content", {}).get("application/json", {}).get("schema", {})
    reference = str(schema.get("$ref", "")).rpartition("/")[2]
    if reference:
        components = cast("dict[str, dict[str, JsonObject]]", document["components"])
        schema = components["schemas"][reference]
    return list(cast("JsonObject", schema.get("properties", {})))
