"""The events of one response, numbered, and the items that they add up to.

    response.created … response.output_item.added, what is in the item, response.output_item.done …
    one of response.completed, response.incomplete and response.failed

What is the same in each piece of a text is made once per item, and what changes is encoded alone.

Invariant: pure; numbers go up by one from 0, but for `leap`; an item that was added is done once,
and its text is that of its pieces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import msgspec

from hostler.core.events import CallId, JsonObject, Usage
from hostler.faces.responses.echo import SERVER, About, response
from hostler.faces.responses.ids import approval_id

Status: TypeAlias = Literal["completed", "incomplete", "failed", "in_progress"]
encode = msgspec.json.Encoder(decimal_format="string").encode
LEAP = 2**20
"""What nobody knows any more had fewer events than this."""
DONE = b"data: [DONE]\n\n"
_PREFIX: Mapping[str, str] = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "custom_tool_call": "ctc",
    "mcp_call": "mcp",
    "function_call_output": "fco",
}
_GROWS: Mapping[str, tuple[str, JsonObject]] = {
    "message": ("output_text", {"content_index": 0, "logprobs": []}),
    "reasoning": ("reasoning_summary_text", {"summary_index": 0}),
    "function_call": ("function_call_arguments", {}),
    "custom_tool_call": ("custom_tool_call_input", {}),
    "mcp_call": ("mcp_call_arguments", {}),
}
"""What the events of an item's text are called, and what each of them says."""


class Item:
    """An item that is not done."""

    __slots__ = ("body", "head", "index", "is_told", "texts")

    def __init__(self, index: int, body: JsonObject, head: bytes) -> None:
        self.index, self.body, self.head = index, body, head
        """`head`: how the event of each piece of its text begins."""
        self.texts = list[str]()
        self.is_told = False
        """Its text is whole, and this was said."""

    @property
    def kind(self) -> str:
        return str(self.body["type"])

    @property
    def text(self) -> str:
        return "".join(self.texts)


