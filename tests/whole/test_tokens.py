"""Tokens of a real issuer: which ones are accepted, and as whom."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import aiohttp
import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm
from tests.issuer import (
    AUDIENCE,
    Server,
    bearer,
    forged,
    issuing,
    packed,
    signer,
    with_shared_secret,
)
from tests.serving import Client, quick, serving

from hostler.app.identity import tokens as module
from hostler.app.identity.jwks import Keys, read_keys
from hostler.app.identity.settings import ALGORITHMS
from hostler.app.identity.sources import FromUrl
from hostler.app.identity.tokens import Issuer, Tokens
from hostler.core.errors import Unauthorised
from hostler.core.events import Principal, TenantId
from hostler.faces.http.entry import Ways
from hostler.testing.doubles import an_agent

pytestmark = pytest.mark.anyio
HOUR = 3600


async def who(tokens: Tokens, token: str) -> Principal:
    caller = await tokens(bearer(token), "127.0.0.1")
    assert caller is not None
    return caller.who


async def refused(tokens: Tokens, token: str) -> Unauthorised:
    with pytest.raises(Unauthorised) as told:
        await tokens(bearer(token), "127.0.0.1")
    return told.value


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_token_of_each_algorithm_without_a_shared_secret_is_accepted(
    algorithm: str,
) -> None:
    key = signer("one", algorithm)
    async with issuing(key) as issuer:
        found = await who(issuer.tokens(), issuer.token(key))

    assert (found.id, found.user, found.tenant) == ("alice", "alice", "acme")
    assert (found.role, found.scopes, found.is_operator) == ("member", None, False)


def forged_over(it: Server, changed: bytes) -> str:
    """Return a token whose issuer signed something that JSON libraries do not write."""
    good = f'{{"iss":"{it.url}","aud":"{AUDIENCE}","org":{{"id":"acme"}},'.encode()
    fields = {b"exp": b'"exp":9999999999', b"sub": b'"sub":"alice"'}
    name = changed[1:4]
    return resigned(
        good + b",".join([changed, *(v for k, v in fields.items() if k != name)]) + b"}"
    )


def forged_nested(it: Server) -> str:
    return resigned(f'{{"iss":"{it.url}","deep":'.encode() + b"[" * 5000 + b"]" * 5000 + b"}")


def resigned(payload: bytes) -> str:
    return module._signed.encode(payload, signer().private, "RS256", headers={"kid": "one"})


FORGED: dict[str, Callable[[Server], str]] = {
    "no algorithm": lambda it: forged({"alg": "none", "kid": "one"}, it.claims()),
    "no algorithm, spelt otherwise": lambda it: forged({"alg": "nOnE"}, it.claims(), b"x"),
    "the public key as a shared secret": lambda it: with_shared_secret(
        {"alg": "HS256", "kid": "one"}, it.claims(), signer().pem
    ),
    "its algorithm is another's": lambda it: forged({"alg": "ES256", "kid": "one"}, it.claims()),
    "an algorithm that does not exist": lambda it: forged(
        {"alg": "RS1", "kid": "one"}, it.claims()
    ),
    "no algorithm at all": lambda it: forged({"kid": "one"}, it.claims()),
    "an algorithm that is no text": lambda it: forged({"alg": ["RS256"]}, it.claims()),
    "another key of the same name": lambda it: signer("other").sign(it.claims(), {"kid": "one"}),
    "a key that nobody knows": lambda it: it.token(signer("other")),
    "a key name that is a path": lambda it: signer("other").sign(
        it.claims(), {"kid": "../../../../dev/null"}
    ),
    "a key name that is a query": lambda it: signer("other").sign(
        it.claims(), {"kid": "x' UNION SELECT 'one'--"}
    ),
    "a key name that is no text": lambda it: forged({"alg": "RS256", "kid": {}}, it.claims(), b"x"),
    "keys of its own": lambda it: signer("other").sign(
        it.claims(), {"kid": "one", "jwk": signer("other").jwk}
    ),
    "keys from elsewhere": lambda it: signer("other").sign(
        it.claims(), {"kid": "other", "jku": "http://127.0.0.1:9/jwks", "x5u": "http://127.0.0.1:9"}
    ),
    "something critical that we do not know": lambda it: signer().sign(
        it.claims(), {"crit": ["exp"], "exp": 1}
    ),
    "a token of another sort": lambda it: signer().sign(it.claims(), {"typ": "logout+jwt"}),
    "it has expired": lambda it: it.token(exp=int(time.time()) - 61),
    "it never expires": lambda it: it.token(exp=None),
    "it expires after the end of time": lambda it: forged_over(it, b'"exp":1e999'),
    "its end is true": lambda it: forged_over(it, b'"exp":true'),
    "its end is a text": lambda it: forged_over(it, b'"exp":"9999999999"'),
    "it is not good yet": lambda it: it.token(nbf=int(time.time()) + 61),
    "it is for somebody else": lambda it: it.token(aud="another"),
    "it is for many others": lambda it: it.token(aud=["a", "b", "hostler2"]),
    "it is for nobody": lambda it: it.token(aud=None),
    "it is from nobody": lambda it: it.token(iss=None),
    "it is from another issuer": lambda it: it.token(iss="https://evil.example.org"),
    "its issuer has a slash more": lambda it: it.token(iss=f"{it.url}/"),
    "it has no tenant": lambda it: it.token(org=None),
    "its tenant is no name": lambda it: it.token(org={"id": "acme/../other"}),
    "its tenant is two": lambda it: it.token(org={"id": ["acme", "other"]}),
    "it has no user": lambda it: it.token(sub=None),
    "its user is a number": lambda it: forged_over(it, b'"sub":7'),
    "its user cannot be seen": lambda it: it.token(sub="al\u202eice"),
    "its user is huge": lambda it: it.token(sub="a" * 201),
    "it is huge": lambda it: it.token(more="x" * 20_000),
    "it is nested": forged_nested,
    "it is cut": lambda it: it.token()[:-10],
    "its signature is empty": lambda it: it.token().rpartition(".")[0] + ".",
    "it is no base64": lambda _: "eyJ\xff.eyJ.x",
    "it is nothing": lambda _: "eyJ..",
}


@pytest.mark.parametrize("what", FORGED)
async def test_a_token_is_refused_in_the_same_words_when(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with issuing() as issuer:
        tokens = issuer.tokens()
        await who(tokens, issuer.token())

        error = await refused(tokens, FORGED[what](issuer))

    assert (error.detail, error.code) == ("this token is not accepted here", "invalid_token")
    assert "a token from 127.0.0.1 is refused: " in caplog.text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(
    header=st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk"]), JSON),
    claims=st.dictionaries(st.sampled_from(["aud", "exp", "nbf", "sub", "org"]), JSON),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_whatever_an_issuer_signs_is_a_caller_or_a_refusal(
    header: dict[str, object], claims: dict[str, object]
) -> None:
    server = Server("https://id.example.org")
    tokens = Tokens([Issuer(server.said(), _Known())])
    good, key = server.claims(), signer().private
    assert isinstance(key, RSAPrivateKey)
    for odd in ({"alg": "RS256"}, {"alg": "RS256", **header}):
        begun = forged(odd, {**good, **claims}).rpartition(".")[0]
        signature = RSAAlgorithm(RSAAlgorithm.SHA256).sign(begun.encode(), key)
        try:
            caller = await tokens(bearer(f"{begun}.{packed(signature)}"), None)
        except Unauthorised:
            continue
        assert caller is None or caller.who.tenant


class _Known(Keys):
    """The keys of an issuer that need not be fetched."""

    def __init__(self) -> None:
        super().__init__(FromUrl("https://id.example.org"))
        self._take(read_keys(json.dumps({"keys": [signer().jwk]}).encode()))


@pytest.mark.parametrize("at", [0, 1, 2])
async def test_a_token_is_refused_when_any_part_of_it_is_another_s(at: int) -> None:
    async with issuing() as issuer:
        mine = issuer.token().split(".")
        theirs = signer().sign(issuer.claims(sub="bob"), {"typ": "at+jwt"}).split(".")

        mine[at] = theirs[at]

        await refused(issuer.tokens(), ".".join(mine))


async def test_clocks_may_differ_by_a_minute() -> None:
    now = int(time.time())
    async with issuing() as issuer:
        tokens = issuer.tokens()
        for token in (issuer.token(exp=now - 50), issuer.token(nbf=now + 50)):
            assert (await who(tokens, token)).user == "alice"


async def test_an_access_token_of_rfc_9068_is_accepted() -> None:
    async with issuing() as issuer:
        for kind in ("at+jwt", "application/at+jwt", "AT+JWT", None):
            token = signer().sign(issuer.claims(jti="1", client_id="x"), {"typ": kind})
            assert (await who(issuer.tokens(), token)).user == "alice"


async def test_only_the_algorithms_of_the_settings_are_accepted() -> None:
    async with issuing() as issuer:
        await refused(issuer.tokens(algorithms=["ES256"]), issuer.token())


async def test_what_is_no_token_is_left_to_those_who_know_keys() -> None:
    async with issuing() as issuer:
        tokens = issuer.tokens()
        for sent in ("Bearer hk_abc", "Basic eyJ.a.b", "", "Bearer", "Bearer eyJhbGciOiJub25lIn0"):
            assert await tokens({"authorization": sent}, None) is None
        assert await tokens({}, None) is None


async def test_claims_say_tenant_user_role_and_scopes_by_the_settings() -> None:
    said = {
        "user_claim": "email",
        "tenant_claim": "https://example.org/tenant",
        "roles_claim": "realm_access.roles",
        "roles": {"ops": "admin", "staff": "viewer"},
        "scopes_claim": "scope",
        "name": "corp",
    }
    async with issuing() as issuer:
        token = issuer.token(
            email="alice@example.org",
            scope="sessions:read openid",
            realm_access={"roles": ["staff", "ops", "unknown"]},
            **{"https://example.org/tenant": "globex"},  # type: ignore[arg-type]
        )
        found = await who(issuer.tokens(**said), token)

    assert (found.tenant, found.user) == ("globex", "corp:alice@example.org")
    assert (found.role, found.scopes) == ("admin", frozenset({"sessions:read"}))


@pytest.mark.parametrize(
    ("groups", "default", "role"),
    [
        (["staff"], "member", "viewer"),
        ("staff ops", "member", "admin"),
        ([], "viewer", "viewer"),
        (["unknown"], "none", None),
        ({"ops": True}, "member", None),
        (["ops", 7], "member", None),
    ],
)
async def test_roles_are_what_the_settings_make_of_groups(
    groups: object, default: str, role: str | None
) -> None:
    said = {
        "roles_claim": "groups",
        "roles": {"ops": "admin", "staff": "viewer"},
        "default_role": default,
    }
    async with issuing() as issuer:
        tokens, token = issuer.tokens(**said), issuer.token(groups=groups)
        if role is None:
            await refused(tokens, token)
        else:
            assert (await who(tokens, token)).role == role


async def test_a_token_without_a_tenant_is_of_the_default_one_if_there_is_one() -> None:
    async with issuing() as issuer:
        found = await who(issuer.tokens(default_tenant="main"), issuer.token(org=None))

    assert found.tenant == "main"


async def test_a_token_of_a_tenant_that_does_not_exist_is_refused() -> None:
    async def exists(tenant: TenantId) -> bool:
        return tenant == "acme"

    async with issuing() as issuer:
        tokens = Tokens([Issuer(issuer.said(), issuer.keys())], exists=exists)

        assert (await who(tokens, issuer.token())).tenant == "acme"
        await refused(tokens, issuer.token(org={"id": "globex"}))


async def test_of_several_issuers_each_speaks_for_its_own_users_alone() -> None:
    async with issuing(signer("one")) as first, issuing(signer("other")) as second:
        tokens = Tokens(
            [
                Issuer(first.said(name="a"), first.keys()),
                Issuer(second.said(name="b"), second.keys()),
            ]
        )

        assert (await who(tokens, first.token())).user == "a:alice"
        assert (await who(tokens, second.token(signer("other")))).user == "b:alice"
        await refused(tokens, first.token(signer("other")))


async def test_a_checked_token_is_remembered_until_it_expires_and_no_longer() -> None:
    now = time.time()
    async with issuing() as issuer:
        tokens = Tokens([Issuer(issuer.said(), issuer.keys())], clock=lambda: now)
        token = issuer.token(exp=int(now) + HOUR)
        caller = await tokens(bearer(token), None)

        assert caller is not None
        assert caller.until == int(now) + HOUR + module.LEEWAY_S
        assert await tokens(bearer(token), None) is caller
        now += HOUR + module.LEEWAY_S
        await refused(tokens, token)
        assert len(tokens._kept) == 0


async def test_so_many_tokens_are_remembered_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_KEPT", 3)
    async with issuing() as issuer:
        tokens = issuer.tokens()
        for number in range(5):
            await who(tokens, issuer.token(jti=str(number)))

        assert len(tokens._kept) == 3


async def test_a_token_opens_its_own_tenant_and_nothing_of_another(tmp_path: Path) -> None:
    async with issuing() as issuer:
        ways = Ways([issuer.tokens()])
        async with serving(an_agent(quick()), file=tmp_path / "log.db", ways=ways) as client:
            theirs = await client.session()
            await client.call("POST", "/api/tenants", {"id": "acme"})
            client.key = issuer.token()
            mine = await client.session()

            assert (await client.call("GET", f"/api/sessions/{theirs}"))[0] == 404
            assert [frame.event for frame in await client.speak(mine)][-1] == "run_ended"
            facts = await client.facts(mine)
            assert facts[0]["principal"] == "alice"


async def test_a_refused_token_is_answered_as_rfc_6750_says(tmp_path: Path) -> None:
    async with issuing() as issuer:
        ways = Ways([issuer.tokens()])
        async with serving(an_agent(quick()), file=tmp_path / "log.db", ways=ways) as client:
            expired = bearer(issuer.token(exp=1))
            async with client.http.get(f"{client.url}/api/me", headers=expired) as answer:
                assert answer.status == 401
                assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
                assert (await answer.json())["detail"] == "this token is not accepted here"
            async with client.http.get(f"{client.url}/api/me") as answer:
                assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_stream_is_cut_when_its_token_is_accepted_no_more(tmp_path: Path) -> None:
    async with issuing() as issuer:
        ways = Ways([issuer.tokens()])
        async with serving(an_agent(quick()), file=tmp_path / "log.db", ways=ways) as client:
            await client.call("POST", "/api/tenants", {"id": "acme"})
            client.key = issuer.token(exp=time.time() - module.LEEWAY_S + 1.5)
            session = await client.session()
            await client.speak(session)

            seen: list[str] = []
            with anyio.fail_after(10), pytest.raises(aiohttp.ClientPayloadError):
                await follow(client, session, seen)

            assert seen[-1] == "run_ended"
            assert (await client.call("GET", f"/api/sessions/{session}"))[0] == 401


async def follow(client: Client, session: str, seen: list[str]) -> None:
    async with aclosing(client.frames(f"/api/sessions/{session}/events")) as events:
        async for frame in events:
            seen += [frame.event]
