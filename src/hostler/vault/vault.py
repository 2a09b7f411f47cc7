"""The vault: secrets opened once, when the house opens; masked by, found in and sealed from memory.

Masking has to know every value, so the values are in memory anyway; looking one up costs nothing
then, and a change is seen at once.

Invariant: a value is sealed before it is known here, and what cannot be opened is never replaced
by something else: its use fails.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

import anyio.to_thread

from hostler.core.errors import SetupError
from hostler.core.events import TenantId
from hostler.core.ports import mint
from hostler.core.sealed import DataKey, Mask, Named, Purpose, SealedRows, SealedSecret
from hostler.vault.envelope import MasterKey, Unopened, new_key, seal, unseal
from hostler.vault.forms import SHORTEST
from hostler.vault.masker import Masker

log = logging.getLogger(__name__)

BATCH = 100
"""Data keys that are wrapped again in one commit."""
KEPT_MASKS = 256
"""Tenants whose automatons are kept, ten megabytes each with a thousand secrets."""


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
    _learnt: dict[TenantId | None, dict[str, str]] = field(
        default_factory=dict[TenantId | None, dict[str, str]]
    )
    """Names of values that are kept elsewhere, or were kept here; None: for all tenants."""
    _data_keys: dict[tuple[TenantId, str], DataKey] = field(
        default_factory=dict[tuple[TenantId, str], DataKey]
    )
    _masks: dict[TenantId, Masker | None] = field(default_factory=dict[TenantId, Masker | None])
    _of_all: tuple[Masker | None, ...] = ()
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def mask(self, tenant: TenantId) -> Mask | None:
        try:
            return self._masks[tenant]
        except KeyError:
            pass
        with self._lock:  # so that no mask is made of what has changed meanwhile
            values = [*self._values(tenant), *self._learnt_by(None)]
            made = Masker(values) if values else None
            if len(self._masks) >= KEPT_MASKS:
                del self._masks[next(iter(self._masks))]
            self._masks[tenant] = made
            return made

    def mask_of_all(self) -> Mask | None:
        """Return what masks for the operator: the values of all tenants."""
        if not self._of_all:
            with self._lock:
                tenants = {*self._known, *self._learnt} - {None}
                values = [*self._learnt_by(None)]
                for tenant in tenants:
                    values += self._values(tenant)
                self._of_all = (Masker(values) if values else None,)
        return self._of_all[0]

    def hide(self, text: str) -> str:
        """Return the text as the operator may read it: no value of any tenant is in it."""
        mask = self.mask_of_all()
        return text if mask is None else mask.text(text)

    def _values(self, tenant: TenantId | None) -> list[tuple[str, str]]:
        known = {} if tenant is None else self._known.get(tenant, {})
        mine = [(name, one.value) for name, one in known.items() if one.value is not None]
        return [*mine, *self._learnt_by(tenant)]

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

    def learn(self, tenant: TenantId | None, name: str, value: str) -> None:
        if len(value.strip()) < SHORTEST or value in self._learnt.get(tenant, {}):
            return
        with self._lock:
            self._learnt.setdefault(tenant, {})[value] = name
            self._forget_masks(tenant)

    async def put(self, tenant: TenantId, name: str, kind: Purpose, value: str) -> Named:
        now, there = self._clock(), self._known.get(tenant, {}).get(name)
        made_at = now if there is None else there.about.created_at
        about = Named(tenant=tenant, name=name, kind=kind, created_at=made_at, updated_at=now)
        data_key, is_new = await self._data_key(tenant)
        plain = self._unwrapped(data_key)
        sealed = seal(plain, value.encode(), tenant, "secrets", "sealed", name)
        # Masked before it is kept: nothing may be written with it from the moment it is there.
        self.learn(tenant, name, value)
        if there is not None and there.value is not None:
            self.learn(tenant, name, there.value)  # what uses it may still be running
        await self._rows.put(
            SealedSecret(about=about, sealed=sealed, data_key=data_key.id),
            data_key if is_new else None,
        )
        self._data_keys[tenant, data_key.id] = data_key
        self._keep(tenant, _Known(about, value))
        return about

    async def drop(self, tenant: TenantId, name: str) -> bool:
        was_there = await self._rows.drop(tenant, name)
        with self._lock:
            gone = self._known.get(tenant, {}).pop(name, None)
            if gone is not None and gone.value is not None:
                # What used it may still be running, and say it.
                self._learnt.setdefault(tenant, {})[gone.value] = name
            self._forget_masks(tenant)
        return was_there

    async def rotate(self) -> int:
        newest = (await self._read_keys(make=True, again=True))[0]
        old = [one for one in self._data_keys.values() if one.wrapped_by != newest.id]
        for start in range(0, len(old), BATCH):
            batch = [
                _wrapped(one.tenant, one.id, self._unwrapped(one), newest)
                for one in old[start : start + BATCH]
            ]
            await self._rows.rewrap(batch)
            self._data_keys |= {(one.tenant, one.id): one for one in batch}
        return len(old)

    async def open(self, rows: SealedRows) -> None:
        """Open all that is kept in `rows`, where what is put goes, too.

        Raises:
            SetupError: a master key that is needed is not there.
        """
        self._kept_in, found = rows, await rows.data_keys()
        self._data_keys = {(one.tenant, one.id): one for one in found}
        if self._data_keys:
            here = {one.id for one in await self._read_keys()}
            missing = {one.wrapped_by for one in self._data_keys.values()} - here
            if missing:
                raise SetupError(
                    f"secrets are kept under the master key {', '.join(sorted(missing))}, and what "
                    f"is given here is {', '.join(sorted(here)) or 'none'}: give that one, too"
                )
        for row in await rows.secrets():
            self._keep(row.about.tenant, _Known(row.about, self._opened(row)))

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

    async def _read_keys(self, *, make: bool = False, again: bool = False) -> Sequence[MasterKey]:
        read = partial(self._master_keys, make=make, again=again)
        keys = self._keys = await anyio.to_thread.run_sync(read)
        for one in keys:
            self.learn(None, "master-key", one.written)
        return keys

    async def _data_key(self, tenant: TenantId) -> tuple[DataKey, bool]:
        """Return the tenant's newest data key, and whether it is new."""
        there = [one for (of, _), one in self._data_keys.items() if of == tenant]
        if there:
            return max(there, key=lambda one: one.id), False
        return _wrapped(tenant, mint("dk"), new_key(), (await self._read_keys(make=True))[0]), True

    def _unwrapped(self, data_key: DataKey) -> bytes:
        for one in self._keys:
            if one.id == data_key.wrapped_by:
                place = (data_key.tenant, "data_keys", "wrapped", data_key.id)
                return unseal(one.key, data_key.wrapped, *place)
        raise Unopened(f"the data key of {data_key.tenant} needs {data_key.wrapped_by}")

    def _keep(self, tenant: TenantId, known: _Known) -> None:
        with self._lock:
            self._known.setdefault(tenant, {})[known.about.name] = known
            self._forget_masks(tenant)

    def _learnt_by(self, tenant: TenantId | None) -> Iterable[tuple[str, str]]:
        return ((name, value) for value, name in self._learnt.get(tenant, {}).items())

    def _forget_masks(self, tenant: TenantId | None) -> None:
        self._of_all = ()
        if tenant is None:
            self._masks.clear()
        else:
            self._masks.pop(tenant, None)


def _wrapped(tenant: TenantId, name: str, plain: bytes, by: MasterKey) -> DataKey:
    sealed = seal(by.key, plain, tenant, "data_keys", "wrapped", name)
    return DataKey(tenant=tenant, id=name, wrapped=sealed, wrapped_by=by.id)
