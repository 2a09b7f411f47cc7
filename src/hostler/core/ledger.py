"""Runs as data: the rows kept of model calls and tool calls, sums of them, and who asks for them.

A row tells what its facts tell, cut to a size that lists can carry; the log has the rest.  A direct
call has no log: its row is all there is.

Invariant: every other row can be rebuilt from the logs, and history that a fork reads is not counted
in it again.  A cost that is not known is None and counted as such, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Literal, NamedTuple, Protocol, TypeAlias

from msgspec import Struct

from hostler.core.events import (
    AttemptId,
    CallId,
    Outcome,
    PrincipalId,
    RunId,
    SessionId,
    TenantId,
    Usage,
)

By: TypeAlias = Literal["tenant", "user", "agent", "model", "day"]
"""What sums are made by; `user` is who spoke, `day` is of UTC."""
CallStatus: TypeAlias = Literal["open", "replied", "failed", "dropped"]
MOST_TOKENS = 1_000_000_000
"""Of one model call: what is told beyond it is no count, and must not make a sum overflow."""
MOST_COST = Decimal(1_000_000)
"""US dollars of one model call, likewise."""


def may_have_cost(status: CallStatus, usage: Usage | None) -> bool:
    """Whether a call that ended so may have cost something, and what is not known."""
    if status == "failed":  # what is refused is not billed
        told = usage is not None and usage.input_tokens + usage.output_tokens > 0
        return told and usage is not None and usage.cost is None
    return status == "dropped" or (status == "replied" and usage is not None and usage.cost is None)


class RunFilter(Struct, frozen=True, kw_only=True):
    """Which runs are meant; None: whichever."""

    agent: str | None = None
    principal: str | None = None
    """Who spoke."""
    purpose: str | None = None
    seen_by: PrincipalId | None = None
    """In sessions that this member made or that are shared with them."""
    since: float | None = None
    """Unix seconds: made then or later."""
    before: float | None = None
    """Unix seconds: made earlier."""


ANY_RUN = RunFilter()


class LlmRow(Struct, kw_only=True):
    """One attempt at a reply."""

    tenant: TenantId
    session: SessionId
    run: RunId
    attempt: AttemptId
    step: int
    """1 for the run's first reply."""
    number: int
    """Of the attempts at this reply."""
    provider: str
    model: str
    asked_at: float
    status: CallStatus = "open"
    error_type: str | None = None
    error_message: str | None = None
    usage: Usage | None = None
    unpriced: bool = False
    """It may have cost something, and what is not known."""
    ended_at: float | None = None
    first_token_s: float | None = None


class DirectCall(Struct, kw_only=True):
    """One question that a client asked a model itself: of no session, no run and no log."""

    tenant: TenantId
    id: str
    """`dir_…`"""
    principal: PrincipalId
    provider: str
    model: str
    asked_at: float
    purpose: str | None = None
    status: CallStatus = "open"
    error_type: str | None = None
    error_message: str | None = None
    usage: Usage | None = None
    unpriced: bool = False
    """It may have cost something, and what is not known."""
    ended_at: float | None = None
    first_token_s: float | None = None


class ToolRow(Struct, kw_only=True):
    """One call of a tool."""

    tenant: TenantId
    session: SessionId
    run: RunId
    call: CallId
    step: int
    name: str
    asked_at: float
    parameters: str
    """JSON, as the model asked; once it began, as it ran."""
    parameters_cut: bool = False
    status: Literal["asked", "running"] | Outcome = "asked"
    started_at: float | None = None
    ended_at: float | None = None
    result: str | None = None
    result_cut: bool = False


class Rating(Struct, frozen=True, kw_only=True):
    """How good a run was, says somebody."""

    run: RunId
    principal: PrincipalId
    key: str
    score: float
    comment: str | None
    at: float


class Calls(NamedTuple):
    models: Sequence[LlmRow]
    tools: Sequence[ToolRow]


class Spent(Struct, frozen=True, kw_only=True):
    """Sums over model calls that were asked in some time."""

    by: Mapping[By, str]
    runs: int
    """That asked a model."""
    calls: int
    """Of runs, and direct ones."""
    failed_calls: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    cost: Decimal | None
    """Of the calls whose cost is known, to 10^-12 dollars; None when none is."""
    unpriced_calls: int
    """That may have cost something, and what is not known."""


class Ledger(Protocol):
    """What can be asked about runs, beside a `Store`, which keeps it with each append.

    And what is kept of direct calls, which no append tells of.
    """

    async def calls(self, tenant: TenantId, run: RunId) -> Calls:
        """Return a run's calls in order; none of a run that is absent."""
        ...

    async def usage(
        self,
        tenant: TenantId,
        by: Sequence[By],
        *,
        since: float,
        before: float,
        after: Sequence[str],
        limit: int,
        seen_by: PrincipalId | None = None,
    ) -> Sequence[Spent]:
        """Return sums, ordered by their groups, past the group `after` (empty: from the first).

        Of calls asked from `since` on and earlier than `before`; with `seen_by`, in sessions that
        they see, and their own direct ones.  A direct call is of a user, of no agent and no run.
        """
        ...

    async def keep_direct(self, call: DirectCall) -> None:
        """Keep a call, in place of what was kept of it before.

        One that is open when its storage is opened again was a dead process': it becomes `dropped`
        and unpriced.
        """
        ...

    async def forget_direct(self, tenant: TenantId, before: float) -> int:
        """Remove calls asked earlier, but open ones; return how many.

        Some at a time, so that nobody waits long behind it: until it is none, there may be more.
        """
        ...

    async def ratings(self, tenant: TenantId, run: RunId) -> Sequence[Rating]:
        """Return a run's ratings, oldest first; none of a run that is absent."""
        ...
