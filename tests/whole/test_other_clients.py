"""Clients and proxies that are not ours: npm's eventsource and ws, curl, nginx."""

from __future__ import annotations

import json
import re
from contextlib import aclosing
from io import BytesIO
from pathlib import Path

import anyio
import pytest
from tests.programs import cutter, needed, nginx, node, npm_packages, told_by
from tests.serving import KEY, Client, Json, Serve
from tests.viewers import MID_MESSAGE, TRANSPORTS, Speaker, Viewer, by_sse, say

from hostler.app.commands.doctor_stream import check_stream
from hostler.core.events import KIND_OF
from hostler.testing.doubles import an_agent

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
WORDS = ["one ", "two ", "three ", "four ", "five ", "six "]
KINDS = [*KIND_OF.values(), "delta"]


async def play(lines_of: tuple[str, ...], model: Speaker) -> tuple[list[Json], str]:
    """Run a client, and let the model go on each time the client has seen a word."""
    frames, text = list[Json](), ""
    model.let()
    with anyio.fail_after(18):
        async with told_by(*lines_of) as lines, aclosing(lines):
            async for line in lines:
                frame = json.loads(line)
                frames.append(frame)
                data = frame.get("data")
                frame["data"] = data = json.loads(data) if isinstance(data, str) else data
                if frame.get("event") == "delta":
                    text += data["text"]
                    model.let()
    return frames, text


def facts_of(frames: list[Json]) -> list[Json]:
    return [f["data"] for f in frames if f.get("event") in KIND_OF.values()]  # type: ignore[misc]


async def test_an_event_source_that_is_cut_in_the_middle_of_a_message_loses_nothing(
    serve: Serve,
) -> None:
    model, script = Speaker(WORDS), str(npm_packages() / "sse.mjs")
    async with serve(an_agent(model)) as client, cutter(client.url, [3, 2, 1]) as between:
        session = await client.session()
        await say(client, session)
        url = f"{between.url}/api/sessions/{session}/events"

        frames, text = await play((node(), script, url, KEY, *KINDS), model)

        assert between.connections >= 4
        assert text == "".join(WORDS)
        assert facts_of(frames) == await client.facts(session)


async def test_an_event_source_is_stopped_for_good_when_there_is_no_more(serve: Serve) -> None:
    model = Speaker(["fine"])
    model.let(2)
    async with serve(an_agent(model)) as client:
        session = await client.session()
        await client.speak(session)

        path = f"{client.url}/api/sessions/{session}/events?until=run_end"
        headers = {"Authorization": f"Bearer {KEY}", "Accept": "text/event-stream"}
        last = str((await client.get(f"/api/sessions/{session}"))["seq"])
        async with client.http.get(path, headers={**headers, "Last-Event-ID": last}) as answer:
            assert answer.status == 204


async def test_a_socket_from_npm_that_is_cut_speaks_once_and_loses_nothing(serve: Serve) -> None:
    model, script = Speaker(WORDS), str(npm_packages() / "ws.mjs")
    async with serve(an_agent(model)) as client, cutter(client.url, [1, 3, 2, 4, 1]) as between:
        session = await client.session()
        url = f"{between.url.replace('http', 'ws')}/api/sessions/{session}/socket"

        frames, text = await play((node(), script, url, KEY, "hello"), model)

        assert between.connections >= 6
        assert text == "".join(WORDS)
        facts = await client.facts(session)
        assert facts_of(frames) == facts
        assert [fact["kind"] for fact in facts].count("user_spoke") == 1


async def through_curl(url: str, session: str, model: Speaker) -> str:
    """Follow with curl; each word is said only when the one before it has come."""
    text = ""
    model.let()
    path = f"{url}/api/sessions/{session}/events?until=run_end"
    headers = ("-H", f"Authorization: Bearer {KEY}", "-H", "Accept: text/event-stream")
    with anyio.fail_after(15):
        async with told_by(needed("curl"), "-sN", *headers, path) as lines, aclosing(lines):
            assert await anext(lines) == "retry: 1000"
            async for line in lines:
                name, _, value = line.partition(": ")
                if name == "data" and "attempt" in (data := json.loads(value)) and "part" in data:
                    text += data["text"]
                    model.let()
    return text


async def test_curl_sees_each_word_as_it_is_said(serve: Serve) -> None:
    model = Speaker(WORDS)
    async with serve(an_agent(model)) as client:
        session = await client.session()
        await say(client, session)

        assert await through_curl(client.url, session, model) == "".join(WORDS)


async def test_nginx_as_it_comes_passes_each_word_on_as_it_is_said(
    serve: Serve, tmp_path: Path
) -> None:
    model = Speaker(WORDS)
    async with serve(an_agent(model)) as client:
        default = f"location / {{ proxy_pass {client.url}; }}"
        async with nginx(tmp_path, default) as url:
            session = await client.session()
            with anyio.fail_after(5):  # nothing is there, and the stream begins
                path = f"{url}/api/sessions/{session}/events"
                headers = {"Authorization": f"Bearer {KEY}", "Accept": "text/event-stream"}
                async with client.http.get(path, headers=headers) as answer:
                    assert await answer.content.readline() == b"retry: 1000\n"
                    assert "Content-Encoding" not in answer.headers

            await say(client, session)
            assert await through_curl(url, session, model) == "".join(WORDS)


