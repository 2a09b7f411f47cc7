"""Events and pieces as the native API shows them: frames of `{id, event, data}`.

A fact's JSON is stored in the form that clients get, so a frame is made by joining bytes; many
watchers of one event share the frame that the first of them made.

Invariant: `data` of a fact has `seq`, `at` and `session` before the fact's own fields.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from hostler.core.events import AttemptId, CallId, Event
from hostler.core.news import Piece, Presence
from hostler.faces.http.form import encode, stamp
from hostler.service.cursor import Cursor


class _Delta(Struct, omit_defaults=True, gc=False):
    attempt: AttemptId
    part: str
    text: str
    call: CallId | None = None
    name: str | None = None


def data_of(item: Event | Piece) -> bytes:
    """Return the JSON object of a frame's `data`."""
    if isinstance(item, Piece):
        delta = item.delta
        return encode(_Delta(item.attempt, delta.part, delta.text, delta.call, delta.name))
    head = f'{{"seq":{item.seq},"at":"{stamp(item.at)}","session":"{item.session}",'
    return head.encode() + item.raw[1:]


def name_of(item: Event | Piece) -> str:
    """Return a frame's `event`."""
    return "delta" if isinstance(item, Piece) else item.kind


def sse(item: Event | Piece) -> bytes:
    """Return a frame as a Server-Sent Event, made once per item."""
    if item.wire is None:
        item.wire = sse_frame(str(Cursor.after(item)), name_of(item), data_of(item))
    return item.wire


def sse_frame(cursor: str, event: str, data: bytes) -> bytes:
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (cursor.encode(), event.encode(), data)


def text(item: Event | Piece) -> str:
    """Return a frame as the text of a socket's message, made once per item."""
    if item.text is None:
        item.text = json_frame(item).decode()
    return item.text


def json_frame(item: Event | Piece) -> bytes:
    """Return a frame as a JSON object."""
    return b'{"id":"%b","event":"%b","data":%b}' % (
        str(Cursor.after(item)).encode(),
        name_of(item).encode(),
        data_of(item),
    )


class _Watching(Struct, gc=False):
    principal: str
    since: str
    typing: bool


class _Presence(Struct, gc=False):
    watching: list[_Watching]


def view_presence(presence: Presence) -> bytes:
    """Return the JSON object of `data`; the frame has no id, since there is nothing to resume."""
    seen = presence.watching
    return encode(_Presence([_Watching(p.principal, stamp(p.since), p.typing) for p in seen]))


def sse_presence(presence: Presence) -> bytes:
    if presence.wire is None:
        presence.wire = b"event: presence\ndata: %b\n\n" % view_presence(presence)
    return presence.wire


def text_presence(presence: Presence) -> str:
    if presence.text is None:
        presence.text = f'{{"event":"presence","data":{view_presence(presence).decode()}}}'
    return presence.text


def json_page(items: Sequence[Event | Piece], cursor: str, *, more: bool) -> bytes:
    """Return a page of frames as JSON."""
    frames = b",".join(map(json_frame, items))
    return b'{"events":[%b],"cursor":"%b","more":%b}' % (
        frames,
        cursor.encode(),
        b"true" if more else b"false",
    )
