"""A client that does not give up: it asks again until it is answered, and writes down what it was told.

Invariant: what is in `Told` is what a server said with an answer that had arrived; what was asked
for and never answered is not.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, TypeAlias, cast

import aiohttp

from hostler.testing.crash.waiting import breath

Json: TypeAlias = "dict[str, object]"
PATIENCE_S = 120.0
"""How long one thing is asked for, over and over."""
ANSWER_S = 20.0
"""After which an answer is waited for no more, but asked for again."""
MOST_HEARD = 64 * 1024 * 1024
PASSING = frozenset({429, 502, 503, 504})
"""Answers that say: later."""
JSON = frozenset({"application/json", "application/problem+json"})
IN_PROGRESS = "in_progress"
"""The code of a refusal: the same request, sent before, is not done yet."""
BROKEN = (aiohttp.ClientError, OSError, TimeoutError)
CUT = (*BROKEN, ValueError)
"""ValueError: a line of a stream that is cut is no JSON."""


class Input(NamedTuple):
    """A message, as its receipt tells of it."""

    session: str
    input: str
    run: str
    seq: int
    content: str

    @classmethod
    def of(cls, receipt: Json, content: str) -> Input:
        """Return what a receipt says of a message."""
        session, given, run = (str(receipt[name]) for name in ("session", "input", "run"))
        return cls(session, given, run, cast("int", receipt["seq"]), content)


class Later(NamedTuple):
    """A message that is said later, as its receipt tells of it."""

    given: Input
    """Its position is that of what says that it is scheduled."""
    due_at: datetime

    @classmethod
    def of(cls, receipt: Json, content: str) -> Later:
        """Return what a receipt says of a message that is said later."""
        return cls(Input.of(receipt, content), datetime.fromisoformat(str(receipt["due_at"])))


class Seen(NamedTuple):
    """A fact, as a stream showed it."""

    seq: int
    kind: str


class Failed(Exception):
    """A server gave an answer that it should not give, or none for too long."""


@dataclass
class Told:
    """What clients were told: the promises that a server made."""

    sessions: dict[str, str] = field(default_factory=dict[str, str])
    """Their agents."""
    inputs: list[Input] = field(default_factory=list[Input])
    scheduled: list[Later] = field(default_factory=list[Later])
    withdrawn: set[str] = field(default_factory=set[str])
    """Inputs that were scheduled, and will not be said."""
    deleted: set[str] = field(default_factory=set[str])
    titles: dict[str, str] = field(default_factory=dict[str, str])
    decisions: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    """By call: session and decision."""
    cancelled: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Sessions and runs."""
    forks: dict[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])
    webhooks: dict[str, str] = field(default_factory=dict[str, str])
    secrets: set[str] = field(default_factory=set[str])
    keys: set[str] = field(default_factory=set[str])
    """Their ids."""
    tenants: set[str] = field(default_factory=set[str])
    seen: dict[str, list[Seen]] = field(default_factory=dict[str, list[Seen]])
    """By session: what its follower saw, over all its connections."""
    claims: dict[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])
    """By session: who claimed a run last, and how many replies there were since."""
    twice: list[str] = field(default_factory=list[str])
    """Requests that were sent twice and had two answers."""
    heard: list[tuple[str, bytes]] = field(default_factory=list[tuple[str, bytes]])
    """All answers, and what to call them."""
    waits: list[float] = field(default_factory=list[float])
    """Seconds from each first try that failed to the answer."""
    _heard_bytes: int = 0

    def spoken(self) -> Sequence[Input]:
        """Return all that is said by the time that all is at rest, and so has a run."""
        later = [one.given for one in self.scheduled]
        return [*self.inputs, *(one for one in later if one.input not in self.withdrawn)]

    def claimed(self, session: str, kind: str, worker: str) -> None:
        """Take in a fact that tells who drives."""
        if kind == "run_claimed":
            self.claims[session] = (worker, 0)
        elif kind == "model_replied" and session in self.claims:
            worker, replies = self.claims[session]
            self.claims[session] = (worker, replies + 1)

    def hear(self, where: str, what: bytes) -> None:
        """Keep what was said, up to a bound: it is searched for secrets."""
        self._heard_bytes += len(what)
        if self._heard_bytes < MOST_HEARD:
            self.heard.append((where, what))


