"""What the native API refuses, and that it says so in one form and stores nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import cast

import pytest
from tests.serving import Client, Json, Serve

from hostler.core.ports import AgentSpec, Reply
from hostler.testing.doubles import ModelDouble, an_agent

pytestmark = pytest.mark.anyio


def an_ordinary_agent() -> AgentSpec:
    return an_agent(ModelDouble(lambda _: Reply(text="ok", stop="end")), name="ordinary")


@pytest.mark.parametrize("key", ["", "hk_wrong", "hk_test_0123456789abcdef0123456789abcde"])
async def test_no_operation_but_the_health_checks_answers_without_the_key(
    serve: Serve, key: str
) -> None:
    async with serve(an_ordinary_agent()) as client:
        paths = cast("dict[str, Json]", (await client.get("/openapi.json"))["paths"])
        stranger = Client(client.http, client.url, key)

        for path, operations in paths.items():
            for method in operations:
                status, _ = await stranger.call(
                    method.upper(), path.replace("{", "").replace("}", "")
                )
                assert status == (200 if path in ("/healthz", "/readyz") else 401), path


BAD_BODIES: dict[str, tuple[bytes, int]] = {
    "not JSON": (b"hello", 400),
    "half of it": (b'{"content": "x', 400),
    "not UTF-8": (b'{"content": "\xff\xfe"}', 400),
    "nested a hundred thousand deep": (b'{"metadata": ' + b'{"a":' * 100_000, 400),
    "nested deeply and whole": (
        b'{"content": "x", "metadata": ' + b'{"a":' * 100 + b"1" + b"}" * 100 + b"}",
        422,
    ),
    "nothing": (b"", 422),
    "null": (b"null", 422),
    "a list": (b"[]", 422),
    "a number for text": (b'{"content": 5}', 422),
    "an empty text": (b'{"content": ""}', 422),
    "no parts": (b'{"content": []}', 422),
    "a part of no kind": (b'{"content": [{"type": "song"}]}', 422),
    "an image of nothing": (b'{"content": [{"type": "image"}]}', 422),
    "an unknown policy": (b'{"content": "x", "policy": "now"}', 422),
    "an unknown field": (b'{"content": "x", "polcy": "queue"}', 422),
    "a lone surrogate": (b'{"content": "\\ud800"}', 400),
}


@pytest.mark.parametrize("case", BAD_BODIES)
async def test_a_bad_body_is_refused_with_a_reason_and_stores_nothing(
    serve: Serve, case: str
) -> None:
    async with serve(an_ordinary_agent()) as client:
        session = await client.session()
        raw, expected = BAD_BODIES[case]

        status, problem = await client.call("POST", f"/api/sessions/{session}/messages", raw=raw)

        assert status == expected, problem
        assert problem["code"] == ("malformed" if expected == 400 else "invalid")
        assert problem["status"] == expected
        assert "Traceback" not in json.dumps(problem)
        assert await client.facts(session) == []


async def test_a_hundred_megabytes_are_refused_before_they_are_read(serve: Serve) -> None:
    async with serve(an_ordinary_agent()) as client:
        session = await client.session()
        path = f"/api/sessions/{session}/messages"

        async def endless() -> AsyncGenerator[bytes, None]:
            for _ in range(100):
                yield b" " * 1024 * 1024

        status, problem = await client.call("POST", path, headers={"Content-Length": "104857600"})
        assert (status, problem["code"]) == (413, "too_large")
        async with client.http.post(
            f"{client.url}{path}", data=endless(), headers={"Authorization": f"Bearer {client.key}"}
        ) as answer:
            assert answer.status == 413


@pytest.mark.parametrize(
    "path",
    [
        "/api/sessions/ses_absent00",
        "/api/sessions/ses_absent00/events",
        "/api/sessions/%00%ff/events",
        "/api/sessions/" + "x" * 5000,
        "/api/runs/run_absent",
        "/api/agents/absent",
        "/api/nothing",
        "/",
    ],
)
async def test_what_is_absent_is_a_404_in_one_form(serve: Serve, path: str) -> None:
    async with serve(an_ordinary_agent()) as client:
        status, problem = await client.call("GET", path)
        assert (status, problem["code"], problem["status"]) == (404, "not_found", 404)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("after=x", 400),
        ("after=-1", 400),
        ("after=999", 400),
        ("after=1.2", 400),
        ("after=" + "9" * 400, 400),
        ("after=0.999.5", 400),
        ("limit=0", 422),
        ("limit=1001", 422),
        ("limit=x", 422),
        ("wait=301", 422),
        ("after=%ff", 400),
    ],
)
async def test_a_bad_cursor_or_number_is_refused(serve: Serve, query: str, expected: int) -> None:
    async with serve(an_ordinary_agent()) as client:
        session = await client.session()
        for accept in ("application/json", "text/event-stream"):
            if accept == "text/event-stream" and "after" not in query:
                continue
            status, problem = await client.call(
                "GET", f"/api/sessions/{session}/events?{query}", headers={"Accept": accept}
            )
            assert status == expected, problem


@pytest.mark.parametrize("path", ["/api/sessions", "/api/runs", "/api/approvals"])
async def test_a_status_that_nothing_can_have_is_refused_with_those_there_are(
    serve: Serve, path: str
) -> None:
    async with serve(an_ordinary_agent()) as client:
        status, problem = await client.call("GET", f"{path}?status=asleep")
        assert (status, problem["detail"]) == (422, "status cannot be 'asleep'")
        (field,) = cast("list[dict[str, str]]", problem["errors"])
        for word in field["detail"].removeprefix("one of: ").split(", "):
            assert (await client.call("GET", f"{path}?status={word}"))[0] == 200
        assert (await client.call("GET", f"{path}?status="))[0] == 200, "empty is not said"


async def test_a_method_that_a_path_does_not_have_says_which_it_has(serve: Serve) -> None:
    async with serve(an_ordinary_agent()) as client:
        status, problem = await client.call("PUT", "/api/sessions")
        assert (status, problem["detail"]) == (405, "use one of: GET, POST")


async def test_an_unknown_agent_is_refused_by_name(serve: Serve) -> None:
    async with serve(an_ordinary_agent()) as client:
        status, problem = await client.call("POST", "/api/sessions", {"agent": "nobody"})
        assert status == 422
        assert "ordinary" in str(problem["detail"])
        assert problem["errors"] == [
            {"pointer": "/agent", "detail": "the name of an agent that is served here"}
        ]
