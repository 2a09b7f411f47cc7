"""The page on what judges of wire APIs say of ours, made of what they said.

`python -m tests.judges` asks them and keeps their answers in `compliance.json`; a test asks them again.

Invariant: no figure is here that was not measured, and nothing that they flag is without its reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import msgspec
from docs.build.markdown import code, page, table
from docs.build.source import Undocumented
from msgspec import Struct

RECORD = Path(__file__).with_suffix(".json")
INTRO = """
Judges that are not ours, asked about a running server. The model behind it is a fake that obeys to
the letter (`tests/obedient.py`), so what is judged are the protocols and not a model. It is asked
over two wire APIs, as vLLM and as Anthropic speak them: what a client of one vendor asks of a model
of the other is translated twice.

`python -m tests.judges` asks the judges again and writes this page; a test fails when they say
anything else.
"""
FLAGGED = "Each thing that a judge flags, and why it is as it is:"
_NO_LIMIT = (
    "Requests without `max_tokens` are answered: models that are not Anthropic's have limits of "
    "their own, and a client that leaves it out means that."
)
_APART = (
    "Anthropic counts `input_tokens` apart from what the cache gave, and so do we. The judge holds "
    "both against each other as OpenAI counts them, the cache's being a part."
)
WHY: Mapping[str, str] = {
    "anth-error-handling": _NO_LIMIT,
    "chat-json-mode-parses": (
        "Anthropic's API has no word for JSON without a schema, so the model is not told of it. "
        "With a schema it is."
    ),
    "responses-json-mode-parses": (
        "As `chat-json-mode-parses`: Anthropic's API has no word for it."
    ),
    "count-tokens-matches-usage": (
        "Tokens are estimated by characters: there is no tokenizer here, and each model has its own."
    ),
    "messages-cache-bound": _APART,
    "messages-cache-prefix-bound": _APART,
    "messages-cache-write": "Chat Completions have no count of what was written to a cache.",
    "messages-requires-max-tokens": _NO_LIMIT,
}
"""By check."""


class Flag(Struct, frozen=True, kw_only=True):
    """A check that is not simply passed.  `warns`: it is, but it would have liked another answer."""

    check: str
    says: Literal["fails", "undecided", "warns"]


class Verdict(Struct, frozen=True, kw_only=True):
    """What one judge says of one face."""

    judge: str
    """With its version."""
    face: str
    provider: str
    """Whose wire API the model behind it speaks."""
    passed: int
    checks: int
    """Those that were tried."""
    flags: tuple[Flag, ...]


def recorded() -> list[Verdict]:
    """Return what was said when it was written down."""
    return msgspec.json.decode(RECORD.read_bytes(), type=list[Verdict])


def compliance() -> str:
    """Return the page.  Raises Undocumented: a flag has no reason, or a reason no flag."""
    verdicts = recorded()
    return page(
        "Compliance",
        INTRO,
        table(
            ["judge", "face", "model behind it", "checks passed"],
            (
                [one.judge, code(one.face), code(one.provider), f"{one.passed} of {one.checks}"]
                for one in verdicts
            ),
        ),
        "## What they flag",
        FLAGGED,
        table(["check", "verdict", "model behind it", "why"], _flags(verdicts)),
    )


def _flags(verdicts: Iterable[Verdict]) -> list[list[str]]:
    by: dict[Flag, list[str]] = {}
    for one in verdicts:
        for flag in one.flags:
            by.setdefault(flag, []).append(one.provider)
    known = {flag.check for flag in by}
    for check in known - WHY.keys():
        raise Undocumented(f"a judge flags {check}, and nobody says why")
    for check in WHY.keys() - known:
        raise Undocumented(f"no judge flags {check} any more")
    return [
        [code(flag.check), flag.says, ", ".join(map(code, providers)), WHY[flag.check]]
        for flag, providers in by.items()
    ]
