"""What the checks of the store suite are made with: a way in, a clock, and facts in few words."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from hostler.core.errors import HostlerError
from hostler.core.events import (
    ApprovalAsked,
    ApprovalGiven,
    AttemptId,
    CallId,
    Fact,
    InputId,
    Key,
    ModelAsked,
    ModelReplied,
    Policy,
    PrincipalId,
    RunClaimed,
    RunEnded,
    RunId,
    RunStarted,
    Seq,
    SessionForked,
    SessionId,
    TenantId,
    ToolCall,
    ToolFinished,
    ToolStarted,
    Usage,
    UserSpoke,
    Verdict,
)
from hostler.core.gate import digest
from hostler.core.head import Head
from hostler.core.ports import mint
from hostler.core.records import Appended, Once, Segment, Session
from hostler.core.store import Observer, Outbox, Store


class Open(Protocol):
    """Opens an empty store, and closes it in the end."""

    def __call__(
        self, *, observer: Observer = ..., outbox: Outbox | None = None, clock: Clock = ...
    ) -> AbstractAsyncContextManager[Store]: ...


Check = Callable[[Open], Awaitable[None]]


@dataclass(slots=True)
class Clock:
    """Unix seconds, as a check wants them."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def spoke(run: str, text: str = "hello", *, policy: Policy = "queue") -> UserSpoke:
    """Return an input for a run."""
    return UserSpoke(
        run=RunId(run),
        input=InputId(mint("inp")),
        content=text,
        policy=policy,
        principal=PrincipalId("p"),
        metadata={},
    )


def a_run(run: str, text: str, *, claim: int, after: int = 1) -> list[Fact]:
    """Return the facts of a whole run that replies `text`, to be written from `after` + 1 on."""
    of, attempt = RunId(run), AttemptId(mint("att"))
    return [
        RunClaimed(run=of, claim=claim, worker="w"),
        RunStarted(run=of),
        ModelAsked(run=of, attempt=attempt, provider="p", model="m"),
        ModelReplied(
            run=of,
            attempt=attempt,
            seen=Seq(after + 3),
            text=text,
            calls=(),
            stop="end",
            usage=Usage(input_tokens=3),
        ),
        RunEnded(run=of, status="done", usage=Usage(input_tokens=3)),
    ]


def a_step(run: str, *calls: str, claim: int = 1, after: int = 1) -> list[Fact]:
    """Return the facts of a run that begins and wants `calls` done; written from `after` + 1 on."""
    of, attempt = RunId(run), AttemptId(mint("att"))
    return [
        RunClaimed(run=of, claim=claim, worker="w"),
        RunStarted(run=of),
        ModelAsked(run=of, attempt=attempt, provider="p", model="m"),
        ModelReplied(
            run=of,
            attempt=attempt,
            seen=Seq(after + 3),
            text="",
            calls=tuple(ToolCall(id=CallId(call), name="tool", arguments={}) for call in calls),
            stop="tools",
            usage=Usage(),
        ),
    ]


def asked(run: str, call: str, *, expires_at: float = 2_000_000.0) -> ApprovalAsked:
    return ApprovalAsked(
        run=RunId(run),
        call=CallId(call),
        name="tool",
        arguments={"a": [1, None]},
        digest=digest("tool", {"a": [1, None]}),
        expires_at=datetime.fromtimestamp(expires_at, UTC),
    )


def given(run: str, call: str, decision: Verdict, reason: str | None = None) -> ApprovalGiven:
    return ApprovalGiven(
        run=RunId(run),
        call=CallId(call),
        decision=decision,
        principal=PrincipalId("boss"),
        reason=reason,
    )


def started(run: str, call: str, *, expires_at: float | None = None) -> ToolStarted:
    """Return the beginning of a call; with `expires_at`, of one for a client."""
    until = None if expires_at is None else datetime.fromtimestamp(expires_at, UTC)
    return ToolStarted(
        run=RunId(run), call=CallId(call), name="tool", arguments={}, expires_at=until
    )


def finished(run: str, call: str) -> ToolFinished:
    return ToolFinished(run=RunId(run), call=CallId(call), outcome="ok", output="out")


def ended(run: str) -> RunEnded:
    return RunEnded(run=RunId(run), status="done", usage=Usage())


def once(scope: str, answer: str = "kept", *, digest: str = "d") -> Once:
    """Return what makes a write happen once; its answer tells where the write ended."""

    def made(done: Appended) -> bytes:
        return f"{answer} {done.head.seq}".encode()

    return Once(scope, digest, made)


def a_new_session(tenant: str = "default", *, at: float = 1.0) -> Session:
    return Session(
        tenant=TenantId(tenant),
        id=SessionId(mint("ses")),
        agent="double",
        principal=PrincipalId("p"),
        created_at=at,
        updated_at=at,
    )


async def a_fork(store: Store, tenant: TenantId, *lineage: tuple[SessionId, int]) -> Key:
    """Make a session that begins with a history; return its key."""
    fork = a_new_session(tenant)
    fork.lineage = tuple(Segment(session, Seq(upto)) for session, upto in lineage)
    origin, at = fork.lineage[-1]
    fork.head = Head(seq=at, base=Seq(at + 1))
    forked = SessionForked(run=None, origin=origin, at=at, principal=PrincipalId("p"))
    assert await store.create(fork, [forked])
    return Key(tenant, fork.id)


async def refused(kind: type[HostlerError], doing: Awaitable[object]) -> None:
    """Assert that something is refused with this error."""
    try:
        await doing
    except kind:
        return
    raise AssertionError(f"this should have raised {kind.__name__}")
