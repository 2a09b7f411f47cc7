"""Responses over a WebSocket: `response.create` in, the same events out, one response at a time.

A frame is a request to the same endpoint, so it is counted, checked and refused as one; what is
answered as a body of events goes out as frames.  What nothing keeps is remembered here: a chain of
responses with `store: false` lives as long as its socket.

Invariant: what a client says is answered, or the close says why; a continuation that failed is
forgotten.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import anyio
import msgspec
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hostler.beside.responses import response_id
from hostler.core.errors import CallerError, Invalid, Malformed, Unauthorised, Unavailable
from hostler.core.events import JsonObject, RunId, Usage
from hostler.faces.http.answers import Answer, problem
from hostler.faces.http.decode import decoded
from hostler.faces.http.endpoint import Call, Endpoint, answered, read_call
from hostler.faces.http.entry import Entrance
from hostler.faces.http.form import encode
from hostler.faces.http.open_streams import NOW, SLOW, WRITE, OpenStream, OpenStreams
from hostler.faces.http.request import trailed
from hostler.faces.http.sockets import BAD_KEY, close
from hostler.faces.responses.asking import Continuing, asked, previous_of
from hostler.faces.responses.bodies import NewResponse
from hostler.faces.responses.echo import About
from hostler.faces.responses.errors import tell
from hostler.faces.responses.speaking import who_answers
from hostler.faces.responses.writer import Writer
from hostler.service.authorise import authorise
from hostler.service.rates import Rates
from hostler.service.service import Service

PATH = "/v1/responses"
LONGEST_S = 3600.0
"""OpenAI's limit; its clients open another one then."""
MOST_WAITING = 8
"""Frames that wait for the response before them."""
_fields = msgspec.json.Decoder(dict[str, object])
_request = msgspec.json.Decoder(NewResponse)


@dataclass(slots=True)
class _Memory:
    """The last response of a socket, if nothing else keeps it: all that was said, as items."""

    id: str | None = None
    items: list[object] = field(default_factory=list[object])


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseSocket:
    """An ASGI application for one path."""

    service: Service
    streams: OpenStreams
    entry: Entrance
    endpoint: Endpoint
    rates: Rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with trailed(scope):
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        try:
            call = await read_call(scope, self.entry.for_socket, self.service.auditing)
            self.rates.take(call.who, "requests")
            authorise(call.who, "write", None)
            await self.streams.check(call.who, self.service.tenants)
        except Unauthorised as error:
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": BAD_KEY, "reason": error.detail})
            return
        except (CallerError, Unavailable) as error:
            await problem(error)(scope, receive, send)
            return
        await send({"type": "websocket.accept"})
        one = self.streams.one(scope, send, call.who, until=call.until, kind="socket")
        with one as stream:
            async with _heard(receive, stream) as (said, gone):
                await _Talk(self, call, stream, scope, gone).all(said)
                if not gone.is_set():
                    await stream.send({"type": "websocket.close", "code": 1000, "reason": ""})
        if stream.why is not None:
            await close(stream.why, scope, send)


@asynccontextmanager
async def _heard(
    receive: Receive, stream: OpenStream
) -> AsyncGenerator[tuple[MemoryObjectReceiveStream[bytes], anyio.Event]]:
    """Yield what a client says, as it comes, and what is set when it has gone away."""
    sending, said = anyio.create_memory_object_stream[bytes](MOST_WAITING)
    gone = anyio.Event()

    async def listen(to: MemoryObjectSendStream[bytes]) -> None:
        async with to:
            while (message := await receive())["type"] == "websocket.receive":
                text = message.get("text")
                raw = (
                    message.get("bytes") or b"" if text is None else text.encode("utf-8", "replace")
                )
                await to.send(raw)
            gone.set()
        if message.get("code") == SLOW:
            stream.cut("slow")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen, sending)
        with said:
            yield said, gone
        tasks.cancel_scope.cancel()


