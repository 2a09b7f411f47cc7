"""What every directory promises, one check per promise: run them on yours.

    @pytest.mark.parametrize("check", DIRECTORY_SUITE, ids=lambda check: check.__name__)
    async def test_directory(check, tmp_path):
        await check(lambda: open_my_store_and_directory(tmp_path))

Invariant: a check knows the ports alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, TypeAlias

import anyio
from msgspec.structs import replace

from hostler.core.directory import (
    DEFAULT,
    ApiKey,
    Directory,
    Endpoint,
    Grant,
    Standing,
    Tenant,
    TenantSettings,
)
from hostler.core.errors import Invalid, NotFound
from hostler.core.events import Key, PrincipalId, SessionId, TenantId
from hostler.core.ledger import RunFilter
from hostler.core.records import Session
from hostler.core.store import Store
from hostler.testing.doubles import a_session
from hostler.testing.store_kit import a_run, asked, ended, refused, spoke

Open: TypeAlias = Callable[[], AbstractAsyncContextManager[tuple[Store, Directory]]]
"""Opens an empty store with its directory, and closes both in the end."""
Check: TypeAlias = Callable[[Open], Awaitable[None]]
ACME, ALICE, BOB = TenantId("acme"), PrincipalId("alice"), PrincipalId("bob")


def a_key(name: str, *, tenant: TenantId = DEFAULT, user: PrincipalId | None = ALICE) -> ApiKey:
    """Return a key; `name` is in its id and digest."""
    return ApiKey(
        tenant=tenant,
        id=f"key_{name}",
        user=user,
        role="member",
        scopes=frozenset({"runs:read", "sessions:read"}),
        prefix="hk_00000000",
        digest=f"digest of {name} in {tenant}",
        title='a "title" \u2028',
        created_at=1.5,
        expires_at=99.25,
    )


def a_grant(
    key: Key, user: PrincipalId = BOB, role: Literal["member", "viewer"] = "viewer"
) -> Grant:
    return Grant(tenant=key.tenant, session=key.session, user=user, role=role, by=ALICE, at=2.5)


async def of(store: Store, owner: str, *, tenant: str = "default", name: str | None = None) -> Key:
    """Make a session of somebody's."""
    key = Key(TenantId(tenant), SessionId(name or f"ses_of_{owner}_{len(owner)}"))
    session = Session(
        tenant=key.tenant,
        id=key.session,
        agent="double",
        principal=PrincipalId(owner),
        created_at=1.0,
        updated_at=1.0,
    )
    assert await store.create(session)
    return key


async def the_default_tenant_is_always_there(make: Open) -> None:
    async with make() as (_, directory):
        assert (await directory.tenant(DEFAULT)).settings == TenantSettings()
        assert [one.id for one in await directory.tenants(after="", limit=9)] == [DEFAULT]


async def tenants_are_made_once_listed_by_id_and_changed(make: Open) -> None:
    async with make() as (_, directory):
        settings = TenantSettings(most_sessions=3, retention_days=0.5, default_agent="ü")
        made = Tenant(id=ACME, title="Acme", created_at=7.25, settings=settings)
        assert await directory.create_tenant(made)
        assert not await directory.create_tenant(replace(made, title="another"))
        assert await directory.tenant(ACME) == made

        changed = replace(made, title=None, settings=TenantSettings(most_streams=0))
        assert await directory.change_tenant(ACME, lambda _: changed) == changed

        assert await directory.tenant(ACME) == changed
        assert [one.id for one in await directory.tenants(after="", limit=1)] == [ACME]
        assert [one.id for one in await directory.tenants(after=ACME, limit=9)] == [DEFAULT]
        nobody = replace(made, id=TenantId("nobody"))
        await refused(NotFound, directory.change_tenant(nobody.id, lambda there: there))
        await refused(NotFound, directory.tenant(nobody.id))


async def changes_of_one_tenant_at_once_undo_nothing(make: Open) -> None:
    def more(there: Tenant) -> Tenant:
        most = (there.settings.most_sessions or 0) + 1
        return replace(there, settings=TenantSettings(most_sessions=most))

    def never(_: Tenant) -> Tenant:
        raise Invalid("these settings cannot be")

    async with make() as (_, directory):
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(directory.change_tenant, DEFAULT, more)
                tasks.start_soon(refused, Invalid, directory.change_tenant(DEFAULT, never))

        assert (await directory.tenant(DEFAULT)).settings.most_sessions == 20


async def a_key_is_found_by_its_digest_and_by_its_tenant(make: Open) -> None:
    async with make() as (_, directory):
        await directory.create_tenant(Tenant(id=ACME, title=None, created_at=1.0))
        mine, theirs = a_key("1"), replace(a_key("1", tenant=ACME), scopes=None, user=None)
        await directory.add_key(mine)
        await directory.add_key(theirs)

        assert await directory.key_of_digest(mine.digest) == mine
        assert await directory.key_of_digest(theirs.digest) == theirs
        assert await directory.key_of_digest("nothing") is None
        assert await directory.key(ACME, "key_1") == theirs
        await refused(NotFound, directory.key(ACME, "key_2"))
        await refused(NotFound, directory.add_key(a_key("3", tenant=TenantId("nobody"))))


