"""Webhooks of tenants: set, listed, changed, removed, given new secrets.

Secrets are in the vault, under `webhook:ID:N`, and are shown once, to whoever made them.  Each has a
name of its own, whichever process makes it, so that a row changes from one to the next in one commit.

Invariant: a tenant sees and sets its own alone; nothing is told to a place that the operator's
rules close.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import anyio
import msgspec
from msgspec.structs import replace

from hostler.beside.webhooks import EventType, Post, Webhook, Webhooks
from hostler.core.audited import about, leading_up
from hostler.core.errors import Conflict, Invalid, NotFound, SetupError
from hostler.core.events import Principal, TenantId
from hostler.core.ports import World
from hostler.core.sealed import Vault, masked
from hostler.service.authorise import authorise
from hostler.service.limits import LONGEST_TITLE, LONGEST_WEBHOOK_URL, MOST_WEBHOOKS
from hostler.service.sending import new_secret

OLD_GOOD_FOR_S = 24 * 3600.0
"""How long the secret before signs too, unless somebody says otherwise."""
LONGEST_OLD_S = 30 * 86_400.0
APART = 1 << 40
"""Of so many numbers a secret's is one: two that are made at once have the same one never."""


async def nothing_new() -> None:
    """Nobody else sets secrets."""


class Outgoing(NamedTuple):
    """What the verbs work with."""

    rows: Webhooks
    vault: Vault
    post: Post | None
    """None: another process sends."""
    check: Callable[[str], object]
    """Raises Invalid for a URL that may not be connected to."""
    is_shared: bool = False
    """Other processes write to the rows, too."""
    reread: Callable[[], Awaitable[object]] = nothing_new
    """Has secrets known that other processes have set."""


class Changes(NamedTuple):
    """What a webhook shall be; UNSET: as it is."""

    url: str | msgspec.UnsetType = msgspec.UNSET
    events: Sequence[EventType] | msgspec.UnsetType | None = msgspec.UNSET
    description: str | msgspec.UnsetType | None = msgspec.UNSET
    enabled: bool | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantWebhooks:
    """Without `outgoing`, this house signs nothing: each verb is a Conflict (`no_vault`)."""

    outgoing: Outgoing | None
    world: World
    rotating: anyio.Lock = field(default_factory=anyio.Lock)
    """Held by whoever changes which secrets a webhook has."""

    async def create(
        self,
        who: Principal,
        *,
        url: str,
        events: Sequence[EventType] | None = None,
        description: str | None = None,
    ) -> tuple[Webhook, str]:
        """Have a URL told what happens; return the webhook, and its secret, shown this once.

        Raises:
            Invalid: the URL is none, may not be connected to, or has a secret in it.
            Conflict: there are as many as there may be (`too_many_webhooks`), or no vault.
        """
        authorise(who, "admin", None)
        out, now, name = opened(self.outgoing), self.world.clock(), self.world.mint("whk")
        self._check(out, who.tenant, url, description)
        webhook = Webhook(
            tenant=who.tenant,
            id=name,
            url=url,
            secret=_name(name, 1),
            created_at=now,
            updated_at=now,
            events=_listed(events),
            description=description,
        )
        about("webhook", name)
        value = await self._new_secret(out, webhook.tenant, webhook.secret)
        if not await out.rows.add(webhook, most=MOST_WEBHOOKS):
            with leading_up():
                await out.vault.drop(webhook.tenant, webhook.secret)
            told = f"a tenant may have {MOST_WEBHOOKS} webhooks: remove some"
            raise Conflict(told, code="too_many_webhooks")
        return webhook, value

    async def list(self, who: Principal, *, after: str, limit: int) -> Sequence[Webhook]:
        """Return the tenant's, newest first."""
        authorise(who, "admin", None)
        return await opened(self.outgoing).rows.webhooks(who.tenant, after=after, limit=limit)

    async def get(self, who: Principal, webhook: str) -> Webhook:
        """Return one.  Raises NotFound."""
        authorise(who, "admin", None)
        return await opened(self.outgoing).rows.webhook(who.tenant, webhook)

    async def change(self, who: Principal, webhook: str, changes: Changes) -> Webhook:
        """Set what is named.  Raises NotFound, and Invalid as `create`.

        While a webhook is disabled, nothing is kept for it; what was pending is held, and sent when
        it is enabled again.
        """
        authorise(who, "admin", None)
        out, now = opened(self.outgoing), self.world.clock()
        await out.rows.webhook(who.tenant, webhook)
        url = None if changes.url is msgspec.UNSET else changes.url
        said = None if changes.description is msgspec.UNSET else changes.description
        self._check(out, who.tenant, url, said)
        return await out.rows.change(
            who.tenant, webhook, lambda there: _changed(there, changes, now), at=now
        )

    async def remove(self, who: Principal, webhook: str) -> None:
        """Remove one, with its deliveries and its secrets.  Raises NotFound."""
        authorise(who, "admin", None)
        out = opened(self.outgoing)
        gone = await out.rows.remove(who.tenant, webhook)
        for name in (gone.secret, gone.old_secret):
            if name is not None:
                await out.vault.drop(gone.tenant, name)

    async def rotate(
        self, who: Principal, webhook: str, *, old_good_for_s: float = OLD_GOOD_FOR_S
    ) -> tuple[Webhook, str]:
        """Give a webhook a new secret; return the webhook, and the secret, shown this once.

        The one before signs too for so long; one before that signs no more.

        Raises:
            NotFound: there is no such webhook.
            Invalid: the old one would be good for less than no time, or over 30 days.
        """
        authorise(who, "admin", None)
        if not 0 <= old_good_for_s <= LONGEST_OLD_S:
            wanted = f"0 to {LONGEST_OLD_S:.0f} seconds"
            told = f"old_good_for_s must be {wanted}"
            raise Invalid(told, fields=[("/old_good_for_s", wanted)])
        out, now = opened(self.outgoing), self.world.clock()
        async with self.rotating:
            there = await out.rows.webhook(who.tenant, webhook)
            name = _next_name(there)
            value = await self._new_secret(out, who.tenant, name)

            def rotated(one: Webhook) -> Webhook:
                nonlocal there
                there = one  # another process may have rotated it meanwhile
                return _rotated(one, name, now, old_good_for_s)

            try:
                made = await out.rows.change(who.tenant, webhook, rotated, at=now)
            except NotFound:  # it was removed meanwhile, with the secrets that it had
                with leading_up():
                    await out.vault.drop(who.tenant, name)
                raise
            if there.old_secret is not None:
                await out.vault.drop(who.tenant, there.old_secret)
        return made, value

    async def tidy(self) -> None:
        """Remove secrets that sign no more."""
        if self.outgoing is None:
            return
        rows, vault = self.outgoing.rows, self.outgoing.vault
        now = self.world.clock()
        for one in await rows.rotated(now):
            async with self.rotating:
                with suppress(NotFound):  # it was removed meanwhile
                    there = await rows.change(
                        one.tenant, one.id, lambda hook: _forgotten(hook, now), at=now
                    )
                    if one.old_secret not in (None, there.secret, there.old_secret):
                        await vault.drop(one.tenant, str(one.old_secret))

    async def _new_secret(self, out: Outgoing, tenant: TenantId, name: str) -> str:
        value = new_secret()
        try:
            with leading_up():  # the row is what takes the deed's entry along
                await out.vault.put(tenant, name, "webhook", value)
        except SetupError as error:
            raise Conflict(str(error), code="no_master_key") from error
        return value

    def _check(self, out: Outgoing, tenant: TenantId, url: str | None, said: str | None) -> None:
        """Return if a URL and a description can be kept.  Raises Invalid."""
        if said is not None and (
            len(said) > LONGEST_TITLE or masked(out.vault, tenant, said) != said
        ):
            wanted = f"at most {LONGEST_TITLE} characters, and no secret among them"
            raise Invalid(f"a description has {wanted}", fields=[("/description", wanted)])
        wrong = None if url is None else _wrong(out, tenant, url)
        if wrong is not None:
            raise Invalid(wrong, fields=[("/url", wrong)])


