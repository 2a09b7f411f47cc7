"""What the lab's servers serve: agents that play scripts, whose tools write down what they do.

Invariant: a tool writes that it began before it does anything else, so what is not in that file did
not happen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

MODULE = "lab_agents"
EFFECTS = "effects"
SECRET = "lab_key"  # noqa: S105  its name
AGENTS = '''
import os
from pathlib import Path

from hostler import Agent, CallContext, tool

HERE = Path(__file__).parent


def begins(name: str, context: CallContext) -> None:
    fd = os.open(HERE / "effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{name} {context.key.run} {context.call}\\n".encode())
    os.close(fd)


@tool
async def note(text: str, context: CallContext) -> str:
    """Write something down.  Never twice."""
    begins("note", context)
    return f"noted: {text}"


@tool(twice="safe", effects="read")
async def look(context: CallContext) -> str:
    """Look.  Again, if need be."""
    begins("look", context)
    return "seen"


@tool(twice="safe", effects="read")
async def recite(context: CallContext) -> str:
    """Say so much that it is kept in a file."""
    begins("recite", context)
    return "all the words there are " * 8000


@tool(approval=True)
async def deploy(where: str, context: CallContext) -> str:
    """Do what a person has to allow."""
    begins("deploy", context)
    return f"deployed to {where}"


@tool(secrets=["lab_key"])
async def unlock(context: CallContext) -> str:
    """Use a secret, and talk about it."""
    begins("unlock", context)
    return "the door opens with " + await context.secret("lab_key")


TOOLS = [note, look, recite, deploy, unlock]
agents = [
    Agent(name, model=f"scripted:{HERE / name}.json", tools=TOOLS)
    for name in ("worker", "asker", "slow", "keyed", "busy", "long", "brief")
]
'''
"""A module of its users, who are above this floor."""
SAFE = frozenset({"look", "recite"})
"""Tools that may be run twice."""


def _calls(*names: str, **arguments: object) -> Mapping[str, object]:
    return {"calls": [{"name": name, "arguments": arguments} for name in names]}


_NOTE_AND_LOOK = {
    "calls": [{"name": "note", "arguments": {"text": "this"}}, {"name": "look"}],
}
_WORDS = " ".join(f"word{number}" for number in range(40))
SCRIPTS: Mapping[str, Sequence[object]] = {
    "worker": [
        _NOTE_AND_LOOK,
        _calls("recite"),
        {"text": "it is done"},
        {"text": "and done again"},
        {"text": "and once more"},
    ],
    "asker": [_calls("deploy", where="production"), {"text": "asked and answered"}],
    "slow": [{"text": _WORDS, "delay_s": 3600}],
    "keyed": [_calls("unlock"), {"text": "it is open"}],
    "brief": [{"text": "it was time"}],
    "busy": [{**_NOTE_AND_LOOK, "delay_s": 0.2}, {"text": _WORDS, "delay_s": 0.8}] * 2000,
    "long": [*[{**_NOTE_AND_LOOK, "delay_s": 0.3}] * 3, {"text": _WORDS, "delay_s": 0.3}] * 1000,
}
"""By agent."""


def put(folder: Path) -> str:
    """Write the agents and their scripts to a folder; return what to serve."""
    (folder / f"{MODULE}.py").write_text(AGENTS, encoding="utf-8")
    for name, script in SCRIPTS.items():
        (folder / f"{name}.json").write_text(json.dumps(script), encoding="utf-8")
    return f"{MODULE}:agents"


class Effect(NamedTuple):
    """That a tool began."""

    tool: str
    run: str
    call: str


def effects(folder: Path) -> Sequence[Effect]:
    """Return what tools did, in order."""
    file = folder / EFFECTS
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [Effect(*line.split(" ")) for line in lines]
