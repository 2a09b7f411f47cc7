"""What is said in a conversation: messages with their parts, replies with their calls, results.

Invariant: nothing here imports anything of ours but `shown`.
"""

from __future__ import annotations

from typing import NewType, TypeAlias

from msgspec import Struct, field

from hostler.core.shown import FilePart

CallId = NewType("CallId", str)
"""Minted by us for every call a model asks for; the idempotency key handed to the tool."""

_Object: TypeAlias = dict[str, object]


class TextPart(Struct, frozen=True, kw_only=True, tag_field="type", tag="text"):
    text: str


class ImagePart(
    Struct, frozen=True, kw_only=True, tag_field="type", tag="image", omit_defaults=True
):
    """Exactly one of `url` and `data` (base64, with its `media_type`)."""

    url: str | None = None
    data: str | None = None
    media_type: str | None = None


Part: TypeAlias = TextPart | ImagePart | FilePart
Content: TypeAlias = str | tuple[Part, ...]


class ToolCall(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a model asked for, as it asked: the name may be unknown, the arguments unfit."""

    id: CallId
    name: str
    arguments: _Object
    provider_id: str | None = None
    """The provider's own id, sent back to the same provider."""
    unparsed: str | None = None
    """The arguments' text when it was no JSON object; `arguments` is then empty."""
    cut: bool = False
    """The output limit fell inside the arguments: never completed, never executed."""


class UserSaid(Struct, frozen=True, gc=False, tag_field="by", tag="user"):
    content: Content


class ModelSaid(Struct, frozen=True, gc=False, tag_field="by", tag="model", omit_defaults=True):
    text: str
    calls: tuple[ToolCall, ...] = ()
    thinking: str | None = None
    replay: _Object | None = None


class ToolSaid(Struct, frozen=True, gc=False, tag_field="by", tag="tool", omit_defaults=True):
    """Stands right after the reply that made the call, in the order of its calls."""

    call: ToolCall
    output: str
    failed: bool = field(default=False)


Said: TypeAlias = UserSaid | ModelSaid | ToolSaid
