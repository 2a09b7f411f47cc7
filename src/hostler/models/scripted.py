"""Models that play a script: no network, no chance, the same conversation every time.

A script is a JSON list of replies, `{text?, thinking?, calls?, delay_s?, error?}`.  Which one is
next is read off the conversation, so that a crash, a restart or a fork goes on at the right place:
after n replies of the model that stand in the transcript, the one after the n-th reply of the
script that says something.  Replies that leave nothing in a transcript (those with `error`, and
empty ones) cannot be counted so: they are played once each, in their order, before the next one
that says something; how many of them were is kept per session in memory.  A new process that
meets such a place begins it again with its first `error`, and gets past it in the same way.

Invariant: without `delay_s` nothing here waits, and nothing but ids differs from run to run.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, cast, get_args

import anyio
import anyio.lowlevel
import msgspec
from msgspec import UNSET, Meta, Struct, convert, field

from hostler.core.errors import SetupError
from hostler.core.events import CallId, JsonObject, ToolCall, Usage
from hostler.core.ports import Delta, Failure, FaultCode, Reply, Request, mint
from hostler.core.said import ModelSaid, TextPart, ToolSaid, UserSaid

DEMO = "demo"
PASSING: frozenset[FaultCode] = frozenset(
    {
        "rate_limit",
        "overloaded",
        "server",
        "timeout_connect",
        "timeout_first_byte",
        "timeout_idle",
        "truncated",
    }
)
"""Faults after which asking again may help, unless the script says otherwise."""
BREATH = 64
"""Words between two looks at the rest of the world, so that no script can hold the loop."""
REMEMBERED = 10_000
"""Sessions that are amid replies which leave nothing in the transcript."""
DEEPEST_SAMPLE = 8

_WORDS = re.compile(r"\S+\s*|\s+")


class ScriptedCall(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    arguments: JsonObject = {}


class ScriptedError(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    code: FaultCode
    message: str = "the script says so"
    again: bool | None = None
    """None: as it is usual for this code."""
    retry_after_s: Annotated[float, Meta(ge=0)] | None = None


class ScriptedReply(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One reply.  With `error`, what it says comes first, and then it fails."""

    text: str = ""
    thinking: str | None = None
    calls: tuple[ScriptedCall, ...] = ()
    delay_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    """How long the whole of it takes, spread over its words."""
    error: FaultCode | ScriptedError | None = None

    @property
    def stays(self) -> bool:
        """Whether it leaves something in the transcript."""
        return self.error is None and bool(self.text or self.calls)


_script = msgspec.json.Decoder(tuple[ScriptedReply, ...])


def scripted(script: str) -> Scripted:
    """Return the model `scripted:SCRIPT`: a file's path, or `demo`.

    Raises:
        SetupError: the file cannot be read or is no script; says where.
    """
    if script == DEMO:
        return Scripted(DEMO, _demo)
    path = Path(script)
    try:
        replies = _script.decode(path.read_bytes())
    except OSError as error:
        raise SetupError(f"the script {path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SetupError(
            f"{path} is no script: {error}; it is a JSON list of replies with "
            f"{', '.join(ScriptedReply.__struct_fields__)}; the codes of an error are "
            f"{', '.join(get_args(FaultCode))}"
        ) from error
    for number, reply in enumerate(replies):
        if reply.error is not None and reply.calls:
            raise SetupError(f"{path} is no script: $[{number}] has both `calls` and `error`")
    return Scripted(script, Script(script, replies).choose)


class Scripted:
    """Says, word by word, what `choose` answers to a request."""

    provider = "scripted"

    def __init__(self, name: str, choose: Callable[[Request], ScriptedReply | Failure]) -> None:
        self.name = name
        self._choose = choose

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
        asked = len(request.transcript)
        chosen = self._choose(request)
        if isinstance(chosen, Failure):
            yield chosen
            return
        calls = tuple(
            ToolCall(id=CallId(mint("call")), name=one.name, arguments=one.arguments)
            for one in chosen.calls
        )
        deltas = _deltas(chosen, calls)
        if chosen.delay_s and not deltas:
            await anyio.sleep(chosen.delay_s)
        for number, delta in enumerate(deltas):
            if chosen.delay_s:
                await anyio.sleep(chosen.delay_s / len(deltas))
            elif number % BREATH == 0:
                await anyio.lowlevel.checkpoint()
            yield delta
        if chosen.error is not None:
            yield _failure(chosen.error)
            return
        yield Reply(
            text=chosen.text,
            thinking=chosen.thinking,
            calls=calls,
            stop="tools" if calls else "end",
            usage=Usage(
                input_tokens=asked, output_tokens=len(deltas), cost=Decimal(0), price="scripted"
            ),
        )


