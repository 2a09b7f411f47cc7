"""The play: everything that a client can have written, one part after the other.

Each part goes on where a death has left it, as a client of the API would: it asks again, with the
same idempotency key or the same id.

Invariant: a part ends only when what it asked for has been answered.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeAlias, cast

import anyio
from aiohttp import web

from hostler.core.ports import mint
from hostler.testing.canaries import Canaries
from hostler.testing.crash.caller import Caller, Failed, Input, Json, Later, listed
from hostler.testing.crash.served import SECRET
from hostler.testing.crash.waiting import LOOK_S, until

REST_S = 60.0
"""How long a session may take to come to rest, with no more deaths."""
OK = frozenset({200, 201, 202, 204})
REFUSED = 422
RESTING = frozenset({"idle"})
OTHER = "other"
SOON_S = 0.3
"""Before something is said that is said later: more than it takes to ask for that."""
FAR_S = 300 * 86_400.0
Part: TypeAlias = Callable[[], Awaitable[None]]


@dataclass
class Receiver:
    """A program outside that takes webhooks."""

    url: str = ""
    port: int = 0
    came: list[bytes] = field(default_factory=list[bytes])

    async def take(self, request: web.Request) -> web.Response:
        self.came.append(await request.read())
        return web.Response(status=204)


@asynccontextmanager
async def receiving() -> AsyncGenerator[Receiver]:
    """Yield a receiver that listens."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hook", receiver.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        (address,) = runner.addresses
        receiver.port = int(address[1])
        receiver.url = f"http://127.0.0.1:{receiver.port}/hook"
        yield receiver
    finally:
        await runner.cleanup()


