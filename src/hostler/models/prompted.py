"""Tool calling for models that have none: asked for in words, read out of their words.

Two ways.  Without a grammar, tools are described in the system prompt and calls are found in the
text (`hostler.models.markup`).  With one (`constrain`), the reply has to be one JSON object,
`{"say": …}` or `{"tool": …, "arguments": …}`, so that even a small model makes calls that can be
run; what it says is shown while it is written.  Servers drop a grammar that they cannot use
without a word, so what does not fit is read as in the first way.

The whole conversation is told in the same way, results included, so that a session can move
between models with and without tools.

Invariant: whoever asks sees an ordinary model; the markup of a call is never shown as text.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import msgspec
from msgspec.structs import replace

from hostler.core.events import JsonObject, ToolCall
from hostler.core.ports import Delta, Failure, Model, Reply, Request, ToolSpec
from hostler.core.said import ModelSaid, Said, TextPart, ToolSaid, UserSaid
from hostler.models.markup import Finder

Constrain: TypeAlias = Callable[[JsonObject], JsonObject]
"""From a JSON Schema to the `Request.options` that make a provider hold its reply to it."""
Mode: TypeAlias = Literal["none", "words", "grammar", "forced"]

WORDS = """\
# Tools

You can call tools. To call one, write its name and arguments as JSON in a block like this:

<tool_call>
{"name": "NAME", "arguments": {"PARAMETER": "VALUE"}}
</tool_call>

Write nothing after your last block: the results come in the next message. If you need no tool, \
answer in plain text.

<tools>
%s
</tools>"""
GRAMMAR = """\
Reply with one JSON object. To answer, reply {"say": "YOUR ANSWER"}. To call a tool, reply \
{"tool": "NAME", "arguments": {…}}; its result comes in the next message. Tools:
%s"""
FORCED = """\
Fill in the arguments of a tool for what the user asks. Tools:
%s"""

_WORD = re.compile(r"[a-z0-9]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_IDLE = frozenset({"call", "do", "fetch", "get", "run", "tool", "use"})
"""Words of a tool's name that say nothing of what it is about."""
_UNITS = re.compile(
    r'(?:[^"\\]+|\\[^u]|\\u[0-9a-fA-F]{4}|\\u(?=[0-9a-fA-F]{0,3}[^0-9a-fA-F]))*', re.DOTALL
)
"""What of a JSON string can be decoded by itself."""
_HALF = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\Z")
"""The first half of a character that is written as two."""


@runtime_checkable
class _Closable(Protocol):
    async def aclose(self) -> None: ...


class Offer(NamedTuple):
    """What a model is offered for one reply."""

    tools: Sequence[ToolSpec]
    must: bool = False
    """One of them has to be called; only a grammar can see to that."""