def documented(client: Client) -> str:
    """Return the configuration of the howto, before this server."""
    page = (ROOT / "docs/howto/nginx.md").read_text(encoding="utf-8")
    upgrade, location = re.findall(r"```nginx\n(.*?)```", page, re.DOTALL)
    assert upgrade.startswith("map $http_upgrade")
    return str(location).replace("http://127.0.0.1:8420", client.url)


async def test_nginx_as_documented_passes_every_transport_on(serve: Serve, tmp_path: Path) -> None:
    model = Speaker(WORDS)
    viewers = {name: Viewer([TRANSPORTS[name]], [5, 2]) for name in MID_MESSAGE}
    async with serve(an_agent(model)) as client, nginx(tmp_path, documented(client)) as url:
        proxied, said = Client(client.http, url), ""
        session = await client.session()
        with anyio.fail_after(15):
            async with anyio.create_task_group() as tasks:
                for viewer in viewers.values():
                    tasks.start_soon(viewer.watch, proxied, session)
                await say(proxied, session)
                for word in WORDS:
                    model.let()
                    said += word
                    for viewer in viewers.values():
                        await viewer.comes_to(lambda v, text=said: v.text == text)
                model.let()
        origin = {"Authorization": f"Bearer {KEY}", "Origin": url}
        socket_url = f"{url}/api/sessions/{session}/socket"
        async with client.http.ws_connect(socket_url, headers=origin) as socket:
            await socket.receive()

        large = BytesIO(json.dumps({"content": "x" * 2_000_000}).encode())
        path = f"{url}/api/sessions/{await client.session()}/messages"
        key = {"Authorization": f"Bearer {KEY}"}
        async with client.http.post(path, data=large, headers=key) as answer:
            assert answer.status == 202

        first, *others = viewers.values()
        assert all(viewer.facts == first.facts for viewer in others)


@pytest.mark.parametrize(
    ("how", "verdict"),
    [
        ("", "streams"),
        ("gzip on; gzip_types text/event-stream; gzip_proxied any;", "compressed"),
        ("proxy_set_header Authorization none;", "refused"),
        ("proxy_read_timeout 300ms;", "cut"),
    ],
)
async def test_the_doctor_finds_out_what_a_proxy_does_to_streams(
    serve: Serve, tmp_path: Path, how: str, verdict: str
) -> None:
    async with serve(an_agent(Speaker([]))) as client:
        server = f"location / {{ proxy_pass {client.url}; {how} }}"
        async with nginx(tmp_path, server) as url:
            slow = {"ticks": 3, "every_ms": 400}
            found = await check_stream(url, KEY, **slow)

            assert (found.verdict, found.is_well) == (verdict, verdict == "streams"), found.words
            assert url in found.words


async def test_the_doctor_finds_a_proxy_that_holds_streams_back(
    serve: Serve, tmp_path: Path
) -> None:
    # With buffering on, nginx still passes chunks on; what comes without them, as from a second
    # proxy that is asked in HTTP/1.0, it keeps.
    holds = "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;"
    for one in ("inner", "outer"):
        (tmp_path / one).mkdir()
    async with (
        serve(an_agent(Speaker([]))) as client,
        nginx(tmp_path / "inner", f"location / {{ proxy_pass {client.url}; }}") as inner,
        nginx(tmp_path / "outer", f"location / {{ proxy_pass {inner}; {holds} }}") as outer,
    ):
        found = [await check_stream(url, KEY, ticks=3, every_ms=400) for url in (inner, outer)]

    assert [one.verdict for one in found] == ["streams", "held_back"]
    assert "proxy_buffering off" in found[1].words


async def test_the_doctor_says_that_nobody_is_there(serve: Serve) -> None:
    async with serve(an_agent(Speaker([]))) as client:
        there = await check_stream(client.url, KEY, ticks=2, every_ms=10)
        key = await check_stream(client.url, "wrong", ticks=2, every_ms=10)
        page = await check_stream(f"{client.url}/nowhere", KEY)
    gone = await check_stream(client.url, KEY)

    verdicts = [one.verdict for one in (there, key, page, gone)]
    assert verdicts == ["streams", "refused", "refused", "unreachable"]


async def test_a_stream_through_a_proxy_begins_with_what_was_said_before(
    serve: Serve, tmp_path: Path
) -> None:
    model = Speaker(["fine"])
    model.let(2)
    async with serve(an_agent(model)) as client, nginx(tmp_path, documented(client)) as url:
        session = await client.session()
        await client.speak(session)
        with anyio.fail_after(5):
            async with aclosing(by_sse(Client(client.http, url), session, "0")) as frames:
                assert (await anext(frames)).event == "user_spoke"
