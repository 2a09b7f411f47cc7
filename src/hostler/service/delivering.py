"""The worker that sends deliveries: what is due is tried, and what came of it is written.

    rows.due ──▶ rows.take ──▶ post ──▶ rows.alter ──▶ the next look
        ▲                                                  │
        └─────────── a commit rings, or time ──────────────┘

A try is written after it, so a process that dies between the two makes the next one send the same
again, under the same `webhook-id`: at least once.  Of one webhook several are on their way at a
time, so their order is not promised.

Where several processes have the rows, what one has taken the others leave alone, until it must be
dead.

Invariant: whatever receivers do, one of them holds up no other, and no tenant's all others'.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

import anyio
from anyio.abc import TaskGroup

from hostler.beside.webhooks import Delivery, Due, Post, Posted, Webhook, Webhooks
from hostler.core.errors import NotFound, SetupError, Unavailable
from hostler.core.events import TenantId
from hostler.core.ports import World
from hostler.core.sealed import Secrets
from hostler.service.sending import after, asked_to_wait_s, headers_of
from hostler.service.webhooks import nothing_new

log = logging.getLogger(__name__)

OF_ONE = 4
"""On their way to one webhook at a time; to one whose last try failed, one."""
OF_TENANT = 16
AT_ONCE = 256
LOOK_S = 60.0
"""Between two looks, if nothing rings: another process may have changed what is due."""
LOOK_BESIDE_S = 2.0
"""So, where other processes write what is due, whose commits ring there alone."""
TAKEN_S = 12.0
"""How long a delivery is kept from other processes.  Whose sender died is sent by another one after
this and one look."""
RENEWED = 3
"""How often in this time a sender that lives takes it anew: a receiver may take longer to answer."""
LEAVING_S = 2.0
"""How long it may take to give back what was on its way."""
LATER_S = 5.0
"""How long a storage that cannot serve is left alone."""
_Place: TypeAlias = tuple[TenantId, str]
_Name: TypeAlias = tuple[TenantId, str, str]


def _name(row: Delivery) -> _Name:
    return row.tenant, row.webhook, row.id


@dataclass(slots=True)
class _Room:
    """How many are on their way."""

    of_one: Counter[_Place]
    of_tenant: Counter[TenantId]
    all: int
    paused: Mapping[_Place, float]

    def takes(self, hook: Webhook) -> bool:
        """Whether one more may go to a webhook; then it is counted."""
        place, most = (hook.tenant, hook.id), 1 if hook.failures else OF_ONE
        if place in self.paused or self.of_one[place] >= most:
            return False
        if self.of_tenant[hook.tenant] >= OF_TENANT or self.all >= AT_ONCE:
            return False
        self.of_one[place] += 1
        self.of_tenant[hook.tenant] += 1
        self.all += 1
        return True


@dataclass(slots=True)
class Delivering:
    rows: Webhooks
    post: Post
    secrets: Secrets
    world: World
    look_s: float = LOOK_S
    reread: Callable[[], Awaitable[object]] = nothing_new
    """Called when a secret is not known: another process may have set it just now."""
    _going: dict[_Name, Delivery] = field(default_factory=dict[_Name, Delivery])
    _ended: set[_Name] = field(default_factory=set[_Name])
    """Those that came to an end while what is due was being read, which may not know it yet."""
    _paused: dict[_Place, float] = field(default_factory=dict[_Place, float])
    """Webhooks that are left alone until then."""
    _cut: list[Delivery] = field(default_factory=list[Delivery])
    """Those that were on their way as this was told to end."""
    _ring: Callable[[], object] = lambda: None

    async def serve(self) -> None:
        """Send what is due, until cancelled; what is on its way then is anybody's at once."""
        self.rows.listen(self.wake)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._renew)
                while True:
                    rung = anyio.Event()
                    self._ring = rung.set
                    wait_s = await self._look(tasks)
                    with anyio.move_on_after(wait_s):
                        await rung.wait()
        finally:
            with anyio.CancelScope(shield=True):
                await self.post.aclose()
                await self._give_back()

    def wake(self) -> None:
        """Look now: something may be due, or may go on."""
        self._ring()

    async def _look(self, tasks: TaskGroup) -> float:
        """Begin what can begin now; return how long nothing else can, unless something rings."""
        now = self.world.clock()
        self._paused = {place: until for place, until in self._paused.items() if until > now}
        self._ended.clear()
        try:
            found = await self.rows.due(now, each=OF_ONE)
            wanted = self._wanted(found)
            taken = await self.rows.take([*wanted.values()], now=now, until=now + TAKEN_S)
        except Unavailable as error:
            log.warning("deliveries come later: %s", error)
            return LATER_S
        hooks = {(hook.tenant, hook.id): hook for hook, _ in found.deliveries}
        for row in taken:
            self._going[_name(row)] = row
            tasks.start_soon(self._try, hooks[row.tenant, row.webhook], row)
        times = [*self._paused.values()] + ([] if found.soonest is None else [found.soonest])
        return max(0.0, min([self.look_s, *(at - now for at in times)]))

    async def _renew(self) -> None:
        """Keep what is on its way, until cancelled."""
        while True:
            await anyio.sleep(TAKEN_S / RENEWED)
            now, going = self.world.clock(), [*self._going.values()]
            try:
                await self.rows.take(going, now=now, until=now + TAKEN_S)
            except Unavailable as error:
                log.warning("deliveries may be sent twice: %s", error)

    async def _give_back(self) -> None:
        now, given = self.world.clock(), self._cut
        self._cut = []
        try:
            with anyio.fail_after(LEAVING_S):
                await self.rows.take(given, now=now, until=now)
        except (Unavailable, TimeoutError) as error:
            log.warning("%d deliveries are sent in %g s: %s", len(given), TAKEN_S, error)

    def _wanted(self, found: Due) -> Mapping[_Name, Delivery]:
        """Return what of this can be sent now."""
        room, wanted = self._room(), dict[_Name, Delivery]()
        for hook, row in found.deliveries:
            name = _name(row)
            is_ours = name in self._going or name in self._ended
            if not is_ours and room.takes(hook):
                wanted[name] = row
        return wanted

    def _room(self) -> _Room:
        going = [(tenant, hook) for tenant, hook, _ in self._going]
        tenants = Counter(tenant for tenant, _ in going)
        return _Room(Counter(going), tenants, len(going), self._paused)

    async def _try(self, hook: Webhook, row: Delivery) -> None:
        try:
            came = await self._post(hook, row)
            await self._note(hook, row, came)
        except NotFound:
            pass  # it was removed meanwhile
        except Unavailable as error:
            log.warning("%s of %s was tried, which cannot be written: %s", row.id, hook.id, error)
            self._paused[hook.tenant, hook.id] = self.world.clock() + LATER_S
        except anyio.get_cancelled_exc_class():
            self._cut.append(row)
            raise
        finally:
            name = _name(row)
            del self._going[name]
            self._ended.add(name)
            self.wake()

    async def _post(self, hook: Webhook, row: Delivery) -> Posted:
        now, body = self.world.clock(), row.body.encode()
        try:
            keys = self._keys(hook, now)
            if None in keys:
                await self.reread()
                keys = self._keys(hook, now)
            signed = headers_of(_known(keys), row.id, at=now, body=body)
        except SetupError as error:
            return Posted(error=str(error), is_theirs=False)
        except ValueError:
            return Posted(error="its secret is none: give it another one", is_theirs=False)
        return await self.post(hook.url, headers=signed, body=body)

    def _keys(self, hook: Webhook, now: float) -> Sequence[str | None]:
        """Return what signs; None for what is not known.  Raises SetupError: it cannot be opened."""
        names = [hook.secret]
        if hook.old_secret is not None and now < (hook.old_until or 0.0):
            names.append(hook.old_secret)
        return [self.secrets.find(hook.tenant, name) for name in names]

    async def _note(self, hook: Webhook, row: Delivery, came: Posted) -> None:
        now = self.world.clock()
        outcome = partial(_after, sent=row, came=came, now=now, chance=self.world.chance())
        made, delivery = await self.rows.alter(hook.tenant, hook.id, row.id, outcome, at=now)
        wait_s = asked_to_wait_s(came, now)
        if wait_s:
            self._paused[hook.tenant, hook.id] = now + wait_s
        told = f"answered {came.code}" if came.error is None else came.error
        if delivery.status == "given_up":
            log.warning("webhook %s: %s is given up: %s", hook.id, row.id, told)
        elif delivery.status == "pending":
            log.info("webhook %s: %s did not arrive: %s", hook.id, row.id, told)
        if made.disabled_at == now:
            log.warning("webhook %s of %s is disabled: %s", hook.id, hook.tenant, told)


def _known(keys: Sequence[str | None]) -> Sequence[str]:
    if None in keys:
        raise SetupError("its secret was removed: give it another one")
    return [key for key in keys if key is not None]


def _after(
    hook: Webhook, row: Delivery, *, sent: Delivery, came: Posted, now: float, chance: float
) -> tuple[Webhook, Delivery]:
    return after(hook, row, sent, came, now=now, chance=chance)
