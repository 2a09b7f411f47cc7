"""The page on where models come from, made of the tables that say so."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import cast

from docs.build.facts import about_lines, json_type
from docs.build.markdown import code, page, table
from docs.build.source import Undocumented, fields

from hostler.app.providers import Provider, providers
from hostler.models import discover, weights
from hostler.models.capabilities import Capabilities

INTRO = """
A model is named `provider:model`. What stands before the colon says where it is asked, with whose
key and in which API; what follows is the provider's own name for it. A variable for the base URL
points a provider's name at any other server that speaks the same API. Keys are read at each call.
"""
OWN = """
`openai:` speaks Responses to OpenAI's own host and Chat Completions to every other base URL;
`openai-responses:` and `openai-chat:` force one of them.

Two names are no server:

* `scripted:PATH` plays a JSON list of replies, `scripted:demo` echoes: see
  [test an agent](../howto/test-an-agent.md).
* `local:NAME` and `local:/PATH/TO.gguf` run weights in this machine, with the extra `local`.
"""
FIRST = """
When neither an agent nor the settings name a model, the first of these is taken:
"""
CAPABLE = """
Servers that speak one API differ. What a model's server can do is data: every rule that fits is
laid over those before it. Where no rule says otherwise, the defaults hold.
"""


def provider_page() -> str:
    """Return the page.  Raises Undocumented: a capability has no meaning."""
    return page(
        "Providers",
        INTRO,
        table(
            ["name", "API", "base URL", "variable for the base URL", "variables for the key"],
            (_provider(name, one) for name, one in providers().items()),
        ),
        OWN,
        "## When no model is named",
        FIRST,
        _order(),
        "The providers:",
        table(
            ["provider", "variables for the key", "model that is taken"],
            ([one.name, _codes(one.keys), code(one.model)] for one in discover.PROVIDERS),
        ),
        "The model servers on loopback:",
        table(["server", "port"], ([one.name, str(one.port)] for one in discover.SERVERS)),
        "## Weights that are known",
        table(
            ["name", "file", "size", "licence"],
            (
                [code(f"local:{name}"), one.file, f"{one.file_bytes / 1e6:.0f} MB", one.license]
                for name, one in weights.KNOWN.items()
            ),
        ),
        "## Capabilities",
        CAPABLE,
        table(["field", "type", "default", "meaning"], _capabilities()),
        "### Rules",
        table(["where", "models", "what holds there"], map(_rule, _rules())),
    )


def _order() -> str:
    """Return the rules of `discover` as a list."""
    rules = "\n".join(line.strip() for line in about_lines(discover))
    return rules.replace("`PROVIDERS`", "the table below").replace("`SERVERS`", "the table below")


def _provider(name: str, one: Provider) -> list[str]:
    api = f"{one.own_wire} at {one.own}, else {one.wire}" if one.own_wire else one.wire
    return [code(name), api, one.base_url, code(one.base_url_env), _codes(one.key_env)]


def _capabilities() -> list[list[str]]:
    rows: list[list[str]] = []
    for one in fields(Capabilities):
        default: object = next(
            field for name, field in _defaults(Capabilities).items() if name == one.name
        )
        if not one.about and one.name not in _PLAIN:
            raise Undocumented(f"Capabilities.{one.name} has no docstring")
        about = one.about or _PLAIN[one.name]
        rows.append([code(one.name), json_type(one.type), code(_toml(default)), about])
    return rows


_PLAIN = {
    "system_role": "Name of the role that instructions have.",
    "images": "Takes images.",
}


def _defaults(cls: type[Capabilities]) -> dict[str, object]:
    made = cls()
    return {name: getattr(made, name) for name in cls.__struct_fields__}


def _rules() -> Sequence[Mapping[str, object]]:
    file = resources.files("hostler.models") / "data" / "capabilities.toml"
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    return cast("Sequence[Mapping[str, object]]", tables["rule"])


def _rule(rule: Mapping[str, object]) -> list[str]:
    where = cast("Sequence[str]", rule.get("where", ()))
    model = cast("Sequence[str]", rule.get("model", ()))
    holds = [f"{name} = {_toml(one)}" for name, one in rule.items() if name not in _WHO]
    return [_codes(where) or "any", _codes(model) or "any", _codes(holds)]


_WHO = frozenset({"where", "model"})


def _codes(texts: Sequence[str]) -> str:
    return ", ".join(map(code, texts))


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "none"
    return f'"{value}"' if isinstance(value, str) else str(value)
