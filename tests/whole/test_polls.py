"""Whoever waits for an answer has a place among the open streams, and waits as long as they may."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
import anyio.lowlevel
import pytest
from tests.people import new_key, somebody
from tests.serving import Client, Json, quick, serving
from tests.viewers import Speaker

from hostler.faces.http.open_streams import OpenStreams
from hostler.testing.doubles import an_agent

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def silent(tmp_path: Path, streams: OpenStreams) -> AsyncGenerator[Client]:
    """Serve an agent that never says anything."""
    async with serving(an_agent(Speaker([])), file=tmp_path / "log.db", streams=streams) as admin:
        yield admin


async def until(what: Callable[[], bool]) -> None:
    while not what():
        await anyio.lowlevel.checkpoint()


class Poll:
    """A request that waits for up to five minutes, in a task of its own."""

    def __init__(self, client: Client, session: str, how: str) -> None:
        self.client, self.path, self.how = client, f"/api/sessions/{session}", how
        self.status, self.body = 0, Json()

    async def __call__(self) -> None:
        if self.how == "events":
            path = f"{self.path}/events?wait=300&after=now"
            self.status, self.body = await self.client.call("GET", path)
            return
        self.status, self.body = await self.client.call(
            "POST",
            f"{self.path}/messages",
            {"content": "hello"},
            headers={"Prefer": "wait=300"},
        )


POLLS = pytest.mark.parametrize("how", ["events", "message"])


@POLLS
async def test_who_waits_is_told_at_once_that_their_key_was_revoked(
    tmp_path: Path, how: str
) -> None:
    streams = OpenStreams()
    async with silent(tmp_path, streams) as admin:
        key = await new_key(admin, user="alice")
        alice = Client(admin.http, admin.url, str(key["key"]))
        poll = Poll(alice, await alice.session(), how)
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(poll)
                await until(lambda: streams.by_kind["poll"] == 1)
                assert (await admin.call("DELETE", f"/api/keys/{key['id']}"))[0] == 204

        assert (poll.status, poll.body["code"]) == (401, "unauthorised")


@POLLS
async def test_who_waits_is_told_at_once_that_the_session_is_shared_no_more(
    tmp_path: Path, how: str
) -> None:
    streams = OpenStreams()
    async with silent(tmp_path, streams) as admin:
        alice, bob = await somebody(admin, "alice"), await somebody(admin, "bob")
        session = await alice.session()
        members = f"/api/sessions/{session}/members/bob"
        await alice.call("PUT", members, {"role": "member"})
        poll = Poll(bob, session, how)
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(poll)
                await until(lambda: streams.by_kind["poll"] == 1)
                assert (await alice.call("DELETE", members))[0] == 204

        assert (poll.status, poll.body["code"]) == (404, "not_found")


@POLLS
async def test_who_waits_gets_what_there_is_when_the_server_stops(tmp_path: Path, how: str) -> None:
    streams = OpenStreams()
    async with silent(tmp_path, streams) as admin:
        poll = Poll(admin, await admin.session(), how)
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(poll)
                await until(lambda: streams.by_kind["poll"] == 1)
                streams.close()

        if how == "events":
            assert (poll.status, poll.body["events"], poll.body["cursor"]) == (200, [], "0")
        else:
            assert (poll.status, poll.body["status"]) == (202, "accepted")


@POLLS
async def test_the_place_of_a_client_that_goes_away_is_free_again(tmp_path: Path, how: str) -> None:
    streams = OpenStreams()
    async with silent(tmp_path, streams) as admin:
        poll = Poll(admin, await admin.session(), how)
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(poll)
                await until(lambda: streams.by_kind["poll"] == 1)
                tasks.cancel_scope.cancel()
            await until(lambda: streams.by_kind["poll"] == 0)


async def test_all_that_lasts_is_counted_and_what_is_answered_at_once_is_not(
    tmp_path: Path,
) -> None:
    streams = OpenStreams(most=1)
    async with silent(tmp_path, streams) as admin:
        session = await admin.session()
        here = f"/api/sessions/{session}"
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(Poll(admin, session, "events"))
                await until(lambda: streams.by_kind["poll"] == 1)
                for path in (
                    f"{here}/events?wait=1",
                    f"{here}/export",
                    "/api/audit/export",
                    "/api/doctor/stream?n=2",
                ):
                    status, problem = await admin.call("GET", path)
                    assert (status, problem.get("code")) == (429, "too_many"), path
                said = await admin.call(
                    "POST", f"{here}/messages", {"content": "x"}, headers={"Prefer": "wait=1"}
                )
                assert said[0] == 429
                assert (await admin.call("GET", f"{here}/events"))[0] == 200
                tasks.cancel_scope.cancel()


async def test_ticks_end_with_the_key_they_were_asked_for_with(tmp_path: Path) -> None:
    streams = OpenStreams()
    async with silent(tmp_path, streams) as admin:
        key = await new_key(admin, user="alice")
        headers = {"Authorization": f"Bearer {key['key']}"}
        ticks = f"{admin.url}/api/doctor/stream?n=200&every_ms=5000"
        with anyio.fail_after(10):
            async with admin.http.get(ticks, headers=headers) as answer:
                await answer.content.readany()
                await admin.call("DELETE", f"/api/keys/{key['id']}")
                with pytest.raises(aiohttp.ClientPayloadError):
                    await answer.content.read()
        assert streams.by_kind["sse"] == 0


async def test_ticks_end_when_nobody_is_there_for_them(tmp_path: Path) -> None:
    streams = OpenStreams()
    async with silent(tmp_path, streams) as admin:
        headers = {"Authorization": f"Bearer {admin.key}"}
        ticks = f"{admin.url}/api/doctor/stream?n=200&every_ms=5000"
        with anyio.fail_after(10):
            async with admin.http.get(ticks, headers=headers) as answer:
                await answer.content.readany()
                assert streams.by_kind["sse"] == 1
            await until(lambda: streams.by_kind["sse"] == 0)


@pytest.mark.parametrize("wait", ["9" * 5000, "²", "٣", "1" * 18])
async def test_a_preference_that_is_no_time_is_none(tmp_path: Path, wait: str) -> None:
    async with serving(an_agent(quick()), file=tmp_path / "log.db") as client:
        path = f"/api/sessions/{await client.session()}/messages"
        said = await client.call("POST", path, {"content": "x"}, headers={"Prefer": f"wait={wait}"})
        assert said[0] == (200 if wait == "1" * 18 else 202)
