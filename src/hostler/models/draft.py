"""A reply in the making: what a stream has said so far, and what of it is news.

All wire APIs write into one of these.  Whatever came in one read of the network leaves as one
delta per part, so that a burst costs everybody downstream one wake-up, not one per token.

Invariant: the deltas of a part, joined, are that part of the reply.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from hostler.core.events import CallId, JsonObject, Stop, Usage
from hostler.core.ports import Delta, Reply
from hostler.models.calls import Calls
from hostler.models.thinking import Tags

_Part: TypeAlias = Literal["text", "thinking", "arguments"]


class Draft:
    """Made for one stream.  `tags`: takes `<think>` out of the text."""

    __slots__ = ("_call", "_calls", "_news", "_part", "_pieces", "_tags", "_text", "_thinking")

    def __init__(self, tags: Tags | None = None) -> None:
        self._tags = tags
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._calls = Calls()
        self._news: list[Delta] = []
        self._part: _Part = "text"
        self._call: Delta | None = None
        self._pieces: list[str] = []

    def text(self, piece: str) -> None:
        if not piece:
            return  # many servers say nothing, in as many words, beside each fragment of a call
        if self._part != "text":
            self._turn("text")
        self._pieces.append(piece)

    def think(self, piece: str) -> None:
        if self._part != "thinking":
            self._turn("thinking")
        self._pieces.append(piece)

    def call(
        self,
        *,
        index: int | None = None,
        provider_id: str | None = None,
        name: str | None = None,
        arguments: str | JsonObject | None = None,
    ) -> CallId:
        """Take a fragment of a call (`Calls.add`); return our id of the call it belongs to."""
        call, began, text = self._calls.add(
            index=index, provider_id=provider_id, name=name, arguments=arguments
        )
        open_ = self._call
        if open_ is None or open_.call != call or began is not None:
            self._turn("arguments")
            self._call = Delta("arguments", "", call, began)
        self._pieces.append(text)
        return call

    def _turn(self, part: _Part) -> None:
        """Begin a delta of another part."""
        self._join()
        self._part, self._call = part, None

    def _join(self) -> None:
        if not self._pieces:
            return
        joined = "".join(self._pieces)
        self._pieces.clear()
        if self._part == "arguments":
            self._join_arguments(joined)
        elif self._part == "text" and self._tags is not None:
            for part, text in self._tags.feed(joined):
                self._say(part, text)
            if self._tags.settled:
                self._tags = None
        elif joined:
            self._say(self._part, joined)

    def _join_arguments(self, joined: str) -> None:
        delta = self._call
        if delta is not None and (joined or delta.name is not None):
            delta.text = joined
            self._news.append(delta)
            self._call = Delta("arguments", "", delta.call)

    def _say(self, part: _Part, text: str) -> None:
        (self._text if part == "text" else self._thinking).append(text)
        self._news.append(Delta(part, text))

    def take(self) -> list[Delta]:
        """Return what is new since the last time."""
        self._join()
        news, self._news = self._news, []
        return news

    def close(self) -> None:
        """Let go of what was held back: nothing follows."""
        self._join()
        if self._tags is not None:
            for part, text in self._tags.end():
                self._say(part, text)
            self._tags = None

    def reply(
        self,
        *,
        stop: Stop,
        usage: Usage,
        raw_usage: JsonObject | None = None,
        replay: JsonObject | None = None,
    ) -> Reply:
        """Return the message; only after `close`.  Calls make an ordinary end a `tools` stop."""
        calls = self._calls.end(cut=stop == "length")
        if stop in {"end", "tools"}:
            stop = "tools" if calls else "end"
        return Reply(
            text="".join(self._text),
            stop=stop,
            calls=calls,
            thinking="".join(self._thinking) or None,
            usage=usage,
            replay=replay,
            raw_usage=raw_usage,
        )
