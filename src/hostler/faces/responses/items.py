"""The items of a request as a conversation.

    system, developer     before all else: instructions; later: said as somebody's, with a mark
    assistant's message, reasoning, calls       one reply, as far as they follow one another
    results               stand right after the reply that made the call, wherever they came
    results and decisions of what is not here   answers to what a run waits for

Invariant: a call has exactly one result, or the request is refused in OpenAI's words; items that
mean nothing here are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from hostler.core.errors import Invalid
from hostler.core.events import (
    CallId,
    JsonObject,
    ToolCall,
)
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
from hostler.faces.http.keepsakes import NOTHING, Keepsake, Keepsakes
from hostler.faces.responses.bodies import InputItem, InputPart
from hostler.faces.responses.ids import read_approval, read_item
from hostler.service.waits import Decision, Result

MARK = "[{role}] "
"""Before what is said by no user in the middle of a conversation."""
_SYSTEM = ("system", "developer")
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
_OUR_CALL = len("call_") + 28
_object = msgspec.json.Decoder(dict[str, object]).decode


class Told(NamedTuple):
    """What a reply of ours was, of which the client sends the name alone."""

    items: Mapping[str, InputItem]
    replay: JsonObject | None
    thinking: str | None


@dataclass(slots=True, kw_only=True)
class Conversation:
    """What a request says."""

    lead: list[str] = field(default_factory=list[str])
    """What system and developer say before all else."""
    said: list[Said] = field(default_factory=list[Said])
    answers: dict[CallId, Result | Decision] = field(
        default_factory=dict[CallId, Result | Decision]
    )
    """To calls that the request does not have itself."""
    roles: dict[str, str] = field(default_factory=dict[str, str])
    """Which of `said`, by its place, is said by no user, and who says it."""

    def split(self) -> tuple[Sequence[Said], Content]:
        """Return what was said before, and the message that is to be answered."""
        last = self.said[-1] if self.said else None
        if isinstance(last, UserSaid):
            return self.said[:-1], last.content
        return self.said, ""


@dataclass(slots=True)
class _Reply:
    text: list[str] = field(default_factory=list[str])
    calls: list[ToolCall] = field(default_factory=list[ToolCall])
    thinking: list[str] = field(default_factory=list[str])
    replay: JsonObject | None = None
    ids: Mapping[str, str] = field(default_factory=dict[str, str])
    """The provider's ids of calls, by ours."""
    at: int = 0

    @property
    def is_empty(self) -> bool:
        return not (self.text or self.calls or self.thinking or self.replay)


def conversation(
    items: Sequence[InputItem],
    keepsakes: Keepsakes,
    known: Mapping[str, Told],
    *,
    leads: bool = True,
) -> Conversation:
    """Return what items say; `known`: replies of ours, by the ids of their items.

    `leads`: what system and developer say before all else is told apart; else it is said, too.

    Raises:
        Invalid: a call has no result, a reference leads nowhere, or a part cannot be shown.
    """
    return _Reading(items, keepsakes, known, leads=leads).all()