@dataclass
class Play:
    """The parts, and what they have in common."""

    caller: Caller
    receiver: Receiver
    canaries: Canaries = field(default_factory=Canaries)
    began: Callable[[str], object] = lambda _: None
    """Called with each session that is made or forked."""
    following: dict[str, anyio.CancelScope] = field(default_factory=dict[str, anyio.CancelScope])
    other_key: str = field(default="", repr=False)
    """Of another tenant, once there is one."""

    def parts(self) -> Sequence[Part]:
        """Return the parts, in their order."""
        return (
            self.tells_a_program,
            self.lets_another_tenant_in,
            self.keeps_a_secret,
            self.works,
            self.says_it_later,
            self.asks_for_approval,
            self.is_denied,
            self.cancels,
            self.deletes,
        )

    async def go(self) -> None:
        """Do all parts, and wait until all is at rest.  Raises Failed."""
        for part in self.parts():
            await part()
        await self.rest()

    async def follow(self, session: str) -> None:
        """See all that happens in a session, until `stop_following`."""
        with anyio.CancelScope() as scope:
            self.following[session] = scope
            await self.caller.follow(session)

    def stop_following(self) -> None:
        for scope in self.following.values():
            scope.cancel()

    async def leave(self, session: str) -> None:
        """Stop following one session, once all was seen that is there, or it took too long."""
        seen = self.caller.told.seen
        with anyio.move_on_after(REST_S):
            end = cast("int", (await self.caller.get(f"/api/sessions/{session}"))["seq"])
            await until(lambda: len(seen.get(session, ())) >= end)
        if (scope := self.following.pop(session, None)) is not None:
            scope.cancel()

    async def rest(self) -> None:
        """Wait until nothing happens any more.  Raises Failed."""
        for session in [*self.caller.told.sessions]:
            if session not in self.caller.told.deleted:
                await at_rest(self.caller, session)

    # -- parts -----------------------------------------------------------------------------------

    async def tells_a_program(self) -> None:
        body = {"url": self.receiver.url}
        _, made = await self.caller.ask("POST", "/api/webhooks", body, good=OK)
        self.caller.told.webhooks[str(made["id"])] = self.receiver.url
        self._hides(made, "secret")

    async def lets_another_tenant_in(self) -> None:
        """409: it was made, and the answer was lost."""
        good = frozenset({201, 409})
        await self.caller.ask("POST", "/api/tenants", {"id": OTHER}, good=good)
        self.caller.told.tenants.add(OTHER)
        body = {"tenant": OTHER, "user": "somebody", "role": "admin"}
        _, made = await self.caller.ask("POST", "/api/keys", body)
        self.caller.told.keys.add(str(made["id"]))
        self.other_key = str(made["key"])
        self._hides(made, "key")

    async def keeps_a_secret(self) -> None:
        value = self.canaries.new("the tool's secret", odd=True)
        await self.caller.ask("PUT", f"/api/secrets/{SECRET}", {"value": value})
        self.caller.told.secrets.add(SECRET)
        session = await self.session("keyed")
        await self.speaks(session, "open it")
        await at_rest(self.caller, session)

    async def works(self) -> None:
        """Two messages, one of them sent twice; labels, a fork of it, and a message to that."""
        session = await self.session("worker")
        await self.speaks(session, "do it")
        await self.speaks(session, "do it again", twice=True)
        _, made = await self.caller.ask("PATCH", f"/api/sessions/{session}", {"title": "told"})
        self.caller.told.titles[session] = str(made["title"])
        await at_rest(self.caller, session)
        once = mint("once")
        path = f"/api/sessions/{session}/fork"
        _, forked = await self.caller.ask("POST", path, {}, once=once)
        fork, of = str(forked["id"]), cast("Json", forked["forked"])
        self.caller.told.sessions[fork] = "worker"
        self.began(fork)
        self.caller.told.forks[fork] = (session, cast("int", of["at"]))
        await self.speaks(fork, "and here")
        await at_rest(self.caller, fork)

    async def says_it_later(self) -> None:
        """A message that is scheduled twice with one key, and one that is withdrawn."""
        session = await self.session("brief")
        await self.schedules(session, "say it soon", SOON_S, twice=True)
        await self.withdraws(await self.schedules(session, "never say it", FAR_S))
        await self.said(session)
        await at_rest(self.caller, session)

    async def asks_for_approval(self) -> None:
        await self._decides("allow")

    async def is_denied(self) -> None:
        await self._decides("deny")

    async def cancels(self) -> None:
        session = await self.session("slow")
        given = await self.speaks(session, "talk")
        once = mint("once")
        path = f"/api/sessions/{session}/cancel"
        _, told = await self.caller.ask("POST", path, {"run": given.run}, once=once)
        if told.get("run") is not None:
            self.caller.told.cancelled.append((session, str(told["run"])))
        await at_rest(self.caller, session)

    async def deletes(self) -> None:
        """404: it was deleted, and the answer was lost."""
        session = await self.session("slow")
        await self.speaks(session, "talk")
        good = frozenset({204, 404})
        await self.caller.ask("DELETE", f"/api/sessions/{session}", good=good)
        self.caller.told.deleted.add(session)

    # -- what parts are made of ------------------------------------------------------------------

    async def session(self, agent: str) -> str:
        """Make a session under an id of our own, or find that it was made."""
        made = mint("ses")
        await self.caller.ask("POST", "/api/sessions", {"id": made, "agent": agent})
        self.caller.told.sessions[made] = agent
        self.began(made)
        return made

    async def speaks(self, session: str, content: str, *, twice: bool = False) -> Input:
        """Say something; `twice`: send it again although it was answered."""
        path, once = f"/api/sessions/{session}/messages", mint("once")
        ask = partial(self.caller.ask, "POST", path, {"content": content}, once=once)
        _, told = await ask()
        if twice and (again := (await ask())[1]) != told:
            self.caller.told.twice.append(f"{told} and {again}")
        given = Input.of(told, content)
        self.caller.told.inputs.append(given)
        return given

    async def schedules(
        self, session: str, content: str, in_s: float, *, twice: bool = False
    ) -> Later:
        """Have something said later; `twice`: ask again although it was answered.

        A time that passed before the server could take it is refused, and nothing is kept of that.

        Raises Failed: one that had not passed was refused, or another was promised.
        """
        path, good = f"/api/sessions/{session}/messages", frozenset({202, REFUSED})
        while True:
            at = datetime.now(UTC) + timedelta(seconds=in_s)
            body = {"content": content, "at": at.isoformat()}
            ask = partial(self.caller.ask, "POST", path, body, once=mint("once"), good=good)
            status, told = await ask()
            if status != REFUSED:
                break
            if datetime.now(UTC) < at:
                raise Failed(f"in {session}, {at} was refused before it had passed: {told}")
            in_s *= 2
        if twice and (again := (await ask())[1]) != told:
            self.caller.told.twice.append(f"{told} and {again}")
        later = Later.of(told, content)
        self.caller.told.scheduled.append(later)
        if later.due_at != at:
            raise Failed(f"in {session}, {at} was asked for, and {later.due_at} promised")
        return later

    async def withdraws(self, later: Later) -> None:
        """404: it was withdrawn, and the answer was lost; if it never was, the log tells."""
        path = f"/api/sessions/{later.given.session}/scheduled/{later.given.input}"
        await self.caller.ask("DELETE", path, good=frozenset({204, 404}))
        self.caller.told.withdrawn.add(later.given.input)

    async def said(self, session: str) -> None:
        """Wait until nothing is still to be said in a session.  Raises Failed."""
        left: list[Json] = []
        with anyio.move_on_after(REST_S):
            while True:
                left = listed(await self.caller.get(f"/api/sessions/{session}/scheduled"))
                if not left:
                    return
                await anyio.sleep(LOOK_S)
        raise Failed(f"in {session}, what was scheduled is not said within {REST_S:g} s: {left}")

    async def _decides(self, decision: str) -> None:
        session = await self.session("asker")
        await self.speaks(session, "deploy it")
        call = await self.asked(session)
        path = f"/api/sessions/{session}/approvals/{call}"
        await self.caller.ask("POST", path, {"decision": decision}, once=mint("once"))
        self.caller.told.decisions[call] = (session, decision)
        await at_rest(self.caller, session)

    async def asked(self, session: str) -> str:
        """Return the call that waits for an approval.  Raises Failed."""
        with anyio.move_on_after(REST_S):
            while True:
                found = listed(await self.caller.get(f"/api/approvals?session={session}"))
                if found:
                    return str(found[0]["call"])
                await anyio.sleep(LOOK_S)
        raise Failed(f"nobody was asked in {session} within {REST_S:g} s")

    def _hides(self, made: Json, name: str) -> None:
        if isinstance(value := made.get(name), str):
            self.canaries.values[f"{name} {len(self.canaries.values)}"] = value


async def at_rest(
    caller: Caller, session: str, *, is_quiet: Callable[[], bool] = lambda: True
) -> None:
    """Wait until nothing is going on in a session.

    `is_quiet`: whether nothing happens to the servers any more; from then on the time counts.

    Raises Failed: it takes too long.
    """
    told: Json = {}
    until_s = time.monotonic() + REST_S
    while time.monotonic() < until_s:
        told = await caller.get(f"/api/sessions/{session}")
        if told["status"] in RESTING:
            return
        if not is_quiet():
            until_s = time.monotonic() + REST_S
        await anyio.sleep(LOOK_S)
    raise Failed(f"{session} did not come to rest within {REST_S:g} s: it is {told.get('status')}")
