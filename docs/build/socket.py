"""The part of the page on HTTP that OpenAPI cannot say: what is spoken over a WebSocket.

The verbs and close codes are read from the code; a code without a meaning here is an error.
"""

from __future__ import annotations

from docs.build.markdown import code, slug, table
from docs.build.source import Undocumented

from hostler.faces.http import open_streams, sockets
from hostler.faces.native import socket as face

INTRO = """
`GET /api/sessions/{session}/socket` with an upgrade opens a WebSocket, on which the server sends
[frames](#frame), each as a text message `{"id", "event", "data"}`: those past the cursor, then
what is new. A client speaks in verbs, each of which is a POST under another name, with the same
body and the same answer:

```text
{"id": 1, "verb": "message", "body": {"content": "Hello"}}
{"re": 1, "status": 202, "body": {"input": "inp_…", …}}
```

`id` is any JSON, and comes back as `re`. Where the path has a `{call}`, the body has it as `call`.
`idempotency_key` beside `body` does what the header does; an answer that was kept has
`"replayed": true`. Verbs are answered one after the other. Whatever cannot be read is answered with
a [problem](errors.md) as `body`, and closes nothing.
"""
PING = ["`ping`", "nothing: it is answered with 200 and `{}`"]
CLOSES = """
A socket that is not let in by its key, ticket or link is opened and closed with 4401, because pages
see close codes and no statuses. After all but 4401 and 4404, a new socket with the last cursor goes
on where this one ended:
"""
MEANS = {
    1000: "The session was followed to an end.",
    1009: "A message was over the limit of a body.",
    sockets.DRAINING: "The server stops.",
    sockets.AGAIN: "The log cannot be read now.",
    sockets.BAD_KEY: "No key, ticket or link, or one that is good no more.",
    sockets.GONE: "The session is gone.",
    open_streams.SLOW: "The client did not read for too long; see [limits](limits.md#streams).",
}
PRESENCE = """
### Presence
With `presence=true` a stream or a socket is seen by the others who asked for it, and is told who they
are: in frames whose `event` is `presence`, which have no `id` and are stored nowhere. `data` is
`{"watching": [{"principal", "since", "typing"}]}`, whole each time. The verb `typing`, or
[its route](#post-apisessionssessiontyping), shows for some seconds that one types.
"""


def socket() -> list[str]:
    """Return the section.  Raises Undocumented: a close code has no meaning here."""
    sent = {number for number, _ in sockets.CLOSING.values()} | {open_streams.SLOW}
    for number in sorted(sent - set(MEANS)):
        raise Undocumented(f"the close code {number} has no meaning in docs/build/socket.py")
    verbs = [[code(verb), _route(path)] for verb, path in face.VERBS.items()]
    return [
        "## The socket",
        INTRO,
        table(["verb", "is"], [*verbs, PING]),
        CLOSES,
        table(["code", "meaning"], ([str(one), said] for one, said in sorted(MEANS.items()))),
        PRESENCE,
    ]


def _route(path: str) -> str:
    heading = f"POST {path}"
    return f"[{code(heading)}](#{slug(heading)})"