class Writer:
    """Makes the events of one response."""

    def __init__(self, about: About, *, tail: str, sse: bool = True, after: float = -1) -> None:
        """`tail`: the part of ids of items that is this response's; `sse`: else each event is JSON.

        Events up to the number `after` are not made.
        """
        self.about, self.number, self.output = about, 0, list[JsonObject]()
        self._tail, self._after, self._frames = tail, after, list[bytes]()
        self._form = (b"event: %b\ndata: ", b"\n\n") if sse else (b"", b"")
        self._is_sse = sse
        self.open = list[Item]()

    def taken(self) -> list[bytes]:
        """Return the events that were made since the last time."""
        made, self._frames = self._frames, []
        return made

    # -- the response --------------------------------------------------------------------------

    def begin(self) -> None:
        """Tell that it was asked for, and is waiting or going on."""
        queued = self.about.echo.background
        made = response(self.about, "queued" if queued else "in_progress")
        self.put("response.created", response=made)
        self.put("response.queued" if queued else "response.in_progress", response=made)

    def going(self) -> None:
        """Tell of one that waited that it has begun."""
        self.put("response.in_progress", response=response(self.about, "in_progress"))

    def end(
        self,
        status: str,
        usage: Usage,
        at: int,
        *,
        error: JsonObject | None = None,
        incomplete: str | None = None,
    ) -> JsonObject:
        """Tell that it is over; return the response."""
        for item in [*self.open]:
            self.close(item, "incomplete")
        made = response(
            self.about,
            status,
            self.output,
            usage=usage,
            error=error,
            incomplete=incomplete,
            completed_at=at if status == "completed" else None,
        )
        kind = status if status in ("completed", "failed") else "incomplete"
        self.put(f"response.{kind}", response=made)
        if self._is_sse:
            self._frames.append(DONE)
        return made

    def leap(self, kept: int) -> None:
        """Go on after what nobody knows any more: the items from `kept` on are none."""
        for item in [*self.open]:
            self.close(item, "incomplete")
        del self.output[kept:]
        self.number = (self.number // LEAP + 1) * LEAP

    # -- items ---------------------------------------------------------------------------------

    def message(self, asked: int, place: int) -> Item:
        body: JsonObject = {"status": "in_progress", "role": "assistant", "content": []}
        item = self._add("message", asked, place, body)
        self._of(item, "content_part.added", content_index=0, part=_text(""))
        return item

    def reasoning(self, asked: int, place: int, *, sealed: bool = False) -> Item:
        """`sealed`: its client asked for what only we can read."""
        item = self._add("reasoning", asked, place, {"summary": []})
        if sealed:
            item.body["encrypted_content"] = item.body["id"]
        self._of(item, "reasoning_summary_part.added", summary_index=0, part=_summary(""))
        return item

    def seal(self, asked: int, place: int, seal: str) -> None:
        """Tell what a model wants back, of which nothing is shown."""
        body: JsonObject = {
            "id": self._id("reasoning", asked, place),
            "type": "reasoning",
            "summary": [],
            "encrypted_content": seal,
        }
        self._whole(body)

    def function_call(
        self, asked: int, place: int, call: CallId, named: tuple[str | None, str], *, free: bool
    ) -> Item:
        """`named`: namespace and name; `free`: it is called with text."""
        space, name = named
        about: JsonObject = {"call_id": call, "name": name}
        if space is not None:
            about["namespace"] = space
        told: JsonObject = {"input": ""} if free else {"arguments": ""}
        kind = "custom_tool_call" if free else "function_call"
        return self._add(kind, asked, place, {"status": "in_progress", **about, **told})

    def mcp_call(self, asked: int, place: int, name: str, approval: CallId | None) -> Item:
        about: JsonObject = {
            "status": "in_progress",
            "approval_request_id": None if approval is None else approval_id(approval),
            "arguments": "",
            "error": None,
            "name": name,
            "output": None,
            "server_label": SERVER,
        }
        item = self._add("mcp_call", asked, place, about)
        self._of(item, "mcp_call.in_progress")
        return item

    def approval(self, call: CallId, name: str, arguments: JsonObject) -> None:
        body: JsonObject = {
            "id": approval_id(call),
            "type": "mcp_approval_request",
            "arguments": encode(arguments).decode(),
            "name": name,
            "server_label": SERVER,
        }
        self._whole(body)

    def call_output(self, asked: int, place: int, call: CallId, output: str) -> None:
        """Tell what came of a client's call, where its client did not say it in this request."""
        self._whole(
            {
                "id": self._id("function_call_output", asked, place),
                "type": "function_call_output",
                "call_id": call,
                "output": output,
                "status": "completed",
            }
        )

    def grow(self, item: Item, text: str) -> None:
        """Add a piece to an item's text; an empty one is none."""
        if not text:
            return
        item.texts.append(text)
        if self.number > self._after:
            self._frames.append(self.piece(item, text, self.number))
        self.number += 1

    def piece(self, item: Item, text: str, number: int) -> bytes:
        """Return the event of a piece, or nothing if its reader has it."""
        if number <= self._after:
            return b""
        return b'%b%b,"sequence_number":%d}%b' % (item.head, encode(text), number, self._form[1])

    def tell(self, item: Item, text: str | None = None) -> None:
        """Tell the whole text of a call, whose outcome is not known yet; None: that of its pieces."""
        item.is_told = True
        text = item.text if text is None else text
        key = "input" if item.kind == "custom_tool_call" else "arguments"
        item.body[key] = text
        more: JsonObject = {} if item.kind == "custom_tool_call" else {"name": item.body["name"]}
        self._of(item, f"{_GROWS[item.kind][0]}.done", **{key: text}, **more)

    def answer(self, item: Item, output: str, *, failed: bool) -> None:
        """Tell what came of a call that was run here."""
        if failed:
            content = [{"type": "text", "text": output}]
            item.body["error"] = {"type": "mcp_tool_execution_error", "content": content}
        else:
            item.body["output"] = output
        self._of(item, f"mcp_call.{'failed' if failed else 'completed'}")
        self.close(item, "failed" if failed else "completed")

    def close(self, item: Item, status: Status = "completed") -> None:
        """Tell that an item is done."""
        if item.kind == "message":
            text = item.text
            self._of(item, "output_text.done", content_index=0, logprobs=[], text=text)
            self._of(item, "content_part.done", content_index=0, part=_text(text))
            item.body["content"] = [_text(text)]
        elif item.kind == "reasoning":
            text = item.text
            self._of(item, "reasoning_summary_text.done", summary_index=0, text=text)
            self._of(item, "reasoning_summary_part.done", summary_index=0, part=_summary(text))
            item.body["summary"] = [_summary(text)]
        elif not item.is_told:
            self.tell(item)
        if "status" in item.body:
            item.body["status"] = status
        self.open.remove(item)
        self.output[item.index] = item.body
        self.put("response.output_item.done", output_index=item.index, item=item.body)

    # -- events --------------------------------------------------------------------------------

    def put(self, kind: str, **fields: object) -> None:
        if self.number > self._after:
            head, tail = self._form
            told = encode({"type": kind, **fields, "sequence_number": self.number})
            start = head % kind.encode() if self._is_sse else b""
            self._frames.append(b"%b%b%b" % (start, told, tail))
        self.number += 1

    def _of(self, item: Item, kind: str, **fields: object) -> None:
        about = {"item_id": item.body["id"], "output_index": item.index}
        self.put(f"response.{kind}", **about, **fields)

    def _add(self, kind: str, asked: int, place: int, about: JsonObject) -> Item:
        id_ = self._id(kind, asked, place)
        body: JsonObject = {"id": id_, "type": kind, **about}
        index = len(self.output)
        item = Item(index, body, self._head(kind, id_, index))
        self.put("response.output_item.added", output_index=index, item=body)
        self.output.append(body)
        self.open.append(item)
        return item

    def _whole(self, body: JsonObject) -> None:
        index = len(self.output)
        self.put("response.output_item.added", output_index=index, item=body)
        self.output.append(body)
        self.put("response.output_item.done", output_index=index, item=body)

    def _head(self, kind: str, id_: str, index: int) -> bytes:
        name, more = _GROWS[kind]
        event = f"response.{name}.delta"
        told = encode({"type": event, "item_id": id_, "output_index": index, **more})
        start = self._form[0] % event.encode() if self._is_sse else b""
        return b'%b%b,"delta":' % (start, told[:-1])

    def _id(self, kind: str, asked: int, place: int) -> str:
        return f"{_PREFIX[kind]}_{self._tail}_{asked}_{place}"


def _text(text: str) -> JsonObject:
    annotations: Sequence[object] = ()
    return {"type": "output_text", "annotations": annotations, "logprobs": (), "text": text}


def _summary(text: str) -> JsonObject:
    return {"type": "summary_text", "text": text}
