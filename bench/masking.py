"""What does it cost to mask 1,000 secrets?  Buffers of 64 KiB, and tokens of a stream, one at a time.

*words* is English-like text; *base64* is the worst that is common: any of it might begin a form.
The floor reads the same bytes once (`bytes.count` of a byte), or joins the same tokens.
"""

from __future__ import annotations

import base64
import random
import secrets
import string
import time
from collections.abc import Callable

from bench.setting import Figures, Row, Setting
from hostler.vault.masker import Masker
from hostler.vault.tails import Tail

KNOWN = 1000
BUFFER = 64 * 1024
TOKEN = 5
"""Characters."""


async def run(setting: Setting) -> list[Row]:
    figures, size = Figures("masking"), setting.size
    masker = Masker((f"s{i}", secrets.token_urlsafe(32)) for i in range(KNOWN))
    texts = {"words": _words(), "base64": base64.b64encode(secrets.token_bytes(BUFFER)).decode()}
    for _ in range(size.reps):
        for case, text in texts.items():
            data = text[:BUFFER].encode()
            for server, look in (("hostler", masker.may_hold), ("floor", _read)):
                speed = _times_a_second(look, data, size.secs / 10) * BUFFER / 1e6
                figures.add(server, case, "buffers", speed, "MB/s")
            tokens = [text[i : i + TOKEN] for i in range(0, BUFFER, TOKEN)]
            for server, feed in (("hostler", Tail(masker).feed), ("floor", _Joined().feed)):
                figures.add(server, case, "a token", _us_each(feed, tokens), "us")
    return figures.rows()


class _Joined:
    def __init__(self) -> None:
        self.text = ""

    def feed(self, text: str) -> str:
        self.text = text
        return self.text


def _read(data: bytes) -> bool:
    return data.count(b"\0") > 0


def _words() -> str:
    chance = random.Random(1)
    letters = string.ascii_lowercase
    words = ("".join(chance.choices(letters, k=chance.randint(2, 9))) for _ in range(20_000))
    return " ".join(words)


def _times_a_second(look: Callable[[bytes], bool], data: bytes, secs: float) -> float:
    began, times = time.process_time(), 0
    while (passed := time.process_time() - began) < secs:
        look(data)
        times += 1
    return times / passed


def _us_each(feed: Callable[[str], str], tokens: list[str]) -> float:
    began = time.process_time()
    for token in tokens:
        feed(token)
    return (time.process_time() - began) * 1e6 / len(tokens)
