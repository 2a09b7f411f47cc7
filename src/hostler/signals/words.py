"""What nodes say to one another, as bytes.

A message is one digit for the form, twelve hexadecimal ones for who sends it, and a JSON array of
items.  What cannot be read is nobody's trouble but its sender's: whoever can write to the bus could
write anything.

Invariant: reading raises nothing, and what is read has the form that is said here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Raw, Struct

from hostler.core import codec
from hostler.core.events import AttemptId, CallId, Event, Key, PrincipalId, RunId, Seq, SessionId
from hostler.core.events import TenantId as Tenant
from hostler.core.news import Piece, Present
from hostler.core.ports import Delta

FORM: Final = b"1"
NAME = 12
HEAD = len(FORM) + NAME
LARGEST: Final = 1_000_000
"""Bytes of a message that is read."""

NOTHING: Final = Raw(b"null")
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]
Name: TypeAlias = Annotated[str, Meta(max_length=512)]
Moment: TypeAlias = Annotated[float, Meta(ge=0, le=1e11)]
"""Unix seconds, of years that can be written."""
Size: TypeAlias = Annotated[int, Meta(ge=0, le=LARGEST)]


class Written(Struct, array_like=True, frozen=True, tag="e", gc=False):
    """An event; without its fact, if that is too large: it is in the log."""

    seq: Count
    at: Moment
    kind: Name
    raw: Raw = NOTHING


class Said(Struct, array_like=True, frozen=True, tag="d", gc=False):
    """Text of the attempt in flight."""

    tenant: Name
    session: Name
    run: Name
    asked: Count
    attempt: Name
    seq: Count
    start: Count
    part: Literal["text", "thinking", "arguments"]
    text: str
    call: Name | None = None
    name: Name | None = None
    sizes: tuple[Size, ...] = ()


class Ask(Struct, array_like=True, frozen=True, tag="a", gc=False):
    """Whoever drives this session: let me have its text; or no more of it."""

    tenant: Name
    session: Name
    wanted: bool


class Cancel(Struct, array_like=True, frozen=True, tag="c", gc=False):
    """Somebody asked for the end of a run."""

    tenant: Name
    session: Name
    run: Name


class Reread(Struct, array_like=True, frozen=True, tag="l", gc=False):
    """Something of this session, or on the common channel of all, was not said: read the log."""


class Seat(Struct, array_like=True, frozen=True, gc=False):
    principal: Name
    since: Moment
    typing: bool


class Here(Struct, array_like=True, frozen=True, tag="p", gc=False):
    """Who watches the session on the node that sends this."""

    seats: Annotated[tuple[Seat, ...], Meta(max_length=10_000)]


class Typing(Struct, array_like=True, frozen=True, tag="y", gc=False):
    """Somebody types, who may watch on another node."""

    who: Name


class Told(Struct, array_like=True, frozen=True, tag="t", gc=False):
    """Something else that all nodes hear."""

    kind: Name
    words: Annotated[tuple[Name, ...], Meta(max_length=16)]


Item: TypeAlias = Written | Said | Ask | Cancel | Reread | Here | Typing | Told

encode: Callable[[Item], bytes] = msgspec.json.Encoder().encode
_items = msgspec.json.Decoder(list[Item])
_raws = msgspec.json.Decoder(list[Raw])
_item: msgspec.json.Decoder[Item] = msgspec.json.Decoder(Item)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def message(node: str, items: Sequence[bytes]) -> bytes:
    """Return items, each encoded, as one message."""
    return b"%b%b[%b]" % (FORM, node.encode(), b",".join(items))


def sender(data: bytes) -> str:
    """Return who sent a message; nobody, if that is no name."""
    name = data[len(FORM) : HEAD].decode("ascii", "replace")
    return name if len(name) == NAME and name.isascii() and name.isalnum() else ""


def read(data: bytes) -> tuple[Sequence[Item], bool]:
    """Return the items that can be read, and whether that is all that there is."""
    if len(data) > LARGEST or not data.startswith(FORM):
        return (), False
    body = memoryview(data)[HEAD:]
    try:
        return _items.decode(body), True
    except _UNREADABLE:
        return _one_by_one(body), False


def _one_by_one(body: memoryview) -> Sequence[Item]:
    """Return the items that we know, among those of a newer build."""
    items = list[Item]()
    try:
        raws = _raws.decode(body)
    except _UNREADABLE:
        return ()
    for raw in raws:
        try:
            items.append(_item.decode(raw))
        except _UNREADABLE:
            continue
    return items


def written(event: Event, limit_bytes: int) -> bytes:
    """Return an event as an item, without its fact if it is larger than that."""
    one = Written(event.seq, event.at, event.kind, Raw(event.raw))
    if len(event.raw) < limit_bytes and len(item := encode(one)) <= limit_bytes:
        return item
    return encode(Written(event.seq, event.at, event.kind))


def event(session: SessionId, one: Written) -> Event | None:
    """Return an event as a store would; None if only the log can tell."""
    raw = bytes(one.raw)
    # A fact's bytes go into frames as they are: in those that we wrote no line ends.
    if not raw.startswith(b'{"kind":') or b"\n" in raw or b"\r" in raw:
        return None
    try:
        fact = codec.load(raw)
    except codec.CorruptFact:
        return None
    return Event(session=session, seq=Seq(one.seq), at=one.at, fact=fact, raw=raw)


def piece(one: Said) -> Piece | None:
    """Return text as it was where it was generated; None if its sizes are not its own."""
    if one.sizes and sum(one.sizes) != len(one.text):
        return None
    call = None if one.call is None else CallId(one.call)
    return Piece(
        session=SessionId(one.session),
        run=RunId(one.run),
        asked=Seq(one.asked),
        attempt=AttemptId(one.attempt),
        seq=Seq(one.seq),
        start=one.start,
        delta=Delta(one.part, one.text, call, one.name, one.sizes),
    )


def here(seats: Sequence[Present]) -> bytes:
    return encode(Here(tuple(Seat(one.principal, one.since, one.typing) for one in seats)))


def seats(one: Here) -> tuple[Present, ...]:
    return tuple(
        Present(principal=PrincipalId(seat.principal), since=seat.since, typing=seat.typing)
        for seat in one.seats
    )


def key_of(one: Said | Ask | Cancel) -> Key:
    return Key(Tenant(one.tenant), SessionId(one.session))


def channel_of(fleet: str, key: Key) -> str:
    """Return the channel of a session: PostgreSQL's names end at 63 bytes."""
    digest = hashlib.blake2b("\0".join(key).encode(), digest_size=16).hexdigest()
    return f"{fleet}.s.{digest}"
