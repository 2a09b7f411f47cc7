"""What a tenant may not point at: refused before a connection is made, however it is spelt."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address

import aiohttp
import anyio
import anyio.abc
import pytest
from tests.canaries import canary as a_canary

from hostler.core.errors import Invalid, SetupError
from hostler.core.ports import Failure, Reply, Request
from hostler.core.said import UserSaid
from hostler.harness.egress import Egress
from hostler.harness.outbound import Outbound
from hostler.models.exchange import Patience
from hostler.models.openai_chat import OpenAIChat
from hostler.models.transport import Aiohttp
from hostler.testing.model_script import End, Text
from hostler.testing.provider_server import (
    Asked,
    Close,
    Play,
    Send,
    chunk,
    head,
    provider_server,
    refused,
)
from hostler.testing.wire_chat import CHAT

pytestmark = pytest.mark.anyio
QUESTION = Request(system="", transcript=[UserSaid("Hi.")])

SPELT = [
    # the loopback address, in every way there is to write it
    *("http://127.0.0.1:{port}/", "http://127.0.0.1.:{port}/", "HTTP://127.0.0.1:{port}/"),
    *("http://2130706433:{port}/", "http://017700000001:{port}/", "http://0x7f000001:{port}/"),
    *("http://0X7F000001:{port}/", "http://0x7f.0x0.0x0.0x1:{port}/", "http://0177.0.0.1:{port}/"),
    *("http://0177.0.0.01:{port}/", "http://127.1:{port}/", "http://127.0.1:{port}/"),
    *("http://127.0x1:{port}/", "http://0x7f.1:{port}/", "http://127.000.000.001:{port}/"),
    *("http://127.0.0.1.0x:{port}/", "http://4294967297:{port}/", "http://127.0.0.257:{port}/"),
    *("http://127.127.127.127:{port}/", "http://0:{port}/", "http://0.0.0.0:{port}/"),
    *("http://0x0:{port}/", "http://[::1]:{port}/", "http://[0:0:0:0:0:0:0:1]:{port}/"),
    *("http://[::]:{port}/", "http://[::ffff:127.0.0.1]:{port}/", "http://[::FFFF:7F00:1]:{port}/"),
    *("http://[0:0:0:0:0:ffff:127.0.0.1]:{port}/", "http://[::127.0.0.1]:{port}/"),
    *(
        "http://[::1%25lo]:{port}/",
        "http://[::1%lo]:{port}/",
        "http://[64:ff9b::127.0.0.1]:{port}/",
    ),
    *("http://[64:ff9b:1::127.0.0.1]:{port}/", "http://[2002:7f00:1::]:{port}/"),
    *("http://[2001:0:4136:e378:8000:63bf:80ff:fffe]:{port}/",),
    *("http://[2a00:1450::5efe:127.0.0.1]:{port}/", "http://localhost:{port}/"),
    *("http://LOCALHOST:{port}/", "http://localhost.:{port}/", "http://a.localhost:{port}/"),
    *("http://localhost.localdomain:{port}/", "http://%6cocalhost:{port}/"),
    *("http://%31%32%37.0.0.1:{port}/", "http://127。0。0。1:{port}/", "http://①②⑦.0.0.1:{port}/"),
    *("http://ⓛocalhost:{port}/", "http://127.0.0.1%00.example.com:{port}/"),
    # not where it seems to go
    *("http://example.com@127.0.0.1:{port}/", "http://127.0.0.1:{port}@example.com/"),
    *("http://user:secret@example.com:{port}/", "http://example.com:{port}\\@127.0.0.1/"),
    *("http:\\\\127.0.0.1:{port}/", "http:/127.0.0.1:{port}/", "http:127.0.0.1:{port}/"),
    *("//127.0.0.1:{port}/", "http://127.0.0.1:{port}#@example.com/", "http:///127.0.0.1:{port}/"),
    *("http://127.0.0.1:{port}?@example.com/", "http://127.0.0.1\t:{port}/"),
    *("http://127.0.0.1\r\nHost: example.com:{port}/", " http://127.0.0.1:{port}/"),
    *("http://example.com:0/", "http://127.0.0.1:0{port}/", "http://example.com:99999/"),
    *("http://example..com/", "http://-/", "http://::1/", "http://"),
    # no web at all
    *("file:///etc/passwd", "gopher://127.0.0.1:{port}/", "ftp://127.0.0.1:{port}/"),
    *("ws://127.0.0.1:{port}/", "unix:///run/docker.sock", "data:text/plain,x", "127.0.0.1:{port}"),
    # other networks that are not the internet's
    *("http://10.0.0.1/", "http://172.16.0.1/", "http://172.31.255.255/", "http://192.168.1.1/"),
    *("http://100.64.0.1/", "http://169.254.1.1/", "http://198.18.0.1/", "http://192.0.2.1/"),
    *("http://224.0.0.1/", "http://240.0.0.1/", "http://255.255.255.255/", "http://192.88.99.1/"),
    *("http://[fe80::1]/", "http://[fc00::1]/", "http://[fec0::1]/", "http://[ff02::1]/"),
    *("http://[2001:db8::1]/", "http://[100::1]/", "http://[64:ff9b::10.0.0.1]/"),
    *("http://[::ffff:10.0.0.1]/", "http://db.internal/", "http://printer.local/"),
    # where clouds hand out credentials
    *("http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/", "http://2852039166/"),
    *("http://0xA9FEA9FE/", "http://[::ffff:169.254.169.254]/", "http://100.100.100.200/"),
    *("http://168.63.129.16/", "http://192.0.0.192/", "http://169.254.170.2/"),
    *("http://[fd20:ce::254]/", "http://metadata.google.internal/", "http://[64:ff9b::a9fe:a9fe]/"),
]
NAMES = {
    "one private address": ["10.0.0.1"],
    "loopback": ["127.0.0.1"],
    "loopback, as IPv6": ["::1"],
    "loopback, mapped": ["::ffff:127.0.0.1"],
    "loopback behind NAT64": ["64:ff9b::7f00:1"],
    "link-local": ["fe80::1%2"],
    "metadata": ["169.254.169.254"],
    "a public one and a private one": ["93.184.216.34", "127.0.0.1"],
    "a private one of each family": ["2606:2800::1", "fd00::1"],
    "nothing": [],
}


@dataclass(slots=True)
class Canary:
    """A listening socket that notices any connection."""

    listener: socket.socket

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    @property
    def heard(self) -> bool:
        """Whether anybody connected; the kernel completes connections on its own, at once."""
        self.listener.settimeout(0)
        try:
            self.listener.accept()[0].close()
        except BlockingIOError:
            return False
        return True


@pytest.fixture
def canary() -> Iterator[Canary]:
    with socket.create_server(
        ("::", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=8
    ) as listener:
        yield Canary(listener)


@asynccontextmanager
async def asking(url: str, guard: Outbound) -> AsyncGenerator[OpenAIChat]:
    transport = Aiohttp(guard=guard)
    try:
        yield OpenAIChat(
            name="m",
            base_url=url,
            transport=transport,
            key=lambda _: a_canary("key of an adapter", "sk-secret"),
            provider="p",
            patience=Patience(connect_s=5.0, first_byte_s=5.0),
        )
    finally:
        await transport.aclose()


async def asked(url: str, guard: Outbound) -> Reply | Failure:
    async with asking(url, guard) as model:
        last = [part async for part in model.stream(QUESTION)][-1]
    assert isinstance(last, Reply | Failure)
    return last


def answered(_: Asked) -> Play:
    body = b"".join(CHAT.events([Text("Hi."), End()]))
    return [Send(head(headers=["Connection: close"])), Send(chunk(body) + chunk(b"")), Close()]


def found(*answers: Sequence[str]) -> tuple[Outbound, list[str]]:
    """Return a guard whose names have these addresses, one answer a look-up; and what it looked up."""
    left, names = list(answers), list[str]()

    async def resolve(host: str, _: int) -> Sequence[str]:
        names.append(host)
        return left.pop(0) if len(left) > 1 else left[0]

    return Outbound(Egress(), resolve=resolve), names


@pytest.mark.parametrize("spelt", SPELT)
async def test_a_forbidden_place_is_refused_before_a_connection(spelt: str, canary: Canary) -> None:
    guard, looked_up = found(["127.0.0.1"])

    failure = await asked(spelt.replace("{port}", str(canary.port)), guard)

    assert isinstance(failure, Failure)
    assert (failure.code, failure.again) == ("invalid_request", False)
    assert failure.message.startswith("p is not asked: ")
    assert not canary.heard
    assert looked_up == [], "it was judged by its spelling"


@pytest.mark.parametrize(
    "url", ["http://[::1/", "", "\0", "http://" + "a" * 9000, "http://[::1]]/"]
)
def test_what_is_no_url_at_all_is_refused(url: str) -> None:
    with pytest.raises(Invalid):
        Egress().check(url)


@pytest.mark.parametrize("addresses", NAMES.values(), ids=NAMES)
async def test_a_name_is_refused_for_any_address_it_has(
    addresses: list[str], canary: Canary
) -> None:
    guard, looked_up = found(addresses)

    failure = await asked(f"http://evil.example:{canary.port}/v1", guard)

    assert isinstance(failure, Failure)
    assert failure.message == (
        f"p is not asked: evil.example:{canary.port} has no address that connections from here may "
        "go to; if it should, the operator of this server adds it to `allow` under [egress]"
    )
    assert not canary.heard
    assert looked_up == ["evil.example"]


async def test_a_name_that_is_not_known_is_refused_in_the_same_words_as_a_private_one() -> None:
    async def resolve(host: str, _: int) -> Sequence[str]:
        if host == "absent.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return ["10.0.0.1"]

    guard = Outbound(Egress(), resolve=resolve)
    absent = await asked("http://absent.example/", guard)
    inside = await asked("http://inside.example/", guard)

    assert isinstance(absent, Failure)
    assert isinstance(inside, Failure)
    assert absent.message.replace("absent", "inside") == inside.message


async def test_the_machine_s_own_resolver_is_judged_too(canary: Canary) -> None:
    """`localhost` by another way: allowed as a name, and its address is not what it should be."""
    guard = Outbound(Egress(deny=["127.0.0.0/8", "::1"], allow=["localhost"]))

    failure = await asked(f"http://localhost:{canary.port}/", guard)

    assert isinstance(failure, Failure)
    assert failure.code == "invalid_request"
    assert not canary.heard


# -- a name that changes its mind ------------------------------------------------------------------


@asynccontextmanager
async def name_server(*answers: str) -> AsyncGenerator[tuple[Outbound, list[bytes]]]:
    """Serve DNS on loopback, an answer a question, the last one for ever; give a guard that asks it.

    The guard takes 127.0.0.2 for a public address, so that no test has to leave this machine.
    """
    left, questions = list(answers), list[bytes]()

    async def serve(udp: anyio.abc.UDPSocket) -> None:
        async for question, sender in udp:
            questions.append(question)
            address = left.pop(0) if len(left) > 1 else left[0]
            header = question[:2] + b"\x81\x80\0\1\0\1\0\0\0\0"
            record = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton(address)  # no time to live
            await udp.sendto(header + question[12:] + record, *sender)

    async with (
        await anyio.create_udp_socket(local_host="127.0.0.1") as udp,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(serve, udp)
        port = udp.extra(anyio.abc.SocketAttribute.local_port)

        async def resolve(host: str, _: int) -> Sequence[str]:
            name = b"".join(bytes([len(one)]) + one.encode() for one in host.split("."))
            question = b"\x2a\x2a\1\0\0\1\0\0\0\0\0\0" + name + b"\0\0\1\0\1"
            with anyio.fail_after(5):
                async with await anyio.create_connected_udp_socket("127.0.0.1", port) as client:
                    await client.send(question)
                    answer = await client.receive()
            return [socket.inet_ntoa(answer[-4:])]

        yield Outbound(Egress(allow=["127.0.0.2"]), resolve=resolve), questions
        tasks.cancel_scope.cancel()


async def test_a_connection_goes_to_the_address_that_was_judged_and_not_to_a_later_one() -> None:
    async with (
        name_server("127.0.0.2", "127.0.0.1") as (guard, questions),
        provider_at("127.0.0.2") as (port, hosts),
        asking(f"http://rebind.example:{port}/v1", guard) as model,
    ):
        first = [part async for part in model.stream(QUESTION)][-1]
        with socket.create_server(("127.0.0.1", port)) as inside:
            second = [part async for part in model.stream(QUESTION)][-1]
            noticed = Canary(inside).heard

    assert isinstance(first, Reply), first
    assert hosts == [f"rebind.example:{port}"], "the name stays what the server is told"
    assert isinstance(second, Failure)
    assert second.code == "invalid_request"
    assert not noticed
    assert len(questions) == 2, "one look-up a connection"


@asynccontextmanager
async def provider_at(address: str) -> AsyncGenerator[tuple[int, list[str]]]:
    """Serve answers on an address of loopback; give the port, and the `Host` of each question."""
    hosts = list[str]()

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            data = b""
            while b"\r\n\r\n" not in data:
                data += await stream.receive()
            lines = data.split(b"\r\n")
            hosts.extend(one[6:].decode() for one in lines if one.lower().startswith(b"host: "))
            body = b"".join(CHAT.events([Text("Hi."), End()]))
            await stream.send(head(headers=["Connection: close"]) + chunk(body) + chunk(b""))

    listener = await anyio.create_tcp_listener(local_host=address)
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield port, hosts
        tasks.cancel_scope.cancel()


async def test_the_last_gate_stands_where_the_socket_is_made(canary: Canary) -> None:
    """For a caller that forgot to check, and whatever a client library thinks an address is."""
    connector = Outbound(Egress()).connector(keepalive_s=1.0)
    async with aiohttp.ClientSession(connector=connector) as session:
        for host in ("127.0.0.1", "[::1]", "localhost", "2130706433", "0x7f.1"):
            with pytest.raises((aiohttp.ClientError, Invalid)):
                await session.get(f"http://{host}:{canary.port}/")

    assert not canary.heard


# -- redirects -------------------------------------------------------------------------------------


def to(place: str) -> Play:
    return [Send(head(302, headers=[f"Location: {place}"]) + chunk(b""))]


async def test_a_model_s_redirect_is_not_followed_at_all(canary: Canary) -> None:
    async with provider_server(lambda _: to(f"http://127.0.0.1:{canary.port}/")) as server:
        guard = Outbound(Egress(allow=[server.url.removeprefix("http://")]))
        failure = await asked(server.url, guard)

    assert isinstance(failure, Failure)
    assert "redirect" in failure.message
    assert not canary.heard


# -- what an operator opens and closes -------------------------------------------------------------


@pytest.mark.parametrize(
    ("allow", "url", "address"),
    [
        ([], "https://1.1.1.1/", None),
        ([], "https://[2606:4700::1111]:8443/", None),
        ([], "http://[::ffff:1.1.1.1]/", None),
        ([], "http://[64:ff9b::1.1.1.1]/", None),
        ([], "https://xn--bcher-kva.example/v1?a=b#c", "1.1.1.1"),
        (["10.0.0.0/8"], "http://10.1.2.3:9/", None),
        (["10.1.2.3:9"], "http://10.1.2.3:9/", None),
        (["[fd00::1]:9"], "http://[fd00::1]:9/", None),
        (["ollama.internal"], "http://OLLAMA.internal.:11434/v1", "10.0.0.1"),
        (["ollama.internal:11434"], "http://ollama.internal:11434/v1", "10.0.0.1"),
        (["*.corp"], "http://a.b.corp/", "10.0.0.1"),
        (["10.0.0.0/8"], "http://some.example/", "10.0.0.1"),
        (["169.254.169.254"], "http://169.254.169.254/", None),
    ],
)
def test_what_is_public_or_allowed_passes(allow: list[str], url: str, address: str | None) -> None:
    judged(Egress(allow=allow), url, address)


@pytest.mark.parametrize(
    ("rules", "url", "address"),
    [
        ({"allow": ["10.1.2.3:9"]}, "http://10.1.2.3:10/", None),
        ({"allow": ["ollama.internal:1"]}, "http://ollama.internal:2/", "10.0.0.1"),
        ({"allow": ["*.corp"]}, "http://corp/", "10.0.0.1"),
        ({"allow": ["a.corp"]}, "http://b.corp/", "10.0.0.1"),
        ({"allow": ["a.corp"]}, "http://a.corp/", "169.254.169.254"),
        ({"allow": ["0.0.0.0/0", "169.254.0.0/16"]}, "http://169.254.169.254/", None),
        ({"deny": ["1.1.1.0/24"]}, "http://1.1.1.1/", None),
        ({"deny": ["1.1.1.0/24"]}, "http://[::ffff:1.1.1.1]/", None),
        ({"deny": ["*.example"]}, "http://a.example/", "1.1.1.1"),
        ({"deny": ["10.0.0.1"], "allow": ["10.0.0.0/8"]}, "http://10.0.0.1/", None),
        ({"ports": [443]}, "http://1.1.1.1/", None),
    ],
)
def test_what_is_denied_or_not_quite_allowed_does_not(
    rules: dict[str, list[str]], url: str, address: str | None
) -> None:
    egress = Egress(**rules)  # type: ignore[arg-type]
    with pytest.raises(Invalid):
        judged(egress, url, address)


def test_a_port_that_is_allowed_with_its_host_is_open() -> None:
    egress = Egress(ports=[443], allow=["10.0.0.1:8080"])
    assert egress.check("http://10.0.0.1:8080/").port == 8080
    assert egress.check("https://1.1.1.1/").port == 443


@pytest.mark.parametrize(
    ("allow", "url"),
    [
        ([], "https://a.example/v1"),
        (["a.example"], "http://a.example/v1"),
        (["a.example:8000"], "http://a.example:8000/v1"),
        (["10.0.0.0/8"], "http://10.1.2.3/v1"),
        (["10.0.0.0/8"], "http://[::ffff:10.1.2.3]/v1"),
    ],
)
def test_what_carries_a_key_goes_over_https_or_where_the_operator_says_so(
    allow: list[str], url: str
) -> None:
    Egress(allow=allow).check(url, in_clear=False)


@pytest.mark.parametrize(
    ("allow", "url"),
    [
        ([], "http://a.example/v1"),
        ([], "http://1.1.1.1/v1"),
        (["a.example:8000"], "http://a.example/v1"),
        (["10.0.0.0/8"], "http://a.example/v1"),
    ],
)
async def test_what_carries_a_key_does_not_go_in_clear_elsewhere(
    allow: list[str], url: str
) -> None:
    guard = Outbound(Egress(allow=allow), in_clear=False)

    failure = await asked(url, guard)

    assert isinstance(failure, Failure)
    assert "is connected to over https only; if http should do there" in failure.message


@pytest.mark.parametrize("entry", ["", "10.0.0.0/33", "a b", "a:99999", "300.1.1.1", "http://a/"])
def test_an_entry_that_cannot_be_read_stops_the_server_from_starting(entry: str) -> None:
    with pytest.raises(SetupError, match=r"\[egress\] allow"):
        Egress(allow=[entry])


async def test_a_guarded_connection_that_fails_does_not_tell_the_address() -> None:
    async with refused() as url:
        port = url.rpartition(":")[2]

        async def resolve(host: str, _: int) -> Sequence[str]:
            del host
            return ["127.0.0.1"]

        guard = Outbound(Egress(allow=["inside.example"]), resolve=resolve)
        failure = await asked(f"http://inside.example:{port}/", guard)

    assert isinstance(failure, Failure)
    assert (failure.code, failure.again) == ("unavailable", True)
    assert failure.message == "p cannot be reached: Connection refused"


def judged(egress: Egress, url: str, address: str | None) -> None:
    target = egress.check(url)
    if address is not None:
        egress.admit(target.host, target.port, [ip_address(address)])