@dataclass
class Caller:
    """Speaks to a server, or to what stands before several."""

    http: aiohttp.ClientSession
    url: str
    key: str = field(repr=False)
    told: Told = field(default_factory=Told)
    patience_s: float = PATIENCE_S
    is_quiet: Callable[[], bool] = lambda: True
    """Whether nothing happens to the servers any more; from then on patience counts."""

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        once: str | None = None,
        key: str | None = None,
        good: frozenset[int] = frozenset({200, 201, 202, 204}),
    ) -> tuple[int, Json]:
        """Return the answer, whenever it comes.  Raises Failed: it is not among the `good` ones."""
        began, tries = time.monotonic(), 0
        quiet_since = began
        while True:
            tries += 1
            told = "no answer"
            try:
                status, read = await self.try_once(method, path, body, once=once, key=key)
                told = f"{status} {read}"
            except BROKEN as error:
                status, told = 0, f"{type(error).__name__}: {error}"
            else:
                if status not in PASSING and read.get("code") != IN_PROGRESS:
                    break
            quiet_since = quiet_since if self.is_quiet() else time.monotonic()
            if time.monotonic() - quiet_since > self.patience_s:
                raise Failed(f"{method} {path}: {told}, for {self.patience_s:g} s")
            await breath()
        if tries > 1:
            self.told.waits.append(time.monotonic() - began)
        if status not in good:
            raise Failed(f"{method} {path} was answered with {told}, at try {tries}")
        return status, read

    async def get(self, path: str) -> Json:
        return (await self.ask("GET", path))[1]

    async def try_once(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        once: str | None = None,
        key: str | None = None,
    ) -> tuple[int, Json]:
        """Return one answer, whatever it is.  Raises what aiohttp does when there is none."""
        headers = {"Authorization": f"Bearer {key or self.key}"}
        if once is not None:
            headers["Idempotency-Key"] = once
        async with self.http.request(
            method,
            f"{self.url}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers=headers,
            timeout=aiohttp.ClientTimeout(ANSWER_S),
        ) as answer:
            raw = await answer.read()
            if not path.endswith(SHOWING):
                self.told.hear(f"the answer to {method} {path}", raw)
            if raw and answer.content_type not in JSON:
                return answer.status, {"not JSON": raw[:200].decode(errors="replace")}
            return answer.status, cast("Json", json.loads(raw)) if raw else {}

    async def follow(self, session: str) -> None:
        """See all that happens in a session, over as many connections as it takes, until cancelled."""
        seen = self.told.seen.setdefault(session, [])
        cursor = "0"
        while True:
            try:
                async with aclosing(self._frames(session, cursor)) as frames:
                    async for at, kind, data in frames:
                        cursor = at
                        if kind not in NO_FACTS and "seq" in data:
                            seen.append(Seen(cast("int", data["seq"]), kind))
                            self.told.claimed(session, kind, str(data.get("worker")))
            except CUT:
                pass
            await breath()

    async def _frames(self, session: str, cursor: str) -> AsyncGenerator[tuple[str, str, Json]]:
        headers = {
            "Authorization": f"Bearer {self.key}",
            "Accept": "text/event-stream",
            "Last-Event-ID": cursor,
        }
        async with self.http.get(
            f"{self.url}/api/sessions/{session}/events",
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_S, sock_read=60),
        ) as answer:
            if answer.status != 200:
                return
            lines: dict[str, str] = {}
            async for line in answer.content:
                self.told.hear(f"a stream of {session}", line)
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    lines[name] = value
                elif "data" in lines:
                    cursor = lines.get("id", cursor)
                    yield cursor, lines.get("event", ""), cast("Json", json.loads(lines["data"]))
                    lines = {}


SHOWING = ("/api/keys", "/api/webhooks")
"""Paths whose answers show what opens something, once."""
NO_FACTS = frozenset({"delta", "presence", "error", "session_deleted"})
"""Frames that are not of the log."""


def listed(page: Mapping[str, object]) -> list[Json]:
    return cast("list[Json]", page["items"])