async def keys_are_listed_newest_first_for_their_tenant_and_user(make: Open) -> None:
    async with make() as (_, directory):
        await directory.create_tenant(Tenant(id=ACME, title=None, created_at=1.0))
        for key in (a_key("1"), a_key("2", user=BOB), a_key("3"), a_key("4", tenant=ACME)):
            await directory.add_key(key)

        async def listed(user: PrincipalId | None, after: str = "", limit: int = 9) -> list[str]:
            found = await directory.keys(DEFAULT, user=user, after=after, limit=limit)
            return [key.id for key in found]

        assert await listed(None) == ["key_3", "key_2", "key_1"]
        assert await listed(None, after="key_3", limit=1) == ["key_2"]
        assert await listed(ALICE) == ["key_3", "key_1"]
        assert await listed(PrincipalId("nobody")) == []


async def a_key_is_revoked_once_and_only_in_its_tenant(make: Open) -> None:
    async with make() as (_, directory):
        await directory.create_tenant(Tenant(id=ACME, title=None, created_at=1.0))
        key = a_key("1")
        await directory.add_key(key)

        await refused(NotFound, directory.revoke_key(ACME, key.id, at=5.0))
        assert await directory.key_of_digest(key.digest) == key
        for at in (5.5, 6.5):
            await directory.revoke_key(DEFAULT, key.id, at=at)

        assert await directory.key_of_digest(key.digest) == replace(key, revoked_at=5.5)


async def a_key_s_last_use_never_goes_back(make: Open) -> None:
    async with make() as (_, directory):
        key = a_key("1")
        await directory.add_key(key)

        for at in (5.5, 4.5):
            await directory.touch_keys({(DEFAULT, key.id): at, (ACME, "key_9"): at})

        assert (await directory.key(DEFAULT, key.id)).used_at == 5.5


async def an_endpoint_is_one_tenant_s_for_one_provider(make: Open) -> None:
    async with make() as (_, directory):
        await directory.create_tenant(Tenant(id=ACME, title=None, created_at=1.0))
        made = Endpoint(
            tenant=DEFAULT,
            provider="openai",
            base_url="https://a.example/v1",
            created_at=1.5,
            updated_at=1.5,
        )
        theirs = replace(made, tenant=ACME, base_url="https://b.example/v1")
        for one in (made, theirs, replace(made, provider="anthropic")):
            await directory.put_endpoint(one)
        moved = replace(made, base_url="https://c.example/ü", created_at=2.5, updated_at=2.5)
        await directory.put_endpoint(moved)

        kept = [theirs, replace(made, provider="anthropic"), replace(moved, created_at=1.5)]
        assert await directory.endpoints() == kept
        assert not await directory.drop_endpoint(ACME, "anthropic")
        assert await directory.drop_endpoint(ACME, "openai")
        assert not await directory.drop_endpoint(ACME, "openai")
        assert await directory.endpoints() == kept[1:]
        nobody = replace(made, tenant=TenantId("nobody"))
        await refused(NotFound, directory.put_endpoint(nobody))


async def a_grant_is_one_user_s_and_goes_with_its_session(make: Open) -> None:
    async with make() as (store, directory):
        key, other = await of(store, ALICE), await a_session(store)
        await refused(NotFound, directory.grant(a_grant(Key(ACME, key.session))))
        await directory.grant(a_grant(key))
        await directory.grant(a_grant(key, role="member"))
        await directory.grant(a_grant(key, PrincipalId("zoe")))

        assert await directory.grants(key) == [
            a_grant(key, role="member"),
            a_grant(key, PrincipalId("zoe")),
        ]
        assert await directory.grants(other) == []
        await directory.ungrant(key, PrincipalId("zoe"))
        await directory.ungrant(key, PrincipalId("zoe"))
        assert [one.user for one in await directory.grants(key)] == [BOB]
        await store.delete(key)
        await of(store, "somebody", name=key.session)
        assert await directory.grants(key) == []
        assert await directory.standing(key, BOB) is None
        assert await directory.standing(key, ALICE) is None


async def a_standing_is_the_owner_s_or_what_was_granted(make: Open) -> None:
    async with make() as (store, directory):
        key = await of(store, ALICE)
        await of(store, BOB, tenant="acme", name=key.session)
        await directory.grant(a_grant(key))

        async def standing(user: str, *, at: Key = key) -> Standing | None:
            return await directory.standing(at, PrincipalId(user))

        assert [await standing(user) for user in (ALICE, BOB, "zoe")] == ["owner", "viewer", None]
        assert await standing(ALICE, at=Key(ACME, key.session)) is None
        assert await standing(ALICE, at=Key(DEFAULT, SessionId("ses_absent00"))) is None


