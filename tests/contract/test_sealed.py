"""Sealed secrets are kept, replaced, wrapped again and scrubbed alike by every store."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from tests.canaries import FixedKeys, master_keys

from hostler.core.errors import SetupError
from hostler.core.events import TenantId
from hostler.core.sealed import SealedRows, SealedSecret
from hostler.core.store import Store
from hostler.stores.memory import MemoryStore
from hostler.stores.memory_sealed import MemorySealed
from hostler.stores.sqlite import SqliteStore
from hostler.stores.sqlite_sealed import SqliteSealed
from hostler.vault.envelope import Unopened, new_key, seal, unseal
from hostler.vault.vault import SealedVault

pytestmark = pytest.mark.anyio
A, B = TenantId("a"), TenantId("b")
VALUE = "sk-0123456789abcdef"


@pytest.fixture(params=["memory", "sqlite"])
async def kept(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncGenerator[tuple[Store, SealedRows]]:
    if request.param == "memory":
        memory = MemoryStore()
        yield memory, MemorySealed(memory)
        return
    store = SqliteStore.open(tmp_path / "log.db")
    yield store, SqliteSealed(store, tmp_path / "log.db")
    store.close()


async def opened(rows: SealedRows, keys: FixedKeys) -> SealedVault:
    vault = SealedVault(keys)
    await vault.open(rows)
    return vault


async def test_a_secret_is_found_again_by_its_tenant_alone(kept: tuple[Store, SealedRows]) -> None:
    _, rows, keys = *kept, master_keys()
    first = await opened(rows, keys)
    await first.put(A, "github", "tool", VALUE)

    again = await opened(rows, keys)

    assert again.find(A, "github") == VALUE
    assert again.find(B, "github") is None
    assert [one.name for one in again.named(A)] == ["github"]
    assert all(VALUE.encode() not in one.sealed for one in await rows.secrets())


async def test_a_replaced_secret_keeps_when_it_was_made_and_stays_masked(
    kept: tuple[Store, SealedRows],
) -> None:
    _, rows, keys = *kept, master_keys()
    times = iter([1.0, 2.0])
    vault = SealedVault(keys, _clock=lambda: next(times))
    await vault.open(rows)
    await vault.put(A, "github", "tool", VALUE)
    await vault.put(A, "github", "tool", "another-value")

    mask, (row,) = vault.mask(A), await rows.secrets()

    assert vault.find(A, "github") == "another-value"
    assert (row.about.created_at, row.about.updated_at) == (1.0, 2.0)
    assert mask is not None
    assert mask.text(f"{VALUE} another-value") == "[secret:github] [secret:github]"


async def test_a_removed_secret_is_gone_and_its_value_still_masked(
    kept: tuple[Store, SealedRows],
) -> None:
    _, rows, keys = *kept, master_keys()
    vault = await opened(rows, keys)
    await vault.put(A, "github", "tool", VALUE)

    assert await vault.drop(A, "github")
    assert not await vault.drop(A, "github")

    mask = vault.mask(A)
    assert vault.find(A, "github") is None
    assert await rows.secrets() == []
    assert mask is not None
    assert VALUE not in mask.text(VALUE)


async def test_a_rotation_that_was_cut_is_finished_by_the_next(
    kept: tuple[Store, SealedRows],
) -> None:
    old, new = new_key(), new_key()
    _, rows, keys = *kept, master_keys(old)
    vault = await opened(rows, keys)
    for tenant in (A, B):
        await vault.put(tenant, "github", "tool", f"{VALUE}-{tenant}")
    keys.keys = master_keys(new, old).keys

    assert await vault.rotate() == 2
    assert await vault.rotate() == 0

    found = await opened(rows, master_keys(new))
    assert [found.find(tenant, "github") for tenant in (A, B)] == [f"{VALUE}-a", f"{VALUE}-b"]


async def test_a_rotation_half_done_is_read_with_both_keys(kept: tuple[Store, SealedRows]) -> None:
    old, new = new_key(), new_key()
    _, rows = kept
    vault = await opened(rows, master_keys(old))
    await vault.put(A, "github", "tool", VALUE)

    other = await opened(rows, master_keys(new, old))
    await other.put(B, "github", "tool", VALUE)

    assert other.find(A, "github") == other.find(B, "github") == VALUE
    assert await other.rotate() == 1


async def test_without_the_master_key_nothing_opens_and_the_error_names_it(
    kept: tuple[Store, SealedRows],
) -> None:
    _, rows = kept
    await (await opened(rows, keys := master_keys())).put(A, "github", "tool", VALUE)

    with pytest.raises(SetupError, match=keys.keys[0].id) as refused:
        await opened(rows, master_keys())

    assert VALUE not in str(refused.value)
    assert keys.keys[0].written not in str(refused.value)


async def test_a_sealed_value_moved_to_another_tenant_or_name_does_not_open(
    kept: tuple[Store, SealedRows],
) -> None:
    _, rows, keys = *kept, master_keys()
    vault = await opened(rows, keys)
    await vault.put(A, "one", "tool", VALUE)
    await vault.put(A, "two", "tool", f"{VALUE}-two")
    await vault.put(B, "one", "tool", f"{VALUE}-b")
    one, two, of_b = await rows.secrets()
    await rows.put(SealedSecret(about=two.about, sealed=one.sealed, data_key=one.data_key), None)
    await rows.put(SealedSecret(about=of_b.about, sealed=one.sealed, data_key=one.data_key), None)

    again = await opened(rows, keys)

    assert again.find(A, "one") == VALUE
    for tenant, name in ((A, "two"), (B, "one")):
        with pytest.raises(SetupError, match="cannot be opened"):
            again.find(tenant, name)


@pytest.mark.parametrize("at", [0, 3, 20, -1])
def test_a_changed_byte_is_seen(at: int) -> None:
    key = new_key()
    sealed = bytearray(seal(key, VALUE.encode(), "a", "secrets", "sealed", "one"))
    sealed[at] ^= 1

    with pytest.raises(Unopened) as refused:
        unseal(key, bytes(sealed), "a", "secrets", "sealed", "one")

    assert VALUE not in str(refused.value)