def opened(outgoing: Outgoing | None) -> Outgoing:
    """Return what is there to work with.  Raises Conflict: nothing is (`no_vault`)."""
    if outgoing is None:
        told = "this house keeps no secrets, so it has nothing to sign webhooks with"
        raise Conflict(told, code="no_vault")
    return outgoing


def _wrong(out: Outgoing, tenant: TenantId, url: str) -> str | None:
    """Return what is wrong with a URL."""
    if len(url) > LONGEST_WEBHOOK_URL:
        return f"a webhook's URL has at most {LONGEST_WEBHOOK_URL} characters"
    if "#" in url:
        return "a webhook's URL has no fragment: it would not be sent"
    if masked(out.vault, tenant, url) != url:
        return "a webhook's URL has no secret of this tenant's in it"
    try:
        out.check(url)
    except Invalid as error:
        return error.detail
    return None


def _changed(there: Webhook, changes: Changes, now: float) -> Webhook:
    made = replace(there, updated_at=now)
    if changes.url is not msgspec.UNSET and changes.url != there.url:
        made = replace(made, url=changes.url, failures=0, failing_since=None)
    if changes.events is not msgspec.UNSET:
        made = replace(made, events=_listed(changes.events))
    if changes.description is not msgspec.UNSET:
        made = replace(made, description=changes.description)
    if changes.enabled is True and made.disabled_at is not None:
        return replace(
            made, disabled_at=None, disabled_because=None, failures=0, failing_since=None
        )
    if changes.enabled is False and made.disabled_at is None:
        return replace(made, disabled_at=now, disabled_because="asked")
    return made


def _rotated(there: Webhook, name: str, now: float, old_good_for_s: float) -> Webhook:
    return replace(
        there,
        secret=name,
        old_secret=there.secret,
        old_until=now + old_good_for_s,
        updated_at=now,
    )


def _forgotten(there: Webhook, now: float) -> Webhook:
    """Return a webhook without its old secret, unless that is another one by now."""
    if there.old_until is None or there.old_until > now:
        return there
    return replace(there, old_secret=None, old_until=None)


def _listed(events: Sequence[EventType] | None) -> tuple[EventType, ...] | None:
    return None if events is None else tuple(dict.fromkeys(events))


def _name(webhook: str, number: int) -> str:
    return f"webhook:{webhook}:{number}"


def _next_name(there: Webhook) -> str:
    """Return a name for the next secret that no other process finds at the same moment."""
    number = int(there.secret.rpartition(":")[2])
    return _name(there.id, number + 1 + secrets.randbelow(APART))
