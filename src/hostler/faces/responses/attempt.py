"""One answer of a model as items: while it streams, and when it is known whole.

What streams is a foretaste: thoughts, text, and the arguments of calls whose tools are the
client's.  The same pieces make the same events whether they are heard live or read from the log.

Invariant: pure; what was shown and is not what was meant is closed as incomplete, and what was
meant follows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from hostler.core.events import AttemptDropped, CallId, ModelReplied, ToolCall
from hostler.core.ports import Delta, Reply
from hostler.core.streamed import pieces
from hostler.faces.responses.echo import About, arguments_of, called, text_in
from hostler.faces.responses.writer import Item, Writer

Whole: TypeAlias = ModelReplied | Reply
_KINDS = {"text": "message", "thinking": "reasoning"}


class Attempt:
    """What a model says, to be added to a writer."""

    def __init__(self, writer: Writer, asked: int, *, names: frozenset[str] | None) -> None:
        """`names`: of the client's tools; None: there are no others."""
        self._writer, self._asked, self._names = writer, asked, names
        self._echo, self._place = writer.about.echo, 0
        self.kept = len(writer.output)
        """How many items there were before."""
        self._taken, self._is_lost = 0, False
        self._item: Item | None = None
        """What the last piece went to."""
        self._of: CallId | str | None = None
        self._shown: dict[str, list[Item]] = {"message": [], "reasoning": []}
        self.calls = dict[CallId, Item]()
        self._tools = dict[CallId, str]()
        """What the tool of a call is called, as far as it is known."""

    def next(self) -> int:
        """Return the place of the next item."""
        self._place += 1
        return self._place - 1

    # -- as it streams -------------------------------------------------------------------------

    def add(self, delta: Delta) -> None:
        """Take one piece."""
        if delta.name is not None and delta.call is not None:
            self._tools.setdefault(delta.call, delta.name)
        if not delta.text or self._is_lost:
            return
        of = delta.call or delta.part
        if of != self._of and not self._turn(delta, of):
            return
        self._taken += 1
        if self._item is not None:
            self._writer.grow(self._item, delta.text)

    def follows(self, delta: Delta) -> Item | None:
        """Return what a piece is more of, if it is that and nothing else."""
        return self._item if (delta.call or delta.part) == self._of else None

    def grow(self, item: Item, text: str) -> None:
        """Add a piece that follows."""
        if text:
            self._taken += 1
            self._writer.grow(item, text)

    def noted(self, item: Item, text: str) -> None:
        """Take a piece that follows as shown."""
        self._taken += 1
        item.texts.append(text)

    def _turn(self, delta: Delta, of: CallId | str) -> bool:
        """Begin what a piece is of; False: that is not known yet, and waits for the whole."""
        if delta.part != "arguments":
            self._end_text()
            self._of, self._item = of, self._begin(_KINDS[delta.part])
            return True
        name = None if delta.call is None else self._tools.get(delta.call)
        if name is None or delta.call is None:
            self._is_lost, self._of = True, None
            return False
        self._end_text()
        self._of, self._item = of, self.calls.get(delta.call)
        if self._item is None and self._is_theirs(name) and name not in self._echo.custom:
            self._item = self.call(delta.call, name)
        return True

    def _is_theirs(self, name: str) -> bool:
        return self._names is None or name in self._names

    def _begin(self, kind: str) -> Item:
        if kind == "message":
            item = self._writer.message(self._asked, self.next())
        else:
            # With a log, its name is all that is needed: what it stands for is read from there.
            sealed = self._asked > 0 and "reasoning.encrypted_content" in self._echo.include
            item = self._writer.reasoning(self._asked, self.next(), sealed=sealed)
        self._shown[kind].append(item)
        return item

    def call(self, call: CallId, name: str) -> Item:
        """Begin a call that is the client's."""
        free = name in self._echo.custom
        named = called(self._echo, name)
        made = self._writer.function_call(self._asked, self.next(), call, named, free=free)
        self.calls[call] = made
        return made

    def _end_text(self) -> None:
        """End the text that is open: what comes is of another kind."""
        item, self._item, self._of = self._item, None, None
        if item is not None and item.kind in self._shown:
            self._writer.close(item)

    # -- when it is over -----------------------------------------------------------------------

    def catch_up(self, fact: ModelReplied | AttemptDropped) -> None:
        """Take the pieces that were not heard."""
        known = sum(1 for stretch in fact.streamed for size in stretch.sizes if size)
        if known > self._taken:
            self._rest(one for one in pieces(fact) if one.text or one.name)

    def _rest(self, deltas: Iterable[Delta]) -> None:
        heard, self._is_lost, place = self._taken, False, 0
        for delta in deltas:
            if delta.text:
                place += 1
            if place > heard or not delta.text:
                self.add(delta)

    def replied(self, whole: Whole, *, seal: str | None = None) -> None:
        """Show what was said and not streamed; calls of the client's tools stay open.

        `seal`: what the model wants back, for a client that keeps it.
        """
        self._settle("reasoning", whole.thinking or "")
        self._settle("message", whole.text)
        if seal is not None:
            if self._item is not None and self._item.kind == "reasoning":
                self._item.body["encrypted_content"] = seal
            else:
                self._end_text()
                self._writer.seal(self._asked, self.next(), seal)
        self._end_text()
        for call in whole.calls:
            if call.id not in self.calls and self._is_theirs(call.name):
                item = self.call(call.id, call.name)
                free = item.kind == "custom_tool_call"
                said = text_in(call.arguments) if free else arguments_of(call)
                self._writer.grow(item, said)

    def _settle(self, kind: str, whole: str) -> None:
        shown = self._shown[kind]
        said = "".join(item.text for item in shown)
        rest = whole.removeprefix(said)
        if not whole.startswith(said):  # it was said otherwise in the end
            self._end_text()
            for item in shown:
                item.body["status"] = "incomplete"
        if not rest:
            return
        if self._item is None or self._item.kind != kind:
            self._end_text()
            self._item = self._begin(kind)
        self._writer.grow(self._item, rest)

    def close_calls(self, calls: Sequence[ToolCall]) -> None:
        """End the client's calls as they were asked for: nobody looks at them first."""
        for call in calls:
            item = self.calls[call.id]
            is_free = item.kind == "custom_tool_call"
            self._writer.tell(item, text_in(call.arguments) if is_free else arguments_of(call))
            self._writer.close(item)

    def stopped(self) -> None:
        """End what is open as incomplete: the model was not let finish."""
        for item in [*self._writer.open]:
            if item.kind != "mcp_call":
                self._writer.close(item, "incomplete")
        self._item = self._of = None

    def lost(self) -> None:
        """Leave behind what nobody knows: how it had streamed went with its worker."""
        self._writer.leap(self.kept)


def tools_of(about: About) -> frozenset[str]:
    """Return the names of the tools that the request brought."""
    return frozenset(tool.name for tool in about.tools)
