"""`hostler audit verify` on a PostgreSQL database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from click.testing import CliRunner, Result
from tests.services import Database, apart

from hostler.app.commands.audit import audit
from hostler.app.storage import open_storage
from hostler.core.audited import ChainHead, Entry
from hostler.core.errors import SetupError
from hostler.core.events import PrincipalId, TenantId

DEFAULT, ACME = TenantId("default"), TenantId("acme")


def verified(database: str, *more: str) -> Result:
    return CliRunner().invoke(audit, ["verify", "--database", database, *more])


def fill(database: Database) -> ChainHead:
    """Write a few rows for each of two tenants; return where the first one's chain ends."""
    heads = list[ChainHead]()

    async def write() -> None:
        async with open_storage(database.url) as storage:
            for number in range(6):
                tenant = (DEFAULT, ACME)[number % 2]
                await storage.audits.write(
                    Entry(tenant=tenant, action="key.create", principal=PrincipalId("admin"))
                )
            heads.append(await storage.audits.head(DEFAULT))

    apart(write)
    return heads[0]


def changed(database: Database, statement: str) -> None:
    work: Callable[[], Awaitable[object]] = lambda: database.run(statement)  # noqa: E731
    apart(work)


def test_a_chain_in_postgresql_is_checked_and_a_break_is_told(postgres: Database) -> None:
    head = fill(postgres)
    name = f"{head.seq}:{head.hash}"

    whole = verified(postgres.url)
    one = verified(postgres.url, "--tenant", "default", "--head", name)
    unclear = verified(postgres.url, "--head", name)
    changed(postgres, "UPDATE audit SET principal = 'somebody' WHERE tenant = 'acme' AND seq = 2")
    broken = verified(postgres.url)
    changed(postgres, "DELETE FROM audit WHERE tenant = 'default' AND seq = 3")
    cut = verified(postgres.url, "--tenant", "default", "--head", name)

    assert whole.exit_code == 0, whole.output
    assert [line.split(":")[:2] for line in whole.stdout.splitlines()] == [
        ["acme", " whole up to 3"],
        ["default", " whole up to 3"],
    ]
    assert (one.exit_code, one.stdout) == (0, f"default: whole up to {name}\n")
    assert (unclear.exit_code, "say which with --tenant" in unclear.output) == (2, True)
    assert (broken.exit_code, "broken at row 2" in broken.output) == (1, True)
    assert cut.exit_code == 1


def test_a_database_without_an_audit_log_is_named(postgres: Database) -> None:
    without = postgres.admin.rpartition("/")[0] + "/postgres"

    told = verified(without)

    assert isinstance(told.exception, SetupError)
    assert "no audit log" in str(told.exception)


def test_a_file_that_is_not_there_is_named() -> None:
    told = verified("nowhere.db")

    assert (told.exit_code, "there is no database nowhere.db" in told.output) == (2, True)
