"""The page on what can go wrong: problems that clients get, faults of models, reasons of ends.

The codes are read from the code; their meanings that no docstring has are here, and a code without
a meaning, or a meaning without a code, is an error.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import cast, get_args

from docs.build.markdown import code, page, table
from docs.build.source import Undocumented, about, called, calls, keyword, text_of

from hostler.core import errors as tree
from hostler.core.ports import FaultCode

PROBLEMS_INTRO = """
A request that is refused is answered with `application/problem+json` (RFC 9457):
`{type, title, status, detail, code}`. Decide on `code`, show `detail`. A 422 has `errors`, a list
of `{pointer, detail}` that names each field. A 429 and a 503 have `Retry-After`. What was refused
was not stored, unless the code is `unknown_outcome`.
"""
FAULTS_INTRO = """
A model call that gives no reply is a fact [`model_failed`](facts.md#model_failed). Its `error.code`
is one of these, whoever the provider is. `retry_after_s` is null when asking the same model again
will not help; then the next model of the agent's chain is asked, and after the last one the run
ends `failed`, with the reason `model_error`.
"""
ENDS_INTRO = """
[`run_ended`](facts.md#run_ended) has a `status` and, unless all went as it should, a `reason`. A
cancelled run has the reason that was given for the cancel.
"""
UNAVAILABLE = 503
DROPS_INTRO = """
[`attempt_dropped`](facts.md#attempt_dropped) says that what a model had begun to say is void.
"""
PROBLEMS = {
    "already_answered": "Somebody was first: `decision` or `outcome`, `principal` and `at` say what they answered.",
    "bad_archive": "The body is no export of a session, or a damaged one; `detail` names the line.",
    "not_running": "The session has no run that is going, so there is nothing to move.",
    "not_waiting": "What is answered is of a run that is not going any more.",
    "busy": "A run is going, and the message's policy is `reject`, or it takes back what was said.",
    "exists": "The id is taken by a session that was made with another body.",
    "expired": "Nobody answered in time, or the run ended before somebody did.",
    "host": "The server is not known by this name; see the setting `hosts`.",
    "in_progress": "The first request with this `Idempotency-Key` is still being answered.",
    "internal": "A bug of ours. The server's log has it; the answer says nothing about it.",
    "invalid_token": "The token is not accepted. Why is in the server's log, and nowhere else.",
    "key_reused": "This `Idempotency-Key` was used with another body.",
    "method_not_allowed": "There is such a route, for other methods; `Allow` names them.",
    "model_not_found": "There is no model of this name that may be asked; `detail` names those there are.",
    "open_step": "A call or a reply is open there; `detail` names the last position at which none is.",
    "origin": "A page of another site may not do this; see the setting `origins`.",
    "other_agent": "The chat is with another agent than the one that is asked for.",
    "overloaded": "The server has more to do than it can; what has begun goes on. Try again.",
    "queue_full": "As many runs wait in the session as may; see [limits](limits.md).",
    "scope": "The key's role may do this, and its scopes do not name it; `detail` says which would.",
    "rate": "More came of late than one caller may send; `Retry-After` says when it may go on.",
    "slow_body": "Of the body came less than the server waits for: 64 KiB in 30 seconds.",
    "taken_back": "That turn is no part of the conversation any more: somebody took it back.",
    "conversation_locked": "For OpenAI's clients: a run is going in the conversation; try again.",
    "response_not_done": "For OpenAI's clients: the response that this follows is still going on.",
    "missing_required_parameter": "For OpenAI's clients: the request lacks something it needs.",
    "previous_response_not_found": "For OpenAI's clients: the response that this follows is absent.",
    "went_on": "More was said since the place that the message is to follow.",
    "too_many_secrets": "The tenant has 1,000 secrets, or 256 KiB of them; remove some.",
    "too_many_webhooks": "The tenant has 20 webhooks; remove some.",
    "webhook_disabled": "The webhook is disabled, so nothing is sent to it; enable it first.",
    "no_vault": "This server was opened without a place for secrets.",
    "no_master_key": "The master key that is needed is not here, or cannot be read; the detail says.",
    "too_many_shares": "The session has 100 share links; remove some.",
    "too_many_sessions": "The tenant has as many sessions as it may; delete some.",
    "unavailable": "The store cannot serve now. Nothing was written; the same call may work later.",
    "unknown_outcome": "The connection to the database was lost, and whether this was written is not known: look before you try again, or use an `Idempotency-Key`.",
    "upgrade_required": "The route is a WebSocket, and was asked for without an upgrade.",
}
FAULTS: Mapping[str, str] = {
    "auth": "The key is missing, wrong, or not allowed to do this.",
    "rate_limit": "Too many requests or tokens in this minute or day, or the budget is spent.",
    "overloaded": "The provider has too much to do.",
    "server": "The provider failed.",
    "timeout_connect": "No connection came about in time.",
    "timeout_first_byte": "Connected, and no answer began in time.",
    "timeout_idle": "The answer began, and then nothing came for too long.",
    "truncated": "The stream ended before the provider said that it was complete.",
    "context_overflow": "The conversation does not fit into the model's context window.",
    "invalid_request": "The provider refuses the request; its message says why.",
    "content_filter": "The provider's filter refuses the question or the answer.",
    "bad_tool_schema": "The provider refuses the schema of a tool.",
    "unavailable": "The server of the model cannot be reached.",
}
ENDS = {
    ("done", "stop_when"): "The agent's `stop_when` said so.",
    ("failed", "budget"): "A budget of the agent is used up: tokens, seconds or US dollars.",
    ("failed", "model_error"): "The last model of the chain failed for good.",
    ("failed", "poisoned"): "Its workers died several times in a row without any progress.",
    ("failed", "step_limit"): "The agent's `max_steps` is reached.",
    (
        "failed",
        "wait_too_long",
    ): "The last model of the chain is to be asked again later than the run has time for.",
    ("failed", "stuck"): "It repeated itself, failed or said nothing several times in a row.",
    (
        "failed",
        "unanswered",
    ): "No client answered a call in time, and its message had said to end then.",
    ("cancelled", "imported"): "It was open in the archive that its session was imported from.",
    ("cancelled", "replaced"): "It was waiting, and a message with the policy `replace` came.",
}
STOPS = {
    ("done", "length"): "The model's output limit cut its last reply.",
    ("done", "refusal"): "The model declined to answer.",
}
DROPS = {
    "imported": "It was open in the archive that its session was imported from.",
    "worker_lost": "Its worker died or was stopped; another one asks again.",
    "interrupted": "The run was cancelled while the model spoke.",
    "failed": "The model call failed after text had come.",
}


def errors() -> str:
    """Return the page.  Raises Undocumented: a code has no meaning here, or the reverse."""
    known = get_args(FaultCode)
    _agree("fault code", known, FAULTS)
    _agree("reason of an end", _ends(), ENDS)
    return page(
        "Errors",
        "## Problems: what a client gets",
        PROBLEMS_INTRO,
        table(["status", "code", "meaning"], _problems()),
        "## Faults: why a model gave no reply",
        FAULTS_INTRO,
        table(["code", "meaning"], ([code(one), FAULTS[one]] for one in known)),
        "## Reasons: why a run ended",
        ENDS_INTRO,
        table(
            ["status", "reason", "meaning"],
            ([code(s), code(r), said] for (s, r), said in sorted((ENDS | STOPS).items())),
        ),
        "## Dropped attempts",
        DROPS_INTRO,
        table(["reason", "meaning"], ([code(one), said] for one, said in DROPS.items())),
    )


def _problems() -> list[list[str]]:
    classes = {one.__name__: one for one in _subclasses(tree.CallerError)}
    rows = {one.code: (one.status, _first(about(one, name))) for name, one in classes.items()}
    special = dict(_special(classes))
    _agree("problem code", special, PROBLEMS)
    rows |= {one: (status, PROBLEMS[one]) for one, status in special.items()}
    ordered = sorted((status, one, said) for one, (status, said) in rows.items())
    return [[str(status), code(one), said] for status, one, said in ordered]


def _first(text: str) -> str:
    """Return the sentences that are about callers, not about the class."""
    return text.partition(" `fields`")[0]


def _special(classes: Mapping[str, type[tree.CallerError]]) -> Iterable[tuple[str, int]]:
    """Yield the codes that are not a class's own, with their status."""
    statuses = {name: one.status for name, one in classes.items()} | {"Unavailable": UNAVAILABLE}
    yield "unavailable", UNAVAILABLE
    for floor in ("stores", "vault", "service", "faces", "app"):
        for call in calls(floor):
            own = keyword(call, "code")
            if own is not None and called(call) in statuses:
                yield own, statuses[called(call)]
            if called(call) == "problem" and (status := _given(call, "status")) is not None:
                yield str(keyword(cast("ast.Call", call.args[0]), "code")), _number(status)
            if called(call) == "details_of" and text_of(call.args[1]) is not None:
                yield str(text_of(call.args[1])), _number(call.args[0])


def _given(call: ast.Call, name: str) -> ast.expr | None:
    return next((one.value for one in call.keywords if one.arg == name), None)


def _number(node: ast.expr) -> int:
    assert isinstance(node, ast.Constant)
    return int(str(node.value))


def _ends() -> Iterable[tuple[str, str]]:
    for call in (*calls("core"), *calls("service")):
        if called(call) == "End" and len(call.args) == 2:
            status, reason = map(text_of, call.args)
        elif called(call) == "RunEnded":
            status, reason = keyword(call, "status"), keyword(call, "reason")
        elif called(call) == "_drop" and len(call.args) == 3:  # the queue's, in `service.inbox`
            status, reason = "cancelled", text_of(call.args[2])
        else:
            continue
        if status is not None and reason is not None:
            yield status, reason


def _subclasses(cls: type[tree.CallerError]) -> Iterable[type[tree.CallerError]]:
    for one in cls.__subclasses__():
        yield one
        yield from _subclasses(one)


def _agree(what: str, found: Iterable[object], meanings: Iterable[object]) -> None:
    there, told = set(found), set(meanings)
    for one in sorted(map(str, there - told)):
        raise Undocumented(f"the {what} {one} has no meaning in docs/build/errors.py")
    for one in sorted(map(str, told - there)):
        raise Undocumented(f"docs/build/errors.py explains the {what} {one}, which is gone")
