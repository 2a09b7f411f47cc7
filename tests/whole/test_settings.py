"""Settings come from flags, variables and a file, in this order, and mistakes are named."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from tests.canaries import canary

from hostler.app.keys import AdminGate, admin_key, key_file
from hostler.app.settings import load_settings, unknown_variables
from hostler.core.errors import SetupError, Unauthorised


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HOSTLER_PORT", "HOSTLER_DATA", "HOSTLER_MODEL", "HOSTLER_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_a_flag_beats_a_variable_which_beats_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hostler.toml").write_text('port = 1\nhost = "localhost"\nmodel = "a:b"\n')
    assert load_settings({}).port == 1
    monkeypatch.setenv("HOSTLER_PORT", "2")
    assert load_settings({}).port == 2
    settings = load_settings({"port": 3, "host": None})
    assert (settings.port, settings.host, settings.model) == (3, "localhost", "a:b")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prot = 1", "prot is no setting; did you mean port?"),
        ('port = "many"', "port: Input should be a valid integer"),
        ("port = ", "hostler.toml is not TOML"),
        ("[server]\nport = 1", "server is no setting"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "hostler.toml").write_text(text)
    with pytest.raises(SetupError, match=told.replace("?", "[?]")):
        load_settings({})


@pytest.mark.parametrize(
    "text",
    [
        'admin_key = ["VALUE"]',
        'master_key = ["VALUE"]',
        'admin_key = "VALUE',
        'providers.own = "VALUE"',
        'providers.own.headers = "VALUE"',
        'providers.own.headers = {X-Api-Key = ["VALUE"]}',
        'providers.own.key = "VALUE"',
        'providers.own.key_env = "VALUE"',
    ],
)
def test_a_mistake_beside_a_secret_is_told_without_it(tmp_path: Path, text: str) -> None:
    value = canary("value in the settings", "a-value-of-some-length")
    (tmp_path / "hostler.toml").write_text(text.replace("VALUE", value))
    with pytest.raises(SetupError) as told:
        load_settings({})

    assert value not in str(told.value)


@pytest.mark.parametrize("name", ["providers", "egress", "direct", "rates", "identity"])
@pytest.mark.parametrize("text", ["VALUE", '{"own": VALUE}', '["VALUE"]', '"VALUE"', "7"])
def test_a_variable_that_is_not_the_json_it_should_be_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    value = canary("a variable", "sk-variable-0123456789abcdef")
    monkeypatch.setenv(f"HOSTLER_{name.upper()}", text.replace("VALUE", value))
    with pytest.raises(SetupError) as refused:
        load_settings({})

    told = str(refused.value)
    assert name in told.lower()
    assert value not in told


def test_a_variable_that_sets_nothing_is_remarked_and_no_error() -> None:
    assert unknown_variables({"HOSTLER_PROT": "1", "HOSTLER_PORT": "2", "PATH": ""}) == [
        "HOSTLER_PROT sets nothing; did you mean HOSTLER_PORT?"
    ]


def test_an_address_that_others_can_reach_needs_tls_or_a_word() -> None:
    with pytest.raises(SetupError, match="--insecure"):
        load_settings({"host": "0.0.0.0"})
    assert load_settings({"host": "0.0.0.0", "insecure": True}).host == "0.0.0.0"
    with_tls = {"host": "::", "tls_cert": "c.pem", "tls_key": "k.pem"}
    assert load_settings(with_tls).host == "::"


def test_the_database_is_in_the_data_folder_unless_said_otherwise(tmp_path: Path) -> None:
    assert load_settings({"data": tmp_path}).database_file == tmp_path / "hostler.db"
    assert load_settings({"database": "sqlite:///x/y.db"}).database_file == Path("/x/y.db")
    with pytest.raises(SetupError, match="mysql://"):
        _ = load_settings({"database": "mysql://x"}).database_file


def test_a_key_is_made_once_and_can_be_read_by_its_owner_alone(tmp_path: Path) -> None:
    key, is_new = admin_key(None, tmp_path / "data")
    assert is_new
    assert admin_key(None, tmp_path / "data") == (key, False)
    assert key_file(tmp_path / "data").stat().st_mode & 0o777 == 0o600
    assert key.startswith("hk_")
    assert len(key) >= 32


def test_a_given_key_is_taken_and_not_stored_and_a_short_one_refused(tmp_path: Path) -> None:
    assert admin_key("x" * 32, tmp_path) == ("x" * 32, False)
    assert not key_file(tmp_path).exists()
    with pytest.raises(SetupError, match="at least 32"):
        admin_key("x" * 31, tmp_path)


def test_the_key_is_not_shown_where_settings_are() -> None:
    settings = load_settings({"admin_key": "secret-" * 6})
    assert "secret-" not in repr(settings)
    assert "secret-" not in str(settings.model_dump())


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic k", "bearer wrong", "Bearer k k", "Bearer \u00e9"]
)
def test_only_the_key_opens(header: str) -> None:
    gate = AdminGate(b"k" * 32)
    found = None
    with suppress(Unauthorised):  # or it may be another key
        found = gate({"authorization": header})
    assert found is None
    opened = gate({"authorization": "bearer " + "k" * 32})
    assert opened is not None
    assert opened.is_operator


ISSUER = '[[identity.jwt]]\nissuer = "https://a.example"\naudience = "hostler"\n'
PROXY = '[identity.proxy]\ntrusted = ["127.0.0.1"]\ndefault_tenant = "main"\n'


def test_issuers_and_a_proxy_are_read_from_the_file(tmp_path: Path) -> None:
    more = 'tenant_claim = "org"\nroles = { "ops" = "admin" }\n'
    (tmp_path / "hostler.toml").write_text(f"{ISSUER}{more}{PROXY}[rates]\nruns_per_s = 1\n")

    settings = load_settings({})

    assert settings.identity.jwt[0].audience == ("hostler",)
    assert settings.identity.proxy is not None
    assert settings.identity.proxy.headers == {"x-forwarded-user"}
    assert settings.rates.runs_per_s == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (ISSUER, "tenant_claim or default_tenant"),
        (f'{ISSUER}default_tenant = "a"\njwks_url = "http://a.example/jwks"', "https://"),
        (f'{ISSUER}default_tenant = "a"\njwks_url = "https://u:p@a.example/"', "plain URL"),
        (f'{ISSUER}default_tenant = "a"\nalgorithms = ["HS256"]', "algorithms.0"),
        (f'{ISSUER}default_tenant = "a"\nalgorithms = []', "algorithms"),
        (f'{ISSUER}default_tenant = "a/b"', "default_tenant"),
        (f'{ISSUER}default_tenant = "a"\nroles = {{ "x" = "root" }}', "roles.x"),
        (f'{ISSUER}default_tenant = "a"\n' * 2, "each issuer needs another"),
        ('[[identity.jwt]]\nissuer = "https://a.example"\ndefault_tenant = "a"', "audience"),
        ('[identity.proxy]\ntrusted = ["0.0.0.0/0"]\ndefault_tenant = "a"', "trust everybody"),
        ('origins = "*"', "is no origin"),
        ('origins = "https://app.example.org/"', "is no origin"),
        ('hosts = "https://app.example.org"', "is no name"),
        ('hosts = "app.example.org:443"', "is no name"),
        (f'host = "0.0.0.0"\ninsecure = true\n{PROXY}', "needs hosts"),
        ("[rates]\nruns_per_s = -1", "rates.runs_per_s"),
    ],
)
def test_a_setting_that_would_let_the_wrong_ones_in_is_refused(
    tmp_path: Path, text: str, told: str
) -> None:
    (tmp_path / "hostler.toml").write_text(text)
    with pytest.raises(SetupError, match=told):
        load_settings({})