def by_response_format(schema: JsonObject) -> JsonObject:
    """Return the options with which servers of Chat Completions keep a reply to a schema."""
    named = {"name": "reply", "schema": schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def everything(request: Request) -> Offer:
    """Offer all tools, and leave the choice to the model."""
    return Offer(request.tools)


def named(request: Request) -> Offer:
    """Offer the tools whose name the user has just used; one of them will be called.

    For models too small to choose: offered two tools, SmolLM2-135M took neither in any of twenty
    questions; told which, it called with arguments that can be run.
    """
    last = request.transcript[-1] if request.transcript else None
    said = set(_WORD.findall(_text(last).lower())) if isinstance(last, UserSaid) else set[str]()
    tools = [tool for tool in request.tools if _about(tool.name) <= said]
    return Offer(tools, must=bool(tools))


class Prompted:
    """A model with tools, made of `inner`, which has none."""

    def __init__(
        self,
        inner: Model,
        *,
        constrain: Constrain | None = None,
        offer: Callable[[Request], Offer] = everything,
    ) -> None:
        self._inner = inner
        self._constrain = constrain
        self._offer = offer

    @property
    def provider(self) -> str:
        return self._inner.provider

    @property
    def name(self) -> str:
        return self._inner.name

    async def stream(self, request: Request) -> AsyncGenerator[Delta | Reply | Failure, None]:
        told, reader = self._told(request)
        heard, shown = False, list[str]()
        async with aclosing(self._inner.stream(told)) as parts:
            async for part in parts:
                if isinstance(part, Reply):
                    rest = "" if heard else reader.feed(part.text)
                    rest += reader.end(cut=part.stop == "length")
                    if rest:
                        yield Delta("text", rest)
                    for call in reader.calls:
                        yield Delta("arguments", _arguments(call), call.id, call.name)
                    yield _with_calls(part, "".join([*shown, rest]), reader.calls)
                elif isinstance(part, Failure) or part.part == "thinking":
                    yield part
                elif part.part == "text":
                    heard = True
                    if text := reader.feed(part.text):
                        shown.append(text)
                        yield Delta("text", text)

    async def aclose(self) -> None:
        """Close what `inner` holds, if it holds anything."""
        if isinstance(self._inner, _Closable):
            await self._inner.aclose()

    def _offered(self, request: Request) -> Offer:
        wanted = request.wanted
        if wanted.calls == "none":
            return Offer(())
        if wanted.tool is not None:
            return Offer([one for one in request.tools if one.name == wanted.tool], must=True)
        return Offer(request.tools, must=True) if wanted.calls == "some" else self._offer(request)

    def _told(self, request: Request) -> tuple[Request, Reader]:
        tools, must = self._offered(request)
        mode: Mode = "none"
        system, options = request.system, request.options
        if tools and self._constrain is None:
            mode = "words"
        elif tools and self._constrain is not None:
            mode = "forced" if must else "grammar"
            options = options | self._constrain(_schema(tools, must=must))
        if mode != "none":
            system = "\n\n".join(filter(None, (system, _described(tools, mode))))
        told = replace(
            request,
            system=system,
            transcript=list(_joined(_retold(request.transcript, mode))),
            tools=(),
            options=options,
        )
        return told, Reader([tool.name for tool in tools], says=mode == "grammar")


class Reader:
    """Reads a reply as it is written: what is said is returned, calls are kept."""

    def __init__(self, offered: Sequence[str], *, says: bool) -> None:
        self._finder = Finder(offered) if offered else None
        self._saying = _Saying() if says else None

    @property
    def calls(self) -> Sequence[ToolCall]:
        return self._finder.calls if self._finder is not None else ()

    def feed(self, text: str) -> str:
        if self._finder is None:
            return text
        if self._saying is None:
            return self._finder.feed(text)
        said = self._saying.feed(text)
        if said is None:
            text, self._saying = self._saying.held, None
            return self._finder.feed(text)
        return said

    def end(self, *, cut: bool) -> str:
        if self._finder is None:
            return ""
        said = self._saying.end() if self._saying is not None else ""
        if said is None and self._saying is not None:
            said = self._finder.feed(self._saying.held)
        return (said or "") + self._finder.end(cut=cut)


class _Saying:
    """Reads the text out of `{"say": "…"}` while it is written."""

    def __init__(self) -> None:
        self.held = ""
        """What is not told yet."""
        self._begun = self._over = False

    def feed(self, text: str) -> str | None:
        """Return what is said by now and was not told; None: this is something else."""
        if self._over:
            return ""
        self.held += text
        if not self._begun:
            start = _start_of_say(self.held)
            if start <= 0:
                return "" if start == 0 else None
            self._begun, self.held = True, self.held[start:]
        found = _UNITS.match(self.held)
        end = found.end() if found else 0
        self._over = self.held.startswith('"', end)
        if not self._over and _HALF.search(self.held, max(0, end - 6), end):
            end -= 6
        part, self.held = self.held[:end], self.held[end:]
        return _unescaped(part)

    def end(self) -> str | None:
        """Return the rest, of a text that was cut; None: this was something else."""
        if not self._begun:
            return None
        return "" if self._over or not _HALF.match(self.held) else _unescaped(self.held)


def _start_of_say(text: str) -> int:
    """Return where the text of a `say` begins; 0: more is needed to tell; -1: it is none."""
    at = 0
    for wanted in ("{", '"say"', ":", '"'):
        at = len(text) - len(text[at:].lstrip())
        there = text[at : at + len(wanted)]
        if there != wanted:
            return 0 if wanted.startswith(there) else -1
        at += len(wanted)
    return at


def _unescaped(part: str) -> str:
    if "\\" not in part:
        return part
    try:
        text = str(json.loads(f'"{part}"', strict=False))
    except ValueError:
        return part
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _with_calls(reply: Reply, text: str, calls: Iterable[ToolCall]) -> Reply:
    found = (*reply.calls, *calls)
    stop = "tools" if found and reply.stop == "end" else reply.stop
    return replace(reply, text=text, calls=found, stop=stop)


def _arguments(call: ToolCall) -> str:
    return msgspec.json.encode(call.arguments).decode() if call.unparsed is None else call.unparsed


# -- what the model is told ------------------------------------------------------------------


def _schema(tools: Sequence[ToolSpec], *, must: bool) -> JsonObject:
    """Return the schema of a reply.  Definitions of a tool's schema move along with it."""
    choices = [] if must else [_object(say={"type": "string"})]
    shared: JsonObject = {}
    for number, tool in enumerate(tools):
        parameters: JsonObject = {"type": "object"} | tool.parameters
        if "properties" in parameters:
            parameters = {"additionalProperties": False} | parameters
        text = msgspec.json.encode(parameters)
        if b'"$ref":"#' in text:
            home = b'"$ref":"#/$defs/%d' % number
            shared[str(number)] = msgspec.json.decode(text.replace(b'"$ref":"#', home))
            parameters = {"$ref": f"#/$defs/{number}"}
        choices.append(_object(tool={"const": tool.name}, arguments=parameters))
    schema: JsonObject = {"anyOf": choices} if len(choices) > 1 else choices[0]
    return schema | {"$defs": shared} if shared else schema


def _object(**properties: JsonObject) -> JsonObject:
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }


def _described(tools: Iterable[ToolSpec], mode: Mode) -> str:
    if mode == "words":
        return WORDS % "\n".join(
            _json({"name": t.name, "description": t.description, "parameters": t.parameters})
            for t in tools
        )
    lines = "\n".join(
        f"- {t.name}: {t.description.strip()} Arguments: {_json(t.parameters)}" for t in tools
    )
    return (FORCED if mode == "forced" else GRAMMAR) % lines


def _retold(transcript: Iterable[Said], mode: Mode) -> Iterable[Said]:
    """Yield the conversation with calls and results in words."""
    for one in transcript:
        if isinstance(one, UserSaid):
            yield one
        elif isinstance(one, ToolSaid):
            yield UserSaid(_result(one, mode))
        elif mode == "none":
            if one.text:
                yield replace(one, calls=())
        else:
            yield replace(one, text="\n".join(_replied(one, mode)), calls=())


def _replied(said: ModelSaid, mode: Mode) -> Iterable[str]:
    if mode == "words":
        if said.text:
            yield said.text
        for call in said.calls:
            written = _json({"name": call.name, "arguments": call.arguments})
            yield f"<tool_call>\n{written}\n</tool_call>"
        return
    if said.text or not said.calls:
        yield _json({"say": said.text})
    for call in said.calls:
        yield _json({"tool": call.name, "arguments": call.arguments})


def _result(said: ToolSaid, mode: Mode) -> str:
    if mode == "words":
        content = _json({"name": said.call.name, "content": said.output})
        content = content.replace(
            "</", "<\\/"
        )  # it must not end its own block; in JSON that is `/`
        return f"<tool_response>\n{content}\n</tool_response>"
    did = "failed" if said.failed else "found"
    return f"(The tool {said.call.name} {did}: {said.output})"


def _joined(said: Iterable[Said]) -> Iterable[Said]:
    """Join what the user side says in a row: many chat templates refuse two such messages."""
    waiting: UserSaid | None = None
    for one in said:
        if isinstance(one, UserSaid):
            waiting = one if waiting is None else _both(waiting, one)
            continue
        if waiting is not None:
            yield waiting
        waiting = None
        yield one
    if waiting is not None:
        yield waiting


def _both(first: UserSaid, second: UserSaid) -> UserSaid:
    if isinstance(first.content, str) and isinstance(second.content, str):
        return UserSaid(f"{first.content}\n\n{second.content}")
    parts = [
        (TextPart(text=one.content),) if isinstance(one.content, str) else one.content
        for one in (first, second)
    ]
    return UserSaid((*parts[0], *parts[1]))


def _text(said: UserSaid) -> str:
    if isinstance(said.content, str):
        return said.content
    return " ".join(part.text for part in said.content if isinstance(part, TextPart))


def _about(name: str) -> set[str]:
    words = set(_WORD.findall(_HUMP.sub(" ", name).lower()))
    return words - _IDLE or words or {name}


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