class Script:
    """The replies of a file, and where in them each session is."""

    def __init__(self, name: str, replies: Sequence[ScriptedReply]) -> None:
        self._name = name
        self._replies = replies
        self._after = [0, *(i + 1 for i, reply in enumerate(replies) if reply.stays)]
        self._passed: dict[str, tuple[int, int]] = {}

    def choose(self, request: Request) -> ScriptedReply | Failure:
        """Return the reply to `request`; a failure that names the script when it has run out."""
        said = sum(isinstance(one, ModelSaid) for one in request.transcript)
        known, passed = self._passed.pop(request.session, (said, 0))
        place = self._after[said] if said < len(self._after) else len(self._replies)
        for _ in range(passed if known == said else 0):
            place += place < len(self._replies) and not self._replies[place].stays
        if place >= len(self._replies):
            return Failure(
                code="unavailable",
                message=f"the script {self._name} has {len(self._replies)} replies, all played",
                again=False,
            )
        if not self._replies[place].stays:
            self._passed[request.session] = said, 1 + (passed if known == said else 0)
            if len(self._passed) > REMEMBERED:
                del self._passed[next(iter(self._passed))]
        return self._replies[place]


def _deltas(reply: ScriptedReply, calls: Sequence[ToolCall]) -> list[Delta]:
    thinking = [Delta("thinking", word) for word in _WORDS.findall(reply.thinking or "")]
    text = [Delta("text", word) for word in _WORDS.findall(reply.text)]
    asked = [
        Delta("arguments", msgspec.json.encode(one.arguments).decode(), one.id, one.name)
        for one in calls
    ]
    return [*thinking, *text, *asked]


def _failure(error: FaultCode | ScriptedError) -> Failure:
    if not isinstance(error, ScriptedError):
        error = ScriptedError(code=error)
    return Failure(
        code=error.code,
        message=error.message,
        again=error.code in PASSING if error.again is None else error.again,
        retry_after_s=error.retry_after_s,
    )


def _demo(request: Request) -> ScriptedReply:
    """Call the first tool once for each thing the user says, then echo that."""
    said, answered = "", False
    for one in reversed(request.transcript):
        if isinstance(one, UserSaid):
            said = _text(one)
            break
        answered = answered or isinstance(one, ToolSaid)
    if answered or not request.tools:
        return ScriptedReply(text=said)
    first = request.tools[0]
    arguments = sample(first.parameters, said)
    call = ScriptedCall(
        name=first.name,
        arguments=cast("JsonObject", arguments) if isinstance(arguments, dict) else {},
    )
    return ScriptedReply(calls=(call,))


def _text(said: UserSaid) -> str:
    if isinstance(said.content, str):
        return said.content
    return " ".join(
        part.text if isinstance(part, TextPart) else f"[{type(part).__name__[:-4].lower()}]"
        for part in said.content
    )


class _Schema(Struct, frozen=True, kw_only=True):
    """The keywords of JSON Schema from which a value can be made."""

    const: object = UNSET
    default: object = UNSET
    enum: tuple[object, ...] = ()
    examples: tuple[object, ...] = ()
    ref: str | None = field(default=None, name="$ref")
    any_of: tuple[object, ...] = field(default=(), name="anyOf")
    one_of: tuple[object, ...] = field(default=(), name="oneOf")
    all_of: tuple[object, ...] = field(default=(), name="allOf")
    type: str | tuple[str, ...] = ()
    properties: dict[str, object] = {}
    required: tuple[str, ...] = ()
    items: object = None
    min_items: int = field(default=0, name="minItems")
    minimum: Annotated[float, Meta(ge=-1e15, le=1e15)] = 0
    max_length: int | None = field(default=None, name="maxLength")


def sample(schema: JsonObject, words: str) -> object:
    """Return a value that fits a JSON Schema, as a rule: what it suggests, else `words`, else little.

    Patterns, formats and conditions are not followed; of what is no schema it makes None.
    """
    return _sample(schema, schema, words, DEEPEST_SAMPLE)


def _sample(schema: object, root: JsonObject, words: str, levels: int) -> object:
    try:
        known = convert(schema, _Schema)
    except msgspec.ValidationError:
        return None
    for suggested in (known.const, known.default, *known.enum[:1], *known.examples[:1]):
        if suggested is not UNSET:
            return suggested
    if levels == 0:
        return None
    if known.ref is not None:
        return _sample(_found(known.ref, root), root, words, levels - 1)
    for choice in (*known.any_of[:1], *known.one_of[:1], *known.all_of[:1]):
        return _sample(choice, root, words, levels - 1)
    kind = known.type if isinstance(known.type, str) else "".join(known.type[:1])
    match kind or ("object" if known.properties else "string"):
        case "object":
            inner = known.properties
            return {
                one: _sample(inner.get(one, {}), root, words, levels - 1) for one in known.required
            }
        case "array":
            return [_sample(known.items, root, words, levels - 1)] * min(known.min_items, 100)
        case "string":
            return words[: known.max_length]
        case scalar:
            return {"integer": int(known.minimum), "number": known.minimum, "boolean": True}.get(
                scalar
            )


def _found(reference: str, root: JsonObject) -> object:
    found: object = root
    try:
        for name in reference.removeprefix("#").strip("/").split("/"):
            found = convert(found, dict[str, object]).get(name)
    except msgspec.ValidationError:
        return None
    return found
