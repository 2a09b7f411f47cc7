"""The frames of a session as what a person is told, whatever it is shown on.

A reply is told as it comes.  When an attempt fails and the next one says the same again, that is
not told again; only where it differs is the reply begun anew.

Invariant: no I/O.  Fed with the frames past any cursor, it tells all that is in them, once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from hostler.app.frames import Frame
from hostler.app.terminal.items import (
    PART,
    Anew,
    Asked,
    Called,
    Calls,
    Decided,
    Elsewhere,
    Item,
    Over,
    Question,
    Replied,
    Shows,
    Spoke,
    Trouble,
    Wait,
    Waits,
    Wants,
    Words,
    Writes,
)
from hostler.core.events import JsonObject

ASK_USER = "ask_user"
"""The tool with which a model asks."""


@dataclass(slots=True, kw_only=True)
class _Run:
    held: list[str]
    """What was said for it and not told yet."""
    started_at: datetime | None = None
    principal: str = ""
    """Who said it."""


class Story:
    """Tells one session."""

    def __init__(self) -> None:
        self._runs: dict[str, _Run] = {}
        self._telling: dict[PART, _Telling] = {"thinking": _Telling(), "text": _Telling()}
        self._asked: dict[str, tuple[str, JsonObject]] = {}
        self._began: dict[str, tuple[str, JsonObject, datetime]] = {}
        self._waits: dict[str, Wait] = {}
        self.agent = ""
        """Whose session this is, if that is known."""

    @property
    def waits(self) -> Sequence[Wait]:
        """What the run that is going waits for, of somebody; oldest first."""
        return list(self._waits.values())

    @property
    def run(self) -> str | None:
        """The run that is going, as far as is known."""
        return next(iter(self._runs), None)

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
                run = self._run(data)
                run.principal = run.principal or str(data.get("principal") or "")
            case "run_started":
                run = self._run(data)
                run.started_at = _at(data)
                yield from self._release(run)
            case "run_ended":
                yield from self._over(data)
            case _ if "call" in data and frame.event != "delta":
                yield from self._call(frame.event, data)
            case _:
                yield from self._reply(frame.event, data)

    def _call(self, event: str, data: JsonObject) -> Iterator[Item]:
        call = str(data["call"])
        match event:
            case "approval_asked":
                self._waits[call] = wants = self._wants(data)
                yield wants
            case "approval_given":
                wants = self._waits.pop(call, None)
                yield _decided(data, "?" if not isinstance(wants, Wants) else wants.name)
            case "tool_started":
                began = (str(data["name"]), cast("JsonObject", data["arguments"]))
                self._began[call] = (*began, _at(data))
                if data.get("expires_at") is None:
                    yield Calls(call, *began)
                else:
                    self._waits[call] = wait = self._for_client(data, *began)
                    yield wait
            case "part_shown":
                yield Shows(cast("JsonObject", data["part"]))
            case "tool_finished":
                self._waits.pop(call, None)
                yield self._called(data)
            case _:
                pass

    def _wants(self, data: JsonObject) -> Wants:
        return Wants(
            call=str(data["call"]),
            name=str(data["name"]),
            arguments=cast("JsonObject", data["arguments"]),
            digest=str(data["digest"]),
            who=self._who(data),
        )

    def _for_client(self, data: JsonObject, name: str, arguments: JsonObject) -> Wait:
        call, question = str(data["call"]), arguments.get("question")
        if name != ASK_USER or not isinstance(question, str):
            self._run(data)
            return Elsewhere(call, name, arguments)
        return Question(
            call=call,
            question=question,
            options=cast("list[str] | None", arguments.get("options")) or (),
            schema=cast("JsonObject | None", arguments.get("schema")),
            who=self._who(data),
        )

    def _who(self, data: JsonObject) -> str:
        agent, principal = self.agent or "the agent", self._run(data).principal
        return f"{agent} (for {principal})" if principal else agent

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
        principal = None if data.get("principal") is None else str(data["principal"])
        outcome, output = str(data["outcome"]), str(data["output"])
        return Called(call, name, arguments, outcome, output, took_s, principal)

    def _over(self, data: JsonObject) -> Iterator[Item]:
        run = self._runs.pop(str(data["run"]), _Run(held=[]))
        yield from self._release(run)
        self._waits = {}
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


def _decided(data: JsonObject, name: str) -> Decided:
    return Decided(
        call=str(data["call"]),
        name=name,
        decision=str(data["decision"]),
        principal=str(data["principal"]),
        arguments=cast("JsonObject | None", data.get("arguments")),
        is_remembered=data.get("remembered") is not None,
    )


def _told(part: PART, words: tuple[bool, str]) -> Iterator[Item]:
    anew, text = words
    if anew:
        yield Anew()
    if text:
        yield Words(part, text)


def _at(data: JsonObject) -> datetime:
    return datetime.fromisoformat(str(data["at"]))
