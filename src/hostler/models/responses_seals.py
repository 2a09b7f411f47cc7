"""Encrypted thoughts that a provider cannot read any more, so that they are not sent to it again.

They are sealed for an organisation, and for a time: after a change of the key, each question with
an old one is refused, for ever.  Which those are, the provider alone can tell, and only of all that
a question had.  So what a refused question had is told without, from then on; thoughts are lost by
that, words and calls are not.

Invariant: nothing is asked again here; a question that had nothing sealed is never taken for mended.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

MOST_BROKEN = 50_000
"""Kept as digests, 3 MB of them; one that is forgotten costs one refused question."""


class Seals:
    """What one model could not read, until this process ends."""

    def __init__(self) -> None:
        self._broken = dict[bytes, None]()

    def question(self) -> Question:
        """Return what keeps account of one question."""
        return Question(self._broken)


class Question:
    """One question's sealed thoughts."""

    def __init__(self, broken: dict[bytes, None]) -> None:
        self._broken, self._sent = broken, list[str]()

    def may_send(self, sealed: Sequence[str]) -> bool:
        """Whether a reply's thoughts can be read, as far as that is known; notes them as sent."""
        if self._broken and any(_digest(one) in self._broken for one in sealed):
            return False
        self._sent += sealed
        return True

    def broke(self) -> bool:
        """Take in that the question was refused for them; False: it had none."""
        for one in self._sent:
            if len(self._broken) >= MOST_BROKEN:
                del self._broken[next(iter(self._broken))]
            self._broken[_digest(one)] = None
        return bool(self._sent)


def _digest(sealed: str) -> bytes:
    return hashlib.blake2b(sealed.encode(errors="surrogatepass"), digest_size=12).digest()
