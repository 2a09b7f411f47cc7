"""The streams of one server: cut at shutdown, when a right ends, or when nobody reads them.

A stream says when it begins to wait for its client; one timer looks at all of them.

Invariant: a client that stops reading holds what fits the buffers of its connection, one chunk,
and `signals`' bounded list, for `SLOW_S` and a little more; then it holds nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Literal, TypeAlias, cast, get_args

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup
from starlette.types import Message, Receive, Scope, Send

from hostler.core.errors import TooMany
from hostler.core.events import Principal, PrincipalId, SessionId, TenantId
from hostler.core.news import ALONE, REVOKED, UNSHARED, Nodes
from hostler.service.limits import MOST_STREAMS
from hostler.service.tenants import Tenants

SLOW_S = 30.0
"""A chunk that is not taken in this time ends its stream: less than 2 KiB a second."""
LOOKS = 6
"""How often a stream is looked at in that time."""
SLOW = 4008
"""The close code of a socket whose client does not read."""
MOST_REVOKED = 10_000
"""Keys and links that are remembered to be over, the last ones.  Looking them up says so, too."""
CUT, DROP = "hostler.cut", "drop"
"""The extension of an ASGI scope under which our server lets us drop a connection as it is."""
NOW, WRITE = "hostler.now", "write"
"""And the one under which it takes more of what is being sent, if the client keeps up."""

Write: TypeAlias = Callable[[bytes], bool]
Kind: TypeAlias = Literal["sse", "socket", "file", "poll"]
Why: TypeAlias = Literal["draining", "revoked", "unshared", "slow"]


class OpenStream:
    """What a stream sends through, and can be cut by."""

    __slots__ = ("_send", "_write", "looked", "scope", "session", "since", "who", "why")

    def __init__(
        self, send: Send, who: Principal, session: SessionId | None, write: Write | None
    ) -> None:
        self._send, self._write = send, write
        self.scope = anyio.CancelScope()
        self.who, self.session = who, session
        self.since: float | None = None
        """When it began to wait for its client; None: it does not."""
        self.why: Why | None = None
        """Why it was cut, if it was."""
        self.looked: Callable[[], None] | None = None
        """Called whenever the stream is looked at, `LOOKS` times in the time that is too slow."""

    async def send(self, message: Message) -> None:
        if self.since is None:
            self.since = time.monotonic()
        try:
            await self._send(message)
        except OSError:  # the client is gone
            self.scope.cancel()
            await anyio.lowlevel.checkpoint()
        # Some chunk was taken: whoever else waits for this client has begun to wait anew.
        self.since = None

    def write(self, body: bytes) -> bool:
        """Send more of what is being sent, if that takes no waiting; whether it was sent."""
        return self._write is not None and self.why is None and self._write(body)

    def cut(self, why: Why) -> None:
        self.why = self.why or why
        self.scope.cancel()

    def look(self, slow_s: float) -> None:
        """Cut the stream if its client does not read."""
        if self.since is not None and time.monotonic() - self.since >= slow_s:
            self.cut("slow")
        elif self.looked is not None:
            self.looked()


class OpenStreams:
    """All of one server, which have no end of their own."""

    def __init__(self, *, slow_s: float = SLOW_S, most: int = MOST_STREAMS) -> None:
        """`most`: of one principal."""
        self._slow_s, self._most = slow_s, most
        self._of = Counter[tuple[TenantId, PrincipalId]]()
        self._revoked = dict[str, None]()
        self.by_kind: dict[str, int] = dict.fromkeys(get_args(Kind), 0)
        """How many are open."""
        self._streams = set[OpenStream]()
        self._timer: asyncio.TimerHandle | None = None
        self._nodes = ALONE

    def join(self, nodes: Nodes) -> None:
        """Tell the other nodes what is revoked here, and hear what is there."""
        self._nodes = nodes
        nodes.on(REVOKED, self._revoked_there)
        nodes.on(UNSHARED, self._unshared_there)

    def __len__(self) -> int:
        return len(self._streams)

    async def check(self, who: Principal, tenants: Tenants) -> None:
        """Return if `who` may open one more.  Raises TooMany."""
        own = (await tenants.settings_of(who.tenant)).most_streams
        most = self._most if own is None else min(own, self._most)
        if self._of[who.tenant, who.id] >= most:
            raise TooMany(f"{most:,} streams are open, which is all there may be")

    @contextmanager
    def one(
        self,
        scope: Scope,
        send: Send,
        who: Principal,
        *,
        until: float | None = None,
        session: SessionId | None = None,
        kind: Kind = "sse",
    ) -> Generator[OpenStream]:
        """Let a stream be cut while it is open: what is in this context is then left."""
        stream = OpenStream(send, who, session, _writer(scope))
        mark = (who.tenant, who.id)
        self._streams.add(stream)
        self._of[mark] += 1
        self.by_kind[kind] += 1
        if who.id in self._revoked or who.key in self._revoked:  # since it was asked for
            stream.cut("revoked")
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._slow_s / LOOKS, self._look)
        try:
            with stream.scope:
                if until is not None:
                    stream.scope.deadline = anyio.current_time() + until - time.time()
                yield stream
            if stream.why is None and until is not None and time.time() >= until:
                stream.why = "revoked"
        finally:
            self._streams.discard(stream)
            self._of -= Counter((mark,))
            self.by_kind[kind] -= 1
            if not self._streams:
                self._rest()

    def close(self) -> None:
        """Cut every stream; its client comes back with its cursor."""
        for stream in self._streams:
            stream.cut("draining")

    def keys(self) -> Collection[tuple[TenantId, str]]:
        """Return the keys that something is open with."""
        return {(one.who.tenant, one.who.key) for one in self._streams if one.who.key is not None}

    def revoke(self, what: str) -> None:
        """Cut all streams that were opened with a link (as its principal is called) or a key.

        Neither comes back, so what is about to be opened with it is cut as soon as it is.  Other
        nodes do the same when they hear of it.
        """
        self._nodes.tell(REVOKED, what)
        self._revoke(what)

    def unshare(self, tenant: TenantId, user: PrincipalId, session: SessionId) -> None:
        """Cut what a user has open of a session that they may see no more, here and elsewhere."""
        self._nodes.tell(UNSHARED, tenant, user, session)
        self._unshare(tenant, user, session)

    def _revoked_there(self, words: Sequence[str]) -> None:
        if len(words) == 1:
            self._revoke(words[0])

    def _unshared_there(self, words: Sequence[str]) -> None:
        if len(words) == 3:
            self._unshare(*words)

    def _revoke(self, what: str) -> None:
        self._revoked[what] = None
        if len(self._revoked) > MOST_REVOKED:
            del self._revoked[next(iter(self._revoked))]
        for stream in self._streams:
            if what in (stream.who.id, stream.who.key):
                stream.cut("revoked")

    def _unshare(self, tenant: str, user: str, session: str) -> None:
        for stream in self._streams:
            who = stream.who
            if (who.tenant, who.id, stream.session) == (tenant, user, session):
                stream.cut("unshared")

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        for stream in self._streams:
            stream.look(self._slow_s)
        self._timer = asyncio.get_running_loop().call_later(self._slow_s / LOOKS, self._look)


@asynccontextmanager
async def while_there(receive: Receive) -> AsyncGenerator[TaskGroup]:
    """Leave what is in this context, and what it starts, when the client goes away."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_until_gone, receive, tasks.cancel_scope)
        yield tasks
        tasks.cancel_scope.cancel()


async def _until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _writer(scope: Scope) -> Write | None:
    found = scope.get("extensions", {}).get(NOW, {}).get(WRITE)
    return cast("Write | None", found)


def cutter(scope: Scope) -> Callable[[int, str], None] | None:
    """Return what drops the connection without waiting for its client, if the server has it."""
    found = scope.get("extensions", {}).get(CUT, {}).get(DROP)
    return cast("Callable[[int, str], None] | None", found)
