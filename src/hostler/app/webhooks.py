"""What webhooks are kept, signed and sent with, put together.

Invariant: without a vault nothing is set and nothing is sent; what is kept already stays.
"""

from __future__ import annotations

from hostler.beside.webhooks import Webhooks
from hostler.harness.egress import Egress
from hostler.harness.outbound import Outbound
from hostler.harness.posting import Poster
from hostler.service.webhooks import Outgoing, nothing_new
from hostler.vault.vault import SealedVault


def make_outgoing(
    rows: Webhooks,
    vault: SealedVault,
    outbound: Outbound | None,
    *,
    sends: bool,
    is_shared: bool = False,
) -> Outgoing:
    """Return what the verbs and the worker use; without `outbound`, for the public internet.

    `sends`: whether this process does, or leaves it for another; `is_shared`: others have the rows.
    """
    outbound = outbound or Outbound(Egress(), in_clear=False)
    post = Poster(outbound) if sends else None
    reread = vault.reread if is_shared else nothing_new
    return Outgoing(rows, vault, post, outbound.check, is_shared, reread)
