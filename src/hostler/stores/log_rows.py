"""The log, and what is kept from it, as rows have them: the same in every database.

Invariant: pure; a row that was made here is read here as what it was made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeAlias, cast

import msgspec

from hostler.core import codec
from hostler.core.events import (
    CallId,
    ClientTool,
    Event,
    Fact,
    InputId,
    JsonObject,
    Key,
    PrincipalId,
    Seq,
    SessionId,
    TenantId,
    Unknown,
)
from hostler.core.head import Head
from hostler.core.memory import Past
from hostler.core.records import Approval, Segment, Session, Share, Timer
from hostler.stores.projection import ApprovalChange, Projection
from hostler.stores.times import to_seconds, to_us

Row: TypeAlias = tuple[str | int | float | bytes | None, ...]

_json = msgspec.json.Encoder(decimal_format="string")
_head = msgspec.json.Decoder(Head)
_object: msgspec.json.Decoder[JsonObject] = msgspec.json.Decoder(dict[str, object])
_tools = msgspec.json.Decoder(tuple[ClientTool, ...])
_lineage = msgspec.json.Decoder(tuple[Segment, ...])
_known: msgspec.json.Decoder[list[Fact]] = msgspec.json.Decoder(list[Fact])
_raws = msgspec.json.Decoder(list[msgspec.Raw])

read_head_json = _head.decode
lineage_of = _lineage.decode
tools_of = _tools.decode


class Known(NamedTuple):
    head: Head
    agent: str
    owner: str


def session_row(session: Session) -> Row:
    """Return the row of `sessions` for a new session, tenant first."""
    return (
        session.tenant,
        session.id,
        session.agent,
        session.principal,
        session.title,
        _json.encode(session.metadata).decode(),
        to_us(session.created_at),
        tools_json(session.client_tools),
        _json.encode(session.lineage).decode() if session.lineage else None,
    )


def head_row(key: Key, head: Head, at_us: int) -> Row:
    """Return the row of `heads`, tenant and session first."""
    return (
        *key,
        head_json(head),
        head.status,
        head.active,
        at_us,
        None if head.active is None else to_us(head.due) or 0,
    )


def head_json(head: Head) -> str:
    return _json.encode(head).decode()


def tools_json(tools: Sequence[ClientTool]) -> str | None:
    return _json.encode(tools).decode() if tools else None


def approval_row(key: Key, call: CallId, change: ApprovalChange) -> Row:
    asked = change.asked
    return (
        key.tenant,
        call,
        key.session,
        change.run,
        change.status,
        None if asked is None else asked.name,
        None if asked is None else _json.encode(asked.arguments).decode(),
        None if asked is None else asked.digest,
        to_us(change.asked_at),
        None if asked is None else to_us(asked.expires_at.timestamp()),
        change.principal,
        change.reason,
        to_us(change.answered_at),
    )


def timer_rows(key: Key, done: Projection) -> list[Row]:
    """Return the rows of `scheduled` that an append adds, tenant and session first."""
    return [(*key, one.input, one.seq, to_us(one.at)) for one in done.timers.values()]


def to_timer(row: Sequence[object]) -> Timer:
    """Return what is to be said of a row of `scheduled`."""
    name, seq, at = cast("tuple[InputId, Seq, int]", row)
    return Timer(name, seq, at / 1_000_000)


def wanted_of(
    tenant: TenantId,
    after: str,
    limit: int,
    seen_by: PrincipalId | None,
    **more: str | None,
) -> Mapping[str, str | int | None]:
    """Return what a list is asked for, as its statement names it."""
    return {
        "tenant": tenant,
        "after": after or None,
        "limit": limit,
        "seen_by": seen_by,
        **more,
    }


def to_session(tenant: TenantId, row: Sequence[object]) -> Session:
    """Return the session of a row of `sessions`."""
    session, agent, principal, title, metadata, created_at, tools, lineage, updated_at, head = row
    return msgspec.convert(
        {
            "tenant": tenant,
            "id": session,
            "agent": agent,
            "principal": principal,
            "title": title,
            "metadata": _object.decode(str(metadata)),
            "client_tools": () if tools is None else _tools.decode(str(tools)),
            "lineage": () if lineage is None else _lineage.decode(str(lineage)),
            "created_at": to_seconds(created_at),
            "updated_at": to_seconds(updated_at),
            "head": _head.decode(str(head)),
        },
        Session,
        from_attributes=True,
    )


def to_approval(row: Sequence[object]) -> Approval:
    """Return the approval of a row of `approvals`."""
    names = ("tenant", "call", "session", "run", "status", "name")
    values: dict[str, object] = dict(zip(names, row, strict=False))
    arguments, digest, asked_at, expires_at, principal, reason, answered_at = row[len(names) :]
    values |= {
        "arguments": _object.decode(str(arguments)),
        "digest": digest,
        "asked_at": to_seconds(asked_at),
        "expires_at": to_seconds(expires_at),
        "principal": principal,
        "reason": reason,
        "answered_at": to_seconds(answered_at),
    }
    return msgspec.convert(values, Approval)


def to_share(row: Sequence[object]) -> Share:
    """Return the link of a row of `shares`."""
    *texts, created_at, expires_at = row
    values: dict[str, object] = dict(
        zip(("tenant", "id", "session", "digest", "principal"), texts, strict=True)
    )
    values |= {"created_at": to_seconds(created_at), "expires_at": to_seconds(expires_at)}
    return msgspec.convert(values, Share)


def parts_of(
    lineage: Iterable[Segment], after: Seq, upto: Seq
) -> Iterable[tuple[SessionId, Seq, Seq]]:
    """Yield what of a history lies past `after` and up to `upto`: session, start, end."""
    start = after
    for session, end in lineage:
        last = min(end, upto)
        if start < last:
            yield session, start, Seq(last)
            start = Seq(last)


def joined(first: Past, then: Past) -> Past:
    return Past([*first.seqs, *then.seqs], [*first.spoken, *then.spoken])


def events_of(session: SessionId, row: Sequence[str], *, raw: bool) -> list[Event]:
    """Return events from three lists: positions, times, facts.  `raw` costs a second pass."""
    times, facts = row[1].split(","), _facts(row[2])
    raws = [bytes(one) for one in _raws.decode(f"[{row[2]}]")] if raw else [b""] * len(facts)
    return [
        Event(session=session, seq=seq, at=int(at) / 1_000_000, fact=fact, raw=one)
        for seq, at, fact, one in zip(seqs_of(row[0]), times, facts, raws, strict=True)
    ]


def seqs_of(joined: str) -> Iterable[Seq]:
    return cast("Iterable[Seq]", map(int, joined.split(",")))


def _facts(joined: str) -> Sequence[Fact | Unknown]:
    try:
        return _known.decode(f"[{joined}]")
    except msgspec.ValidationError:  # a kind or a form that is not today's: one by one
        return [codec.load(bytes(one)) for one in _raws.decode(f"[{joined}]")]
