"""What chat clients send, and what of it is believed.

A client sends all messages it knows, or the newest one.  Of its own it may say what the user says;
of what it calls the assistant's, only answers to what waits are read: decisions, and results of
tools that are the client's.

Invariant: whatever else an assistant's message claims is passed over.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Literal, cast
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Struct

from hostler.core.errors import Invalid
from hostler.core.events import (
    START,
    CallId,
    ClientTool,
    JsonObject,
    Policy,
    Principal,
    RunId,
    Seq,
    SessionId,
)
from hostler.core.said import Content, ImagePart, Part, TextPart
from hostler.core.shown import FilePart
from hostler.faces.aisdk.wire import OURS, seq_of
from hostler.service.limits import check_depth
from hostler.service.sessions import ID

LONGEST_ID = 256
"""Characters of a chat's or a message's id: clients make them up."""
ENDS = ("output-available", "output-error", "output-denied")
_DATA_URL = re.compile(r"data:([^;,]*)((?:;[^;,]*)*?)(;base64)?,", re.ASCII | re.IGNORECASE)
_JOINED = re.compile(r"-\d+$", re.ASCII)
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}", re.ASCII)
_MEDIA_TYPE = re.compile(r"[\w.+-]{1,100}/[\w.+*-]{1,100}", re.ASCII)


class UiApproval(Struct, kw_only=True):
    """What a person said to a request for approval."""

    id: str = ""
    approved: bool | None = None
    reason: str | None = None
    signature: str | None = None
    """The digest that came with the request."""


class UiPart(Struct, kw_only=True, rename="camel"):
    """A part of a message: text, a file, a tool's call, or what a tool showed."""

    type: str
    text: str | None = None
    url: str | None = None
    media_type: str | None = None
    filename: str | None = None
    tool_call_id: str | None = None
    state: str | None = None
    output: object = None
    error_text: str | None = None
    approval: UiApproval | None = None
    id: object = None
    source_id: object = None
    provider_metadata: object = None


class UiMessage(Struct, kw_only=True):
    """A message as the client keeps it; unknown fields are passed over."""

    role: str = "user"
    id: str | None = None
    parts: tuple[UiPart, ...] | None = None
    content: str | None = None
    """Instead of parts, as older clients have it."""


class UiTool(Struct, kw_only=True):
    """A tool that the client runs."""

    name: str
    description: str | None = None
    parameters: JsonObject | None = None


class NewChat(Struct, kw_only=True, rename="camel"):
    """A turn of a chat; unknown fields are passed over, and null is as good as absent."""

    id: str | None = None
    message: str | UiMessage | None = None
    """The newest message; or `messages`."""
    messages: tuple[UiMessage, ...] | None = None
    trigger: Literal["submit-message", "regenerate-message"] | None = None
    message_id: str | None = None
    agent: str | None = None
    purpose: str | None = None
    policy: Policy | None = None
    metadata: JsonObject | None = None
    context: object = None
    """Any JSON that the model reads before the message."""
    tools: tuple[UiTool, ...] | None = None

    @property
    def all(self) -> Sequence[UiMessage]:
        """Return what was sent, oldest first."""
        if self.message is None:
            return self.messages or ()
        newest = self.message
        return (UiMessage(content=newest) if isinstance(newest, str) else newest,)

    @property
    def newest_at(self) -> str:
        """Return where the newest message stands."""
        return f"/messages/{len(self.all) - 1}" if self.message is None else "/message"


class UiFrame(Struct, kw_only=True):
    """A Server-Sent Event of the AI SDK's UI message stream, version 1."""

    data: str
    """A chunk as JSON; `[DONE]` after the last."""


class Answered(Struct, frozen=True, kw_only=True):
    """What a client says to a call that may wait for it."""

    call: CallId
    approval: UiApproval | None = None
    output: object = None
    is_error: bool = False


def session_of(who: Principal, chat: str) -> SessionId:
    """Return which session a chat is: itself, if it is named like one, else one of the caller's.

    Nothing is stored for it, and chats of one name are as many sessions as there are users.

    Raises:
        Invalid: the id has another form.
    """
    if ID.fullmatch(chat):
        return SessionId(chat)
    if not 0 < len(chat) <= LONGEST_ID or "/" in chat or chat in (".", ".."):
        wanted = f"1 to {LONGEST_ID} characters without a slash, neither . nor .."
        raise Invalid("the id of the chat has another form", fields=[("/id", wanted)])
    names = json.dumps([who.tenant, who.id, chat]).encode()
    return SessionId(f"ses_{hashlib.blake2b(names, digest_size=16).hexdigest()}")


def message_of(run: RunId, *, joined_at: Seq | None = None) -> str:
    """Return the id of the message that a run answers with: one run is one message.

    What a run says to somebody who joined it is one more, for them.
    """
    tail = run.removeprefix("run_")
    return f"msg_{tail}" if joined_at is None else f"msg_{tail}-{joined_at}"


