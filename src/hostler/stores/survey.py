"""What a build finds in a database before it uses it.

Invariant: pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from hostler.core.codec import KINDS

KNOWN = tuple(sorted(KINDS))


class Survey(Struct, frozen=True, kw_only=True):
    server: str
    """Which database it is, with its version."""
    expand: Sequence[int] = ()
    """Steps of the schema that a start of this build takes."""
    contract: Sequence[int] = ()
    """Steps that are taken when somebody says so."""
    newer: Sequence[int] = ()
    """Steps that a newer build took, and this one does not know."""
    is_usable: bool = True
    """None of these removed what this build needs."""
    kinds: Sequence[str] | None = ()
    """Of facts, that this build does not know; None: that took too long."""
    held_up: int = 0
    """Sessions with a run that goes on, and such a fact."""
    processes: Sequence[str] = ()
    """Who has it open."""
    size: int = 0
    """In bytes."""
    free: int | None = None
    """How many there are beside it, if that can be known."""
