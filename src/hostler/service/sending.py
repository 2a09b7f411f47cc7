"""How an event is sent to a webhook, and what becomes of it then: Standard Webhooks 1.0.

Invariant: pure.  The same delivery, time and chance give the same request and the same next try.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime

from msgspec.structs import replace

from hostler.beside.webhooks import Delivery, Posted, Webhook

SCHEDULE_S = (0.0, 5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
"""Seconds between tries, as the specification proposes: given up after three days."""
JITTER = 0.1
"""Of such a wait, added at most: what failed together is not tried again together."""
MOST_WAIT_S = 86_400.0
"""Whatever a receiver asks for."""
FAILING_S = 5 * 86_400.0
"""For so long every try has to fail, and as many as the schedule has, until none is made any more."""
GONE = 410
SLOWER = frozenset({429, 502, 503, 504})
"""Answers that may say how long to wait."""
SECRET_BYTES = 32
_PREFIX = "whsec_"


def new_secret() -> str:
    """Return a secret in the form that receivers' libraries take."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def headers_of(keys: Sequence[str], name: str, *, at: float, body: bytes) -> Mapping[str, str]:
    """Return the headers of a try, signed with each of the secrets.

    Raises:
        ValueError: one is no secret.
    """
    signed = f"{name}.{int(at)}.".encode() + body
    return {
        "Content-Type": "application/json",
        "webhook-id": name,
        "webhook-timestamp": str(int(at)),
        "webhook-signature": " ".join(_signature(key, signed) for key in keys),
    }


def _signature(key: str, signed: bytes) -> str:
    plain = base64.b64decode(key.removeprefix(_PREFIX), validate=True)
    return f"v1,{base64.b64encode(hmac.digest(plain, signed, hashlib.sha256)).decode()}"


def asked_to_wait_s(came: Posted, now: float) -> float | None:
    """Return how long a receiver wants to be left alone; None: it did not say."""
    if came.code not in SLOWER or came.retry_after is None:
        return None
    text = came.retry_after.strip()
    if text.isascii() and text.isdigit():
        return min(MOST_WAIT_S, float(text[:12]))
    try:
        until = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(MOST_WAIT_S, max(0.0, until - now))


def after(
    hook: Webhook, row: Delivery, sent: Delivery, came: Posted, *, now: float, chance: float
) -> tuple[Webhook, Delivery]:
    """Return what a webhook and a delivery become when a try is over.

    `hook` and `row` are what is kept now, `sent` is the delivery as it was when the try began.
    """
    is_taken = came.code is not None and 200 <= came.code < 300
    hook = _counted(hook, came, now, is_taken=is_taken)
    row = replace(row, tries=row.tries + 1, tried_at=now, code=came.code, error=came.error)
    if row.replays != sent.replays:  # it was asked for anew meanwhile, and is due
        return hook, row
    if is_taken:
        return hook, replace(row, status="delivered", step=0, next_at=None)
    step = row.step + 1
    if step >= len(SCHEDULE_S) or came.code == GONE:
        return hook, replace(row, status="given_up", step=step, next_at=None)
    wait_s = SCHEDULE_S[step] * (1 + JITTER * chance)
    wait_s = max(wait_s, asked_to_wait_s(came, now) or 0.0)
    is_on = hook.disabled_at is None
    return hook, replace(row, step=step, next_at=now + wait_s if is_on else None)


def _counted(hook: Webhook, came: Posted, now: float, *, is_taken: bool) -> Webhook:
    if is_taken:
        return replace(hook, failures=0, failing_since=None)
    if not came.is_theirs:
        return hook
    since = now if hook.failing_since is None else hook.failing_since
    hook = replace(hook, failures=hook.failures + 1, failing_since=since)
    if hook.disabled_at is not None:
        return hook
    if came.code == GONE:
        return replace(hook, disabled_at=now, disabled_because="gone")
    if hook.failures >= len(SCHEDULE_S) and now - since >= FAILING_S:
        return replace(hook, disabled_at=now, disabled_because="failing")
    return hook
