"""A server on PostgreSQL: what it does on SQLite, through its faces and its commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.services import Database
from tests.serving import serving
from tests.terminals import Home, script

from hostler.app.settings import load_settings
from hostler.app.vaults import make_vault
from hostler.core.errors import SetupError
from hostler.core.ports import Reply, Request
from hostler.stores.postgres_schema import steps
from hostler.testing.doubles import ModelDouble, ToolboxDouble, a_call, a_tool, an_agent

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


def calls_once(request: Request) -> Reply:
    if len(request.transcript) > 1:
        return Reply(text="seven words of an answer, told once", stop="end")
    return Reply(text="", stop="tools", calls=(a_call("look"),))


async def test_a_turn_is_kept_listed_found_summed_and_deleted(postgres: Database) -> None:
    tools = ToolboxDouble({"look": a_tool("look")})
    async with serving(an_agent(ModelDouble(calls_once), tools=tools), file=postgres.url) as client:
        session = await client.session(title="a title")
        path = f"/api/sessions/{session}/messages"
        frames = [
            frame
            async for frame in client.frames(path, method="POST", body={"content": "go there"})
        ]
        found = await client.get("/api/search?q=answer+seven")
        runs = await client.get("/api/runs?status=done")
        usage = await client.get("/api/usage?by=agent")
        storage = await client.get("/api/storage")
        status, _ = await client.call("DELETE", f"/api/sessions/{session}")
        audit = await client.get("/api/audit")
        gone, _ = await client.call("GET", f"/api/sessions/{session}")

    assert frames[-1].event == "run_ended"
    assert frames[-1].data["status"] == "done"
    assert len(found["items"]) == len(runs["items"]) == len(usage["items"]) == 1  # type: ignore[arg-type]
    assert int(str(storage["database_bytes"])) > 0
    assert (status, gone) == (204, 404)
    assert [row["action"] for row in audit["items"]] == ["session.delete"]  # type: ignore[index]


async def test_what_a_server_kept_is_there_after_it_and_commands_read_it(
    postgres: Database, tmp_path: Path
) -> None:
    home = Home(tmp_path, {"HOSTLER_DATABASE": postgres.url})
    with home.server(script(tmp_path, {"text": "well said"})):
        said = home.run("run", "say it")
    listed = home.run("sessions")

    assert "well said" in said.stdout, said.stderr
    assert listed.returncode == 0, listed.stderr
    assert "say it" in listed.stdout or "ses_" in listed.stdout


async def test_the_schema_can_be_brought_up_to_date_by_hand(
    postgres: Database, tmp_path: Path
) -> None:
    await postgres.run("DROP SCHEMA hostler CASCADE")
    home = Home(tmp_path, {"HOSTLER_DATABASE": postgres.url})

    first, again, file = home.run("migrate"), home.run("migrate"), Home(tmp_path).run("migrate")

    assert first.stdout == f"took step {', '.join(str(step.number) for step in steps())}\n"
    assert again.stdout == "the schema is up to date\n"
    assert file.returncode != 0
    assert "PostgreSQL URL" in file.stderr


async def test_the_doctor_looks_at_the_database(postgres: Database, tmp_path: Path) -> None:
    def told(url: str) -> dict[str, str]:
        done = Home(tmp_path, {"HOSTLER_DATABASE": url}).run("doctor", "--json")
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        return next(line for line in lines if line["name"] == "database")

    well, passes = told(postgres.url), told(postgres.admin)
    await postgres.run("DROP SCHEMA hostler CASCADE")
    behind, absent = told(postgres.url), told(f"{postgres.url}_absent")

    assert (well["health"], passes["health"]) == ("ok", "warn")
    assert "row-level security" in passes["found"]
    assert (behind["health"], absent["health"]) == ("warn", "fail")


def test_a_database_may_be_a_file_or_a_postgresql_url(tmp_path: Path) -> None:
    url = "postgresql://me:a-password-of-some-length@db/hostler"
    settings = load_settings({"database": url, "data": tmp_path})

    assert settings.place == url
    with pytest.raises(SetupError, match="SQLite file"):
        _ = settings.database_file
    vault = make_vault(settings, admin_key="k" * 32, environ={})
    assert vault.hide(url) == "postgresql://me:[secret:HOSTLER_DATABASE]@db/hostler"
