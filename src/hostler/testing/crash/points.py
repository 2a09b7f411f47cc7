"""Dying at every place: the n-th time a server comes past one, it dies; n counts up until none does.

After SQLite's `do_faultsim_test`.  Invariant: each n begins with nothing, so that what it shows is
shown by that death alone.
"""

from __future__ import annotations

from hostler.testing.crash.nodes import Node, Site, dying
from hostler.testing.crash.play import Play
from hostler.testing.crash.scene import Case, staged


async def one_death(site: Site, at: int) -> Case:
    """Do the play on a server that dies at the n-th place; 0: it counts them and does not die."""
    told = site.folder / "places"
    node = Node(site=site, first_life=dying(at, told))
    case = await staged(f"death {at}", site, [node], Play.go, looks_at_what_is_held=at == 0)
    case.places = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
    return case
