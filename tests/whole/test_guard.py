"""What is asked before anything else: names of the server, pages that may use it, where a key is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import aiohttp
import pytest
from starlette.types import Message, Receive, Scope, Send
from tests.people import new_key
from tests.serving import Client, quick, serving

from hostler.faces.http.guard import MOST_KNOWN, Guard, hosts_of
from hostler.testing.doubles import an_agent

pytestmark = pytest.mark.anyio
APP = "https://app.example.org"
OURS = ["agents.example.org", "*.internal.example"]


async def status(
    guard_of: Mapping[str, Sequence[str]],
    *headers: tuple[bytes, bytes],
    method: str = "GET",
) -> int:
    """Return how an application behind a guard is answered for."""
    sent: list[Message] = []

    async def behind(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    scope = {"type": "http", "method": method, "path": "/", "headers": list(headers)}
    await Guard(behind, **guard_of)(scope, receive, send)
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("localhost", True),
        ("LOCALHOST:8420", True),
        ("localhost.:8420", True),
        ("127.0.0.1:8420", True),
        ("[::1]:8420", True),
        ("192.168.1.20", True),
        ("agents.example.org", True),
        ("Agents.Example.org:443", True),
        ("a.b.internal.example", True),
        ("internal.example", False),
        ("evilinternal.example", False),
        ("evil.example.org", False),
        ("agents.example.org.evil.example", False),
        ("localhost.evil.example", False),
        ("localhost:80@evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("127.0.0.1:8420:1", False),
        ("evil.example#localhost", False),
        ("agents.example.org, evil.example", False),
        ("", False),
        ("\xff", False),
        ("a" * 9000, False),
    ],
)
async def test_a_server_answers_to_its_own_names_alone(host: str, *, is_ours: bool) -> None:
    told = await status({"hosts": OURS}, (b"host", host.encode("latin-1")))

    assert told == (200 if is_ours else 421)


async def test_each_of_two_hosts_has_to_be_ours() -> None:
    both = [(b"host", b"localhost"), (b"host", b"evil.example")]
    for headers in (both, both[::-1]):
        assert await status({"hosts": OURS}, *headers) == 421


async def test_a_probe_without_a_host_is_let_in() -> None:
    assert await status({"hosts": OURS}) == 200


async def test_names_that_were_found_good_are_remembered_up_to_a_bound() -> None:
    guard = Guard(lambda *_: None, hosts=["*"])  # type: ignore[arg-type]
    for number in range(2 * MOST_KNOWN):
        assert guard._is_ours(b"host-%d" % number)

    assert len(guard._known) == MOST_KNOWN


@pytest.mark.parametrize(
    ("named", "bound_to", "is_loopback", "is_any"),
    [
        ([], "127.0.0.1", True, False),
        ([], "0.0.0.0", False, True),
        (["a.example"], "0.0.0.0", False, False),
        (["*"], "127.0.0.1", True, True),
    ],
)
async def test_without_a_list_a_loopback_server_is_strict_and_a_public_one_is_not(
    named: list[str], bound_to: str, *, is_loopback: bool, is_any: bool
) -> None:
    hosts = hosts_of(named, bound_to=bound_to, is_loopback=is_loopback)

    told = await status({"hosts": hosts}, (b"host", b"evil.example"))

    assert told == (200 if is_any else 421)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "QUERY"])
@pytest.mark.parametrize(
    ("origin", "may"),
    [
        ("http://localhost:8420", True),
        ("https://localhost:8420", True),  # behind a proxy that has the certificate
        (APP, True),
        ("https://app.example.org:8443", False),
        ("http://app.example.org", False),
        ("http://localhost", False),
        ("http://localhost:3000", False),
        ("https://evil.example", False),
        ("null", False),
        ("", False),
        ("http://[", False),
        ("file://", False),
    ],
)
async def test_pages_of_other_sites_change_nothing(method: str, origin: str, *, may: bool) -> None:
    headers = [(b"host", b"localhost:8420"), (b"origin", origin.encode())]

    assert await status({"origins": [APP]}, *headers, method=method) == (200 if may else 403)


async def test_of_two_origins_none_is_believed() -> None:
    headers = [(b"host", b"localhost"), (b"origin", APP.encode()), (b"origin", APP.encode())]

    assert await status({"origins": [APP]}, *headers, method="POST") == 403


async def preflight(
    client: Client, origin: str, *, path: str = "/api/sessions", asks: str | None = None
) -> tuple[int, Mapping[str, str]]:
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    if asks is not None:
        headers["Access-Control-Request-Headers"] = asks
    async with client.http.options(f"{client.url}{path}", headers=headers) as answer:
        return answer.status, answer.headers


async def test_without_origins_no_answer_has_a_header_for_other_sites(tmp_path: Path) -> None:
    async with serving(an_agent(quick()), file=tmp_path / "log.db") as client:
        told, headers = await preflight(client, APP)
        assert told == 405
        assert not [name for name in headers if name.lower().startswith("access-control")]
        sent = {"Origin": APP, "Authorization": f"Bearer {client.key}"}
        async with client.http.get(f"{client.url}/api/me", headers=sent) as answer:
            assert answer.status == 200
            assert not [n for n in answer.headers if n.lower().startswith("access-control")]


async def test_a_page_that_is_named_may_use_everything_but_cookies(tmp_path: Path) -> None:
    file = tmp_path / "log.db"
    async with serving(an_agent(quick()), file=file, origins=[APP]) as client:
        told, headers = await preflight(client, APP)
        assert told == 204
        assert headers["access-control-allow-origin"] == APP
        assert "authorization" in headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in headers
        sent = {"Origin": APP, "Authorization": f"Bearer {client.key}"}
        url = f"{client.url}/api/sessions"
        async with client.http.post(url, headers=sent, data=b"{}") as answer:
            assert answer.status == 201
            assert answer.headers["access-control-allow-origin"] == APP
            assert answer.headers["vary"] == "origin"
        # An error, too, has to be readable for the page.
        async with client.http.get(f"{client.url}/none", headers={"Origin": APP}) as answer:
            assert (answer.status, answer.headers["access-control-allow-origin"]) == (404, APP)


VENDORS = {
    "openai": (
        "authorization,content-type,idempotency-key,openai-beta,openai-organization,openai-project,"
        "x-stainless-arch,x-stainless-lang,x-stainless-os,x-stainless-package-version,"
        "x-stainless-retry-count,x-stainless-runtime,x-stainless-timeout,x-client-request-id"
    ),
    "anthropic": (
        "anthropic-beta,anthropic-dangerous-direct-browser-access,anthropic-version,content-type,"
        "x-api-key,x-stainless-helper,x-stainless-helper-method"
    ),
}


@pytest.mark.parametrize("vendor", VENDORS)
async def test_vendors_clients_in_a_page_that_is_named_may_send_what_they_send(vendor: str) -> None:
    asks = VENDORS[vendor]
    async with serving(an_agent(quick()), file=None, origins=[APP]) as client:
        _, headers = await preflight(client, APP, path="/v1/messages", asks=asks)
        url, sent = f"{client.url}/v1/models", {"Origin": APP, "X-Api-Key": client.key}
        async with client.http.get(url, headers=sent) as answer:
            assert answer.status == 200
            exposed = answer.headers["access-control-expose-headers"].split(", ")

    allowed = headers["access-control-allow-headers"].split(", ")
    assert set(asks.split(",")) <= set(allowed)
    assert {"x-request-id", "request-id", "x-should-retry", "retry-after"} <= set(exposed)


async def test_what_else_a_page_wants_to_send_is_not_allowed() -> None:
    hostile = (
        "x-forwarded-user, openai-a\tb, x-stainless-" + "x" * 100 + ", *, x-stainless-, anthropic-"
    )
    async with serving(an_agent(quick()), file=None, origins=[APP]) as client:
        _, plain = await preflight(client, APP)
        _, headers = await preflight(client, APP, asks=hostile)
        _, many = await preflight(client, APP, asks=",".join(f"openai-{n}" for n in range(500)))

    name = "access-control-allow-headers"
    assert headers[name] == plain[name]
    assert len(many[name]) < 4000


async def test_a_page_that_is_not_named_is_told_nothing(tmp_path: Path) -> None:
    file, evil = tmp_path / "log.db", f"{APP}.evil.example"
    async with serving(an_agent(quick()), file=file, origins=[APP]) as client:
        told, headers = await preflight(client, evil)
        assert (told, headers.get("access-control-allow-origin")) == (405, None)
        assert headers["vary"] == "origin"
        sent = {"Origin": evil, "Content-Type": "text/plain"}
        status, problem = await client.call("POST", "/api/sessions", {}, headers=sent)
        assert (status, problem["code"]) == (403, "origin")


async def test_a_name_bound_to_our_address_leads_nowhere(tmp_path: Path) -> None:
    async with serving(an_agent(quick()), file=tmp_path / "log.db") as client:
        rebound = {"Host": "evil.example", "Origin": "http://evil.example"}
        for method, path in (("GET", "/api/me"), ("POST", "/api/sessions"), ("GET", "/healthz")):
            status, problem = await client.call(method, path, headers=rebound)
            assert (status, problem["code"]) == (421, "host")
        session = await client.session()
        url = f"{client.url}/api/sessions/{session}/socket"
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.http.ws_connect(url, headers=rebound)
        assert refused.value.status == 421


async def test_a_key_may_come_as_clients_of_anthropic_send_it(tmp_path: Path) -> None:
    async with serving(an_agent(quick()), file=tmp_path / "log.db") as admin:
        made = await new_key(admin, user="ann")
        me = f"{admin.url}/api/me"
        for headers, status in (
            ({"x-api-key": str(made["key"])}, 200),
            ({"x-api-key": "hk_wrong"}, 401),
            ({"x-api-key": str(made["key"]), "Authorization": "Bearer hk_wrong"}, 401),
            ({"x-api-key": f"{made['key']}, {made['key']}"}, 401),
        ):
            async with admin.http.get(me, headers=headers) as answer:
                assert answer.status == status, headers
