"""What an agent's tools may do: rules by name, the most specific first.

    permissions:
      allow: [read_*]
      ask: ["*"]
      deny: [delete_everything]

A name that a rule gives as it is beats a pattern, and of patterns the longer one; of rules that
are equally specific, `deny` beats `ask` beats `allow`.  A tool that no rule names is asked about
if its author says so.

Invariant: pure; an approval never permits what a rule denies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

from msgspec import Struct

Permission: TypeAlias = Literal["allow", "ask", "deny"]


class Permissions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Names of tools, or patterns with `*` and `?`; the most specific rule holds."""

    allow: tuple[str, ...] = ()
    """Run at once, even if their author wants them asked about."""
    ask: tuple[str, ...] = ()
    """Each call waits for an approval."""
    deny: tuple[str, ...] = ()
    """Never run; the model is told so."""

    def of(self, tool: str) -> Permission | None:
        """Return what the rules say about a tool; None when none of them is about it."""
        most = -1
        says: Permission | None = None
        for kind, rules in self._strictest_first():
            for rule in rules:
                if _matches(rule, tool) and _how_specific(rule, tool) > most:
                    most, says = _how_specific(rule, tool), kind
        return says

    def _strictest_first(self) -> Iterable[tuple[Permission, Sequence[str]]]:
        return (("deny", self.deny), ("ask", self.ask), ("allow", self.allow))


ALL = Permissions()
"""No rule."""


def _matches(rule: str, tool: str) -> bool:
    return fnmatchcase(tool, rule.replace("[", "[[]"))  # no sets of letters


def _how_specific(rule: str, tool: str) -> int:
    return 1_000_000 if rule == tool else len(rule.replace("*", ""))