class _Talk:
    """What one client says, and how it is answered, one after the other."""

    def __init__(
        self, of: ResponseSocket, call: Call, stream: OpenStream, scope: Scope, gone: anyio.Event
    ) -> None:
        self._of, self._call, self._stream, self._gone = of, call, stream, gone
        now = {NOW: {WRITE: self._now}}
        as_post = {"type": "http", "method": "POST", "extensions": now}
        self._scope: Scope = {**scope, **as_post}
        self._memory = _Memory()
        self._last: JsonObject = {}
        """The response that the last event told, when it was over."""

    async def all(self, said: MemoryObjectReceiveStream[bytes]) -> None:
        ends = anyio.current_time() + LONGEST_S
        while not self._gone.is_set():
            with anyio.CancelScope(deadline=ends) as limit:
                try:
                    raw = await said.receive()
                except anyio.EndOfStream:
                    return
                limit.deadline = float("inf")  # what has begun is not cut
                await self._one(raw)
            if limit.cancelled_caught or anyio.current_time() >= ends:
                break
        told = "Responses websocket connection limit reached (60 minutes). Open another one."
        error = {"type": "invalid_request_error", "message": told, "param": None}
        await self._tell(400, {**error, "code": "websocket_connection_limit_reached"})

    async def _receive(self) -> Message:
        """Receive nothing, until the client has gone."""
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _one(self, raw: bytes) -> None:
        what, self._last = f"WEBSOCKET {PATH}", {}
        previous = None
        try:
            fields = _created(raw)
            previous = fields.get("previous_response_id")
            said = self._remembered(fields)
        except CallerError as error:
            await self._refuse(tell(error))
            return
        call = self._call_of(None if "previous_response_id" in said else previous)
        if fields.get("generate") is False:
            answer = await answered(self._prewarm(call, said), what, tell)
            if isinstance(answer, Answer):
                await self._refuse(answer)
                self._forget(previous)
            return
        performing = self._of.endpoint.perform("POST", call, encode(said), PATH)
        app = await answered(performing, what, tell)
        await self._run(app)
        if self._last.get("status") not in ("completed", "incomplete"):
            self._forget(previous)
        elif said.get("store") is False:
            self._remember(said, str(self._last["id"]), self._last["output"])

    def _call_of(self, previous: object) -> Call:
        who, until, address = self._call.who, self._call.until, self._call.address
        return Continuing(
            who=who,
            until=until,
            address=address,
            path={},
            query={},
            headers={},
            previous=previous if isinstance(previous, str) else None,
        )

    # -- chains that nothing keeps -------------------------------------------------------------

    def _remembered(self, fields: JsonObject) -> JsonObject:
        """Return the request with what it follows, if that is remembered here."""
        body = {name: one for name, one in fields.items() if name not in ("type", "background")}
        body["stream"] = True
        memory = self._memory
        if memory.id is not None and body.get("previous_response_id") == memory.id:
            del body["previous_response_id"]
            body["input"] = [*memory.items, *_items(body.get("input"))]
        return body

    def _remember(self, body: JsonObject, id_: str, output: object) -> None:
        said = [*_items(body.get("input")), *cast("list[object]", output)]
        self._memory = _Memory(id_, said)

    def _forget(self, previous: object) -> None:
        if previous is not None and previous == self._memory.id:
            self._memory = _Memory()

    async def _prewarm(self, call: Call, body: JsonObject) -> ASGIApp | None:
        """Tell of a response to which no model is asked for anything."""
        service, who = self._of.service, self._call.who
        self._of.rates.take(who, "requests")
        request = decoded(_request, encode(body))
        agent = who_answers(service, who, request)
        asking, world = asked(request, ()), service.direct.world
        name = response_id(RunId(world.mint("run")))
        about = About(
            id=name,
            created_at=int(world.clock()),
            model=agent if ":" in agent else f"agent:{agent}",
            echo=previous_of(call, asking.echo),
            terms=asking.terms,
            tools=asking.tools,
        )
        writer = Writer(about, tail="", sse=False)
        writer.begin()
        writer.end("completed", Usage(), int(world.clock()))
        for frame in writer.taken():
            await self._send(frame)
        self._remember(body, name, [])
        return None

    # -- answers as frames ---------------------------------------------------------------------

    async def _run(self, app: ASGIApp) -> None:
        status, held = 200, list[bytes]()

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif status >= 400:
                held.append(message.get("body", b""))
            else:
                await self._events(message.get("body", b""))

        await app(self._scope, self._receive, send)
        if status >= 400:
            error = cast("JsonObject", _fields.decode(b"".join(held))["error"])
            await self._tell(status, error)
        elif not self._last:  # its stream was cut
            error = {"type": "server_error", "message": "the stream was cut", "param": None}
            await self._tell(503, {**error, "code": "unavailable"})

    async def _events(self, body: bytes) -> None:
        for event in body.split(b"\n\n"):
            _, found, data = event.partition(b"\ndata: ")  # what ends a stream has no name
            if found:
                if data.startswith(_ENDS):
                    self._last = cast("JsonObject", _fields.decode(data)["response"])
                await self._send(data)

    def _now(self, events: bytes) -> bool:
        """Send an event without waiting, if it is one that only goes on, and can be sent so."""
        event, _, rest = events.partition(b"\n\n")
        _, found, data = event.partition(b"\ndata: ")
        if rest or not found or data.startswith(_ENDS) or self._gone.is_set():
            return False
        return self._stream.write(data)

    async def _refuse(self, answer: Answer) -> None:
        assert isinstance(answer.body, bytes)
        error = cast("JsonObject", _fields.decode(answer.body)["error"])
        await self._tell(answer.status, error)

    async def _tell(self, status: int, error: JsonObject) -> None:
        await self._send(encode({"type": "error", "status": status, "error": error}))

    async def _send(self, data: bytes) -> None:
        if not self._gone.is_set():
            await self._stream.send({"type": "websocket.send", "text": data.decode()})


_ENDS = (
    b'{"type":"response.completed"',
    b'{"type":"response.incomplete"',
    b'{"type":"response.failed"',
)


def _created(raw: bytes) -> JsonObject:
    """Return a frame that asks for a response.  Raises Malformed, Invalid."""
    if not raw:
        raise Malformed("send text")
    fields = decoded(_fields, raw)
    if fields.get("type") != "response.create":
        told = "frames of the type 'response.create' are taken"
        raise Invalid(told, fields=[("/type", told)])
    return fields


def _items(said: object) -> list[object]:
    if isinstance(said, list):
        return cast("list[object]", said)
    return [{"type": "message", "role": "user", "content": said}] if said else []


def response_socket(
    service: Service, streams: OpenStreams
) -> Callable[[Entrance, Endpoint], ASGIApp]:
    """Return what makes the socket, once there is who lets clients in."""

    def made(entry: Entrance, endpoint: Endpoint) -> ASGIApp:
        return ResponseSocket(
            service=service, streams=streams, entry=entry, endpoint=endpoint, rates=service.rates
        )

    return made
