"""Rows of runs and approvals in memory, from the changes that an append makes.

Invariant: a row is made by the first change of its id, which has what a row needs.
"""

from __future__ import annotations

from hostler.core.events import ApprovalAsked, Key, RunId
from hostler.core.records import Approval, RunRow, Session
from hostler.stores.projection import ApprovalChange, RunChange


def set_given(row: RunRow | Approval, change: RunChange | ApprovalChange, *names: str) -> None:
    """Set the named columns, but for those that the change leaves as they are."""
    for name in names:
        value = getattr(change, name)
        if value is not None:
            setattr(row, name, value)


def new_approval(key: Key, change: ApprovalChange, asked: ApprovalAsked) -> Approval:
    assert change.asked_at is not None
    return Approval(
        tenant=key.tenant,
        session=key.session,
        run=change.run,
        call=asked.call,
        name=asked.name,
        arguments=asked.arguments,
        digest=asked.digest,
        asked_at=change.asked_at,
        expires_at=asked.expires_at.timestamp(),
    )


def new_row(key: Key, session: Session, run: RunId, change: RunChange) -> RunRow:
    assert change.input is not None
    assert change.first_seq is not None
    assert change.created_at is not None
    return RunRow(
        tenant=key.tenant,
        session=key.session,
        id=run,
        input=change.input,
        agent=session.agent,
        status="queued",
        created_at=change.created_at,
        first_seq=change.first_seq,
    )
