"""The vault: secrets opened when the house opens; found in and sealed from memory.

Masking has to know every value, so the values are in memory anyway; looking one up costs nothing
then, and a change is seen at once.  What other processes change is read anew (`reread`).

Invariant: a value is masked before it is sealed, and sealed before it is found here; what cannot
be opened is never replaced by something else: its use fails.  Master keys that open all data keys
are not let go for some that do not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

import anyio

from hostler.core.errors import Conflict, SetupError
from hostler.core.events import TenantId
from hostler.core.ports import mint
from hostler.core.sealed import DataKey, Mask, Named, Purpose, SealedRows, SealedSecret
from hostler.vault.envelope import MasterKey, Unopened, new_key, seal, unseal
from hostler.vault.masks import Masks

log = logging.getLogger(__name__)

BATCH = 100
"""Data keys that are wrapped again in one commit."""
MOST = 1000
MOST_BYTES = 1 << 18
"""Secrets of one tenant, and what they have together: masking a thousand keys takes 10 to 20 MB,
a quarter of a megabyte of certificates 30, and whatever is hardest to mask under 100."""


class MasterKeys(Protocol):
    def __call__(self, *, make: bool, again: bool = False) -> Sequence[MasterKey]:
        """Return the operator's master keys, the newest first.

        `make` one if there is none; read them `again`, since they may have changed.

        Raises:
            SetupError: they cannot be had.
        """
        ...


class _Known(NamedTuple):
    about: Named
    value: str | None
    """None: it could not be opened."""


@dataclass(slots=True)
class SealedVault:
    """A `core.sealed.Vault`.  It masks what it has learnt from the first; `open` it for the rest."""

    _master_keys: MasterKeys
    _clock: Callable[[], float] = time.time
    _kept_in: SealedRows | None = None
    _keys: Sequence[MasterKey] = ()
    _known: dict[TenantId, dict[str, _Known]] = field(
        default_factory=dict[TenantId, dict[str, _Known]]
    )
    _data_keys: dict[tuple[TenantId, str], DataKey] = field(
        default_factory=dict[tuple[TenantId, str], DataKey]
    )
    _masks: Masks = field(default_factory=Masks)
    _alone: anyio.Lock = field(default_factory=anyio.Lock)
    """Held by whoever changes what is kept: a data key is not wrapped anew while it is used."""

    def mask(self, tenant: TenantId) -> Mask | None:
        return self._masks.of(tenant)

    def hide(self, text: str) -> str:
        """Return the text as the operator may read it: no value of any tenant is in it."""
        return self._masks.hide(text)

    def learn(self, tenant: TenantId | None, name: str, value: str) -> None:
        """Mask a value from now on that is kept elsewhere; of None, for all tenants."""
        self._masks.learn(tenant, name, value)

    async def cover(self, tenant: TenantId, name: str, value: str) -> None:
        await self._masks.cover(tenant, name, value)

    def find(self, tenant: TenantId, name: str) -> str | None:
        found = self._known.get(tenant, {}).get(name)
        if found is None:
            return None
        if found.value is None:
            raise SetupError(f"the secret {name} of {tenant} cannot be opened: set it again")
        return found.value

    def named(self, tenant: TenantId) -> Sequence[Named]:
        known = self._known.get(tenant, {})
        return [known[name].about for name in sorted(known)]

    async def put(self, tenant: TenantId, name: str, kind: Purpose, value: str) -> Named:
        async with self._alone:
            now, there = self._clock(), self._known.get(tenant, {}).get(name)
            self._check_room(tenant, name, value)
            made_at = now if there is None else there.about.created_at
            about = Named(tenant=tenant, name=name, kind=kind, created_at=made_at, updated_at=now)
            data_key, is_new = await self._data_key(tenant)
            place = (tenant, "secrets", "sealed", name)
            sealed = seal(self._unwrapped(data_key), value.encode(), *place)
            secret = SealedSecret(about=about, sealed=sealed, data_key=data_key.id)
            self._masks.keep(tenant, name, value)
            try:
                # Nothing may be written with it from the moment it is there.
                await self._masks.renew(tenant)
                await self._rows.put(secret, data_key if is_new else None)
            except BaseException:
                self._masks.keep(tenant, name, None if there is None else there.value)
                raise
            self._data_keys[tenant, data_key.id] = data_key
            self._known.setdefault(tenant, {})[name] = _Known(about, value)
            return about

    async def drop(self, tenant: TenantId, name: str) -> bool:
        async with self._alone:
            was_there = await self._rows.drop(tenant, name)
            self._known.get(tenant, {}).pop(name, None)
            self._masks.keep(tenant, name, None)  # what used it may still be running, and say it
            return was_there

    async def rotate(self) -> int:
        async with self._alone:
            keys = await self._read_keys(make=True, again=True)
            self._check_all_open(keys)
            self._keys = keys
            old = [one for one in self._data_keys.values() if one.wrapped_by != keys[0].id]
            for start in range(0, len(old), BATCH):
                batch = [
                    _wrapped(one.tenant, one.id, self._unwrapped(one), keys[0])
                    for one in old[start : start + BATCH]
                ]
                await self._rows.rewrap(batch)
                self._data_keys |= {(one.tenant, one.id): one for one in batch}
            return len(old)

    async def derived(self, use: str) -> Sequence[bytes]:
        """Return keys for another use than secrets, one of each master key, the newest first.

        Makes a master key if there is none.  Raises SetupError.
        """
        async with self._alone:
            if not self._keys:
                self._keys = await self._read_keys(make=True)
            return [one.derived(use) for one in self._keys]

    async def open(self, rows: SealedRows) -> None:
        """Open all that is kept in `rows`, where what is put goes, too.

        Raises:
            SetupError: a master key that is needed is not there.
        """
        self._kept_in, found = rows, await rows.data_keys()
        self._data_keys = {(one.tenant, one.id): one for one in found}
        if self._data_keys:
            self._keys = await self._read_keys()
            self._check_all_open(self._keys)
        for row in await rows.secrets():
            known = _Known(row.about, self._opened(row))
            self._known.setdefault(row.about.tenant, {})[row.about.name] = known
            self._masks.keep(row.about.tenant, row.about.name, known.value)
        await self._masks.open()

    async def reread(self) -> None:
        """Know what other processes have set and dropped; what is new is masked, and then found.

        What needs a master key that is not here is not found: its use fails.  Raises Unavailable.
        """
        async with self._alone:
            rows = await self._rows.secrets()  # before their keys, which are written with them
            found = await self._rows.data_keys()
            self._data_keys = {(one.tenant, one.id): one for one in found}
            await self._read_missing_keys()
            known = dict[TenantId, dict[str, _Known]]()
            for row in rows:
                there = self._known.get(row.about.tenant, {}).get(row.about.name)
                is_same = there is not None and there.about == row.about and there.value is not None
                one = there if is_same and there else _Known(row.about, self._opened(row))
                known.setdefault(row.about.tenant, {})[row.about.name] = one
            for tenant in {*known, *self._known}:
                await self._mask_anew(tenant, known.get(tenant, {}))
            self._known = known

    async def _mask_anew(self, tenant: TenantId, known: Mapping[str, _Known]) -> None:
        before = {name: one.value for name, one in self._known.get(tenant, {}).items()}
        values = {name: one.value for name, one in known.items()}
        changed = [one for one in {*before, *values} if before.get(one) != values.get(one)]
        for name in changed:
            self._masks.keep(tenant, name, values.get(name))
        if changed:
            await self._masks.renew(tenant)

    async def _read_missing_keys(self) -> None:
        """Read the master keys again if one is needed that is not here; those that are here stay."""
        if {one.wrapped_by for one in self._data_keys.values()} <= {one.id for one in self._keys}:
            return
        try:
            keys = await self._read_keys(again=True)
        except SetupError as error:
            log.error("master keys cannot be read: %s", error)  # noqa: TRY400  it says all
            return
        new = {one.id for one in keys}
        self._keys = [*keys, *(one for one in self._keys if one.id not in new)]

    @property
    def _rows(self) -> SealedRows:
        if self._kept_in is None:
            raise SetupError("the vault is not open")
        return self._kept_in

    def _opened(self, row: SealedSecret) -> str | None:
        about = row.about
        try:
            data_key = self._data_keys[about.tenant, row.data_key]
            place = (about.tenant, "secrets", "sealed", about.name)
            return unseal(self._unwrapped(data_key), row.sealed, *place).decode()
        except (KeyError, Unopened) as error:
            log.error(  # noqa: TRY400  the trace says nothing more
                "a secret of %s cannot be opened, and what needs it will fail: %s: %s",
                about.tenant,
                about.name,
                error,
            )
            return None

    def _check_room(self, tenant: TenantId, name: str, value: str) -> None:
        others = [one for one in self._known.get(tenant, {}).values() if one.about.name != name]
        if len(others) >= MOST:
            raise Conflict(f"a tenant may have {MOST} secrets", code="too_many_secrets")
        size = sum(len((one.value or "").encode()) for one in others) + len(value.encode())
        if size > MOST_BYTES:
            raise Conflict(
                f"the secrets of a tenant may have {MOST_BYTES} bytes together",
                code="too_many_secrets",
            )

    async def _read_keys(self, *, make: bool = False, again: bool = False) -> Sequence[MasterKey]:
        read = partial(self._master_keys, make=make, again=again)
        keys = await anyio.to_thread.run_sync(read)
        for one in keys:
            self.learn(None, "master-key", one.written)
        return keys

    def _check_all_open(self, keys: Sequence[MasterKey]) -> None:
        """Raise SetupError unless each data key is wrapped by one of `keys`."""
        here = {one.id for one in keys}
        missing = {one.wrapped_by for one in self._data_keys.values()} - here
        if missing:
            raise SetupError(
                f"secrets are kept under the master key {', '.join(sorted(missing))}, and what "
                f"is given here is {', '.join(sorted(here)) or 'none'}: give that one, too"
            )

    async def _data_key(self, tenant: TenantId) -> tuple[DataKey, bool]:
        """Return the tenant's newest data key, and whether it is new."""
        there = [one for (of, _), one in self._data_keys.items() if of == tenant]
        if there:
            return max(there, key=lambda one: one.id), False
        if not self._keys:
            self._keys = await self._read_keys(make=True)
        return _wrapped(tenant, mint("dk"), new_key(), self._keys[0]), True

    def _unwrapped(self, data_key: DataKey) -> bytes:
        for one in self._keys:
            if one.id == data_key.wrapped_by:
                place = (data_key.tenant, "data_keys", "wrapped", data_key.id)
                return unseal(one.key, data_key.wrapped, *place)
        raise Unopened(f"the data key of {data_key.tenant} needs {data_key.wrapped_by}")


def _wrapped(tenant: TenantId, name: str, plain: bytes, by: MasterKey) -> DataKey:
    sealed = seal(by.key, plain, tenant, "data_keys", "wrapped", name)
    return DataKey(tenant=tenant, id=name, wrapped=sealed, wrapped_by=by.id)
