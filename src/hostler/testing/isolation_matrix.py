"""The matrix: every operation, by everybody, with every name of something that is not theirs.

What is not the caller's has to be answered like what is not there: the same status, the same body
but for the name that was sent, the same headers.  Who has no good key learns nothing at all.

Invariant: a cell that could tell nothing is a finding too: the owner has to get what others do not.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from typing import cast
from urllib.parse import quote

from hostler.core.events import JsonObject
from hostler.core.ports import mint
from hostler.testing.isolation import POLICIES, Operation, operations, unknown
from hostler.testing.isolation_answers import (
    GUESTS,
    OUTSIDERS,
    STRANGERS,
    Cell,
    Report,
    differ,
    leak,
    let_in,
    not_taken,
    shut_out,
)
from hostler.testing.isolation_policy import ABOUT_ONE, ARCHIVE, Kind, Policy
from hostler.testing.isolation_sockets import socket_cells
from hostler.testing.isolation_world import (
    Actor,
    Things,
    Told,
    Wire,
    World,
    absent,
    archive,
    open_world,
)

ACTORS = (*OUTSIDERS, *STRANGERS, "reader", "viewer", "admin", "owner")
"""The columns."""
PROBES: Mapping[Kind, tuple[str, ...]] = {
    "session": STRANGERS,
    "run": STRANGERS,
    "response": STRANGERS,
    "conversation": STRANGERS,
    "call": STRANGERS,
    "asked": STRANGERS,
    "share": STRANGERS,
    "scheduled": STRANGERS,
    "key": STRANGERS,
    "tenant": ("stranger",),
    "user": ("stranger", "colleague"),
    "secret": ("stranger", "colleague"),
    "endpoint": ("stranger", "colleague"),
    "webhook": ("stranger", "colleague"),
    "delivery": ("stranger", "colleague"),
    "word": ("stranger", "colleague"),
    "cursor": ("stranger", "guest", "link"),
    "once": ("stranger", "colleague"),
    "token": ("anonymous",),
}
TIMES = 7
SLOWER, SLOWER_S = 4.0, 0.01
"""What a foreign thing may take longer than an absent one, as a factor and in seconds."""
LOOKS = 3
"""A server with other things to do is slow now and then; what tells something, is so each time."""


async def verify_isolation(wire: Wire, admin: str, *, only: Collection[str] = ()) -> Report:
    """Ask for everything as everybody; remove what was made for it.

    `only`: names of operations, and `socket`; empty for all.

    Raises:
        SetupError: the tenants and keys cannot be made.
    """
    report, world = Report(), await open_world(wire, admin)
    try:
        told = await wire.ask("GET", "/openapi.json", headers=world["owner"].headers)
        document = cast("JsonObject", json.loads(told.body))
        for operation in operations(document):
            if only and operation.name not in only:
                continue
            report.cells += [cell async for cell in _Row(world, operation, report).cells()]
        if not only or "socket" in only:
            report.cells += [cell async for cell in socket_cells(world)]
    finally:
        await world.clean()
    return report


@dataclass(slots=True)
class _Row:
    """One operation."""

    world: World
    operation: Operation
    report: Report

    async def cells(self) -> AsyncIterator[Cell]:
        for name in unknown(self.operation):
            yield self._cell(name, "", "isolation.POLICIES says nothing of it")
        policy = POLICIES.get(self.operation.name)
        if policy is None:
            return
        target = await self.world.target(frozenset(policy.ids.values()))
        before = await self.world.look(target)
        async for cell in self._rights(policy, target):
            yield cell
        for parameter, kind in policy.ids.items():
            if parameter in self.operation.parameters:
                async for cell in self._filtered(policy, parameter, kind, target):
                    yield cell
                async for cell in self._names(policy, parameter, kind, target):
                    yield cell
        if await self.world.look(target) != before:
            yield self._cell("", "owner", "somebody changed what is not theirs")
        yield await self._control(policy, target)

    # -- who may ask at all ------------------------------------------------------------------

    async def _rights(self, policy: Policy, target: Things) -> AsyncIterator[Cell]:
        if policy.needs == "nothing" or (policy.may_be_open and self.operation.is_open):
            return
        for name in OUTSIDERS:
            answers = [
                await self._ask(policy, self.world[name], things)
                for things in (target, _absent(target))
            ]
            yield self._cell("", name, shut_out(answers))
        is_about_one = ABOUT_ONE & set(policy.ids)
        for name in self._without(policy):
            actor = self.world[name]
            whose = actor.own if name in GUESTS and is_about_one else target
            told = await self._ask(policy, actor, whose)
            fault = None if told.status == 403 else f"{told.status}, and it takes {policy.needs}"
            yield self._cell("", name, fault or leak(told, target, actor))
        if is_about_one and (policy.of_session or policy.needs) == "read":
            told = await self._ask(policy, self.world["reader"], target)
            yield self._cell("", "reader", _answered(policy, told))
        if not any(one.startswith("path.") for one in policy.ids):
            for name in ("stranger", "colleague"):
                actor = self.world[name]
                told = await self._ask(policy, actor, actor.own)
                yield self._cell("", name, leak(told, target, actor))

    def _without(self, policy: Policy) -> list[str]:
        """Return those who are let in, and have not the right."""
        is_about_one = ABOUT_ONE & set(policy.ids)
        is_change = policy.needs in ("write", "admin", "operator")
        lacks = list(GUESTS) if is_change or "path.session" not in policy.ids else []
        lacks += ["viewer"] if is_change else []
        lacks += ["reader"] if is_change and is_about_one and policy.of_session is None else []
        if policy.needs == "operator":
            # A tenant that is not one's own looks absent, before it is asked what one may do.
            lacks += [] if "path.tenant" in policy.ids else ["stranger"]
            return [*lacks, "colleague", "admin"]
        has_own = is_about_one or "path.key" in policy.ids
        return [*lacks, "colleague"] if policy.needs == "admin" and not has_own else lacks

    # -- names of what is not theirs ---------------------------------------------------------

    async def _names(
        self, policy: Policy, parameter: str, kind: Kind, target: Things
    ) -> AsyncIterator[Cell]:
        real = target.get(kind, "")
        if kind == "once":
            real = f"once-{mint('key')}"
            own = await self.world.target(frozenset(policy.ids.values()))
            await self._ask(policy, self.world["owner"], own, {parameter: real})
            target = own
        elif kind == "token":
            real = self.world.ended
        for name in PROBES[kind]:
            actor = self.world[name]
            things: Things = {**target, **actor.own}
            if parameter == "path.session" or kind in ("once", "token"):
                things = target
            nothing = absent(kind, real)
            for variant in policy.variants:
                answers = [
                    await self._ask(policy, actor, things, {parameter: one}, variant)
                    for one in (real, nothing)
                ]
                if parameter in policy.taken and name != "stranger":
                    fault = not_taken(name, answers)
                else:
                    fault = differ(answers, real, nothing) or let_in(name, answers)
                fault = fault or leak(answers[0], target, actor, sent=real)
                yield self._cell(parameter, name, fault)
            if parameter == "path.session":
                async for cell in self._with_cursors(policy, actor, target):
                    yield cell
            if self.operation.method == "GET" and name == "stranger" and "path" in parameter:
                yield self._cell(
                    parameter, name, await self._timed(policy, parameter, kind, target)
                )

    async def _with_cursors(
        self, policy: Policy, actor: Actor, target: Things
    ) -> AsyncIterator[Cell]:
        """Yield what is told of a foreign session to who has a cursor in it, or past its end."""
        real = target["session"]
        nothing = absent("session", real)
        for parameter in policy.ids:
            if policy.ids[parameter] != "cursor":
                continue
            for cursor in ("1", target["cursor"]):
                for variant in policy.variants:
                    answers = [
                        await self._ask(
                            policy,
                            actor,
                            target,
                            {"path.session": one, parameter: cursor},
                            variant,
                        )
                        for one in (real, nothing)
                    ]
                    fault = differ(answers, real, nothing) or let_in(actor.name, answers)
                    fault = fault or leak(answers[0], target, actor, sent=real)
                    yield self._cell(f"path.session {parameter}", actor.name, fault)

    async def _timed(
        self, policy: Policy, parameter: str, kind: Kind, target: Things
    ) -> str | None:
        """Return how much longer what is foreign takes, if it is too much whenever it is looked at."""
        told = None
        for _ in range(LOOKS):
            told = await self._slower(policy, parameter, kind, target)
            if told is None:
                break
        return told

    async def _slower(
        self, policy: Policy, parameter: str, kind: Kind, target: Things
    ) -> str | None:
        actor, took = self.world["stranger"], dict[bool, list[float]]({True: [], False: []})
        for number in range(2 * TIMES):
            is_there = number % 2 == 0
            name = target[kind] if is_there else absent(kind, target[kind])
            told = await self._ask(policy, actor, target, {parameter: name})
            took[is_there].append(told.took_s)
        foreign, nothing = statistics.median(took[True]), statistics.median(took[False])
        factor = foreign / nothing if nothing else 1.0
        self.report.slowest = max(self.report.slowest, factor)
        is_slower = factor > SLOWER and foreign - nothing > SLOWER_S
        return f"takes {factor:.1f} times as long as what is absent" if is_slower else None

    # -- and those whose it is ---------------------------------------------------------------

    async def _control(self, policy: Policy, target: Things) -> Cell:
        """See that whoever may gets an answer, or all the others' would mean nothing."""
        told = await self._ask(policy, self._owner(policy), target)
        return self._cell("", "owner", _answered(policy, told))

    async def _filtered(
        self, policy: Policy, parameter: str, kind: Kind, target: Things
    ) -> AsyncIterator[Cell]:
        """Yield whether a filter finds for its owner what others must not find with it."""
        is_filter = parameter.startswith("query.") and parameter != "query.after"
        if self.operation.method != "GET" or kind not in ("session", "user") or not is_filter:
            return
        real, nothing = target[kind], absent(kind, target[kind])
        answers = [
            await self._ask(policy, self._owner(policy), target, {parameter: one})
            for one in (real, nothing)
        ]
        is_alike = differ(answers, real, nothing) is None
        yield self._cell(parameter, "owner", "it finds nothing" if is_alike else None)

    def _owner(self, policy: Policy) -> Actor:
        if policy.needs == "operator":
            return self.world.root
        is_tenant_s = policy.needs == "admin" and "path.session" not in policy.ids
        return self.world["admin" if is_tenant_s else "owner"]

    async def _ask(
        self,
        policy: Policy,
        actor: Actor,
        things: Things,
        given: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Told:
        """Ask as somebody, about `things`; `given` by parameter wins over them."""
        path = self.operation.path
        for name in re.findall(r"{(\w+)}", path):
            kind = policy.ids.get(f"path.{name}", cast("Kind", name))
            stands_for = things.get(kind, name) if f"path.{name}" in policy.ids else name
            value = (given or {}).get(f"path.{name}") or stands_for
            path = path.replace(f"{{{name}}}", quote(value))
        query = "&".join(part for part in (policy.query, actor.query) if part)
        sent = {**actor.headers, **(headers or {})}
        body: JsonObject = dict(policy.body) if isinstance(policy.body, dict) else {}
        for parameter, value in (given or {}).items():
            place, _, name = parameter.partition(".")
            if place == "query":
                query = f"{query}&{name}={quote(value)}"
            elif place == "header":
                sent[name] = value
            elif place == "body":
                body[name] = value
        raw = None if policy.body is None else json.dumps(body).encode()
        if policy.body == ARCHIVE:
            raw = archive(mint("run"), mint("call"), mint("call"))
        url = f"{path}?{query}" if query else path
        return await self.world.wire.ask(self.operation.method, url, headers=sent, body=raw)

    def _cell(self, parameter: str, actor: str, fault: str | None) -> Cell:
        return Cell(self.operation.name, parameter, actor, fault)


def _absent(things: Things) -> Things:
    return {kind: absent(kind, name) for kind, name in things.items()}


def _answered(policy: Policy, told: Told) -> str | None:
    """Return what is wrong with the answer to somebody who may."""
    is_fine = 200 <= told.status < 300 or told.status in policy.answers
    return None if is_fine else f"{told.status}: {told.body[:200]}"
