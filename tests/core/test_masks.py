"""What masks is bounded, made aside, and sees the values of all tenants for the operator."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from hostler.core.events import TenantId
from hostler.vault import masks as sizes
from hostler.vault.forms import anchors, forms
from hostler.vault.masks import MOST_LEARNT, MOST_LEARNT_BYTES, Masks

pytestmark = pytest.mark.anyio
A, B = TenantId("a"), TenantId("b")
VALUE = "sk-0123456789abcdef"


def text(masks: Masks, tenant: TenantId, said: str) -> str:
    mask = masks.of(tenant)
    return said if mask is None else mask.text(said)


@pytest.mark.parametrize("letter", ["0", "\x01", "\u4e00"])
def test_the_most_that_a_tenant_may_keep_is_masked_in_bounded_memory(letter: str) -> None:
    program = f"""
import random, resource
from hostler.vault.masker import Masker
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
chance, first, before = random.Random(1), ord({letter!r}), peak()
size = 16_384 // len({letter!r}.encode())
values = ["".join(chr(first + n) for n in chance.choices(range(20), k=size)) for _ in range(16)]
Masker((str(n), value) for n, value in enumerate(values))
print(peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert float(done.stdout) < 400


def test_what_is_looked_for_first_is_short_whatever_the_value() -> None:
    for value in ("\x01" * 100, '"' * 100, "a\n" * 50, "\u00e9" * 100):
        assert max(map(len, anchors(forms(value)))) <= 30


async def test_of_what_is_not_kept_the_latest_is_masked_and_what_is_kept_always() -> None:
    masks = Masks()
    masks.keep(A, "kept", VALUE)
    for n in range(MOST_LEARNT + 1):
        await masks.cover(A, "scrubbed", f"value-{n:04}")

    assert text(masks, A, VALUE) == masks.hide(VALUE) == "[secret:kept]"
    assert text(masks, A, "value-0000") == masks.hide("value-0000") == "value-0000"
    for n in range(1, MOST_LEARNT + 1):
        assert text(masks, A, f"value-{n:04}") == "[secret:scrubbed]"


async def test_what_is_not_kept_is_bounded_in_bytes() -> None:
    masks, size = Masks(), 16_384
    for letter in "abcdefghij":
        await masks.cover(A, letter, letter * size)

    masked = [text(masks, A, letter * size) != letter * size for letter in "abcdefghij"]
    assert masked == [False] * 2 + [True] * (MOST_LEARNT_BYTES // size)


async def test_the_operators_own_values_are_all_masked() -> None:
    masks = Masks()
    for n in range(2 * MOST_LEARNT):
        masks.learn(None, "own", f"value-{n:04}")

    assert text(masks, A, "value-0000") == text(masks, A, "value-0199") == "[secret:own]"


async def test_tenants_without_values_share_what_masks_the_operators() -> None:
    masks = Masks()
    masks.learn(None, "own", VALUE)

    assert masks.of(A) is masks.of(B) is not None


async def test_what_is_ready_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = Masks()
    for tenant in (A, B):
        masks.learn(tenant, "own", VALUE)
    first = masks.of(A)
    assert first is not None
    assert masks.of(A) is first
    monkeypatch.setattr(sizes, "READY_BYTES", first.bytes_taken)

    assert masks.of(B) is masks.of(B)
    assert masks.of(A) is not first


def test_one_tenants_value_does_not_show_another_ones_to_the_operator() -> None:
    masks = Masks()
    masks.learn(A, "begins", VALUE[:10])
    masks.learn(B, "whole", VALUE)

    assert masks.hide(f"-{VALUE}-") == "-[secret:begins]-"
    assert text(masks, A, VALUE) == f"[secret:begins]{VALUE[10:]}"
    assert text(masks, B, VALUE) == "[secret:whole]"


def test_lines_are_masked_while_other_threads_learn() -> None:
    masks, over, seen = Masks(), threading.Event(), list[str]()
    masks.learn(A, "own", VALUE)

    def log() -> None:
        while not over.is_set():
            if (told := masks.hide(VALUE)) != "[secret:own]":
                seen.append(told)

    threads = [threading.Thread(target=log) for _ in range(2)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for one in threads:
            one.start()
        for n in range(200):
            masks.learn(B, "other", f"value-{n:04}")
    finally:
        over.set()
        for one in threads:
            one.join()
        sys.setswitchinterval(before)

    assert seen == []
