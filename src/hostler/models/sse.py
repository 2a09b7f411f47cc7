"""Server-sent events to the payloads of their `data:` lines, however the bytes were cut.

Event names, ids and comments are dropped: every wire API we speak repeats in its data what it
says in `event:`.  Line ends may be LF, CRLF or CR (WHATWG HTML, 9.2.6), mixed.

Invariant: the payloads do not depend on how the stream was split, and no byte is scanned or
copied more often than a small constant, whoever sends it.
"""

from __future__ import annotations

_BOM = b"\xef\xbb\xbf"


class EventTooLong(ValueError):
    """One event outgrew its bound; the stream cannot be read any further."""


class Events:
    """Collects one stream.  An event that the end of the stream leaves incomplete is dropped."""

    __slots__ = ("_after_cr", "_began", "_kept", "_limit_bytes", "_size")

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._kept: list[bytes] = []
        self._size = 0
        self._after_cr = False
        self._began = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the payloads that `data` completes; empty ones are left out.

        Raises:
            EventTooLong: an unfinished event is larger than the bound.
        """
        if b"\r" in data or self._after_cr:
            data = self._with_lf(data)
        kept = self._kept
        if kept:
            # Joined only when an event ends: a long one in many pieces would be copied n times.
            if b"\n\n" not in data and not (data[:1] == b"\n" and kept[-1][-1:] == b"\n"):
                self._keep(data)
                return []
            kept.append(data)
            data = b"".join(kept)
            kept.clear()
            self._size = 0
        end = data.rfind(b"\n\n")
        if end < 0:
            self._keep(data)
            return []
        if end + 2 < len(data):
            self._keep(data[end + 2 :])
            data = data[:end]
        else:
            data = data[:-2]
        if data.startswith(b"data: "):
            # The usual case, in as few calls as there are: they cost more than the bytes.
            payloads = data[6:].split(b"\n\ndata: ")
            if data.count(b"\n") == 2 * len(payloads) - 2 and b"" not in payloads:
                self._began = True
                return payloads
        elif data.startswith(b"event: "):
            # As usual, where events have names: two lines each.
            named = data.split(b"\n\nevent: ")
            payloads = [event.partition(b"\ndata: ")[2] for event in named]
            if data.count(b"\n") == 3 * len(named) - 2 and b"" not in payloads:
                self._began = True
                return payloads
        payloads = [self._payload(block) for block in data.split(b"\n\n")]
        self._began = True
        return [payload for payload in payloads if payload]

    def _keep(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._limit_bytes:
            raise EventTooLong(f"an event of more than {self._limit_bytes} bytes")
        if data:
            self._kept.append(data)

    def _with_lf(self, data: bytes) -> bytes:
        # A CR ends its line at once; the LF that may follow in the next read belongs to it.
        if not data:
            return data
        if self._after_cr and data.startswith(b"\n"):
            self._after_cr = False
            data = data[1:]
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _payload(self, block: bytes) -> bytes:
        if not self._began:
            block = block.removeprefix(_BOM)
        return b"\n".join(
            line[5:].removeprefix(b" ") for line in block.split(b"\n") if line.startswith(b"data:")
        )
