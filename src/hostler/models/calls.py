"""Tool calls, put together from the fragments in which they are streamed.

In theory a fragment says by `index` which call it continues.  In practice servers leave the index
out or send 0 for all, leave the id out, repeat it, change it with every fragment or give it to
two calls, repeat the name, and send arguments as an object or not at all.  So a fragment belongs
to the call that its index (else its id, else its place in the stream) names, unless it has a name
of another tool, or new arguments under a name when that call's are complete: then it begins one.

Invariant: every call comes out once, with an id of ours, a provider's id that no other call of
the reply has, and arguments that are a JSON object; what was no JSON object is kept as text.
"""

from __future__ import annotations

import hashlib
import json
import re

import msgspec

from hostler.core.events import CallId, JsonObject, ToolCall
from hostler.core.ports import mint

DEEPEST = 64
"""Levels of nesting in arguments; what lies deeper is no tool's schema but an attack or a loop."""
PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Ids of calls that all providers accept, but for those that say otherwise."""
_MOST_GLUED = 64

_decode = msgspec.json.Decoder(dict[str, object] | str | None).decode
_raw_decode = json.JSONDecoder().raw_decode


class _Call:
    __slots__ = ("id", "name", "pieces", "provider_id")

    def __init__(self, name: str, provider_id: str | None) -> None:
        self.id = CallId(mint("call"))
        self.name = name
        self.provider_id = provider_id
        self.pieces: list[str] = []

    @property
    def text(self) -> str:
        if len(self.pieces) > 1:
            self.pieces = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""

    @property
    def complete(self) -> bool:
        # The cheap look first: servers that repeat the name ask this for every fragment.
        last = self.pieces[-1] if self.pieces else ""
        return last.rstrip().endswith("}") and parsed(self.text) is not None


class Calls:
    """The calls of one reply, in the order in which they began."""

    __slots__ = ("_by_id", "_by_index", "_calls")

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._by_id: dict[str, _Call] = {}

    def add(
        self,
        *,
        index: int | None = None,
        provider_id: str | None = None,
        name: str | None = None,
        arguments: str | JsonObject | None = None,
    ) -> tuple[CallId, str | None, str]:
        """Take a fragment; return its call, the name if that is new, and its arguments as text.

        Arguments that are an object are the whole of them.
        """
        text = arguments if isinstance(arguments, str) else _text(arguments)
        call = self._named(index, provider_id)
        if call is None or (name and _begins(call, index, provider_id, (name, text))):
            if call is not None and _repeats(call, provider_id, text):
                return call.id, None, ""
            call = self._begin(name, provider_id)
        elif name and name != call.name:
            unnamed = not call.name
            call.name = name if name.startswith(call.name) else call.name + name
            name = name if unnamed else None
        else:
            name = None
        if index is not None:
            self._by_index[index] = call
        if text:
            call.pieces.append(text)
        return call.id, name, text

    def _named(self, index: int | None, provider_id: str | None) -> _Call | None:
        if index is not None:
            return self._by_index.get(index)
        if provider_id and provider_id in self._by_id:
            return self._by_id[provider_id]
        return self._calls[-1] if self._calls else None

    def _begin(self, name: str | None, provider_id: str | None) -> _Call:
        taken = not provider_id or provider_id in self._by_id
        call = _Call(name or "", None if taken else provider_id)
        if provider_id:
            self._by_id.setdefault(provider_id, call)
        self._calls.append(call)
        return call

    def end(self, *, cut: bool) -> tuple[ToolCall, ...]:
        """Return the calls; `cut`: the model stopped at its output limit, maybe inside the last."""
        last = self._calls[-1] if self._calls else None
        return tuple(
            one
            for call in self._calls
            for one in _finished(call, cut=cut and (call is last or call.text.strip() != ""))
        )


def _begins(
    call: _Call, index: int | None, provider_id: str | None, brought: tuple[str, str]
) -> bool:
    """Whether a fragment with a name, where `call` would be continued, begins another call."""
    name, text = brought
    other_id = bool(provider_id) and provider_id != call.provider_id
    if call.name and name != call.name:
        # A name may come in pieces, as the specification allows; by index, before the arguments.
        return bool(call.pieces or text or index is None or other_id)
    if text.strip():
        return call.complete
    return index is None and (call.complete or (other_id and not call.pieces))


def _repeats(call: _Call, provider_id: str | None, text: str) -> bool:
    """Whether a last fragment sends once more, under the same id, what was sent in pieces."""
    return bool(provider_id) and provider_id == call.provider_id and text == call.text


def _finished(call: _Call, *, cut: bool) -> list[ToolCall]:
    text = call.text
    arguments = parsed(text) if text.strip() else None if cut else {}
    if arguments is not None:
        return [_made(call, arguments)]
    if cut or not (glued := _unglued(text)):
        return [_made(call, {}, unparsed=text or None, cut=cut)]
    first, *others = glued
    return [_made(call, first)] + [
        ToolCall(id=CallId(mint("call")), name=call.name, arguments=one) for one in others
    ]


def _made(
    call: _Call, arguments: JsonObject, *, unparsed: str | None = None, cut: bool = False
) -> ToolCall:
    return ToolCall(
        id=call.id,
        name=call.name,
        arguments=arguments,
        provider_id=call.provider_id,
        unparsed=unparsed,
        cut=cut,
    )


def parsed(text: str) -> JsonObject | None:
    """Return the JSON object that `text` is, once or twice encoded; None if it is none.

    `null` counts as an empty object: some servers send it for calls without arguments.
    """
    try:
        value = _decode(text)
        if isinstance(value, str):
            text, value = value, _decode(value)
    except (ValueError, RecursionError):
        return None
    if value is None:
        return {}
    return None if isinstance(value, str) or _too_deep(text, value) else value


def _unglued(text: str) -> list[JsonObject]:
    """Return the objects of which `text` is a plain row; none if it is anything else.

    Gateways glue calls of one tool together, or put an empty object before the real one, or send
    the whole once more at the end.
    """
    objects: list[JsonObject] = []
    place, text = 0, text.strip()
    for _ in range(_MOST_GLUED):
        try:
            _, end = _raw_decode(text, place)
        except (ValueError, RecursionError):
            return []
        one = parsed(text[place:end])
        if one is None:
            return []
        if not objects or objects[-1] != one:
            objects.append(one)
        if end == len(text):
            break
        place = len(text) - len(text[end:].lstrip())
    else:
        return []
    return [one for one in objects if one] or objects[:1]


def _too_deep(text: str, value: object) -> bool:
    if text.count("{") + text.count("[") <= DEEPEST:
        return False
    level: list[object] = [value]
    for _ in range(DEEPEST):
        level = [inner for one in level for inner in _inside(one)]
        if not level:
            return False
    return True


def _inside(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]


def _text(arguments: JsonObject | None) -> str:
    return "" if arguments is None else msgspec.json.encode(arguments).decode()


def wire_id(call: ToolCall, fits: re.Pattern[str] = PLAIN_ID) -> str:
    """Return the id to give the provider for a call: its own, else ours, else one made of ours.

    The same call has the same id in every request, whichever provider it came from.
    """
    for known in (call.provider_id, call.id):
        if known and fits.fullmatch(known):
            return known
    digest = hashlib.sha256(call.id.encode()).hexdigest()
    return next(digest[:n] for n in (32, 9) if fits.fullmatch(digest[:n]))