class _Reading:
    def __init__(
        self,
        items: Sequence[InputItem],
        keepsakes: Keepsakes,
        known: Mapping[str, Told],
        *,
        leads: bool,
    ) -> None:
        self._leads = leads
        self._items = [self._named(at, one, known) for at, one in enumerate(items)]
        self._keepsakes, self._known = keepsakes, known
        self._made, self._reply = Conversation(), _Reply()
        self._outputs = {
            CallId(one.call_id): place
            for place, one in reversed([*enumerate(self._items)])
            if one.type in _OUTPUTS and isinstance(one.call_id, str)
        }
        self._own = {
            one.call_id
            for one in self._items
            if one.type in ("function_call", "custom_tool_call") and isinstance(one.call_id, str)
        }
        self._mcp = dict[CallId, ToolSaid]()

    def _named(self, at: int, item: InputItem, known: Mapping[str, Told]) -> InputItem:
        is_name = item.type == "item_reference" or (item.type is None and item.role is None)
        if not is_name or not isinstance(item.id, str):
            return item
        found = known.get(item.id)
        if found is None or item.id not in found.items:
            told = f"Item with id '{item.id[:80]}' not found."
            raise Invalid(told, fields=[(f"/input/{at}/id", told)])
        return found.items[item.id]

    def all(self) -> Conversation:
        for at, item in enumerate(self._items):
            self._one(at, item)
        self._flush()
        made = self._made
        if not made.said and not made.answers and made.lead:  # all of it in one system message
            made.said.append(UserSaid(made.lead.pop()))
        return made

    def _one(self, at: int, item: InputItem) -> None:
        match item.type or ("message" if item.role is not None else ""):
            case "message":
                self._message(at, item)
            case "reasoning":
                self._reasoning(item)
            case "function_call" | "custom_tool_call":
                self._reply.calls.append(self._call(at, item))
                self._reply.at = at
            case "function_call_output" | "custom_tool_call_output":
                self._result(at, item)
            case "mcp_call":
                self._ran_here(at, item)
            case "mcp_approval_response":
                call = read_approval(item.approval_request_id)
                if call is not None and isinstance(item.approve, bool):
                    reason = item.reason if isinstance(item.reason, str) else None
                    verdict = "allow" if item.approve else "deny"
                    self._made.answers[call] = Decision(verdict=verdict, reason=reason)
            case "compaction":
                kept = self._keepsakes.take(item.encrypted_content).thinking
                if kept:
                    self._flush()
                    self._made.said.append(UserSaid(kept))
            case _:
                pass

    # -- what was said -------------------------------------------------------------------------

    def _message(self, at: int, item: InputItem) -> None:
        parts = _parts(item.content, f"/input/{at}/content")
        if item.role == "assistant":
            if self._reply.calls:
                self._flush()
            self._reply.text.append(_text(parts))
            return
        self._flush()
        if item.role not in _SYSTEM:
            self._made.said.append(UserSaid(_content(parts)))
        elif self._made.said or not self._leads:
            marked = MARK.format(role=item.role) + _text(parts)
            self._made.roles[str(len(self._made.said))] = str(item.role)
            self._made.said.append(UserSaid(marked))
        else:
            self._made.lead.append(_text(parts))

    def _reasoning(self, item: InputItem) -> None:
        kept, reply = self._keepsakes.take(item.encrypted_content), self._reply
        thought = "\n\n".join(_texts(item.summary) or _texts(item.content))
        # What a model wants back is told after what it said, as an item with nothing else in it.
        if (reply.text or reply.calls) and (thought or kept == NOTHING):
            self._flush()
            reply = self._reply
        reply.thinking.append(thought)
        known = self._known.get(item.id) if isinstance(item.id, str) else None
        if known is not None:
            reply.replay = known.replay
            if known.thinking is not None:
                reply.thinking = [known.thinking]
        elif kept != NOTHING:
            reply.replay = kept.replay
            reply.calls = [_named(call, kept) for call in reply.calls]
            reply.ids = kept.calls
            if kept.thinking is not None:
                reply.thinking = [kept.thinking]

    def _call(self, at: int, item: InputItem) -> ToolCall:
        if not isinstance(item.name, str) or not isinstance(item.call_id, str):
            told = "a call has a name and a call_id"
            raise Invalid(told, fields=[(f"/input/{at}", told)])
        id_ = item.call_id
        is_ours = id_.startswith("call_") and len(id_) == _OUR_CALL
        arguments, unparsed = _arguments(item)
        return ToolCall(
            id=CallId(id_),
            name=flat(item.namespace, item.name),
            arguments=arguments,
            provider_id=self._reply.ids.get(id_, None if is_ours else id_),
            unparsed=unparsed,
        )

    def _result(self, at: int, item: InputItem) -> None:
        if not isinstance(item.call_id, str):
            told = "a result has a call_id"
            raise Invalid(told, fields=[(f"/input/{at}", told)])
        if item.call_id in self._own:
            if any(call.id == item.call_id for call in self._reply.calls):
                self._flush()
            return
        output, shown = _output(item.output, f"/input/{at}/output")
        self._made.answers.setdefault(CallId(item.call_id), Result(output=output))
        if shown:
            self._flush()
            self._made.said.append(UserSaid(tuple(shown)))

    def _ran_here(self, at: int, item: InputItem) -> None:
        """Take a call that an agent's own tool answered."""
        if not isinstance(item.name, str):
            return
        arguments, unparsed = _arguments(item)
        id_ = CallId(f"call_{at}" if not isinstance(item.id, str) else item.id)
        call = ToolCall(id=id_, name=item.name, arguments=arguments, unparsed=unparsed)
        told = item.output if isinstance(item.output, str) else msgspec.json.encode(item.error)
        output = told if isinstance(told, str) else told.decode()
        self._mcp[id_] = ToolSaid(call, output, failed=item.error is not None)
        self._reply.calls.append(call)

    def _flush(self) -> None:
        """End the reply, with the results of its calls right after it."""
        reply, self._reply = self._reply, _Reply()
        if reply.is_empty:
            return
        said = self._made.said
        thinking = "\n\n".join(one for one in reply.thinking if one) or None
        if reply.text or reply.calls:
            text, calls = "".join(reply.text), tuple(reply.calls)
            said.append(ModelSaid(text=text, calls=calls, thinking=thinking, replay=reply.replay))
        shown = list[Part]()
        for call in reply.calls:
            if call.id in self._mcp:
                said.append(self._mcp[call.id])
                continue
            place = self._outputs.get(call.id)
            if place is None:
                raise unanswered(call.id, at=reply.at)
            output, more = _output(self._items[place].output, f"/input/{place}/output")
            said.append(ToolSaid(call, output))
            shown += more
        if shown:
            said.append(UserSaid(tuple(shown)))


