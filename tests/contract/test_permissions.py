"""What an agent's rules say about a tool: the most specific first, then the strictest."""

from __future__ import annotations

import pytest

from hostler.harness.permissions import ALL, Permission, Permissions


@pytest.mark.parametrize(
    ("tool", "says"),
    [
        ("read_file", "allow"),
        ("read_secrets", "ask"),
        ("read_all_secrets", "deny"),
        ("drop", "deny"),
        ("write_file", "ask"),
        ("Read_file", "ask"),
        ("equal", "deny"),
    ],
)
def test_the_most_specific_rule_wins_and_among_equals_the_strictest(
    tool: str, says: Permission
) -> None:
    rules = Permissions(
        allow=("read_*", "equal"),
        ask=("*", "read_secrets", "equal"),
        deny=("read_*_secrets", "dro?", "equal"),
    )
    assert rules.of(tool) == says


def test_without_a_rule_nothing_is_said() -> None:
    assert ALL.of("anything") is None
    assert Permissions(deny=("a*",)).of("b") is None


def test_brackets_in_a_rule_are_no_sets_of_letters() -> None:
    assert Permissions(deny=("a[bc]",)).of("ab") is None
