"""The rows of the matrix that are about sockets: opening one, tickets, cursors and verbs.

Invariant: what is not the caller's is like what is not, as in `isolation_matrix`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from hostler.core.events import JsonObject
from hostler.core.ports import mint
from hostler.testing.isolation import SOCKET_VERBS, Verb
from hostler.testing.isolation_answers import GUESTS, OUTSIDERS, STRANGERS, Cell, differ
from hostler.testing.isolation_world import Actor, Things, Told, World, absent

OPEN = 101
FORBIDDEN = '"status":403'


async def socket_cells(world: World) -> AsyncIterator[Cell]:
    """Yield the cells of sockets."""
    row = _Sockets(world, await world.target())
    for cells in (row.opening(), row.tickets(), row.names(), row.rights(), row.control()):
        async for cell in cells:
            yield cell


@dataclass(slots=True)
class _Sockets:
    world: World
    target: Things

    async def opening(self) -> AsyncIterator[Cell]:
        """Yield what those get who may not open one: with a cursor, too."""
        real = self.target["session"]
        nothing = absent("session", real)
        for name in (*OUTSIDERS, *STRANGERS):
            actor = self.world[name]
            if name == "ticket":  # is asked below, with a ticket for each time
                continue
            for parameter, query, headers in (
                ("path.session", "", {}),
                ("query.after", "after=1", {}),
                ("query.after", f"after={self.target['cursor']}", {}),
                ("header.Last-Event-ID", "", {"Last-Event-ID": "1"}),
            ):
                answers = [
                    await self._open(actor, one, query=query, headers=headers)
                    for one in (real, nothing)
                ]
                yield Cell("socket", parameter, name, _shut(answers, real, nothing))

    async def tickets(self) -> AsyncIterator[Cell]:
        """Yield what tickets open: nothing but what their owner may see, and that once."""
        real, nobody = self.target["session"], Actor(name="ticket", key=None)
        nothing = absent("session", real)
        for name in ("stranger", "colleague"):
            answers = [
                await self._open(nobody, one, query=await self._ticket(self.world[name]))
                for one in (real, nothing)
            ]
            yield Cell("socket", "query.ticket", name, _shut(answers, real, nothing))
        used = await self._ticket(self.world["owner"])
        told = await self._open(nobody, real, query=f"after=now&{used}")
        fault = None if told.status == OPEN else f"{told.status}: {told.body[:200]}"
        yield Cell("socket", "query.ticket", "owner", fault)
        for name, ticket in (
            ("owner", used),
            ("revoked", await self._of_a_revoked_key()),
        ):
            answers = [
                await self._open(nobody, real, query=f"after=now&{one}")
                for one in (ticket, f"ticket={absent('token', ticket.partition('=')[2])}")
            ]
            yield Cell("socket", "query.ticket", name, _shut(answers, "", ""))

    async def names(self) -> AsyncIterator[Cell]:
        """Yield what verbs say, on a socket of one's own, of things that are not."""
        for name in ("stranger", "colleague"):
            actor = self.world[name]
            for verb, policy in SOCKET_VERBS.items():
                for parameter, kind in policy.ids.items():
                    real, nothing = self.target[kind], absent(kind, self.target[kind])
                    answers = [
                        await self._say(actor, _said(verb, policy, {parameter: one}))
                        for one in (real, nothing)
                    ]
                    fault = differ(answers, real, nothing)
                    if fault is None and '"status":404' not in answers[0].body:
                        fault = f"answered with {answers[0].body[:200]}"
                    yield Cell(f"socket {verb}", f"body.{parameter}", name, fault)
        key = f"once-{mint('key')}"
        once = _said("cancel", SOCKET_VERBS["cancel"], {}, key)
        await self._say(self.world["owner"], once)
        for name in ("stranger", "colleague"):
            other = _said("cancel", SOCKET_VERBS["cancel"], {}, absent("once", key))
            answers = [await self._say(self.world[name], one) for one in (once, other)]
            yield Cell("socket cancel", "idempotency_key", name, differ(answers, "", ""))

    async def rights(self) -> AsyncIterator[Cell]:
        """Yield what those may say who may read alone: nothing."""
        owned = {name: self.world[name].own for name in GUESTS}
        for name, things in {**owned, "viewer": self.target, "reader": self.target}.items():
            says = [
                _said(verb, policy, {one: things[kind] for one, kind in policy.ids.items()})
                for verb, policy in SOCKET_VERBS.items()
            ]
            told = await self._open(
                self.world[name], things["session"], query="after=now", says=says
            )
            answers = told.body.split("\n")
            for verb, answer in zip(SOCKET_VERBS, answers, strict=True):
                fault = None if FORBIDDEN in answer else f"{told.status} {answer[:200]}"
                yield Cell(f"socket {verb}", "", name, fault)

    async def control(self) -> AsyncIterator[Cell]:
        """Yield whether those whose it is get an answer, or all else would mean nothing."""
        ping: JsonObject = {"id": 1, "verb": "ping"}
        for name in ("owner", "reader", *GUESTS):
            whose = self.world[name].own if name in GUESTS else self.target
            told = await self._open(
                self.world[name], whose["session"], query="after=now", says=[ping]
            )
            is_open = told.status == OPEN and '"status":200' in told.body
            fault = None if is_open else f"{told.status}: {told.body[:200]}"
            yield Cell("socket", "", name, fault)

    async def _open(
        self,
        actor: Actor,
        session: str,
        *,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        says: Sequence[JsonObject] = (),
    ) -> Told:
        asked = "&".join(part for part in (query, actor.query) if part)
        return await self.world.wire.talk(
            f"/api/sessions/{session}/socket{'?' if asked else ''}{asked}",
            headers={**actor.headers, **(headers or {})},
            says=says,
        )

    async def _say(self, actor: Actor, said: JsonObject) -> Told:
        """Say something on a socket of somebody's own session."""
        return await self._open(actor, actor.own["session"], query="after=now", says=[said])

    async def _ticket(self, actor: Actor) -> str:
        return f"ticket={await self.world.ticket(actor)}"

    async def _of_a_revoked_key(self) -> str:
        """Return a ticket that was given for a key that has been revoked since."""
        key = await self.world.key("short", self.world.operator, role="viewer")
        ticket = await self._ticket(key)
        await self.world.do(self.world.operator, "DELETE", f"/api/keys/{key.own['key']}")
        return ticket


def _said(verb: str, policy: Verb, names: Mapping[str, str], key: str | None = None) -> JsonObject:
    said: JsonObject = {"id": 1, "verb": verb, "body": {**policy.body, **names}}
    return said if key is None else {**said, "idempotency_key": key}


def _shut(answers: Sequence[Told], real: str, nothing: str) -> str | None:
    """Return what is wrong if one was opened, or if the answers differ."""
    if any(told.status == OPEN for told in answers):
        return "it was opened"
    return differ(answers, real, nothing)
