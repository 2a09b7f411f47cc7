"""How the server behind a base URL differs from others that speak the same wire API: as data.

The rules are in `data/capabilities.toml`, in the order in which they are laid over each other;
an adapter asks for fields and never for a provider's name.

Invariant: nothing outside the data file names a provider.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from hostler.core.errors import SetupError
from hostler.models import prices

_FILE = Path(__file__).parent / "data" / "capabilities.toml"


class Capabilities(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The defaults are what most servers understand."""

    max_tokens_field: str = "max_tokens"
    """Name of the limit on output tokens."""
    system_role: Literal["system", "developer"] = "system"
    usage_in_stream: bool = True
    """Usage has to be asked for, and may be."""
    parallel_tools: bool = True
    """False: ask for one call at a time."""
    strict_schema: bool = False
    """Mark tools as strict; only for those whose schemas the provider accepts as such."""
    native_tools: bool = True
    """False: calls have to be asked for in words (`models.prompted`)."""
    images: bool = True
    files: bool = False
    """Takes files as they are; else text is put into the message, and others are named in it."""
    thinking_field: str | None = None
    """Field of an assistant message in which its thinking goes back."""
    replay_details: bool = False
    """Takes back `reasoning_details` as they came."""
    encrypted_reasoning: bool = True
    """May be asked for its reasoning in a form that only it can read, to be sent back (Responses)."""
    think_tags: Literal["none", "start", "implied"] = "start"
    """Text may begin with `<think>`; implied: it begins inside of it."""
    finish_reason: bool = True
    """False: `[DONE]` alone ends an answer."""
    null_content: bool = True
    """False: an assistant message without text has an empty one."""
    bridge: str | None = None
    """Put in the assistant's mouth where a user speaks right after a tool."""
    call_id_length: int | None = None
    """Ids of calls are letters and digits, this many."""
    unsigned_call: str | None = None
    """Stands for the signature of a call that another model made, where calls must have one."""
    max_output_tokens: int = 8192
    """What to ask for where a limit is required and the caller gives none (Messages)."""
    cache_markers: bool = True
    """Takes marks for its prompt cache, or passes over them (Messages)."""
    eager_arguments: bool = False
    """May be asked for arguments as they are generated, before anybody has parsed them (Messages)."""
    unsigned_thinking: bool = True
    """Takes its thinking back without a signature (Messages)."""
    bearer_key: bool = False
    """Wants its key as a bearer, not under a header of the API's own (Messages)."""
    message_stop: bool = True
    """False: a stop reason alone ends an answer (Messages)."""
    cache_key: bool = False
    """Takes a key for its prompt cache."""
    context_window: int | None = None
    """Tokens; None: not known."""
    prices: str | None = None
    """Whose list in `prices` applies; None: the cost is not known."""


def capabilities(
    provider: str, base_url: str, model: str, override: Mapping[str, object] | None = None
) -> Capabilities:
    """Return what a model at a base URL can do.

    Raises:
        SetupError: `override` has a field that does not exist, or a value of a wrong type.
    """
    host = (urlsplit(base_url).hostname or "").lower()
    fields: dict[str, object] = {}
    for rule in _rules():
        if rule.fits((provider.lower(), host), model.lower().rpartition("/")[2]):
            fields |= rule.fields
    fields |= override or {}
    try:
        found = msgspec.convert(fields, Capabilities)
    except msgspec.ValidationError as error:
        known = ", ".join(Capabilities.__struct_fields__)
        raise SetupError(
            f"capabilities of {provider}:{model}: {error}; known are {known}"
        ) from error
    if found.context_window is None:
        window = prices.window(found.prices, model)
        found = msgspec.structs.replace(found, context_window=window)
    return found


class _Rule(Struct, frozen=True, kw_only=True):
    fields: Mapping[str, object]
    where: Sequence[str] = ("*",)
    model: Sequence[str] = ("*",)

    def fits(self, where: Sequence[str], model: str) -> bool:
        return any(fnmatchcase(one, glob) for one in where for glob in self.where) and any(
            fnmatchcase(model, glob) for glob in self.model
        )


@functools.cache
def _rules() -> Sequence[_Rule]:
    tables = msgspec.toml.decode(_FILE.read_bytes(), type=dict[str, list[dict[str, object]]])
    return [
        msgspec.convert(
            {
                **{name: rule[name] for name in ("where", "model") if name in rule},
                "fields": {k: v for k, v in rule.items() if k not in {"where", "model"}},
            },
            _Rule,
        )
        for rule in tables["rule"]
    ]
