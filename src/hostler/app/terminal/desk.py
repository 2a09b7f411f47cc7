"""What is wanted of whoever sits at a terminal, and what comes of the keys and lines they give.

A line is for what was wanted when it was begun: a question that comes while somebody types does
not take their words for an answer, nor does a key count that was pressed before its request could
be read.

Invariant: each request and question is answered once from here, by somebody who saw it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

from hostler.app.client import Client
from hostler.app.terminal.items import Question, Wait, Wants
from hostler.app.terminal.story import Story
from hostler.app.terminal.words import wait_of
from hostler.core.errors import Conflict, HostlerError, Invalid
from hostler.core.events import JsonObject

For: TypeAlias = Literal["message", "allow", "deny", "always", "edited", "answer"]

READ_S = 0.5
"""Before so long, a key was not meant for a request that has just come."""
KEYS = "ynae"
HERE = (Wants, Question)
"""What can be answered at a terminal."""
_object: msgspec.json.Decoder[JsonObject] = msgspec.json.Decoder(dict[str, object])


@dataclass(frozen=True, slots=True)
class Errand:
    """What a line or a key is for."""

    what: For = "message"
    call: str = ""

    @property
    def sign(self) -> str:
        """What stands before such a line."""
        return {"deny": "why? ", "edited": "arguments> ", "answer": "answer> "}.get(self.what, "> ")

    @property
    def is_aside(self) -> bool:
        """Whether Ctrl-C leads back from it."""
        return self.what in ("deny", "edited")


MESSAGE = Errand()


class Desk:
    """Says what is wanted now, of one story."""

    def __init__(self, story: Story, clock: Callable[[], float]) -> None:
        self._story, self._clock = story, clock
        self._put_off, self._sent = set[str](), set[str]()
        self._aside: Errand | None = None
        self._seen: str = ""
        self._since = 0.0

    def hint(self) -> str:
        """Return what may be done now about what is waited for; nothing if nothing is."""
        waits, wait = self._story.waits, self._wait()
        if not waits:
            return ""
        told = f"waiting for {wait_of(wait or waits[0])}"
        if len(waits) > 1:
            told += f" (and {len(waits) - 1} more)"
        ways = " · ".join(self._ways(wait))
        return f"{told}\n  {ways}" if ways else told

    def keys(self) -> str:
        """Return the keys that answer now, in an empty line."""
        wait = self._wait()
        is_read = self._clock() - self._since >= READ_S
        return KEYS if isinstance(wait, Wants) and self._aside is None and is_read else ""

    def errand(self) -> Errand:
        """Return what a line is for that is begun now."""
        wait = self._wait()
        if self._aside is not None:
            return self._aside
        return Errand("answer", wait.call) if isinstance(wait, Question) else MESSAGE

    def press(self, key: str) -> Errand | None:
        """Return what a key of `keys` does at once; None if a line has to be given first."""
        wait = self._wait()
        if wait is None:
            return None
        if key in "ne":
            self._aside = Errand("deny" if key == "n" else "edited", wait.call)
            return None
        return Errand("allow" if key == "y" else "always", wait.call)

    def draft(self) -> str:
        """Return what a line begins with: the arguments that are to be edited."""
        wait, aside = self._wait(), self._aside
        if aside is None or aside.what != "edited" or not isinstance(wait, Wants):
            return ""
        return msgspec.json.encode(wait.arguments).decode()

    def back(self) -> bool:
        """Give up denying or editing; return whether that was under way."""
        was, self._aside = self._aside, None
        return was is not None

    def put_off(self) -> None:
        """Leave the line to messages, until `take_up`."""
        self._put_off |= {one.call for one in self._story.waits if isinstance(one, HERE)}

    def take_up(self) -> None:
        self._put_off.clear()

    async def give(self, client: Client, session: str, errand: Errand, text: str) -> None:
        """Send an answer.

        Raises:
            Invalid: it does not fit; what is wanted is wanted still.
            HostlerError: it was not taken, for another reason.
        """
        wait = next((one for one in self._story.waits if one.call == errand.call), None)
        if wait is None or wait.call in self._sent:
            raise Conflict("it was answered meanwhile")
        self._sent.add(wait.call)
        self.back()
        try:
            await give(client, session, wait, errand, text)
        except HostlerError as error:
            self._sent.discard(wait.call)
            if errand.is_aside and isinstance(error, Invalid):
                self._aside = errand
            raise

    def _wait(self) -> Wait | None:
        """Return what can be answered now, here."""
        waits = {one.call: one for one in self._story.waits if isinstance(one, HERE)}
        self._put_off &= waits.keys()
        if self._aside is not None and self._aside.call not in waits:
            self._aside = None
        left = (call for call in waits if call not in self._put_off | self._sent)
        call = self._aside.call if self._aside is not None else next(left, "")
        if call != self._seen:
            self._seen, self._since = call, self._clock()
        return waits.get(call)

    def _ways(self, wait: Wait | None) -> list[str]:
        if wait is None and self._put_off:
            return ["/answer to answer"]
        if self._aside is not None:
            return ["Enter for no reason" if self._aside.what == "deny" else "JSON", "Ctrl-C back"]
        if isinstance(wait, Question):
            return ["/later to say something else"]
        return ["y allow · n deny · a always · e edit"] if self.keys() else []


async def give(client: Client, session: str, wait: Wait, errand: Errand, text: str) -> None:
    """Send an answer to what is waited for.  Raises as `Desk.give`."""
    if isinstance(wait, Question):
        await client.answer(session, wait.call, chosen(wait, text))
        return
    await client.approve(
        session,
        wait.call,
        "deny" if errand.what == "deny" else "allow",
        digest=wait.digest if isinstance(wait, Wants) else None,
        remember=errand.what == "always",
        arguments=edited(text) if errand.what == "edited" else None,
        reason=(text.strip() or None) if errand.what == "deny" else None,
    )


def chosen(question: Question, text: str) -> str:
    """Return an answer; the number of an option stands for it."""
    is_number = text.isascii() and text.isdigit() and text not in question.options
    if is_number and 0 < int(text) <= len(question.options):
        return question.options[int(text) - 1]
    return text


def edited(text: str) -> JsonObject:
    """Return arguments as they were typed.

    Raises:
        Invalid: it is no JSON object.
    """
    try:
        return _object.decode(text.encode())
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Invalid(f"the arguments must be a JSON object: {error}") from error
