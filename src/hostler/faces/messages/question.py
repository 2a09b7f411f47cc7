"""A body of the Messages API as a question to a model.

A reply and the results of its calls stand together, whatever the client put between them; a call
without a result gets one that says so.  Blocks that no model can be shown here are named in words
where they say something, and left out where they do not.

Invariant: pure; whatever readable body comes is a question, or `Invalid` with the field's name.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, TypeVar

import msgspec
from msgspec import Struct

from hostler.core.errors import Invalid
from hostler.core.events import (
    CallId,
    JsonObject,
    ToolCall,
)
from hostler.core.ports import Request, ToolSpec
from hostler.core.said import (
    Content,
    ImagePart,
    ModelSaid,
    Part,
    Said,
    TextPart,
    ToolSaid,
    UserSaid,
)
from hostler.core.shown import FilePart
from hostler.core.terms import Wanted
from hostler.faces.http.keepsakes import NOTHING, Keepsake, Keepsakes
from hostler.faces.messages.bodies import Blocks, GivenTool, NewCount, NewQuestion, Step, ToolChoice

T = TypeVar("T")

NO_RESULT = "No result of this call was sent."
_CALLS: Mapping[str, Literal["any", "none", "some"]] = {
    "auto": "any",
    "any": "some",
    "none": "none",
}
_KNOWN_EFFORTS = frozenset({"minimal", "low", "medium", "high", "xhigh", "max"})
"""Any other is as good as none."""
_EFFORTS = ((2_048, "low"), (8_192, "medium"))
"""Budgets below which so much is thought; beyond them it is `high`."""


class _Text(Struct):
    text: str


class _Source(Struct):
    type: str = ""
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    content: Blocks = None


class _Seen(Struct):
    """An image or a document."""

    source: _Source
    title: str | None = None
    context: str | None = None


class _Use(Struct):
    id: str
    name: str
    input: JsonObject | None = None


class _Result(Struct):
    tool_use_id: str
    content: Blocks = None
    is_error: bool | None = None


def request_of(asked: NewCount, keepsakes: Keepsakes, *, session: str = "") -> Request:
    """Return the question.  Raises Invalid."""
    reading = _Reading(keepsakes)
    for number, one in enumerate(asked.messages):
        message, first = (one.message, one.block) if isinstance(one, Step) else (number, 0)
        at = f"/messages/{message}/content"
        if one.role == "assistant":
            reading.model(one.content, at, first)
        elif one.role in ("system", "developer"):
            reading.system(one.content, at)
        else:
            reading.user(one.content, at, first)
    if not reading.said:
        raise _invalid("/messages", "at least one message")
    return Request(
        system="\n\n".join([*_texts(asked.system, "/system"), *reading.instructions]),
        transcript=reading.said,
        tools=_tools(asked.tools or ()),
        session=session,
        max_output_tokens=asked.max_tokens if isinstance(asked, NewQuestion) else None,
        wanted=_wanted(asked),
    )


def shows_thinking(asked: NewCount) -> bool:
    """Whether the client knows what to do with thoughts: others take the first block for the text."""
    return asked.thinking is not None and asked.thinking.type != "disabled"


class _Reading:
    """The conversation so far."""

    def __init__(self, keepsakes: Keepsakes) -> None:
        self._keepsakes = keepsakes
        self.said: list[Said] = []
        self.instructions: list[str] = []
        self._open: dict[str, int] = {}
        """Where the result of each call belongs."""

    def system(self, content: Blocks, at: str) -> None:
        told = "\n\n".join(_texts(content, at))
        if not self.said:
            self.instructions.append(told)
        elif told:
            self.said.append(UserSaid(f"<system>\n{told}\n</system>"))

    def model(self, content: Blocks, at: str, first: int = 0) -> None:
        text, thinking, uses, kept = list[str](), list[str](), list[_Use](), NOTHING
        for here, block in _blocks(content, at, first):
            match block.get("type"):
                case "text":
                    text.append(_read(block, _Text, here).text)
                case "thinking":
                    thought = block.get("thinking")
                    thinking.append(thought if isinstance(thought, str) else "")
                    kept = self._better(kept, block.get("signature"))
                case "redacted_thinking":
                    kept = self._better(kept, block.get("data"))
                case "tool_use":
                    uses.append(_read(block, _Use, here))
                case _:
                    pass  # tools of the vendor's own, which no other model knows
        calls = tuple(
            ToolCall(
                id=CallId(use.id),
                name=use.name,
                arguments=use.input or {},
                provider_id=kept.calls.get(use.id),
            )
            for use in uses
        )
        thought = kept.thinking or "".join(thinking) or None
        self.said.append(ModelSaid("".join(text), calls, thought, kept.replay))
        for call in calls:
            self._open[call.id] = len(self.said)
            self.said.append(ToolSaid(call, NO_RESULT, failed=True))

    def _better(self, known: Keepsake, token: object) -> Keepsake:
        """Return the one that holds more: only one token of a reply has it all."""
        found = self._keepsakes.take(token)
        return known if found == NOTHING else found

    def user(self, content: Blocks, at: str, first: int = 0) -> None:
        parts = list[Part]()
        for here, block in _blocks(content, at, first):
            if block.get("type") == "tool_result":
                parts += self._result(_read(block, _Result, here), here)
            else:
                parts += _parts(block, here)
        if parts or not content:
            self.said.append(UserSaid(_content(parts)))

    def _result(self, result: _Result, at: str) -> list[Part]:
        """Put a result where it belongs; return what of it can only be told by the user."""
        text, shown = list[str](), list[Part]()
        for here, block in _blocks(result.content, f"{at}/content"):
            for part in _parts(block, here):
                if isinstance(part, TextPart):
                    text.append(part.text)
                else:
                    shown.append(part)
        place = self._open.get(result.tool_use_id)
        if place is None:
            return [*(TextPart(text=one) for one in text), *shown]
        answered = self.said[place]
        assert isinstance(answered, ToolSaid)
        if shown:
            text.append("[What it gave besides text follows.]")
        failed = result.is_error is True
        self.said[place] = ToolSaid(answered.call, "\n".join(text), failed=failed)
        return shown


def _blocks(content: Blocks, at: str, first: int = 0) -> Iterator[tuple[str, JsonObject]]:
    """Yield each block of a message with its place; `first`: of the first of them."""
    if isinstance(content, str):
        if content:
            yield at, {"type": "text", "text": content}
        return
    for number, block in enumerate(content or (), first):
        yield f"{at}/{number}", block


def _texts(content: Blocks, at: str) -> list[str]:
    found = [part for here, block in _blocks(content, at) for part in _parts(block, here)]
    return [part.text for part in found if isinstance(part, TextPart)]


def _parts(block: JsonObject, at: str) -> list[Part]:
    """Return what a user shows with a block."""
    match block.get("type"):
        case "text":
            return [TextPart(text=_read(block, _Text, at).text)]
        case "image":
            source = _read(block, _Seen, at).source
            if source.url is None and source.data is None:
                return [TextPart(text="[An image that is not here.]")]
            return [_image(source)]
        case "document":
            return _document(_read(block, _Seen, at), at)
        case _:
            return [TextPart(text=one) for one in _words(block)]


def _image(source: _Source) -> ImagePart:
    if source.url is not None:
        return ImagePart(url=source.url)
    return ImagePart(data=source.data, media_type=source.media_type)


def _document(seen: _Seen, at: str) -> list[Part]:
    source = seen.source
    about: list[Part] = [TextPart(text=seen.context)] if seen.context else []
    if source.url is not None:
        return [*about, FilePart(url=source.url, name=seen.title)]
    if source.type == "text":
        data = b64encode((source.data or "").encode()).decode()
        return [*about, FilePart(data=data, media_type="text/plain", name=seen.title)]
    if source.data is not None:
        kind = source.media_type
        return [*about, FilePart(data=source.data, media_type=kind, name=seen.title)]
    inner = _blocks(source.content, f"{at}/source/content")
    shown = [part for here, block in inner for part in _parts(block, here)]
    return [*about, *(shown or [TextPart(text="[A document that is not here.]")])]


def _words(block: JsonObject) -> Iterator[str]:
    """Yield what a block of an unknown kind says, such as a search result."""
    for name in ("title", "source", "text", "content"):
        held = block.get(name)
        if isinstance(held, str) and held:
            yield held
        elif isinstance(held, list):
            for one in msgspec.convert(held, list[object]):
                text = msgspec.convert(one, JsonObject).get("text") if _is_object(one) else None
                if isinstance(text, str) and text:
                    yield text


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _content(parts: Sequence[Part]) -> Content:
    if not parts:
        return ""
    first = parts[0]
    return first.text if len(parts) == 1 and isinstance(first, TextPart) else tuple(parts)


def _read(block: JsonObject, kind: type[T], at: str) -> T:
    try:
        return msgspec.convert(block, kind)
    except msgspec.ValidationError as error:
        raise _invalid(at, str(error)) from error


def _invalid(at: str, what: str) -> Invalid:
    return Invalid(what, fields=[(at, what)])


def _tools(given: Sequence[GivenTool]) -> list[ToolSpec]:
    return [
        ToolSpec(name=one.name, description=one.description or "", parameters=one.input_schema)
        for one in given
        if one.name and one.input_schema is not None
    ]


def _wanted(asked: NewCount) -> Wanted:
    choice, output = asked.tool_choice or ToolChoice(), asked.output_config
    format_ = None if output is None else output.format
    wanted = Wanted(
        calls=_CALLS.get(choice.type, "any"),
        tool=choice.name if choice.type == "tool" else None,
        parallel=not choice.disable_parallel_tool_use,
        json_schema=None if format_ is None else format_.schema,
        effort=_effort(asked),
    )
    if not isinstance(asked, NewQuestion):
        return wanted
    return msgspec.structs.replace(
        wanted,
        temperature=asked.temperature,
        top_p=asked.top_p,
        stop=tuple(asked.stop_sequences or ()),
    )


def _effort(asked: NewCount) -> str | None:
    output, thinking = asked.output_config, asked.thinking
    if thinking is not None and thinking.type == "disabled":
        return "none"
    if output is not None and output.effort in _KNOWN_EFFORTS:
        return output.effort
    if thinking is None or thinking.budget_tokens is None:
        return None
    return next((told for most, told in _EFFORTS if thinking.budget_tokens < most), "high")
