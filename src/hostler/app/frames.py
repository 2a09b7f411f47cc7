"""What happens in a session, as programs see it: frame by frame, or only how it ended.

Invariant: a frame is the same, whether it comes over HTTP or out of this process.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from msgspec import Struct

from hostler.core.events import Fact, JsonObject, RunId, Unknown


class Finished(Struct, frozen=True, kw_only=True):
    """How a run that was waited for ended."""

    text: str
    """Of the last reply."""
    status: str
    """`done`, `failed` or `cancelled`."""
    reason: str | None
    """Why, unless all went as it should."""
    usage: JsonObject
    """Summed over the run."""
    session: str
    """Its id, to go on with it later."""


class Frame(Struct, frozen=True, kw_only=True):
    """One thing that happened, as the native API shows it: see the table of events there."""

    id: str
    """Cursor: what comes after this frame is past it."""
    event: str
    """The kind of the fact; or `receipt`, or `delta`."""
    data: JsonObject
    """The fact, the receipt or the delta."""

    @property
    def fact(self) -> Fact | Unknown | None:
        """Return the fact as a struct of `hostler.core.events`; None for a receipt or a delta.

        A kind that this version does not know, or not in this form, is an `Unknown`: pass over it.
        """
        kind, run = self.data.get("kind"), self.data.get("run")
        if not isinstance(kind, str):
            return None
        try:
            return msgspec.convert(self.data, Fact)
        except msgspec.ValidationError:
            return Unknown(run=RunId(run) if isinstance(run, str) else None, kind=kind)

    @property
    def text(self) -> str:
        """Return what a delta adds to the text of the reply; nothing for all other frames."""
        is_text = self.event == "delta" and self.data.get("part") == "text"
        return str(self.data.get("text", "")) if is_text else ""


async def text_of(frames: AsyncGenerator[Frame, None]) -> AsyncGenerator[str, None]:
    """Yield the text of the replies in frames, piece by piece as it comes, and all of it.

    What was said before somebody listened, or while their connection was away, comes when the
    reply is stored. An attempt at a reply that was given up is not taken back.
    """
    attempt, said = None, ""
    async with aclosing(frames):
        async for frame in frames:
            if frame.event not in ("delta", "model_replied"):
                continue
            if frame.data["attempt"] != attempt:
                attempt, said = frame.data["attempt"], ""
            if frame.event == "delta":
                more = frame.text
            else:
                whole = str(frame.data["text"])
                more = whole[len(said) :] if whole.startswith(said) else ""
            said += more
            if more:
                yield more


async def finished(frames: AsyncGenerator[Frame, None]) -> Finished:
    """Return how a run ended, of its frames up to its `run_ended`."""
    text, last = "", None
    async with aclosing(frames):
        async for frame in frames:
            if frame.event == "model_replied":
                text = str(frame.data["text"]) or text
            last = frame
    assert last is not None
    assert last.event == "run_ended"
    return msgspec.convert({**last.data, "text": text, "reason": last.data.get("reason")}, Finished)
