"""What was said, as items: of one request, and of a whole session.

Invariant: pure; the same facts give the same items under the same ids.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from hostler.core.errors import Invalid
from hostler.core.events import (
    Content,
    Event,
    ImagePart,
    JsonObject,
    ModelSaid,
    Part,
    RunId,
    Said,
    Seq,
    TextPart,
    ToolFinished,
    ToolSaid,
    UserSpoke,
)
from hostler.core.state import said_by
from hostler.faces.http.endpoint import Call, number, one_of
from hostler.faces.responses.echo import About, arguments_of, called, echo_of, text_in
from hostler.faces.responses.ids import item_id
from hostler.faces.responses.telling import Part as Stretch
from hostler.faces.responses.telling import Teller
from hostler.faces.responses.writer import Writer

MOST_ITEMS = 100


def of_request(about: About, run: RunId, seq: Seq, spoke: UserSpoke) -> list[JsonObject]:
    """Return the items that a request brought, but for results and decisions."""
    lead = about.terms.instructions
    own = about.echo.own
    made = list[JsonObject]()
    tail = run.removeprefix("run_")
    if lead is not None and own is not None:
        text = lead[own:].removeprefix("\n\n")
        made.append(_message(item_id("msg", tail, seq, 0), "developer", [_text_in(text)]))
    for said in said_by(spoke):
        made += _items(about, said, tail, seq, len(made))
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


def of_session(events: Iterable[Event]) -> list[JsonObject]:
    """Return all that was said in a session, in order."""
    made, tellers = list[JsonObject](), dict[RunId, tuple[Teller, Writer, int]]()
    brought: UserSpoke | None = None
    for event in events:
        fact, run = event.fact, event.fact.run
        if run is None:
            continue
        if isinstance(fact, UserSpoke):
            brought = fact if fact.client_tools is not None else brought
            about = _about(fact, brought)
            made += of_request(about, run, event.seq, fact)
            if run not in tellers:
                tail = run.removeprefix("run_")
                writer = Writer(about, tail=tail, after=math.inf)
                teller = Teller(Stretch(run=run, since=event.seq, splits=False), writer)
                tellers[run] = (teller, writer, 0)
        if run in tellers:
            teller, writer, shown = tellers[run]
            teller.take(event)
            done = [one for one in writer.output[shown:] if one.get("status") != "in_progress"]
            made += done
            tellers[run] = (teller, writer, shown + len(done))
    return made


def _about(fact: UserSpoke, brought: UserSpoke | None) -> About:
    tools = () if brought is None or brought.client_tools is None else brought.client_tools
    echo = echo_of(fact.metadata)
    about = About(id="", created_at=0, model="", tools=tools)
    if fact.terms is not None:
        about = About(id="", created_at=0, model="", tools=tools, terms=fact.terms)
    if echo is None:
        return about
    return About(id="", created_at=0, model="", tools=tools, terms=about.terms, echo=echo)


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
    shown = items[:limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(items) > limit,
    }


def _items(about: About, said: Said, tail: str, seq: Seq, place: int) -> list[JsonObject]:
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
        return [_message(item_id("msg", tail, seq, place), "user", _parts(said.content))]
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
