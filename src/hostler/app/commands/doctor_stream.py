"""`hostler doctor stream URL`: whether what is between here and a server holds streams back.

The server sends ticks with the time of each.  Clocks differ, so what counts is how much later than
the quickest one each tick came.

Invariant: a verdict is measured; what could not be measured is said as that.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import aiohttp
import msgspec

TICKS, EVERY_MS = 20, 100
TIME_OUT_S = 30.0
HELD_S = 0.5
"""Nobody minds less; a proxy that buffers holds a tick for the whole measurement."""

Verdict: TypeAlias = Literal["streams", "held_back", "compressed", "cut", "refused", "unreachable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamCheck:
    verdict: Verdict
    words: str
    """The verdict, and what to do about it."""
    latest_s: float | None = None
    """How much later than the quickest tick the slowest came."""

    @property
    def is_well(self) -> bool:
        return self.verdict == "streams"


class _Tick(msgspec.Struct):
    n: int
    of: int
    sent_at: float


_tick = msgspec.json.Decoder(_Tick)


async def check_stream(
    url: str, key: str, *, ticks: int = TICKS, every_ms: int = EVERY_MS
) -> StreamCheck:
    """Return what becomes of a stream on the way from the server at `url`."""
    address = f"{url.rstrip('/')}/api/doctor/stream?n={ticks}&every_ms={every_ms}"
    headers = {"Authorization": f"Bearer {key}", "Accept": "text/event-stream"}
    limit = aiohttp.ClientTimeout(total=TIME_OUT_S + ticks * every_ms / 1000)
    late: list[float] = []
    try:
        async with (
            aiohttp.ClientSession(timeout=limit, auto_decompress=False) as http,
            http.get(address, headers=headers) as answer,
        ):
            if answer.status != 200:
                return _refused(url, answer.status)
            if encoding := answer.headers.get("Content-Encoding"):
                return _compressed(url, encoding)
            async for line in answer.content:
                late += [time.time() - sent_at for sent_at in _sent_at(line)]
    except (aiohttp.ClientError, OSError) as error:
        if not late:
            return StreamCheck(verdict="unreachable", words=f"{url} cannot be reached: {error}")
    except msgspec.DecodeError:
        return _refused(url, 200)
    return _judged(url, late, ticks)


def _sent_at(line: bytes) -> list[float]:
    return [_tick.decode(line[6:]).sent_at] if line.startswith(b"data: ") else []


def _judged(url: str, late: Sequence[float], ticks: int) -> StreamCheck:
    if len(late) < ticks:
        words = (
            f"the stream from {url} was cut after {len(late)} of {ticks} ticks: "
            "something on the way ends connections; raise its time-outs"
        )
        return StreamCheck(verdict="cut", words=words)
    latest_s = max(late) - min(late)
    if latest_s < HELD_S:
        words = f"{url} streams: no tick came more than {latest_s * 1000:.0f} ms late"
        return StreamCheck(verdict="streams", words=words, latest_s=latest_s)
    words = (
        f"something between here and {url} holds streams back, for {latest_s:.1f} s: turn its "
        "buffering off for text/event-stream (nginx: `proxy_buffering off`, or let it obey "
        "`X-Accel-Buffering`)"
    )
    return StreamCheck(verdict="held_back", words=words, latest_s=latest_s)


def _compressed(url: str, encoding: str) -> StreamCheck:
    words = (
        f"something between here and {url} compresses streams ({encoding}), which "
        "may hold them back: turn that off for text/event-stream"
    )
    return StreamCheck(verdict="compressed", words=words)


def _refused(url: str, status: int) -> StreamCheck:
    if status == 401:
        words = f"{url} does not know this key: set HOSTLER_ADMIN_KEY"
    else:
        words = f"{url} answered {status}: is this a Hostler server, of this version?"
    return StreamCheck(verdict="refused", words=words)
