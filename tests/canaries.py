"""With `HOSTLER_TEST_CANARIES=1`, the keys of all tests are canaries, and all their files searched.

The admin key that tests serve with is one, so is a secret of the tenant and the master key; what
any test wrote below its folder is searched at the end of each worker.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from hostler.core.events import TenantId
from hostler.testing.canaries import Canaries
from hostler.vault.envelope import MasterKey, new_key
from hostler.vault.vault import SealedVault

ON = os.environ.get("HOSTLER_TEST_CANARIES", "") not in ("", "0")
CANARIES = Canaries()
TENANT = TenantId("default")


def master_keys(*keys: bytes) -> FixedKeys:
    return FixedKeys([MasterKey(key, key.hex()) for key in keys or (new_key(),)])


class FixedKeys:
    """Master keys that a test gives, and may change."""

    def __init__(self, keys: Sequence[MasterKey]) -> None:
        self.keys = keys

    def __call__(self, *, make: bool, again: bool = False) -> Sequence[MasterKey]:
        del make, again
        return self.keys


def canary_vault(key: str) -> SealedVault | None:
    """Return a vault that knows this run's canaries; None when it is without."""
    if not ON:
        return None
    vault = SealedVault(master_keys())
    vault.learn(None, "admin-key", key)
    vault.learn(TENANT, "canary", CANARIES.values.get("secret") or CANARIES.new("secret", odd=True))
    return vault
