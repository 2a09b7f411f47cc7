"""Files of sessions, written by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tests.serving import Client, Json

ABOUT: Json = {"id": "ses_damaged0", "agent": "plain", "created_at": "2026-01-01T00:00:00Z"}
HEAD: Json = {"hostler": 1, "events": 2, "session": ABOUT}
SPOKE: Json = {
    "kind": "user_spoke",
    "run": "run_1",
    "input": "inp_1",
    "content": "x",
    "policy": "queue",
    "principal": "p",
    "metadata": {},
}


def a_line(seq: object, fact: object, at: object = "2026-01-01T00:00:00Z") -> object:
    return {"seq": seq, "at": at, "fact": fact}


def as_file(lines: Sequence[object]) -> bytes:
    return b"\n".join(
        line[4:].encode("latin-1") if isinstance(line, str) else json.dumps(line).encode()
        for line in lines
    )


async def imported(client: Client, file: bytes, query: str = "") -> tuple[int, Json]:
    return await client.call("POST", f"/api/sessions/import{query}", raw=file)
