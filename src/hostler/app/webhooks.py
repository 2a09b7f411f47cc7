"""What webhooks are kept, signed and sent with, put together.

Invariant: without a vault nothing is set and nothing is sent; what is kept already stays.
"""

from __future__ import annotations

from hostler.beside.webhooks import Webhooks
from hostler.core.sealed import Vault
from hostler.harness.egress import Egress
from hostler.harness.outbound import Outbound
from hostler.harness.posting import Poster
from hostler.service.webhooks import Outgoing


def make_outgoing(
    rows: Webhooks, vault: Vault, outbound: Outbound | None, *, sends: bool
) -> Outgoing:
    """Return what the verbs and the worker use; without `outbound`, for the public internet.

    `sends`: whether this process does, or leaves it for another.
    """
    outbound = outbound or Outbound(Egress(), in_clear=False)
    return Outgoing(rows, vault, Poster(outbound) if sends else None, outbound.check)
