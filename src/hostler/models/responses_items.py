"""The items of one answer in Responses: which event is about which, and what each comes to.

Invariant: each item is said once, whether it came as deltas, whole, or both; and goes back as it
came, or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hostler.core.events import CallId, JsonObject
from hostler.core.ports import Reply
from hostler.models.draft import Draft
from hostler.models.mending import mended
from hostler.models.responses_request import Kept, Maker, Replay
from hostler.models.told import json_object

_OWED = frozenset(
    {
        *("custom_tool_call", "local_shell_call", "computer_call", "apply_patch_call"),
        "mcp_approval_request",
    }
)
"""Items that wait for an answer, and are no calls of functions."""
_BREAK = "\n\n"
"""Between two messages, or two thoughts."""
_decoder = msgspec.json.Decoder(object)


class Item:
    """One, as far as it has come."""

    __slots__ = ("call", "index", "kind", "number", "start", "told", "voice", "whole")

    def __init__(self, kind: str, index: object, number: int) -> None:
        self.kind, self.index, self.number = kind, index, number
        self.told = 0
        """Characters that came as deltas."""
        self.start: int | None = None
        """Of a message: where in the text it begins."""
        self.voice: tuple[object, object] | None = None
        """Of a thought: which of its two wordings is told, and which part of that."""
        self.call: CallId | None = None
        """Ours, once the call has begun."""
        self.whole: JsonObject | None = None


class Items:
    """Those of one answer; says them to its draft."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._items: list[Item] = []
        self._by_index: dict[tuple[str, object], Item] = {}
        self._by_id: dict[tuple[str, object], Item] = {}
        self._last: dict[str, Item] = {}
        self._thought = False
        self.length = 0
        """Characters of text."""
        self.refused = False
        self.owed: str | None = None
        """Kind of an item that waits for what we cannot give."""

    # -- in pieces ---------------------------------------------------------------------------

    def saying(self, index: object, id_: object) -> Item:
        """Return the message that a piece of text is about, which the caller then says."""
        item = self._about("message", index, {"id": id_})
        self._speaks(item)
        return item

    def say(self, item: Item, piece: str) -> None:
        self._draft.text(piece)
        item.told += len(piece)
        self.length += len(piece)

    def think(self, index: object, id_: object, piece: str, voice: tuple[object, object]) -> None:
        self._think(self._about("reasoning", index, {"id": id_}), piece, voice)

    def argue(self, index: object, id_: object, piece: str) -> None:
        item = self._about("function_call", index, {"id": id_})
        if item.call is not None and item.whole is None:  # else its name is still to come
            item.told += len(piece)
            self._draft.call(index=item.number, arguments=piece)

    def argued(self, whole: JsonObject, index: object) -> None:
        """Take the whole arguments of a call, before the item is done."""
        item = self._about("function_call", index, whole)
        if item.whole is None and _word(whole.get("name")):
            self._call(item, whole)
        elif item.whole is None and item.call is not None and not item.told:
            self._arguments(item, whole)

    # -- whole -------------------------------------------------------------------------------

    def added(self, whole: JsonObject, index: object) -> None:
        """An item begins; of what it says, nothing may be there yet."""
        kind = whole.get("type")
        if not isinstance(kind, str):
            return
        known = self._by_id.get((kind, _word(whole.get("id"))))
        if known is not None and known.index == index and known.whole is None:
            return  # told twice
        item = self._new(kind, index, whole)
        if kind == "function_call" and _word(whole.get("name")):
            self._begin(item, whole)

    def done(self, whole: JsonObject, index: object) -> None:
        kind = whole.get("type")
        if isinstance(kind, str):
            self._settle(self._about(kind, index, whole), whole)

    def all_done(self, output: object) -> None:
        """Take the list of the items, with which some answers end and others begin."""
        wholes = [one for one in map(json_object, listed(output)) if _word(one.get("type"))]
        pairs = self._paired(wholes)
        if pairs:
            rest = {id(item): item for item in self._items}
            for item in pairs:
                rest.pop(id(item), None)
            self._items = [*pairs, *rest.values()]
        for item, whole in zip(pairs, wholes, strict=True):
            self._settle(item, whole)
        for item in self._items:
            if item.kind == "function_call" and item.call is None:
                self._begin(item, item.whole or {})

    def _paired(self, wholes: Sequence[JsonObject]) -> list[Item]:
        """Return the item that each is: by its ids, else the first that is left of its kind."""
        exact: list[Item | None] = []
        taken: set[int] = set()
        for whole in wholes:
            item = self._named(whole)
            exact.append(None if item is None or id(item) in taken else item)
            taken.add(id(item))
        left: dict[object, list[Item]] = {}
        for item in reversed(self._items):
            if id(item) not in taken:
                left.setdefault(item.kind, []).append(item)
        made: list[Item] = []
        for whole, item in zip(wholes, exact, strict=True):
            kind = str(whole["type"])
            others = left.get(kind)
            made.append(item or (others.pop() if others else self._new(kind, None, whole)))
        return made

    def _named(self, whole: JsonObject) -> Item | None:
        kind, id_, call_id = (_word(whole.get(name)) for name in ("type", "id", "call_id"))
        return self._by_id.get((kind, id_)) or self._by_id.get((kind, call_id))

    # -- which -------------------------------------------------------------------------------

    def _about(self, kind: str, index: object, whole: JsonObject) -> Item:
        """Return the item that an event is about: by its index, else its ids, else its place."""
        numbered = isinstance(index, int)
        item = self._by_index.get((kind, index)) if numbered else None
        if item is not None and item.whole is None:
            return item
        item = self._by_id.get((kind, _word(whole.get("id"))))
        if item is not None:
            return item
        item = self._by_id.get((kind, _word(whole.get("call_id"))))
        if item is not None and item.whole is None:
            return item
        item = self._last.get(kind)
        if item is not None and item.whole is None and not (numbered and _is_int(item.index)):
            return item
        return self._new(kind, index, whole)

    def _new(self, kind: str, index: object, whole: JsonObject) -> Item:
        item = Item(kind, index, len(self._items))
        self._items.append(item)
        self._last[kind] = item
        if isinstance(index, int):
            self._by_index[kind, index] = item
        for name in ("call_id", "id"):
            if word := _word(whole.get(name)):
                self._by_id[kind, word] = item
        return item

    # -- saying it ---------------------------------------------------------------------------

    def _settle(self, item: Item, whole: JsonObject) -> None:
        if item.whole is not None:
            return
        if item.kind == "message":
            self._message(item, whole)
        elif item.kind == "reasoning":
            thought = _joined(whole.get("summary")) or _joined(whole.get("content"))
            if thought and not item.told:
                self._think(item, thought, (None, None))
        elif item.kind == "function_call":
            self._call(item, whole)
        elif item.kind in _OWED:
            self.owed = item.kind
        item.whole = whole

    def _message(self, item: Item, whole: JsonObject) -> None:
        parts = [json_object(part) for part in listed(whole.get("content"))]
        self.refused = self.refused or any(part.get("type") == "refusal" for part in parts)
        text = "".join(_word(part.get("text")) or _word(part.get("refusal")) for part in parts)
        if text and not item.told:
            self._speaks(item)
            self.say(item, text)

    def _speaks(self, item: Item) -> None:
        if item.start is None:
            if self.length:
                self._draft.text(_BREAK)
                self.length += len(_BREAK)
            item.start = self.length

    def _think(self, item: Item, piece: str, voice: tuple[object, object]) -> None:
        if item.voice is not None and item.voice[0] != voice[0]:
            return  # the summary of what is told in full, or the other way round
        if item.voice != voice and self._thought:
            self._draft.think(_BREAK)
        item.voice, self._thought = voice, True
        item.told += len(piece)
        self._draft.think(piece)

    def _call(self, item: Item, whole: JsonObject) -> None:
        if item.call is None:
            self._begin(item, whole)
        if not item.told:
            self._arguments(item, whole)

    def _begin(self, item: Item, whole: JsonObject) -> None:
        item.call = self._draft.call(
            index=item.number,
            provider_id=_word(whole.get("call_id")) or None,
            name=_word(whole.get("name")),
        )

    def _arguments(self, item: Item, whole: JsonObject) -> None:
        said = whole.get("arguments")
        text = said if isinstance(said, str) else msgspec.json.encode(json_object(said)).decode()
        item.told += len(text)
        self._draft.call(index=item.number, arguments=text)

    # -- for the next question ---------------------------------------------------------------

    def replay(self, reply: Reply, maker: Maker) -> JsonObject | None:
        """Return what `responses_request` sends back; None when the reply says it all."""
        kept: list[Kept] = []
        for item in self._items:
            if item.whole is None:
                return None
            if item.kind == "reasoning" and not _can_go_back(item.whole):
                return None
            if item.kind != "message" or item.told:
                kept.append(_kept(item, item.whole))
        while kept and kept[-1].call is None and kept[-1].end is None:
            kept.pop()  # a thought that nothing follows is refused
        if not (reply.text or reply.calls) or not any(map(_says_more, kept)):
            return None
        return msgspec.to_builtins(Replay(by=maker, items=kept))


