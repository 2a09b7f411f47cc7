"""The frames of a session as what a person is told, whatever it is shown on.

A reply is told as it comes.  When an attempt fails and the next one says the same again, that is
not told again; only where it differs is the reply begun anew.

Invariant: no I/O.  Fed with the frames past any cursor, it tells all that is in them, once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias, cast

from hostler.app.agent import Frame
from hostler.core.events import JsonObject

PART: TypeAlias = Literal["thinking", "text"]


@dataclass(frozen=True, slots=True)
class Spoke:
    """The user said something, and it is its turn."""

    text: str


@dataclass(frozen=True, slots=True)
class Waits:
    """The user said something that waits for the run that is going."""

    text: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A model was asked, and has not said anything yet."""

    model: str


@dataclass(frozen=True, slots=True)
class Words:
    """More of the reply."""

    part: PART
    text: str


@dataclass(frozen=True, slots=True)
class Anew:
    """What was told of the reply is void; it begins anew."""


@dataclass(frozen=True, slots=True)
class Writes:
    """The model writes the arguments of a call."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Replied:
    """The reply is complete."""


@dataclass(frozen=True, slots=True)
class Calls:
    """A tool began."""

    call: str
    name: str
    arguments: JsonObject


@dataclass(frozen=True, slots=True)
class Called:
    """A tool ended, or was not run at all."""

    call: str
    name: str
    arguments: JsonObject
    outcome: str
    output: str
    took_s: float | None


@dataclass(frozen=True, slots=True)
class Trouble:
    """A model gave no reply; without `retry_after_s` it is not asked again."""

    code: str
    message: str
    retry_after_s: float | None


@dataclass(frozen=True, slots=True)
class Over:
    """A run ended."""

    run: str
    status: str
    reason: str | None
    usage: JsonObject
    took_s: float | None


Item: TypeAlias = (
    Spoke | Waits | Asked | Words | Anew | Writes | Replied | Calls | Called | Trouble | Over
)


@dataclass(slots=True, kw_only=True)
class _Run:
    held: list[str]
    """What was said for it and not told yet."""
    started_at: datetime | None = None


class Story:
    """Tells one session."""

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}
        self._telling: dict[PART, _Telling] = {"thinking": _Telling(), "text": _Telling()}
        self._asked: dict[str, tuple[str, JsonObject]] = {}
        self._began: dict[str, tuple[str, JsonObject, datetime]] = {}

    @property
    def is_busy(self) -> bool:
        """Whether a run is going, as far as is known."""
        return bool(self._runs)

    @property
    def waiting(self) -> list[str]:
        """What was said and waits for its turn."""
        return [text for run in self._runs.values() for text in run.held]

    def tell(self, frame: Frame) -> Iterator[Item]:
        """Yield what a frame adds; kinds that are not known here add nothing."""
        data = frame.data
        match frame.event:
            case "user_spoke":
                yield from self._spoke(str(data["run"]), said(data["content"]))
            case "run_started":
                run = self._run(data)
                run.started_at = _at(data)
                yield from self._release(run)
            case "run_ended":
                yield from self._over(data)
            case "tool_started":
                began = (str(data["name"]), cast("JsonObject", data["arguments"]))
                self._began[str(data["call"])] = (*began, _at(data))
                yield Calls(str(data["call"]), *began)
            case "tool_finished":
                yield self._called(data)
            case _:
                yield from self._reply(frame.event, data)

    def _reply(self, event: str, data: JsonObject) -> Iterator[Item]:
        match event:
            case "delta" if data["part"] == "arguments":
                yield Writes(str(data.get("name") or ""), str(data["text"]))
            case "delta":
                part = cast("PART", data["part"])
                yield from _told(part, self._telling[part].say(str(data["text"])))
            case "model_asked":
                yield Asked(f"{data['provider']}:{data['model']}")
            case "model_replied":
                for call in cast("list[JsonObject]", data["calls"]):
                    asked = (str(call["name"]), cast("JsonObject", call["arguments"]))
                    self._asked[str(call["id"])] = asked
                for part, telling in self._telling.items():
                    yield from _told(part, telling.settle(str(data.get(part) or "")))
                yield Replied()
            case "model_failed":
                self._retract()
                error = cast("JsonObject", data["error"])
                wait_s = cast("float | None", data["retry_after_s"])
                yield Trouble(str(error["code"]), str(error["message"]), wait_s)
            case "attempt_dropped":
                self._retract()
            case _:
                pass

    def _spoke(self, run: str, text: str) -> Iterator[Item]:
        if not self._runs or (run in self._runs and not self._runs[run].held):
            self._runs.setdefault(run, _Run(held=[]))
            yield Spoke(text)
        else:
            self._runs.setdefault(run, _Run(held=[])).held.append(text)
            yield Waits(text)

    def _release(self, run: _Run) -> Iterator[Item]:
        held, run.held = run.held, []
        for text in held:
            yield Spoke(text)

    def _run(self, data: JsonObject) -> _Run:
        return self._runs.setdefault(str(data["run"]), _Run(held=[]))

    def _retract(self) -> None:
        for telling in self._telling.values():
            telling.retract()

    def _called(self, data: JsonObject) -> Called:
        call = str(data["call"])
        began = self._began.pop(call, None)
        name, arguments = self._asked.pop(call, ("?", {}))
        took_s = None
        if began is not None:
            name, arguments, since = began
            took_s = (_at(data) - since).total_seconds()
        return Called(call, name, arguments, str(data["outcome"]), str(data["output"]), took_s)

    def _over(self, data: JsonObject) -> Iterator[Item]:
        run = self._runs.pop(str(data["run"]), _Run(held=[]))
        yield from self._release(run)
        for telling in self._telling.values():
            telling.settle("")
        reason = data.get("reason")
        yield Over(
            run=str(data["run"]),
            status=str(data["status"]),
            reason=None if reason is None else str(reason),
            usage=cast("JsonObject", data["usage"]),
            took_s=run.started_at and (_at(data) - run.started_at).total_seconds(),
        )


class _Telling:
    """One part of a reply, over all attempts at it."""

    def __init__(self) -> None:
        self._told: list[str] = []
        self._again = ""
        """What was told and the attempt in flight has not said yet."""

    def say(self, text: str) -> tuple[bool, str]:
        """Return whether the part begins anew, and what to tell."""
        if not self._again or text.startswith(self._again):
            text, self._again = text[len(self._again) :], ""
            self._told.append(text)
            return False, text
        if self._again.startswith(text):
            self._again = self._again[len(text) :]
            return False, ""
        whole = "".join(self._told)
        text, self._again = whole[: len(whole) - len(self._again)] + text, ""
        self._told = [text]
        return True, text

    def retract(self) -> None:
        self._again = "".join(self._told)

    def settle(self, text: str) -> tuple[bool, str]:
        """As `say`, with all of the part, and forget it."""
        whole = "".join(self._told)
        self._told, self._again = [], ""
        return (False, text[len(whole) :]) if text.startswith(whole) else (True, text)


def said(content: object) -> str:
    """Return the words of a message; what is no text is named."""
    if isinstance(content, str):
        return content
    parts = cast("list[JsonObject]", content)
    return "\n".join(str(part.get("text") or f"[{part.get('type')}]") for part in parts)


def _told(part: PART, words: tuple[bool, str]) -> Iterator[Item]:
    anew, text = words
    if anew:
        yield Anew()
    if text:
        yield Words(part, text)


def _at(data: JsonObject) -> datetime:
    return datetime.fromisoformat(str(data["at"]))
