"""The crash lab: servers that die, disks that fill, networks that break, clocks that jump.

`python -m hostler.testing.crash` runs it, and `make crash` all of it.  Every family ends the same
way: the work is finished by whoever is left, and one checker (`invariants`) reads the store, what
clients were told, and what tools did.
"""
