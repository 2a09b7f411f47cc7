"""What `/openapi.json` says is so: schemathesis asks for everything in it, rightly and wrongly."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

import pytest
import requests
import schemathesis
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from schemathesis import GenerationMode, SerializationContext
from tests.serving import KEY, serving

from hostler.models.scripted import scripted
from hostler.service.service import Service
from hostler.testing.doubles import ToolboxDouble, a_tool, an_agent

FULL = bool(os.environ.get("HOSTLER_TEST_FULL"))
EXAMPLES = 2000 if FULL else 200
ANSWERED_WITHIN_S = 60.0
"""Nothing that is asked for here goes on for ever, streams included; a machine may be busy."""
AUTHORISED = {"Authorization": f"Bearer {KEY}"}
STREAMS: Mapping[str, Mapping[str, dict[str, str]]] = {
    # What would go on for longer than a test waits, and how it is bounded.
    "tick": {"query": {"n": "3", "every_ms": "1"}},
    "read_events": {"query": {"wait": "0", "until": "run_end"}},
    "speak": {"headers": {"Prefer": "wait=1"}},
}
SERVED_ELSEWHERE = ("open_socket",)
"""Needs an upgrade, which schemathesis cannot ask for: tests/whole/test_socket.py does."""


class Asking(Protocol):
    """A `schemathesis.Case`, whose own type is not known in full."""

    def call_and_validate(
        self, base_url: str, *, headers: dict[str, str], timeout: float
    ) -> object: ...


class Operation(Protocol):
    """A `schemathesis.APIOperation`, as far as it is used here."""

    @property
    def path(self) -> str: ...
    def as_strategy(
        self,
        generation_mode: GenerationMode,
        *,
        path_parameters: dict[str, str] | None,
        query: dict[str, str] | None,
        headers: dict[str, str] | None,
    ) -> SearchStrategy[Asking]: ...


@dataclass
class Api:
    """A server, and what its document says."""

    url: str
    made: int = 0
    document: dict[str, object] = field(init=False)

    def __post_init__(self) -> None:
        self.document = self.call("GET", "/openapi.json")

    def call(self, method: str, path: str, body: dict[str, str] | None = None) -> dict[str, object]:
        answer = requests.request(
            method, f"{self.url}{path}", json=body, headers=AUTHORISED, timeout=ANSWERED_WITHIN_S
        )
        assert answer.ok, answer.text
        return cast("dict[str, object]", answer.json())

    def operations(self) -> Iterable[tuple[str, Operation]]:
        """Yield what is documented, by name."""
        schema = schemathesis.openapi.from_dict(self.document, config=config())
        paths = cast("dict[str, dict[str, dict[str, object]]]", self.document["paths"])
        for path, methods in paths.items():
            for method, described in methods.items():
                yield str(described["operationId"]), cast("Operation", schema[path][method])

    def check(self, case: Asking) -> None:
        self.made += 1
        case.call_and_validate(base_url=self.url, headers=AUTHORISED, timeout=ANSWERED_WITHIN_S)


def config() -> schemathesis.Config:
    """Return what is meant by right and wrong.

    Names that nobody knows may be in a query; who may call is the check `ignored_auth`.  A body of
    the right form may still name an agent that is not here, and a cursor may be beyond the end.
    """
    accepted = ["2xx", "404", "409"]
    bodies = {"include-method": ["POST", "PATCH", "PUT"], "checks": rightly([*accepted, "422"])}
    events = {"include-operation-id": "read_events", "checks": rightly([*accepted, "400"])}
    # Times, groups and the closed list of actions are more than the document says.
    asked = ["list_runs", "usage", "list_audit"]
    times = {"include-operation-id": asked, "checks": rightly([*accepted, "422"])}
    imports = {"include-operation-id": "import_session", "checks": rightly(["2xx", "400", "422"])}
    # What vendors have as rules beyond the form of a body is 400, as everything else is that is wrong.
    vendors = {"include-path-regex": "^/v1/", "checks": rightly([*accepted, "400"])}
    return schemathesis.Config.from_dict(  # pyright: ignore[reportUnknownMemberType]
        {
            "generation": {"allow-extra-parameters": False, "with-security-parameters": False},
            "checks": rightly(accepted),
            "operations": [vendors, imports, bodies, events, times],
        }
    )


def rightly(statuses: Sequence[str]) -> dict[str, object]:
    """Return the setting for what may be answered to those who ask rightly."""
    return {"positive_data_acceptance": {"expected-statuses": statuses}}


@schemathesis.serializer("application/jsonl")
def as_lines(context: SerializationContext, value: object) -> bytes:
    """Return any text as the lines that a session is imported from."""
    del context
    return str(value).encode("utf-8", "surrogatepass")


def refuses_nobody(service: Service) -> None:
    """Have a server let in whoever comes: on a busy machine, 503 would be a right answer to all."""
    admission = service.sessions.inbox.admission
    admission.line, admission.most = None, sys.maxsize
    admission.clock = lambda: 0.0  # its loop is never late for long


@pytest.fixture
def api(tmp_path: Path) -> Generator[Api]:
    agent = an_agent(scripted("demo"), tools=ToolboxDouble({"act": a_tool("act")}), name="demo")
    server = serving(agent, file=tmp_path / "log.db", entered=refuses_nobody)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(server) as client:
        yield Api(client.url)


@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@pytest.mark.parametrize("there", [True, False], ids=["of what is there", "of anything"])
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_answer_is_as_documented(
    *,
    there: bool,
    mode: GenerationMode,
    api: Api,
) -> None:
    while api.made < EXAMPLES // 4:
        for name, operation in api.operations():
            if name not in SERVED_ELSEWHERE:
                ask(api, name, operation, mode=mode, there=there)


def ask(api: Api, name: str, operation: Operation, *, mode: GenerationMode, there: bool) -> None:
    ids = what_is_there(api) if there else {}
    bounds = STREAMS.get(name, {})
    cases = operation.as_strategy(
        generation_mode=mode,
        path_parameters={one: ids[one] for one in ids if f"{{{one}}}" in operation.path} or None,
        query=bounds.get("query"),
        headers=bounds.get("headers"),
    )

    @given(case=cases)
    @settings(
        max_examples=max(3, EXAMPLES // 80),
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        phases=[Phase.generate, Phase.shrink],
        print_blob=True,
    )
    def one(case: Asking) -> None:
        api.check(case)

    # What has no body and no number in its query takes anything.
    with suppress(*([Unsatisfiable] if mode is GenerationMode.NEGATIVE else [])):
        one()


def what_is_there(api: Api) -> dict[str, str]:
    """Make one of each thing that has an id."""
    session = str(api.call("POST", "/api/sessions", {})["id"])
    receipt = api.call("POST", f"/api/sessions/{session}/messages", {"content": "hello"})
    share = api.call("POST", f"/api/sessions/{session}/shares", {})
    return {
        "session": session,
        "run": str(receipt["run"]),
        "share": str(share["id"]),
        "agent": "demo",
    }