def missing(name: str) -> Invalid:
    """Return what is told of a request that lacks something."""
    told = f"Missing required parameter: '{name}'."
    return Invalid(told, code="missing_required_parameter", fields=[(f"/{name}", told)])


def unanswered(call: str, at: int | None = None) -> Invalid:
    """Return what is told of a call without a result, as OpenAI does."""
    told = f"No tool output found for function call {call}."
    return Invalid(told, fields=[("/input" if at is None else f"/input/{at}", told)])


def uncalled(call: str) -> Invalid:
    """Return what is told of a result without a call."""
    told = f"No tool call found for function call output with call_id {call}."
    return Invalid(told, fields=[("/input", told)])


def names_of_ours(items: Sequence[InputItem]) -> Sequence[str]:
    """Return the ids of what has to be looked up: references, and thoughts that were only ours."""
    wanted = [one.id for one in items if one.type in ("item_reference", "reasoning", None)]
    return [one for one in wanted if isinstance(one, str) and read_item(one) is not None]


def _named(call: ToolCall, kept: Keepsake) -> ToolCall:
    """Return a call with the name that its provider has for it."""
    return replace(call, provider_id=kept.calls.get(call.id, call.provider_id))


def flat(space: object, name: str) -> str:
    """Return what a tool of a namespace is called here."""
    return f"{space}__{name}" if isinstance(space, str) and space else name


def _arguments(item: InputItem) -> tuple[JsonObject, str | None]:
    if item.type == "custom_tool_call":
        return {"input": item.input if isinstance(item.input, str) else ""}, None
    text = item.arguments if isinstance(item.arguments, str) else ""
    try:
        return _object(text or "{}"), None
    except (ValueError, RecursionError):
        return {}, text


def _parts(content: object, at: str) -> list[Part]:
    if content is None or isinstance(content, str):
        return [TextPart(text=content or "")]
    try:
        given = msgspec.convert(content, list[InputPart])
    except msgspec.ValidationError as error:
        raise Invalid(str(error), fields=[(at, str(error))]) from error
    return [_part(one, f"{at}/{place}") for place, one in enumerate(given)]


def _part(part: InputPart, at: str) -> Part:
    if part.image_url is not None:
        kind, data = _data(part.image_url)
        return (
            ImagePart(url=part.image_url) if data is None else ImagePart(data=data, media_type=kind)
        )
    if part.file_url is not None:
        return FilePart(url=part.file_url, name=part.filename)
    if part.file_data is not None:
        kind, data = _data(part.file_data)
        held = part.file_data if data is None else data
        return FilePart(data=held, media_type=kind, name=part.filename)
    if part.text is not None or part.refusal is not None:
        return TextPart(text=part.text or part.refusal or "")
    told = f"a part of type {part.type[:40]!r} has nothing that can be shown to a model"
    raise Invalid(told, fields=[(at, told)])


def _data(url: str) -> tuple[str | None, str | None]:
    """Return media type and base64 of a `data:` URL, twice None for another."""
    if not url.startswith("data:"):
        return None, None
    head, _, data = url.removeprefix("data:").partition(",")
    return head.partition(";")[0] or None, data


def _output(output: object, at: str) -> tuple[str, list[Part]]:
    """Return a result as text, and what of it is none."""
    if output is None or isinstance(output, str):
        return output or "", []
    if not isinstance(output, list):
        return msgspec.json.encode(output).decode(), []
    parts = _parts(msgspec.convert(output, list[object]), at)
    shown: list[Part] = [one for one in parts if not isinstance(one, TextPart)]
    return "\n".join(one.text for one in parts if isinstance(one, TextPart)), shown


def _texts(parts: object) -> list[str]:
    """Return the texts of what was thought."""
    try:
        found = msgspec.convert(parts or [], list[InputPart])
    except msgspec.ValidationError:
        return []
    return [one.text for one in found if one.text]


def _text(parts: Sequence[Part]) -> str:
    return "\n".join(one.text for one in parts if isinstance(one, TextPart))


def _content(parts: Sequence[Part]) -> Content:
    first = parts[0] if parts else TextPart(text="")
    return first.text if len(parts) <= 1 and isinstance(first, TextPart) else tuple(parts)
