"""How much of everything a client may send or hold, why, and the checks.

What is over a limit of size is refused with 413, another mistake with 422 and a pointer, and too
many at once with 429 or 409; nothing of it is stored.

Invariant: a limit is a constant here or, where the rules of the core enforce it, there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from hostler.core.decide import MOST_CALLS
from hostler.core.errors import Invalid, TooLarge
from hostler.core.events import ClientTool, JsonObject
from hostler.core.head import LONGEST_QUEUE
from hostler.core.said import Content, TextPart
from hostler.core.shown import DEEPEST, is_deeper

__all__ = ["DEEPEST", "LONGEST_QUEUE", "MOST_CALLS"]

LONGEST_TEXT = 4_000_000
"""Characters of one message: some million tokens, as much as any model reads at once."""
MOST_PARTS = 100
"""Parts of one message: providers take fewer images than this, and text can be joined."""
LARGEST_METADATA = 16 * 1024
"""Bytes of JSON: labels, which every list of sessions carries along; data belongs in messages."""
LONGEST_TITLE = 500
"""Characters: a line to choose a session by."""
LONGEST_LABEL = 64
"""Characters of a run's purpose, or of what a rating is about: one of few values to sum by."""
LONGEST_COMMENT = 4000
"""Characters of a rating's comment: some paragraphs."""
MOST_CLIENT_TOOLS = 128
"""Of one session: what OpenAI takes, so that its clients have room; each costs tokens in every prompt."""
LARGEST_CLIENT_TOOL = 32 * 1024
"""Bytes of JSON, name, description and schema: it is sent with every prompt."""
MOST_SAID = 20_000
"""Messages of a history that a client brings: more than fits a model's memory."""
MOST_STOPS = 64
"""Texts at which an answer ends: providers take 4 to 16."""
LONGEST_STOPS = 16 * 1024
"""Characters of these together."""
MOST_SESSIONS = 1_000_000
"""Of one tenant, whatever retention is set to: lists and search stay quick up to here."""
MOST_STREAMS = 10_000
"""Open at once by one principal, over SSE and sockets: up to 60 KiB each."""
MOST_SHARES = 100
"""Links of one session, those that have expired of late too: each list of them is whole."""
MOST_WEBHOOKS = 20
"""Of one tenant: each is written to with every event that it wants."""
LONGEST_WEBHOOK_URL = 2_048
"""Characters: as most programs that read one have it."""
LARGEST_ARCHIVE = 64 * 1024 * 1024
"""Bytes of an import: its facts are in memory at once."""
LARGEST_ARCHIVE_LINE = 16 * 1024 * 1024
"""Bytes of one fact in it: a body's worth of content, with room for escapes."""

_LABEL = re.compile(rf"[A-Za-z0-9_.:-]{{1,{LONGEST_LABEL}}}", re.ASCII)


def check_content(content: Content) -> None:
    """Refuse a message that is too much to read.

    Raises:
        TooLarge: too much text.
        Invalid: too many parts.
    """
    if isinstance(content, str):
        length = len(content)
    elif len(content) > MOST_PARTS:
        wanted = f"at most {MOST_PARTS} parts"
        raise Invalid(f"content has {len(content)} parts", fields=[("/content", wanted)])
    else:
        length = sum(len(part.text) for part in content if isinstance(part, TextPart))
    if length > LONGEST_TEXT:
        raise TooLarge(f"content has {length:,} characters; {LONGEST_TEXT:,} are allowed")


def check_labels(title: object, metadata: JsonObject | None) -> None:
    """Refuse labels that lists could not carry.  Raises Invalid."""
    if isinstance(title, str) and len(title) > LONGEST_TITLE:
        wanted = f"at most {LONGEST_TITLE} characters"
        raise Invalid(f"the title has {len(title):,} characters", fields=[("/title", wanted)])
    if metadata:
        check_metadata(metadata)


def check_metadata(metadata: JsonObject) -> None:
    """Refuse metadata that is large or deep.  Raises Invalid."""
    check_depth("/metadata", metadata)
    check_size("/metadata", metadata, LARGEST_METADATA)


def check_label(pointer: str, label: str | None) -> None:
    """Refuse a label that is long or says nothing.  Raises Invalid."""
    if label is not None and not _LABEL.fullmatch(label):
        wanted = f"1 to {LONGEST_LABEL} of A-Z, a-z, 0-9, _ . : and -"
        raise Invalid("this label has another form", fields=[(pointer, wanted)])


def check_client_tools(tools: Sequence[ClientTool]) -> None:
    """Refuse tools that no prompt should carry.  Raises Invalid."""
    if len(tools) > MOST_CLIENT_TOOLS:
        wanted = f"at most {MOST_CLIENT_TOOLS} tools"
        raise Invalid(f"there are {len(tools)} client tools", fields=[("/client_tools", wanted)])
    for place, tool in enumerate(tools):
        check_depth(f"/client_tools/{place}/parameters", tool.parameters)
        check_size(f"/client_tools/{place}", tool, LARGEST_CLIENT_TOOL)


def check_depth(pointer: str, value: object) -> None:
    """Refuse deep nesting.

    Raises:
        Invalid: deeper than `DEEPEST`.
    """
    if is_deeper(value, DEEPEST):
        raise Invalid("nested too deeply", fields=[(pointer, f"at most {DEEPEST} levels")])


def check_size(pointer: str, value: object, most: int) -> None:
    """Refuse what is too large as JSON, in bytes.  Raises Invalid."""
    size = len(msgspec.json.encode(value))
    if size > most:
        raise Invalid(f"{size:,} bytes of JSON", fields=[(pointer, f"at most {most:,} bytes")])
