"""The keys of an issuer, over time: new ones, withdrawn ones, and a server in trouble."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.issuer import Server, Signer, bearer, issuing, signer

from hostler.app.identity.jwks import MOST_KEYS, Failed, Keys, read_keys
from hostler.app.identity.opened import open_identity
from hostler.app.identity.settings import Identity
from hostler.app.identity.sources import FromDiscovery, FromFile, FromUrl
from hostler.app.identity.tokens import Issuer, Tokens
from hostler.core.errors import Unauthorised, Unavailable
from hostler.faces.http.headers import Joined

pytestmark = pytest.mark.anyio
OLD, NEW = signer("old"), signer("new")


def a_set(*keys: dict[str, object]) -> bytes:
    return json.dumps({"keys": keys}).encode()


async def is_let_in(tokens: Tokens, token: str) -> bool:
    try:
        return await tokens(bearer(token), None) is not None
    except Unauthorised:
        return False


async def test_a_new_key_is_fetched_when_a_token_names_it() -> None:
    async with issuing(OLD) as issuer:
        tokens = issuer.tokens()
        assert await is_let_in(tokens, issuer.token(OLD))

        issuer.published = [OLD, NEW]

        assert await is_let_in(tokens, issuer.token(NEW))
        assert issuer.asked == 2


async def test_a_withdrawn_key_takes_with_it_the_tokens_that_were_checked_with_it() -> None:
    async with issuing(OLD) as issuer:
        keys = issuer.keys()
        tokens = Tokens([Issuer(issuer.said(), keys)])
        token = issuer.token(OLD)
        assert await is_let_in(tokens, token)

        issuer.published = [NEW]
        await keys.look(since=keys._looked)

        assert not await is_let_in(tokens, token)
        assert await is_let_in(tokens, issuer.token(NEW))


async def test_equal_keys_fetched_again_change_nothing() -> None:
    async with issuing(OLD) as issuer:
        keys = issuer.keys()
        for _ in range(3):
            await keys.look(since=keys._looked)

        assert (issuer.asked, keys.generation) == (3, 1)


async def test_made_up_key_names_cost_one_fetch_in_a_while() -> None:
    now = 1000.0
    async with issuing(OLD) as issuer:
        keys = Keys(FromUrl(f"{issuer.url}/jwks"), clock=lambda: now, gap_s=5)
        tokens = Tokens([Issuer(issuer.said(), keys)])
        assert await is_let_in(tokens, issuer.token(OLD))
        for number in range(20):
            made_up = NEW.sign(issuer.claims(), {"kid": f"made-up-{number}"})
            assert not await is_let_in(tokens, made_up)
        assert issuer.asked == 1

        now += 5
        issuer.published = [NEW]

        assert await is_let_in(tokens, issuer.token(NEW))
        assert issuer.asked == 2


async def test_many_who_need_a_key_at_once_wait_for_one_fetch() -> None:
    async with issuing(OLD) as issuer:
        issuer.hold = anyio.Event()
        tokens, let_in = issuer.tokens(), list[bool]()

        async def come(number: int) -> None:
            let_in.append(await is_let_in(tokens, issuer.token(OLD, jti=str(number))))

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(come, number)
                await anyio.wait_all_tasks_blocked()
                issuer.hold.set()

        assert (let_in, issuer.asked) == ([True] * 20, 1)


def move(server: Server) -> None:
    server.status, server.headers = 302, {"Location": "/.well-known/openid-configuration"}


TROUBLE: dict[str, Callable[[Server], None]] = {
    "it fails": lambda it: setattr(it, "status", 503),
    "it has moved": move,
    "it says nothing that can be read": lambda it: setattr(it, "body", b"<html>"),
    "it has no keys": lambda it: setattr(it, "body", b'{"keys": 7}'),
    "it is nested": lambda it: setattr(it, "body", b'{"keys":' + b"[" * 99_999),
    "it is giant": lambda it: setattr(it, "body", b" " * 600_000 + a_set(NEW.jwk)),
    "it has too many keys": lambda it: setattr(it, "body", a_set(*[NEW.jwk] * (MOST_KEYS + 1))),
    "it answers too late": lambda it: setattr(it, "hold", anyio.Event()),
}


@pytest.mark.parametrize("what", TROUBLE)
async def test_the_last_good_keys_stay_when(what: str) -> None:
    async with issuing(OLD) as issuer:
        keys = issuer.keys(FromUrl(f"{issuer.url}/jwks", timeout_s=0.3))
        tokens = Tokens([Issuer(issuer.said(), keys)])
        assert await is_let_in(tokens, issuer.token(OLD))

        TROUBLE[what](issuer)
        with anyio.fail_after(10):
            assert not await is_let_in(tokens, issuer.token(NEW))

        assert issuer.asked == 2
        assert await is_let_in(tokens, issuer.token(OLD, jti="another"))


async def test_tokens_are_told_to_come_again_while_no_keys_could_be_had() -> None:
    async with issuing(OLD) as issuer:
        tokens, token = issuer.tokens(), issuer.token(OLD)
        issuer.status = 500
        with pytest.raises(Unavailable):
            await tokens(bearer(token), None)

        issuer.status = 200

        assert await is_let_in(tokens, token)


async def test_a_server_that_is_gone_leaves_the_keys_as_they_are() -> None:
    async with issuing(OLD) as issuer:
        tokens, token = issuer.tokens(), issuer.token(OLD)
        late, forged = issuer.token(OLD, jti="late"), issuer.token(NEW)
        assert await is_let_in(tokens, token)

    assert not await is_let_in(tokens, forged)
    assert await is_let_in(tokens, late)


async def test_the_discovery_document_says_where_the_keys_are() -> None:
    async with issuing(OLD) as issuer:
        keys = issuer.keys(FromDiscovery(issuer.url))
        tokens = Tokens([Issuer(issuer.said(jwks_url=None), keys)])

        assert await is_let_in(tokens, issuer.token(OLD))


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://another.example.org"},
        {"jwks_uri": "http://keys.example.org/jwks"},
        {"jwks_uri": "file:///etc/passwd"},
    ],
)
async def test_a_discovery_document_of_another_or_that_leads_astray_is_not_believed(
    document: dict[str, str],
) -> None:
    async with issuing(OLD) as issuer:
        issuer.discovered = document
        with pytest.raises(Failed):
            await FromDiscovery(issuer.url)()

        assert issuer.asked == 0


async def test_a_file_of_keys_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(a_set(OLD.jwk))
    source = FromFile(file)
    first, second = await source(), await source()

    (tmp_path / "new.json").write_bytes(a_set(NEW.jwk))
    (tmp_path / "new.json").replace(file)

    assert (first, second, await source()) == (a_set(OLD.jwk), None, a_set(NEW.jwk))
    file.unlink()
    with pytest.raises(Failed):
        await source()


@pytest.mark.parametrize(
    ("changes", "is_used"),
    [
        ({}, True),
        ({"alg": "PS256"}, True),
        ({"alg": "RS512", "use": None}, True),
        ({"use": "enc"}, False),
        ({"key_ops": ["sign"]}, False),
        ({"alg": "HS256"}, False),
        ({"alg": "none"}, False),
        ({"kty": "oct", "k": "c2VjcmV0"}, False),
        ({"kty": "EC"}, False),
        ({"n": "AQAB"}, False),
        ({"n": None}, False),
        ({"e": "!"}, False),
        ({"kid": 7}, False),
    ],
)
def test_only_keys_that_check_signatures_are_taken_from_a_set(
    changes: dict[str, object], *, is_used: bool
) -> None:
    jwk = {name: one for name, one in {**OLD.jwk, **changes}.items() if one is not None}

    keys = read_keys(a_set(jwk, NEW.jwk))

    assert [key.kid for key in keys] == (["old", "new"] if is_used else ["new"])


@given(
    st.dictionaries(
        st.sampled_from(["kty", "crv", "n", "e", "x", "y", "d", "p", "alg", "use", "kid", "oth"]),
        st.sampled_from(["RSA", "EC", "OKP", "P-256", "Ed25519", "Ed448", "AQAB", "AA", "", "!"])
        | st.sampled_from([OLD.jwk["n"], "A" * 43, "_" * 342])
        | st.none()
        | st.integers()
        | st.lists(st.text(max_size=3), max_size=2),
    )
)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_whatever_is_in_a_set_the_good_keys_are_read(jwk: dict[str, object]) -> None:
    assert read_keys(a_set(jwk, NEW.jwk))[-1].kid == "new"


def test_an_rsa_key_that_is_too_short_is_passed_over() -> None:
    assert read_keys(a_set(signer("short", bits=1024).jwk)) == []


def test_a_set_that_gives_private_keys_away_is_read_without_them() -> None:
    d = {**signer("c", "EdDSA").jwk, "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}

    assert [key.kid for key in read_keys(a_set(d))] == ["c"]


async def test_a_token_without_a_key_name_is_tried_with_the_few_keys_that_fit() -> None:
    nameless = Signer("", OLD.private)
    async with issuing(NEW, OLD, signer("e", "ES256")) as issuer:
        token = nameless.sign(issuer.claims(), {"kid": None})
        assert "kid" not in jwt.get_unverified_header(token)

        assert await is_let_in(issuer.tokens(), token)


async def test_a_key_that_is_withdrawn_is_forgotten_without_anybody_asking(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(a_set(OLD.jwk))
    async with issuing(OLD) as issuer:
        source = FromFile(file, every_s=0.02)
        keys = Keys(source, gap_s=0)
        tokens, token = Tokens([Issuer(issuer.said(), keys)]), issuer.token(OLD)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keys.keep_fresh)
            assert await is_let_in(tokens, token)

            (tmp_path / "new.json").write_bytes(a_set(NEW.jwk))
            (tmp_path / "new.json").replace(file)
            with anyio.fail_after(10):
                while keys.generation < 2:
                    await anyio.lowlevel.checkpoint()

            assert not await is_let_in(tokens, token)
            tasks.cancel_scope.cancel()


async def test_a_server_starts_while_its_issuer_is_down() -> None:
    async with issuing(OLD) as issuer:
        issuer.status = 500
        said = Identity(jwt=(issuer.said(),))
        with anyio.fail_after(10):
            async with open_identity(said) as ways:
                with pytest.raises(Unavailable):
                    await ways.tried[0](Joined(bearer(issuer.token(OLD))), None)
