"""Uvicorn's connections, with what an ASGI application cannot do.

*Drop a client that does not read*: uvicorn closes a connection when all is written; for one that
is not read, that is never.  *Send without waiting*: a token for a hundred watchers would wake a
hundred tasks, which costs several times what it costs to write to their sockets.

Invariant: the wire is uvicorn's; what is written here is what `send` would have written.
"""

from __future__ import annotations

import logging

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.protocol import State

from hostler.faces.http.open_streams import CUT, DROP, NOW, SLOW, WRITE

LINGER_S = 10.0
"""What a slow client gets to read what waits for it, and why it is closed."""

_quiet = logging.getLogger(__name__)
_quiet.setLevel(logging.WARNING)
# Uvicorn takes a refusal by `websocket.http.response` for a mistake of ours; anybody can be refused.
_quiet.addFilter(lambda record: "without completing handshake" not in str(record.msg))


class HttpConnection(HttpToolsProtocol):
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {CUT: {DROP: self._cut}, NOW: {WRITE: self._write}}

    def _cut(self, code: int, reason: str) -> None:
        del code, reason
        self.transport.abort()

    def _write(self, body: bytes) -> bool:
        cycle = self.cycle
        if self.flow.write_paused or cycle.disconnected or not cycle.chunked_encoding:
            return False
        self.transport.write(b"%x\r\n%b\r\n" % (len(body), body))
        return True


class SocketConnection(WebSocketsSansIOProtocol):
    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, object]
    ) -> None:
        super().__init__(config, server_state, app_state)
        # Each opening would be logged with its query, in which tickets and links are, and with
        # its headers, in which keys are.
        self.logger = self.conn.logger = _quiet
        self.conn.debug = False

    async def run_asgi(self) -> None:
        extensions = self.scope.get("extensions") or {}
        own: dict[str, dict[object, object]] = {CUT: {DROP: self._cut}, NOW: {WRITE: self._write}}
        self.scope["extensions"] = {**extensions, **own}
        await super().run_asgi()

    def keepalive_timeout(self) -> None:
        # Uvicorn would say 1011, an error of the server; the application knows better words.
        self.queue.put_nowait({"type": "websocket.disconnect", "code": SLOW})

    def _write(self, body: bytes) -> bool:
        if self.conn.state is not State.OPEN or not self.writable.is_set():
            return False
        self.conn.send_text(body)
        self.transport.write(b"".join(self.conn.data_to_send()))
        return True

    def _cut(self, code: int, reason: str) -> None:
        if self.close_sent or self.transport.is_closing():
            return
        self.stop_keepalive()
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.close_timer = self.loop.call_later(LINGER_S, self.transport.abort)
