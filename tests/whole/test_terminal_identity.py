"""`hostler tenants` and `hostler keys`, beside a server and without one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.terminals import Home

from hostler.app.terminal.identity import seconds
from hostler.core.errors import SetupError

pytestmark = pytest.mark.timeout(120)
KEY = re.compile(r"hk_[0-9a-f]{8}_[\w-]{43}\n")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_a_key_made_beside_a_server_opens_it_until_it_is_revoked(home: Home) -> None:
    with home.server("scripted:demo"):
        made = home.run("keys", "create", "--user", "alice", "--expires-in", "30d", "--title", "x")
        assert (made.returncode, made.stderr) == (0, "")
        assert KEY.fullmatch(made.stdout)
        (listed,) = home.run("keys", "list", "--json").stdout.splitlines()
        key = json.loads(listed)
        assert (key["user"], key["role"], key["title"]) == ("alice", "member", "x")
        assert made.stdout.strip() not in listed
        home.more["HOSTLER_ADMIN_KEY"] = made.stdout.strip()
        assert home.run("sessions", "--json").returncode == 0
        refused = home.run("keys", "create")
        assert (refused.returncode, refused.stdout) == (2, "")
        del home.more["HOSTLER_ADMIN_KEY"]
        assert home.run("keys", "revoke", key["id"]).returncode == 0
        home.more["HOSTLER_ADMIN_KEY"] = made.stdout.strip()

        refused = home.run("sessions")

        assert "no server that knows this key" in " ".join(refused.stderr.split())


def test_tenants_and_keys_are_made_in_a_new_folder_without_a_server(home: Home) -> None:
    assert home.run("tenants", "create", "acme", "--title", "Acme Ltd.").stdout == "acme\n"
    again = home.run("tenants", "create", "acme")
    assert (again.returncode, again.stdout) == (2, "")
    made = home.run("keys", "create", "--tenant", "acme", "--scope", "runs:read", "--role", "admin")
    assert KEY.fullmatch(made.stdout), made.stderr

    listed = home.run("tenants", "list").stdout

    assert re.search(r"acme +Acme Ltd\. ", listed)
    assert "default" in listed
    assert home.run("keys", "list").stdout == ""
    (line,) = home.run("keys", "list", "--tenant", "acme", "--json").stdout.splitlines()
    assert json.loads(line)["scopes"] == ["runs:read"]
    key = json.loads(line)["id"]
    assert home.run("keys", "revoke", key).returncode == 2, "it is not in this tenant"
    assert home.run("keys", "revoke", key, "--tenant", "acme").returncode == 0
    absent = home.run("keys", "create", "--tenant", "nobody")
    assert (absent.returncode, absent.stdout) == (2, "")
    assert "no tenant nobody" in absent.stderr


def test_endpoints_are_set_listed_and_removed_in_a_new_folder_without_a_server(home: Home) -> None:
    url = "https://models.example/v1"
    assert home.run("tenants", "create", "acme").returncode == 0
    made = home.run("endpoints", "set", "openai", url, "--tenant", "acme")
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
    inside = home.run("endpoints", "set", "openai", "https://10.0.0.1/v1", "--tenant", "acme")
    assert (inside.returncode, inside.stdout) == (2, "")
    assert "10.0.0.1:443 has no address that connections" in " ".join(inside.stderr.split())

    listed = home.run("endpoints", "list", "--tenant", "acme").stdout

    assert listed == f"openai\t{url}\n"
    assert home.run("endpoints", "list").stdout == ""
    assert home.run("endpoints", "remove", "openai").returncode == 2, "it is not in this tenant"
    assert home.run("endpoints", "remove", "openai", "--tenant", "acme").returncode == 0
    assert home.run("endpoints", "list", "--tenant", "acme").stdout == ""


@pytest.mark.parametrize(
    ("text", "wanted"), [("45s", 45), ("90m", 5400), ("12h", 43_200), ("30d", 2_592_000)]
)
def test_a_time_is_a_number_with_its_unit(text: str, wanted: int) -> None:
    assert seconds(text) == wanted


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1.5h", "1w", "30d ", "³d", "9" * 30 + "s"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(SetupError, match="30d"):
        seconds(text)
