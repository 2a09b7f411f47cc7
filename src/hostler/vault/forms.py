"""The forms in which a value may stand in a text: as it is, escaped, and in base64.

Base64 of a text that holds the value differs with where the value begins in it, modulo three; of
each of the three, the characters that depend on the value alone are a form.

Invariant: every form has at least `SHORTEST` characters.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

from hostler.core.sealed import SHORTEST

ANCHOR = 5
"""Bytes that are looked for first: few enough that a thousand values fit the processor's caches."""
_FREE = re.compile(rb'[^"\\\x00-\x1f\x7f]+')


def forms(value: str) -> set[str]:
    """Return all forms of a value."""
    value = value.strip()
    escaped = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    twice = {json.dumps(one)[1:-1] for one in escaped}
    urls = {quote(value, safe=""), quote(value), quote_plus(value)}
    lower = {re.sub(r"%[0-9A-F]{2}", lambda m: m[0].lower(), url) for url in urls}
    found = {value, *escaped, *twice, *urls, *lower, *_base64(value.encode())}
    return {form for form in found if len(form) >= SHORTEST}


def _base64(value: bytes) -> Iterable[str]:
    for before in range(3):
        text = base64.b64encode(b"\0" * before + value).decode()
        stable = text[(0, 2, 3)[before] : 8 * (before + len(value)) // 6]
        yield stable
        yield stable.replace("+", "-").replace("/", "_")


def anchors(patterns: Iterable[str]) -> set[bytes]:
    """Return a few bytes of each form: what holds none of them holds no form.

    They are the same in the text and in its JSON.  The shortest forms choose first, so that those
    that contain another one need none of their own.
    """
    chosen: set[bytes] = set()
    for form in sorted(patterns, key=lambda one: (len(one), one)):
        whole = form.encode()
        taken = {whole[i : i + ANCHOR] for i in range(len(whole) - ANCHOR + 1)}
        if not taken & chosen:
            chosen |= _anchors_of(form)
    return chosen


def _anchors_of(form: str) -> set[bytes]:
    runs = [run for run in _FREE.findall(form.encode()) if len(run) >= ANCHOR]
    if runs:
        longest = max(runs, key=len)
        start = (len(longest) - ANCHOR) // 2
        return {longest[start : start + ANCHOR]}
    start = (len(form) - ANCHOR) // 2
    part = form[start : start + ANCHOR]
    return {part.encode(), json.dumps(part, ensure_ascii=False)[1:-1].encode()}
