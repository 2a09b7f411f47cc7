"""What was said, as items.

Invariant: pure; the same facts give the same items under the same ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hostler.core.errors import Invalid
from hostler.core.events import JsonObject, RunId, Seq, ToolFinished, UserSpoke
from hostler.core.said import (
    Content,
    ImagePart,
    ModelSaid,
    Part,
    Said,
    TextPart,
    ToolSaid,
)
from hostler.core.state import said_by
from hostler.faces.http.endpoint import Call, number, one_of
from hostler.faces.responses.echo import About, arguments_of, called, text_in
from hostler.faces.responses.ids import item_id
from hostler.faces.responses.items import MARK
from hostler.service.whence import Whence

MOST_ITEMS = 100


def of_request(
    about: About, run: RunId, seq: Seq, spoke: UserSpoke
) -> list[tuple[JsonObject, Whence | None]]:
    """Return the items that a request brought, but for results and decisions.

    Each with whence it is; None: it is among the instructions.
    """
    lead = about.terms.instructions
    own = about.echo.own
    made = list[tuple[JsonObject, Whence | None]]()
    tail = run.removeprefix("run_")
    if lead is not None and own is not None:
        text = lead[own:].removeprefix("\n\n")
        item = _message(item_id("msg", tail, seq, 0), "developer", [_text_in(text)])
        made.append((item, None))
    for place, said in enumerate(said_by(spoke)):
        items = items_of(about, said, tail, seq, Places(len(made), place))
        made += [(one, Whence(seq, place)) for one in items]
    return made


def result_of(run: RunId, seq: Seq, fact: ToolFinished) -> JsonObject:
    """Return a result that a client gave."""
    return {
        "id": item_id("fco", run.removeprefix("run_"), seq, 0),
        "type": "function_call_output",
        "call_id": fact.call,
        "output": fact.output,
        "status": "completed",
    }


def page(call: Call, items: Sequence[JsonObject]) -> JsonObject:
    """Return the page of a list that is asked for; newest first, unless it is said.

    Raises:
        Invalid: what it should begin after is not in the list.
    """
    limit = number(call, "limit", default=20, most=MOST_ITEMS)
    if one_of(call, "order", ("asc", "desc")) != "asc":
        items = items[::-1]
    after = call.query.get("after")
    if after:
        places = [place for place, one in enumerate(items) if one["id"] == after]
        if not places:
            told = f"Item with id '{after[:100]}' not found."
            raise Invalid(told, fields=[("/after", told)])
        items = items[places[0] + 1 :]
    return listed(items, limit)


def listed(items: Sequence[JsonObject], limit: int) -> JsonObject:
    """Return the first of some items as a list."""
    shown = items[:limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(items) > limit,
    }


class Places(NamedTuple):
    """Where something stands: among the items, and among the things that a fact says."""

    item: int
    thing: int


def items_of(about: About, said: Said, tail: str, seq: Seq, at: Places) -> list[JsonObject]:
    """Return one thing that was said at `seq` as items."""
    place = at.item
    if isinstance(said, ToolSaid):
        return [
            {
                "id": item_id("fco", tail, seq, place),
                "type": "function_call_output",
                "call_id": said.call.id,
                "output": said.output,
                "status": "completed",
            }
        ]
    if not isinstance(said, ModelSaid):
        id_, role = item_id("msg", tail, seq, place), about.echo.roles.get(str(at.thing))
        if role is not None and isinstance(said.content, str):
            text = said.content.removeprefix(MARK.format(role=role))
            return [_message(id_, role, [_text_in(text)])]
        return [_message(id_, "user", _parts(said.content))]
    made = list[JsonObject]()
    if said.thinking is not None:
        summary = [{"type": "summary_text", "text": said.thinking}]
        id_ = item_id("rs", tail, seq, place)
        made.append({"id": id_, "type": "reasoning", "summary": summary})
    if said.text:
        part: JsonObject = {"type": "output_text", "text": said.text}
        part |= {"annotations": (), "logprobs": ()}
        id_ = item_id("msg", tail, seq, place + len(made))
        made.append(_message(id_, "assistant", [part]))
    for call in said.calls:
        space, name = called(about.echo, call.name)
        is_free = call.name in about.echo.custom
        text = text_in(call.arguments) if is_free else arguments_of(call)
        item: JsonObject = {
            "id": item_id("ctc" if is_free else "fc", tail, seq, place + len(made)),
            "type": "custom_tool_call" if is_free else "function_call",
            "status": "completed",
            "call_id": call.id,
            "name": name,
            "input" if is_free else "arguments": text,
        }
        made.append(item if space is None else {**item, "namespace": space})
    return made


def _message(id_: str, role: str, content: Sequence[JsonObject]) -> JsonObject:
    about = {"status": "completed", "role": role, "content": content}
    return {"id": id_, "type": "message", **about}


def _parts(content: Content) -> list[JsonObject]:
    return [_text_in(content)] if isinstance(content, str) else [_part(one) for one in content]


def _text_in(text: str) -> JsonObject:
    return {"type": "input_text", "text": text}


def _part(part: Part) -> JsonObject:
    if isinstance(part, TextPart):
        return _text_in(part.text)
    media = part.media_type or "application/octet-stream"
    data = None if part.data is None else f"data:{media};base64,{part.data}"
    if isinstance(part, ImagePart):
        url = part.url if data is None else data
        return {"type": "input_image", "image_url": url, "detail": "auto", "file_id": None}
    return {
        "type": "input_file",
        "file_data": data,
        "file_url": part.url,
        "filename": part.name,
        "file_id": None,
    }
