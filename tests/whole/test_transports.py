"""One cursor, all transports: whoever is cut anywhere and comes back has what everybody has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest
from tests.serving import Client, Json, Serve
from tests.viewers import MID_MESSAGE, TRANSPORTS, Speaker, Viewer, say, some_cuts

from hostler.core.events import Key, SessionId, TenantId
from hostler.faces.native.wire import data_of
from hostler.stores.sqlite import SqliteStore
from hostler.testing.doubles import an_agent, whole_log

pytestmark = pytest.mark.anyio
WORDS = [f"word{number} " for number in range(8)]


async def the_log(folder: Path, session: str) -> list[bytes]:
    """Return the data of every stored fact."""
    store = SqliteStore.open(folder / "log.db")
    try:
        log = await whole_log(store, Key(TenantId("default"), SessionId(session)))
    finally:
        store.close()
    return [data_of(event) for event in log]


async def play(client: Client, session: str, model: Speaker, viewers: Sequence[Viewer]) -> None:
    """Say it word by word; each viewer has to have all of a text in flight before it ends."""
    await say(client, session)
    said = ""
    for word in WORDS:
        model.let()
        said += word
        for viewer in viewers:
            if viewer.transports[0] is not TRANSPORTS["requests"]:
                await viewer.comes_to(lambda v, text=said: v.text == text)
    model.let()
    for viewer in viewers:
        await viewer.comes_to(lambda v: v.ends == 1)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_viewer_cut_at_any_event_misses_nothing_and_sees_nothing_twice(
    serve: Serve, tmp_path: Path, transport: str
) -> None:
    model = Speaker(WORDS)
    viewers = [Viewer([TRANSPORTS[transport]], some_cuts(seed)) for seed in range(16)]
    async with serve(an_agent(model)) as client:
        session = await client.session()
        with anyio.fail_after(18):
            async with anyio.create_task_group() as tasks:
                for viewer in viewers:
                    tasks.start_soon(viewer.watch, client, session)
                await play(client, session, model, viewers)

    log = await the_log(tmp_path, session)
    assert [viewer.facts for viewer in viewers] == [log] * len(viewers)
    if transport in MID_MESSAGE:
        assert [viewer.text for viewer in viewers] == ["".join(WORDS)] * len(viewers)


async def test_a_viewer_may_change_its_transport_in_the_middle_of_a_message(
    serve: Serve, tmp_path: Path
) -> None:
    model = Speaker(WORDS)
    ways = [TRANSPORTS[name] for name in MID_MESSAGE]
    viewers = [Viewer([*ways[n % 3 :], *ways[: n % 3]], [n, 2, 1, 3]) for n in range(12)]
    async with serve(an_agent(model)) as client:
        session = await client.session()
        with anyio.fail_after(18):
            async with anyio.create_task_group() as tasks:
                for viewer in viewers:
                    tasks.start_soon(viewer.watch, client, session)
                await play(client, session, model, viewers)

    log = await the_log(tmp_path, session)
    assert [(viewer.facts, viewer.text) for viewer in viewers] == [(log, "".join(WORDS))] * 12


async def test_facts_alone_do_not_move_a_cursor_over_text_that_was_not_seen(serve: Serve) -> None:
    model = Speaker(["one ", "two ", "three "])
    viewer, pages = Viewer([TRANSPORTS["sse"]]), list[Json]()
    path = "/api/sessions/{}/events?after={}&wait=5"
    async with serve(an_agent(model)) as client:
        session = await client.session()
        await say(client, session)
        model.let(2)
        with anyio.fail_after(10):
            await viewer.watch(client, session, until=lambda v: v.text == "one two ")
            async with anyio.create_task_group() as tasks:

                async def poll(cursor: str) -> None:
                    pages.append(await client.get(path.format(session, cursor)))

                tasks.start_soon(poll, viewer.cursor)
                tasks.start_soon(poll, viewer.cursor.split(".")[0])
                await client.call(
                    "POST",
                    f"/api/sessions/{session}/messages",
                    {"content": "and?", "policy": "steer"},
                )

            fresh = Viewer([TRANSPORTS["sse"]], cursor=str(pages[0]["cursor"]))
            other = Viewer([TRANSPORTS["sse"]], cursor=str(pages[1]["cursor"]))
            model.let()
            await fresh.watch(client, session, until=lambda v: v.text.endswith("three "))
            await other.watch(client, session, until=lambda v: v.text.endswith("three "))

        texts = {
            str(page["cursor"]).count("."): v.text
            for page, v in zip(pages, (fresh, other), strict=True)
        }
        assert texts == {2: "three ", 0: "one two three "}


@pytest.mark.parametrize("transport", MID_MESSAGE)
async def test_a_cursor_in_the_middle_of_a_message_is_good_after_a_restart(
    serve: Serve, tmp_path: Path, transport: str
) -> None:
    model = Speaker(["one ", "two ", "three "])
    viewers = [Viewer([TRANSPORTS[transport]], [cut]) for cut in range(4)]
    with anyio.fail_after(18):
        async with serve(an_agent(model)) as client:
            session = await client.session()
            await say(client, session)
            model.let(2)
            for viewer in viewers:
                await viewer.watch(client, session, until=lambda v: v.text == "one two ")

        model.let(10)
        async with serve(an_agent(model)) as client, anyio.create_task_group() as tasks:
            for viewer in viewers:
                tasks.start_soon(viewer.watch, client, session)

    log = await the_log(tmp_path, session)
    for viewer in viewers:
        assert viewer.facts == log
        assert viewer.kinds.count("attempt_dropped") == 1
        first, *others = viewer.texts.values()
        assert first == "one two "
        assert all("one two three ".startswith(text) for text in others)


async def test_a_page_with_deltas_has_the_facts_and_then_the_text_in_flight(serve: Serve) -> None:
    model = Speaker(["one ", "two "])
    async with serve(an_agent(model)) as client:
        session = await client.session()
        await say(client, session)
        model.let(2)
        with anyio.fail_after(10):
            viewer = Viewer([TRANSPORTS["sse"]])
            await viewer.watch(client, session, until=lambda v: v.text == "one two ")

        path = f"/api/sessions/{session}/events?deltas=true"
        page = await client.get(path)
        small = await client.get(f"{path}&limit=2")
        rest = await client.get(f"{path}&after={page['cursor']}")
        facts = await client.get(f"/api/sessions/{session}/events")

        kinds = [frame["event"] for frame in page["events"]]  # type: ignore[attr-defined, index]
        assert kinds == [*viewer.kinds, "delta"]
        assert page["events"][-1]["data"]["text"] == "one two "  # type: ignore[index]
        assert (page["more"], page["cursor"]) == (False, viewer.cursor)
        assert (small["more"], small["cursor"]) == (True, "2")
        assert (rest["events"], rest["cursor"]) == ([], viewer.cursor)
        assert page["events"][:-1] == facts["events"]  # type: ignore[index]


@pytest.mark.parametrize("query", ["", "&deltas=true", "&wait=1", "&wait=1&deltas=true"])
@pytest.mark.parametrize("cursor", ["x", "1.2", "-1", "99", "1.99.3", "99.1.2"])
async def test_only_cursors_that_are_none_or_beyond_the_head_are_refused(
    serve: Serve, query: str, cursor: str
) -> None:
    async with serve(an_agent(Speaker([]))) as client:
        session = await client.session()
        await say(client, session)

        path = f"/api/sessions/{session}/events?after={cursor}{query}"
        status, problem = await client.call("GET", path)

        assert (status, problem["code"]) == (400, "malformed")