def _kept(item: Item, whole: JsonObject) -> Kept:
    if item.kind == "message":
        start = item.start or 0
        fields = {name: value for name, value in whole.items() if name != "content"}
        return Kept(item=fields, start=start, end=start + item.told)
    if item.kind == "function_call":
        said = ("name", "arguments", "call_id")
        fields = {name: value for name, value in whole.items() if name not in said}
        return Kept(item=fields, call=item.call)
    return Kept(item=whole)


def _can_go_back(thought: JsonObject) -> bool:
    """Where nothing is stored, an id alone names nothing."""
    return bool(thought.get("encrypted_content") or thought.get("content"))


def _says_more(kept: Kept) -> bool:
    """Whether an item is more than its text or its call."""
    if kept.call is None and kept.end is None:
        return True
    return kept.item.get("phase") is not None or kept.item.get("namespace") is not None


def _joined(parts: object) -> str:
    said = (_word(json_object(part).get("text")) for part in listed(parts))
    return _BREAK.join(one for one in said if one)


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""


def _is_int(value: object) -> bool:
    return isinstance(value, int)


def listed(value: object) -> list[object]:
    return msgspec.convert(value, list[object]) if isinstance(value, list) else []


def as_it_came(raw: msgspec.Raw | bytes) -> JsonObject:
    """Return what was put aside unread.  Raises Failed: it cannot be read."""
    text = bytes(raw)
    if not text:
        return {}
    try:
        return json_object(_decoder.decode(text))
    except (ValueError, RecursionError):
        return json_object(mended(_decoder, text))
