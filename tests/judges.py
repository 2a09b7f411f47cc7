"""Judges of wire APIs that are not ours, on a server of ours whose models are fakes that obey.

`python -m tests.judges` runs them all and writes down what they say, for the reference page.

Invariant: what is written down was said just now, by the versions that are named beside it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import cast

import anyio
import msgspec
from docs.build.__main__ import main as build
from docs.build.compliance import RECORD, Flag, Verdict, recorded
from tests.obedient_wires import ANTHROPIC, VLLM, obedient_house
from tests.programs import node, npm_packages
from tests.serving import Client, Json

MODELS = (VLLM, ANTHROPIC)
FORMATS: Mapping[str, tuple[str, Sequence[str]]] = {
    "openai-chat": ("chat", ()),
    "open-responses": ("responses", ()),
    "anthropic": (
        "messages",
        ("--auth-header", "x-api-key", "--no-bearer", "-H", "anthropic-version:2023-06-01"),
    ),
}
"""What llm-comply calls our faces, and what it has to be told for each."""
PATIENCE_S = 150.0


async def llmprobe(client: Client, model: str, folder: Path) -> list[Verdict]:
    """Return what llmprobe says of each face that it finds."""
    package, told = npm_packages() / "node_modules/llmprobe", folder / "llmprobe.json"
    program = [node(), str(package / "bin/dist/llmprobe.mjs"), f"{client.url}/v1"]
    asked = ["-k", client.key, "-m", model, "--full", "--no-bench", "--no-save"]
    await _run([*program, *asked, "--save", str(told)], folder)
    found = cast("Json", json.loads(told.read_bytes())["conformance"])
    results, warned = (cast("list[Json]", found[name]) for name in ("results", "warnings"))
    name = f"llmprobe {json.loads((package / 'package.json').read_bytes())['version']}"
    verdicts = list[Verdict]()
    for face in dict.fromkeys(str(one["surface"]) for one in results):
        mine = [one for one in results if one["surface"] == face]
        tried = [one for one in mine if one["outcome"] not in ("unsupported", "skipped")]
        flags = [
            Flag(check=str(failure["id"]), says="fails")
            for one in tried
            for failure in cast("list[Json]", one["failures"])
            if failure.get("severity", "MUST") == "MUST"
        ]
        flags += [
            Flag(check=str(one["id"]), says="undecided")
            for one in tried
            if one["outcome"] not in ("pass", "fail")
        ]
        flags += [
            Flag(check=str(one["id"]), says="warns")
            for one in warned
            if str(one["id"]).startswith(f"{face}-")
        ]
        passed = sum(one["outcome"] == "pass" for one in tried)
        if tried:
            verdicts.append(_verdict(name, face, model, passed, len(tried), flags))
    return verdicts


async def llm_comply(client: Client, model: str, folder: Path) -> list[Verdict]:
    """Return what llm-comply says of each face that it knows."""
    name, verdicts = f"llm-comply {version('llm-comply')}", list[Verdict]()
    for format_, (face, more) in FORMATS.items():
        asked = ["--format", format_, "-u", f"{client.url}/v1", "-k", client.key, "-m", model]
        program = [sys.executable, "-m", "llm_comply.cli", "--json"]
        told = await _run([*program, *asked, *more], folder)
        results = cast("list[Json]", json.loads(told)["results"])
        tried = [one for one in results if one["status"] != "skipped"]
        flags = [
            Flag(check=str(one["id"]), says="warns" if one["status"] == "passed" else "fails")
            for one in tried
            if one["status"] != "passed" or "warnings" in one
        ]
        passed = sum(one["status"] == "passed" for one in tried)
        verdicts.append(_verdict(name, face, model, passed, len(tried), flags))
    return verdicts


JUDGES = {"llmprobe": llmprobe, "llm-comply": llm_comply}


def _verdict(
    judge: str, face: str, model: str, passed: int, checks: int, flags: Sequence[Flag]
) -> Verdict:
    provider = model.partition(":")[0]
    ordered = tuple(sorted(set(flags), key=lambda one: (one.says, one.check)))
    return Verdict(
        judge=judge, face=face, provider=provider, passed=passed, checks=checks, flags=ordered
    )


async def _run(command: Sequence[str], folder: Path) -> bytes:
    """Return what a judge prints, whatever it thinks of us; it must have come to an end."""
    with anyio.fail_after(PATIENCE_S):
        ended = await anyio.run_process(
            command,
            check=False,
            env={"HOME": str(folder), "NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
        )
    assert ended.returncode in (0, 1), ended.stderr.decode()
    return ended.stdout


async def judged(judge: str, model: str, folder: Path) -> list[Verdict]:
    """Return what a judge says of all faces, of which `model` is asked."""
    async with obedient_house(folder) as client:
        return await JUDGES[judge](client, model, folder)


def said(judge: str, model: str) -> list[Verdict]:
    """Return what it said when it was written down."""
    provider = model.partition(":")[0]
    by = [one for one in recorded() if one.judge.partition(" ")[0] == judge]
    return [one for one in by if one.provider == provider]


async def _write() -> None:
    verdicts = list[Verdict]()
    for judge in JUDGES:
        for model in MODELS:
            with tempfile.TemporaryDirectory() as folder:
                verdicts += await judged(judge, model, Path(folder))
    RECORD.write_bytes(msgspec.json.format(msgspec.json.encode(verdicts), indent=1) + b"\n")


if __name__ == "__main__":
    anyio.run(_write)
    sys.exit(build([]))
