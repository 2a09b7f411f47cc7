"""A session over a WebSocket: frames out, verbs in.

A verb is an operation of the native API under another name: it is decoded, checked, carried out
and answered by that operation's endpoint.

Invariant: what a client says is answered, or the close says why; no rule is written here twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import anyio
import msgspec
from msgspec import Raw, Struct
from starlette.types import Message, Receive, Scope, Send

from hostler.core.errors import (
    CallerError,
    HostlerError,
    Invalid,
    Malformed,
    NotFound,
    TooLarge,
    Unauthorised,
    Unavailable,
)
from hostler.core.events import Event
from hostler.core.news import Piece, Presence
from hostler.faces.http.answers import Answer, problem
from hostler.faces.http.decode import decoded
from hostler.faces.http.endpoint import LARGEST_BODY, REPLAYED, Call, Endpoint, answered, read_call
from hostler.faces.http.entry import Entrance
from hostler.faces.http.form import encode
from hostler.faces.http.open_streams import SLOW, OpenStream, OpenStreams
from hostler.faces.http.request import trailed
from hostler.faces.http.sockets import AGAIN, BAD_KEY, GONE, close
from hostler.faces.http.streaming import Follow
from hostler.faces.native.operations import Operations
from hostler.faces.native.stream import send_presence
from hostler.faces.native.wire import text, text_presence
from hostler.service.rates import Rates

SESSION = "/api/sessions/{session}"
VERBS: Mapping[str, str] = {
    "message": f"{SESSION}/messages",
    "cancel": f"{SESSION}/cancel",
    "approve": f"{SESSION}/approvals/{{call}}",
    "result": f"{SESSION}/calls/{{call}}/result",
    "typing": f"{SESSION}/typing",
}
"""Each is a POST to the path; `ping` is answered at once."""
LARGEST_MESSAGE = LARGEST_BODY + 64 * 1024
"""A body and what is around it; beyond, the server closes with 1009."""


class Said(Struct, forbid_unknown_fields=True):
    """What a client sends."""

    verb: str
    id: object = None
    body: Raw = Raw(b"{}")
    idempotency_key: str | None = None


class _Ref(Struct):
    id: object = None


_said = msgspec.json.Decoder(Said)
_ref = msgspec.json.Decoder(_Ref)
_body = msgspec.json.Decoder(dict[str, Raw])


@dataclass(frozen=True, slots=True, kw_only=True)
class Socket:
    """An ASGI application for one path; `endpoints` by path."""

    operations: Operations
    endpoints: Mapping[str, Endpoint]
    entry: Entrance
    streams: OpenStreams
    rates: Rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with trailed(scope):
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        try:
            call = await read_call(scope, self.entry.for_socket, self.operations.service.auditing)
            self.rates.take(call.who, "requests")
            follow = await self.operations.follow(call)
            attendance = await self.operations.attendance(call)
        except Unauthorised as error:
            # A close code can be seen by a page's script; the status of a refusal cannot.
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": BAD_KEY, "reason": error.detail})
            return
        except (CallerError, Unavailable) as error:
            await problem(error)(scope, receive, send)
            return
        await send({"type": "websocket.accept"})
        talk = _Talk(call, self.endpoints)
        end: tuple[int, str] | None = None
        one = self.streams.one(
            scope, send, call.who, until=call.until, session=call.session, kind="socket"
        )
        with one as stream:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(talk.listen, receive, stream, tasks.cancel_scope)
                if attendance is not None:
                    tasks.start_soon(send_presence, attendance, stream, _presence)
                end = await _send_frames(follow, stream)
                tasks.cancel_scope.cancel()
            if end is not None:  # and nothing is answered any more
                await stream.send({"type": "websocket.close", "code": end[0], "reason": end[1]})
        if stream.why is not None:
            await close(stream.why, scope, send)


@dataclass(frozen=True, slots=True)
class _Talk:
    """What one client says, and how it is answered, one after the other."""

    call: Call
    endpoints: Mapping[str, Endpoint]

    async def listen(self, receive: Receive, stream: OpenStream, scope: anyio.CancelScope) -> None:
        while (message := await receive())["type"] == "websocket.receive":
            answer = await self._answer(message.get("text"))
            await stream.send({"type": "websocket.send", "text": answer.decode()})
        if message.get("code") == SLOW:  # it does not even answer pings
            stream.cut("slow")
        scope.cancel()

    async def _answer(self, message: str | None) -> bytes:
        raw = b"" if message is None else message.encode("utf-8", "surrogatepass")
        ref = _ref_of(raw)
        answer = await answered(self._carry_out(raw), "a verb of a socket")
        assert isinstance(answer, Answer), "what has no Accept header is no stream"
        body = answer.body if isinstance(answer.body, bytes) else encode(answer.body)
        replayed = b',"replayed":true' if answer.headers == REPLAYED else b""
        return b'{"re":%b,"status":%d,"body":%b%b}' % (ref, answer.status, body, replayed)

    async def _carry_out(self, raw: bytes) -> Answer:
        if not raw:
            raise Malformed("send text")
        said = decoded(_said, raw)
        body = bytes(said.body)
        if said.verb == "ping":
            return Answer(200, {})
        path = VERBS.get(said.verb)
        if path is None:
            wanted = f"one of: {', '.join(VERBS)}, ping"
            raise Invalid(f"there is no verb {said.verb!r}", fields=[("/verb", wanted)])
        if len(body) > LARGEST_BODY:
            raise TooLarge(f"the body is {len(body)} bytes; {LARGEST_BODY} are allowed")
        names = dict(self.call.path)
        if "{call}" in path:
            names["call"], body = _call_in(body)
        key = said.idempotency_key
        call = Call(
            who=self.call.who,
            address=self.call.address,
            path=names,
            query={},
            headers={} if key is None else {"idempotency-key": key},
        )
        answer = await self.endpoints[path].perform("POST", call, body, path.format(**names))
        assert isinstance(answer, Answer)
        return answer


def _ref_of(raw: bytes) -> bytes:
    """Return the client's own name for what it said, as JSON; null if that cannot be read."""
    try:
        return encode(_ref.decode(raw).id)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return b"null"


def _call_in(body: bytes) -> tuple[str, bytes]:
    """Return the call that a body names, and the body without it.

    Raises:
        Malformed, Invalid: it is no object, or names none.
    """
    fields = decoded(_body, body)
    try:
        call = msgspec.json.decode(fields.pop("call", b"null"), type=str)
    except msgspec.ValidationError as error:
        raise Invalid("body.call is missing", fields=[("/call", "the id of a call")]) from error
    return call, encode(fields)


async def _send_frames(follow: Follow, stream: OpenStream) -> tuple[int, str]:
    """Send what comes; return how to close when there is no more."""

    def at_once(items: Sequence[Event | Piece]) -> bool:
        return len(items) == 1 and stream.write(text(items[0]).encode())

    async with aclosing(follow(at_once=at_once)) as batches:
        try:
            async for batch in batches:
                for item in batch:
                    await stream.send({"type": "websocket.send", "text": text(item)})
        except NotFound as error:
            return GONE, error.detail
        except HostlerError:
            return AGAIN, "the log cannot be read now; come back with your cursor"
    return 1000, ""


def _presence(presence: Presence) -> Message:
    return {"type": "websocket.send", "text": text_presence(presence)}
