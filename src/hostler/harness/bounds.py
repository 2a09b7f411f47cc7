"""How much at once a provider bears of one key, found out by what it refuses.

    no bound ──a refusal──▶ half of what was in flight ──a window of answers──▶ one more, …

What TCP does with a path that it does not know (RFC 5681): halve at a loss, one loss of many that
went together counts once, and begin slowly after a pause.  As CUBIC does (RFC 9438), it comes near
slowly to what was too much the last time.

Invariant: without a refusal there is no bound; with one, it is at least 1.
"""

from __future__ import annotations

from collections.abc import Callable

EDGE = 10
"""Windows that are answered before what was too much the last time is tried again: at five at once,
one question in fifty is refused to find out that there is room again."""
FORGET_S = 300.0
"""Without a refusal for so long, and nobody who waits, there is no bound any more."""
SOON = 16
"""A slow beginning is there after four answers, one after the other."""
_ENDLESS = 1 << 30


class Bound:
    """One.  Whoever asks says which `epoch` it was as the question went out."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.most: int | None = None
        self.epoch = 0
        """Counts refusals that told something new."""
        self._slow_until = self._too_much = _ENDLESS
        self._borne = self._answered = 0
        """What is in flight of an epoch that ended in a refusal, and was not refused so far; and
        answers since the bound last moved."""
        self._since = 0.0

    @property
    def hoped(self) -> int | None:
        """Return what it will soon be, if nothing is refused."""
        if self.most is None:
            return None
        return max(self.most, min(self._slow_until, SOON))

    def refused(self, epoch: int, in_flight: int) -> None:
        """Take in a refusal; `in_flight`: with the one that is refused."""
        self._since, self._answered = self._clock(), 0
        if epoch == self.epoch:
            self.epoch += 1
            self._borne, self._too_much = in_flight - 1, in_flight
            self.most = self._slow_until = max(1, in_flight // 2)
        elif epoch == self.epoch - 1 and self.most is not None:
            # It went with others that were refused: what is left of them is what was borne.
            self._borne = max(1, self._borne - 1)
            self._too_much = min(self._too_much, self._borne + 1)
            self.most = min(self.most, self._borne)
            self._slow_until = min(self._slow_until, self._borne)

    def answered(self, in_flight: int) -> None:
        """Take in that the provider took a question; `in_flight`: with this one."""
        if self.most is None or in_flight < self.most:
            return  # with less than it may be, nothing is learned about more
        if self.most < self._slow_until:
            self.most += 1
            return
        self._answered += 1
        windows = EDGE if self.most + 1 == self._too_much else 1
        if self._answered >= windows * self.most:
            self.most, self._answered = self.most + 1, 0
            self._slow_until = self.most

    def begin_slowly(self, in_flight: int) -> None:
        """Let what was shut begin again; `in_flight`: with the first that goes."""
        if self.most is None:  # others were refused
            self._since, self._slow_until, self._too_much = self._clock(), _ENDLESS, _ENDLESS
            self.most = max(1, in_flight)
        else:
            self.most = max(1, min(in_flight, self._slow_until))

    def forget_old(self) -> None:
        """Forget a bound that nothing has confirmed for long.  Not while somebody waits."""
        if self.most is not None and self._clock() - self._since > FORGET_S:
            self.most, self._slow_until, self._too_much = None, _ENDLESS, _ENDLESS