def run_of(message: str | None) -> RunId | None:
    """Return the run of a message of ours, None for another's."""
    if message is None or not message.startswith("msg_"):
        return None
    return RunId(f"run_{_JOINED.sub('', message.removeprefix('msg_'))}")


def said(body: NewChat) -> UiMessage | None:
    """Return the newest message if it is the user's.  Raises Invalid: its id is too long."""
    newest = body.all[-1] if body.all else None
    if newest is None or newest.role != "user":
        return None
    if newest.id is not None and len(newest.id) > LONGEST_ID:
        wanted = f"at most {LONGEST_ID} characters"
        raise Invalid(
            "the id of the message is too long", fields=[(f"{body.newest_at}/id", wanted)]
        )
    return newest


def answers(messages: Sequence[UiMessage]) -> Iterator[Answered]:
    """Yield what the client says to calls, wherever in its messages."""
    for message in messages:
        for part in _theirs(message):
            found = None if part.tool_call_id is None else _answer(CallId(part.tool_call_id), part)
            if found is not None:
                yield found


def _theirs(message: UiMessage | None) -> Sequence[UiPart]:
    """Return the parts of a message that it says are the assistant's."""
    if message is None or message.role != "assistant":
        return ()
    return message.parts or ()


def _answer(call: CallId, part: UiPart) -> Answered | None:
    match part.state:
        case "approval-responded":
            said = part.approval
            is_said = said is not None and said.id == call and said.approved is not None
            return Answered(call=call, approval=said) if is_said else None
        case "output-available":
            return Answered(call=call, output=part.output)
        case "output-error":
            return Answered(call=call, output=part.error_text or "failed", is_error=True)
        case _:
            return None


def seen(messages: Sequence[UiMessage]) -> dict[CallId, bool]:
    """Return the calls that the client has in its newest message, and which have begun or ended."""
    parts = _theirs(messages[-1] if messages else None)
    return {
        CallId(part.tool_call_id): part.state in ("input-available", *ENDS)
        for part in parts
        if part.tool_call_id is not None
    }


def shown(messages: Sequence[UiMessage]) -> Seq:
    """Return where in the log the last part was shown that the client has in its newest message."""
    parts = _theirs(messages[-1] if messages else None)
    return max((seq_of(name) for part in parts for name in _names(part)), default=START)


def _names(part: UiPart) -> Iterator[str]:
    for name in (part.id, part.source_id, _inside(_inside(part.provider_metadata, OURS), "id")):
        if isinstance(name, str):
            yield name


def _inside(value: object, key: str) -> object:
    return cast("JsonObject", value).get(key) if isinstance(value, dict) else None


def tools_of(tools: Sequence[UiTool]) -> tuple[ClientTool, ...]:
    """Return the tools that the client brings as the service knows them."""
    return tuple(
        ClientTool(
            name=one.name, description=one.description or "", parameters=one.parameters or {}
        )
        for one in tools
    )


def content_of(message: UiMessage, context: object, *, at: str) -> Content:
    """Return what a message says; `at`: where it stands.

    Raises:
        Invalid: nothing, or a file that cannot be read.
    """
    parts: list[Part] = []
    if context is not None:
        check_depth("/context", context)
        told = json.dumps(context, ensure_ascii=False)
        parts.append(TextPart(text=f"Context, from the client (JSON):\n{told}"))
    before = len(parts)
    if message.content:
        parts.append(TextPart(text=message.content))
    for place, part in enumerate(message.parts or ()):
        if part.type == "text" and part.text:
            parts.append(TextPart(text=part.text))
        elif part.type == "file":
            parts.append(_file(part, f"{at}/parts/{place}/url"))
    if len(parts) == before:
        wanted = "a part of the type text or file, with something in it"
        raise Invalid("the message says nothing", fields=[(f"{at}/parts", wanted)])
    only = parts[0]
    return only.text if len(parts) == 1 and isinstance(only, TextPart) else tuple(parts)


def _file(part: UiPart, pointer: str) -> Part:
    url = part.url or ""
    media_type = part.media_type or None
    if url[:8].lower().startswith(("http://", "https://")):
        if media_type is not None and media_type.startswith("image/"):
            return ImagePart(url=url, media_type=media_type)
        return FilePart(url=url, media_type=media_type, name=part.filename)
    found = _DATA_URL.match(url)
    wanted = "a URL that begins with https://, http:// or data:, the latter with its media type"
    if found is None:
        raise Invalid("this file is not here", fields=[(pointer, wanted)])
    data, media_type = url[found.end() :], media_type or found[1]
    if found[3] is None:
        data = base64.b64encode(unquote_to_bytes(data)).decode()
    if len(data) % 4 or not _BASE64.fullmatch(data) or not _MEDIA_TYPE.fullmatch(media_type):
        raise Invalid("this data cannot be read", fields=[(pointer, wanted)])
    if media_type.startswith("image/"):
        return ImagePart(data=data, media_type=media_type)
    return FilePart(data=data, media_type=media_type, name=part.filename)


def text_of(output: object) -> str:
    """Return a result as the model reads it."""
    return output if isinstance(output, str) else msgspec.json.encode(output).decode()
