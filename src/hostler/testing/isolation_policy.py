"""What the isolation matrix has to know of an operation: the right it takes, and what it names.

Invariant: nothing here is of one operation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from hostler.core.events import JsonObject

Kind: TypeAlias = Literal[
    "session",
    "run",
    "response",
    "conversation",
    "call",
    "asked",
    "share",
    "scheduled",
    "key",
    "tenant",
    "user",
    "secret",
    "endpoint",
    "webhook",
    "delivery",
    "word",
    "cursor",
    "once",
    "token",
]
"""Of what a parameter names.  `call`: that waits for an approval, `asked`: for a client's result;
`word`: what was said; `once`: an idempotency key; `token`: a link's, or a ticket."""
Needs: TypeAlias = Literal["nothing", "read", "write", "admin", "operator"]
"""The right that an operation takes: of a session if it is about one, else of the tenant."""
ARCHIVE = "an archive"
"""Stands for a body that is a session's file."""
SAFE = frozenset({"query.limit", "header.Accept", "header.Prefer", "header.Upgrade"})
"""Name nothing, wherever they are."""
ONCE: Mapping[str, Kind] = {"header.Idempotency-Key": "once"}
SESSION: Mapping[str, Kind] = {"path.session": "session"}
RUN: Mapping[str, Kind] = {"path.run": "run"}
WEBHOOK: Mapping[str, Kind] = {"path.webhook": "webhook"}
ABOUT_ONE = frozenset({"path.session", "path.run", "path.response", "path.conversation"})
"""Name one thing whose standing decides what somebody may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    needs: Needs = "read"
    of_session: Needs | None = None
    """The right it takes of the session it is about, where that is another one."""
    ids: Mapping[str, Kind] = field(default_factory=dict[str, Kind])
    """`path.session`, `query.after`, `header.Last-Event-ID`, `body.id`: what it names."""
    plain: frozenset[str] = frozenset()
    body: JsonObject | str | None = None
    """What is sent, so that it is asked for more than its form; `ARCHIVE` for a session's file."""
    query: str = ""
    """What is asked for besides, so that an answer ends."""
    variants: tuple[Mapping[str, str], ...] = ({},)
    """Headers with which the same is asked for in other ways."""
    taken: frozenset[str] = frozenset()
    """Those of `ids` that are chosen by clients: within a tenant, what is taken is 409 for all."""
    answers: tuple[int, ...] = ()
    """What whoever may do it gets for a thing of their own, beyond 2xx."""
    may_be_open: bool = False
    """The operator may open it to everybody; the document then says that it takes no key."""


def plain(*names: str) -> frozenset[str]:
    return frozenset(names)


def in_body(names: str) -> frozenset[str]:
    return frozenset(f"body.{name}" for name in names.split())
