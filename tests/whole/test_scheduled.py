"""Messages that are said later, as clients meet them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from tests.services import Database
from tests.serving import Client, Json, Serve, quick, serving

from hostler.core.ports import AgentSpec
from hostler.testing.doubles import an_agent

pytestmark = pytest.mark.anyio
DAY, SOON = timedelta(days=1), timedelta(seconds=0.5)


def plain() -> AgentSpec:
    return an_agent(quick(), name="plain")


def after(delay: timedelta) -> str:
    return (datetime.now(UTC) + delay).isoformat()


async def later(
    client: Client, session: str, delay: timedelta = DAY, *, key: str | None = None, **more: object
) -> tuple[int, Json]:
    body = {"content": "hello", "at": after(delay), **more}
    headers = {} if key is None else {"Idempotency-Key": key}
    return await client.call("POST", f"/api/sessions/{session}/messages", body, headers=headers)


async def listed(client: Client, session: str) -> Sequence[Json]:
    return cast("list[Json]", (await client.get(f"/api/sessions/{session}/scheduled"))["items"])


async def until_answered(client: Client, session: str) -> list[str]:
    """Return the kinds of all facts up to the next end of a run."""
    kinds = list[str]()
    async for frame in client.frames(f"/api/sessions/{session}/events"):
        kinds.append(frame.event)
        if frame.event == "run_ended":
            break
    return [kind for kind in kinds if kind != "delta"]


async def test_a_message_with_a_time_is_stored_now_and_answered_then(serve: Serve) -> None:
    async with serve(plain()) as client:
        session = await client.session()

        status, receipt = await later(client, session, SOON)

        assert status == 202
        assert (receipt["status"], receipt["seq"]) == ("scheduled", 1)
        kinds = await until_answered(client, session)
        assert kinds[:3] == ["message_scheduled", "user_spoke", "run_claimed"]
        spoke = (await client.facts(session))[1]
        assert (spoke["scheduled"], spoke["run"]) == (1, receipt["run"])
        assert str(spoke["at"]) >= str(receipt["due_at"])[:19]
        assert await listed(client, session) == []


async def test_what_is_to_be_said_is_listed_by_its_time(serve: Serve) -> None:
    async with serve(plain()) as client:
        session = await client.session()
        await later(client, session, 2 * DAY, content="then")
        await later(client, session, DAY, content="first", purpose="reminder")

        found = await listed(client, session)

        assert [one["content"] for one in found] == ["first", "then"]
        assert (found[0]["purpose"], found[0]["policy"]) == ("reminder", "queue")


async def test_what_was_withdrawn_is_not_said_and_cannot_be_withdrawn_again(serve: Serve) -> None:
    async with serve(plain()) as client:
        session = await client.session()
        _, receipt = await later(client, session)
        path = f"/api/sessions/{session}/scheduled/{receipt['input']}"

        first, _ = await client.call("DELETE", path)
        second, _ = await client.call("DELETE", path)

        assert (first, second) == (204, 404)
        assert await listed(client, session) == []
        dropped = (await client.facts(session))[-1]
        assert (dropped["kind"], dropped["reason"]) == ("input_dropped", "withdrawn")
        assert dropped["principal"] == "admin"


async def test_of_a_session_that_is_absent_nothing_is_listed_or_withdrawn(serve: Serve) -> None:
    async with serve(plain()) as client:
        path = "/api/sessions/ses_absent_one/scheduled"

        listing, _ = await client.call("GET", path)
        withdrawal, _ = await client.call("DELETE", f"{path}/inp_absent")

        assert (listing, withdrawal) == (404, 404)


async def test_another_message_does_not_wait_for_it(serve: Serve) -> None:
    async with serve(plain()) as client:
        session = await client.session()
        await later(client, session)

        frames = await client.speak(session)

        assert frames[-1].data["status"] == "done"
        assert len(await listed(client, session)) == 1


@pytest.mark.parametrize(
    "at",
    [
        "2020-01-01T00:00:00Z",
        "2400-01-01T00:00:00Z",
        "2026-01-01T00:00:00",
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00Z",
        "tomorrow",
        17,
        {"in": "a day"},
    ],
)
async def test_a_time_that_is_none_to_come_is_refused(serve: Serve, at: object) -> None:
    async with serve(plain()) as client:
        session = await client.session()

        status, told = await later(client, session, at=at)

        assert (status, told["code"]) == (422, "invalid")
        assert await client.facts(session) == []


async def test_no_more_are_scheduled_in_a_session_than_may_be(serve: Serve) -> None:
    async with serve(plain()) as client:
        session = await client.session()
        for _ in range(100):
            assert (await later(client, session))[0] == 202

        status, told = await later(client, session)

        assert (status, told["code"]) == (409, "queue_full")


async def test_a_repetition_schedules_nothing_new_even_when_the_time_is_over(serve: Serve) -> None:
    async with serve(plain()) as client:
        session, at = await client.session(), after(SOON)
        first = await later(client, session, key="once", at=at)
        await until_answered(client, session)

        assert await later(client, session, key="once", at=at) == first

        kinds = [one["kind"] for one in await client.facts(session)]
        assert kinds.count("message_scheduled") == 1


async def test_it_is_said_by_the_server_that_comes_after_the_one_that_took_it(
    tmp_path: Path,
) -> None:
    file = tmp_path / "hostler.db"
    async with serving(plain(), file=file) as client:
        session = await client.session()
        await later(client, session, timedelta(seconds=2))

    async with serving(plain(), file=file) as client:
        kinds = await until_answered(client, session)

    assert kinds.count("user_spoke") == 1


async def test_it_is_said_in_time_on_postgresql(postgres: Database) -> None:
    async with serving(plain(), file=postgres.url) as client:
        session = await client.session()
        await later(client, session, SOON)

        kinds = await until_answered(client, session)

    assert kinds[:3] == ["message_scheduled", "user_spoke", "run_claimed"]


async def test_an_imported_session_says_nothing_later_and_tells_so(serve: Serve) -> None:
    async with serve(plain()) as client:
        session = await client.session()
        await later(client, session)
        async with client.http.get(
            f"{client.url}/api/sessions/{session}/export",
            headers={"Authorization": f"Bearer {client.key}"},
        ) as answer:
            file = await answer.read()

        path = "/api/sessions/import?id=ses_imported0"
        status, _ = await client.call("POST", path, raw=file)

        assert status == 201
        assert await listed(client, "ses_imported0") == []
        dropped = (await client.facts("ses_imported0"))[-1]
        assert (dropped["kind"], dropped["reason"]) == ("input_dropped", "imported")
        assert len(await listed(client, session)) == 1


async def test_a_fork_does_not_say_what_its_parent_has_scheduled(serve: Serve) -> None:
    async with serve(plain()) as client:
        session = await client.session()
        await later(client, session)
        await client.speak(session)

        status, fork = await client.call("POST", f"/api/sessions/{session}/fork", {})

        assert status == 201
        assert await listed(client, str(fork["id"])) == []


async def test_a_socket_schedules_too(serve: Serve) -> None:
    async with serve(plain()) as client:
        session = await client.session()
        url = f"{client.url.replace('http', 'ws', 1)}/api/sessions/{session}/socket?after=now"
        async with client.http.ws_connect(
            url, headers={"Authorization": f"Bearer {client.key}"}
        ) as socket:
            body = {"content": "hello", "at": after(DAY)}
            await socket.send_json({"id": 1, "verb": "message", "body": body})
            told = await socket.receive_json()
            while "re" not in told:
                told = await socket.receive_json()

        assert (told["status"], told["body"]["status"]) == (202, "scheduled")