async def lists_show_somebody_what_they_made_or_were_granted(make: Open) -> None:
    async with make() as (store, directory):
        names = {"mine": ALICE, "shared": BOB, "theirs": BOB}
        keys = [await of(store, who, name=f"ses_{name}") for name, who in names.items()]
        await of(store, ALICE, tenant="acme", name="ses_mine")
        for number, key in enumerate(keys):
            run = f"run_{number}"
            await store.append(key, [spoke(run, "the same words"), *a_run(run, "x", claim=1)])
            await store.append(key, [spoke(f"run_w{number}", "waits")])
            await store.append(key, [asked(f"run_w{number}", f"call_{number}")])
        await directory.grant(a_grant(keys[1], ALICE))
        await directory.grant(a_grant(keys[0], ALICE))  # says nothing new

        seen = await _seen(store, ALICE)
        assert seen["sessions"] == seen["idle"] | seen["busy"] == {"ses_mine", "ses_shared"}
        assert seen["runs"] == {"run_0", "run_w0", "run_1", "run_w1"}
        assert seen["approvals"] == {"call_0", "call_1"}
        assert seen["hits"] == seen["storage"] == {"ses_mine", "ses_shared"}
        everything = await _seen(store, None)
        assert len(everything["sessions"]) == len(everything["hits"]) == 3
        assert {name: len(of) for name, of in (await _seen(store, PrincipalId("x"))).items()} == (
            dict.fromkeys(seen, 0)
        )


async def _seen(store: Store, by: PrincipalId | None) -> dict[str, set[str]]:
    tenant = DEFAULT

    async def sessions(status: str | None) -> list[str]:
        found = await store.sessions(
            tenant, agent=None, status=status, after="", limit=100, seen_by=by
        )
        return [one.id for one in found]

    only = RunFilter(seen_by=by)
    runs = await store.runs(tenant, session=None, status=None, after="", limit=100, only=only)
    one_s = await store.runs(
        tenant, session="ses_theirs", status=None, after="", limit=100, only=only
    )
    approvals = await store.approvals(
        tenant, session=None, status="open", after="", limit=100, seen_by=by
    )
    hits = await store.search(tenant, "same words", limit=100, seen_by=by)
    storage = await store.storage(tenant, limit=100, seen_by=by)
    assert storage.sessions == len(storage.largest)
    found = [*await sessions(None), *[run.id for run in runs], *[hit.session for hit in hits]]
    assert len(found) == len(set(found)) + len(hits), "each is shown once"
    assert (by is None) == bool(one_s)
    return {
        "sessions": set(await sessions(None)),
        "idle": set(await sessions("idle")),
        "busy": {*await sessions("queued"), *await sessions("running"), *await sessions("waiting")},
        "runs": {run.id for run in runs},
        "approvals": {one.call for one in approvals},
        "hits": {hit.session for hit in hits},
        "storage": {session for session, *_ in storage.largest},
    }


async def what_is_active_is_counted_by_tenant(make: Open) -> None:
    async with make() as (store, _):
        going, parked = await of(store, ALICE, name="ses_1"), await of(store, BOB, name="ses_2")
        await of(store, BOB, name="ses_3")
        await store.append(going, [spoke("run_1")])
        await store.append(parked, [spoke("run_2")])
        await store.append(await of(store, BOB, tenant="acme"), [spoke("run_1")])
        assert (await store.count(DEFAULT), await store.count(DEFAULT, active=True)) == (3, 2)

        await store.append(parked, [ended("run_2")])

        assert await store.count(DEFAULT, active=True) == 1


async def what_may_go_is_told_for_one_tenant_or_for_all_but_some(make: Open) -> None:
    async with make() as (store, _):
        mine = [await of(store, ALICE, name=f"ses_{n}") for n in range(3)]
        theirs = [await of(store, ALICE, tenant="acme", name=f"ses_{n}") for n in range(3)]
        for key in (*mine, *theirs):
            await store.append(key, [spoke("run_" + key.session), ended("run_" + key.session)])

        async def chosen(keep: int, **whose: object) -> set[Key]:
            found = await store.forgettable(
                before=0.0,
                keep=keep,
                limit=9,
                **whose,  # type: ignore[arg-type]
            )
            return set(found)

        assert len(await chosen(1)) == 4
        assert {key.tenant for key in await chosen(1, of=ACME)} == {ACME}
        assert {key.tenant for key in await chosen(1, but=[ACME])} == {DEFAULT}
        assert await chosen(1, but=[ACME, DEFAULT]) == set()
        assert await chosen(3, of=ACME) == set()


DIRECTORY_SUITE: Sequence[Check] = (
    the_default_tenant_is_always_there,
    tenants_are_made_once_listed_by_id_and_changed,
    changes_of_one_tenant_at_once_undo_nothing,
    a_key_is_found_by_its_digest_and_by_its_tenant,
    keys_are_listed_newest_first_for_their_tenant_and_user,
    a_key_is_revoked_once_and_only_in_its_tenant,
    a_key_s_last_use_never_goes_back,
    an_endpoint_is_one_tenant_s_for_one_provider,
    a_grant_is_one_user_s_and_goes_with_its_session,
    a_standing_is_the_owner_s_or_what_was_granted,
    lists_show_somebody_what_they_made_or_were_granted,
    what_is_active_is_counted_by_tenant,
    what_may_go_is_told_for_one_tenant_or_for_all_but_some,
)
