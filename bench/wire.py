"""What is said: a prompt that tells the model server what to answer, and that answer in bytes.

Invariant: equal scripts are answered with equal bytes, prepared once.
"""

from __future__ import annotations

from functools import cache

import msgspec
from msgspec import Struct

from bench.bare import LAST_CHUNK, chunk

_HEAD = (
    b'data: {"id":"chatcmpl-CbX1f8aJ2kQw9mN7","object":"chat.completion.chunk","created":1795000000,'
    b'"model":"gpt-5-mini","service_tier":"default","system_fingerprint":"fp_3f4a1c","choices":'
    b'[{"index":0,"delta":'
)
_TEXT = _HEAD + b'{"content":"%b"},"logprobs":null,"finish_reason":null}]}\n\n'
_CALL = _HEAD + (
    b'{"tool_calls":[{"index":0,"id":"call_Kb2Qp7","type":"function","function":'
    b'{"name":"noop","arguments":"{\\"x\\":"}}]},"finish_reason":null}]}\n\n'
)
_REST_OF_CALL = _HEAD + (
    b'{"tool_calls":[{"index":0,"function":{"arguments":"\\"y\\"}"}}]},"finish_reason":null}]}\n\n'
)
_END = _HEAD + b'{},"finish_reason":"%b"}]}\n\n'
_USAGE = (
    b'data: {"id":"chatcmpl-CbX1f8aJ2kQw9mN7","object":"chat.completion.chunk","created":1795000000,'
    b'"model":"gpt-5-mini","choices":[],"usage":'
    b'{"prompt_tokens":9,"completion_tokens":%d,"total_tokens":%d}}\n\n'
    b"data: [DONE]\n\n"
)


class Script(Struct, frozen=True, omit_defaults=True):
    """What the model shall do.  A prompt is this as JSON."""

    tokens: int
    calls: int = 0
    """Of the no-op tool, one after the other, before the answer."""
    gap_s: float = 0.0
    """Between two tokens; 0 sends the whole answer in one write."""
    first_s: float = 0.0
    stamps: bool = False
    """Each token is its number and when it was written, by `time.perf_counter`; see `stamped`."""

    @property
    def prompt(self) -> str:
        return msgspec.json.encode(self).decode()


@cache
def text_of(tokens: int) -> str:
    """Return the answer of so many tokens."""
    return "".join(_tokens(tokens))


@cache
def answer(tokens: int) -> list[bytes]:
    """Return the chunks of an answer: one for each token, and what ends the stream."""
    end = chunk(_END % b"stop") + chunk(_USAGE % (tokens, tokens + 9)) + LAST_CHUNK
    return [*(chunk(_TEXT % token.encode()) for token in _tokens(tokens)), end]


def stamped(n: int, at: float) -> bytes:
    """Return the chunk of a token that tells its number and when it was written.

    The clock is the machine's, so that any process of it can say how old the token is.
    """
    return chunk(_TEXT % (b"%d:%.6f " % (n, at)))


@cache
def call() -> bytes:
    """Return the chunks of a call of the no-op tool, and what ends the stream."""
    events = (_CALL, _REST_OF_CALL, _END % b"tool_calls", _USAGE % (2, 11))
    return b"".join([chunk(event) for event in events]) + LAST_CHUNK


def _tokens(tokens: int) -> list[str]:
    return [f"t{n} " for n in range(tokens)]
