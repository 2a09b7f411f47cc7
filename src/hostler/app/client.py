"""A client of the native API, for programs; the commands are made of it.

Invariant: however often the connection breaks, following never gives a frame twice and never
leaves one out, since each says where to go on; and nothing is sent twice, since each request has
an idempotency key.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Self, cast
from urllib.parse import quote

import anyio.to_thread
import msgspec

from hostler.app.api import PAGE, Api, of_session
from hostler.app.asking import PATIENCE_S, SEND_S, given, opened
from hostler.app.frames import Finished, Frame, finished
from hostler.app.settings import load_settings
from hostler.app.whereabouts import is_ours, known_key, own_cert, server_url
from hostler.core.errors import SetupError
from hostler.core.events import ClientTool, JsonObject, Policy, Priority, Verdict
from hostler.core.said import Content
from hostler.faces.native.bodies import (
    ApprovalView,
    FactView,
    RunDetailView,
    RunView,
    SessionView,
)
from hostler.faces.native.run_table import UsageView
from hostler.faces.native.schedule import ScheduledView
from hostler.service.inbox import Cancelled, Receipt


@dataclass(slots=True)
class Client:
    """Speaks to a server: `async with Client() as client`.

    What is not given is taken from where the commands take it: `HOSTLER_URL` or the server of this
    machine, `HOSTLER_ADMIN_KEY` or the key in the data folder.

    What changes something is sent again, with the same idempotency key, while no answer comes; it
    happens once. All methods raise a `CallerError` for what the server refuses, with the `code` and,
    as `more`, the whole problem; and `Unavailable` when it does not answer. Answers are the bodies
    of the HTTP reference, as structs.
    """

    url: str | None = None
    """Where the server is."""
    key: str | None = field(default=None, repr=False)
    """Of a user, a program or the operator; a token of an issuer will do."""
    tenant: str | None = None
    """For whom an operator acts; None: the key's own tenant."""
    tls_cert: Path | None = None
    """The server's own certificate, if no authority vouches for it."""
    _api: Api | None = field(default=None, repr=False, kw_only=True)

    async def __aenter__(self) -> Self:
        url, key, cert = await anyio.to_thread.run_sync(self._where)  # it reads files
        self._api = Api(opened(cert), url.rstrip("/"), key, self.tenant)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.api.http.close()

    @property
    def api(self) -> Api:
        """Any operation by its path, with JSON objects: `await client.api.get("/api/me")`.

        Has `get`, `post`, `patch`, `put`, `delete`, and `items`, which yields what a list holds.
        """
        if self._api is None:
            raise SetupError("this client is not open: `async with Client() as client`")
        return self._api

    def acting_in(self, tenant: str | None) -> Client:
        """Return this client in another tenant, which the operator's key may act in.

        It is open for as long as this one is.
        """
        if tenant is None:
            return self
        return replace(self, tenant=tenant, _api=replace(self.api, tenant=tenant))

    def _where(self) -> tuple[str, str, Path | None]:
        if self.url is not None and self.key is not None:
            return self.url, self.key, self.tls_cert
        settings = load_settings({})
        key = self.key or known_key(settings, url=self.url)
        if key is None:
            where = settings.data if is_ours(settings, self.url) else "what was given for it"
            raise SetupError(
                f"there is no key: give one, or set HOSTLER_ADMIN_KEY (none is in {where})"
            )
        if self.url is not None:
            return self.url, key, self.tls_cert
        return server_url(settings), key, self.tls_cert or own_cert(settings)

    # -- sessions --------------------------------------------------------------------------------

    async def create_session(
        self,
        *,
        agent: str | None = None,
        title: str | None = None,
        metadata: JsonObject | None = None,
        id: str | None = None,  # noqa: A002  it is called so everywhere else
        client_tools: Sequence[ClientTool] = (),
    ) -> SessionView:
        """Make a session, of the default agent or another; with an `id`, make it or find it."""
        body = given(agent=agent, title=title, metadata=metadata, id=id)
        if client_tools:
            body["client_tools"] = msgspec.to_builtins(client_tools)
        return msgspec.convert(await self.api.post("/api/sessions", body), SessionView)

    async def get_session(self, session: str) -> SessionView:
        """Return a session as it is now: its labels, its status, what it waits for."""
        return msgspec.convert(await self.api.get(of_session(session)), SessionView)

    async def list_sessions(
        self, *, agent: str | None = None, status: str | None = None, limit: int | None = None
    ) -> AsyncGenerator[SessionView, None]:
        """Yield sessions, newest first: all, or up to `limit`."""
        found = self.api.items("/api/sessions", limit=limit, agent=agent, status=status)
        async with aclosing(found):
            async for one in found:
                yield msgspec.convert(one, SessionView)

    async def delete_session(self, session: str) -> None:
        """Cancel what is going in a session, and remove it with its log."""
        await self.api.delete(of_session(session))

    async def fork(
        self, session: str, *, at: int | None = None, title: str | None = None
    ) -> SessionView:
        """Make a session that begins with what this one said, up to `at` or its last closed step."""
        made = await self.api.post(of_session(session, "fork"), given(at=at, title=title))
        return msgspec.convert(made, SessionView)

    # -- saying something, and what comes of it --------------------------------------------------

    async def speak(
        self,
        session: str,
        content: Content,
        *,
        policy: Policy | None = None,
        purpose: str | None = None,
        priority: Priority | None = None,
        metadata: JsonObject | None = None,
        client_tools: Sequence[ClientTool] | None = None,
        at: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> Receipt:
        """Say something, and return the receipt: it is stored, and will be answered.

        With `at`, a time with a zone, it is said then; the receipt's `status` is `scheduled`.
        With a `priority` of `low`, a run that it begins gives way to others that wait.
        An `idempotency_key` of your own makes that so across restarts of your program, too.
        """
        body = given(policy=policy, purpose=purpose, priority=priority, metadata=metadata)
        body["content"] = msgspec.to_builtins(content)
        if client_tools is not None:
            body["client_tools"] = msgspec.to_builtins(client_tools)
        if at is not None:
            body["at"] = at.isoformat()
        path = of_session(session, "messages")
        told = await self.api.post(path, body, idempotency_key=idempotency_key)
        return msgspec.convert(told, Receipt)

    async def ask(
        self,
        content: Content,
        *,
        session: str | None = None,
        agent: str | None = None,
        policy: Policy | None = None,
        purpose: str | None = None,
        priority: Priority | None = None,
        metadata: JsonObject | None = None,
        client_tools: Sequence[ClientTool] | None = None,
        patience_s: float = PATIENCE_S,
    ) -> AsyncGenerator[Frame, None]:
        """Say something, in a new session or another; yield the receipt, then what happens.

        The last frame is the `run_ended` of the receipt's run. Whoever stops reading cancels nothing.
        """
        if session is None:
            session = (await self.create_session(agent=agent)).id
        receipt = await self.speak(
            session,
            content,
            policy=policy,
            purpose=purpose,
            priority=priority,
            metadata=metadata,
            client_tools=client_tools,
        )
        data = cast("JsonObject", msgspec.to_builtins(receipt))
        yield Frame(id=receipt.cursor, event="receipt", data=data)
        frames = self.follow(session, after=receipt.cursor, patience_s=patience_s)
        async with aclosing(frames):
            async for frame in frames:
                yield frame
                if frame.event == "run_ended" and frame.data["run"] == receipt.run:
                    return

    async def run(
        self,
        content: Content,
        *,
        session: str | None = None,
        agent: str | None = None,
        policy: Policy | None = None,
        purpose: str | None = None,
        priority: Priority | None = None,
        metadata: JsonObject | None = None,
        client_tools: Sequence[ClientTool] | None = None,
        patience_s: float = PATIENCE_S,
    ) -> Finished:
        """As `ask`, and return how the run ended. It waits for people who are asked, too."""
        return await finished(
            self.ask(
                content,
                session=session,
                agent=agent,
                policy=policy,
                purpose=purpose,
                priority=priority,
                metadata=metadata,
                client_tools=client_tools,
                patience_s=patience_s,
            )
        )

    async def follow(
        self, session: str, *, after: str = "0", patience_s: float = PATIENCE_S
    ) -> AsyncGenerator[Frame, None]:
        """Yield what happened past a cursor, and then what happens, each once, until you stop.

        Without a cursor that is all from the first fact on; `now` skips what was. A stream that
        breaks, or is refused for a while, is taken up again where it was, for up to `patience_s`
        in a row. To go on later, keep the `id` of the last frame. Kinds of frames that your
        version does not know come, too.

        Raises:
            Unavailable: the server did not come back in time.
        """
        async with aclosing(self.api.news(session, after=after, patience_s=patience_s)) as news:
            async for one in news:
                if isinstance(one, list):
                    for frame in one:
                        yield frame

    async def facts(self, session: str, *, after: str = "0") -> list[Frame]:
        """Return all facts past a cursor that are there now."""
        frames: list[Frame] = []
        while True:
            page = await self.api.get(of_session(session, "events"), after=after, limit=PAGE)
            frames += msgspec.convert(page["events"], list[Frame])
            after = str(page["cursor"])
            if not page["more"]:
                return frames

    async def list_scheduled(self, session: str) -> list[ScheduledView]:
        """Return the messages that are still to be said, the next one first."""
        page = await self.api.get(of_session(session, "scheduled"))
        return msgspec.convert(page["items"], list[ScheduledView])

    async def withdraw(self, session: str, name: str) -> None:
        """Have a scheduled message not said, by its receipt's `input`.  Raises NotFound: it was."""
        await self.api.delete(of_session(session, "scheduled", name))

    # -- what runs wait for, and runs ------------------------------------------------------------

    async def cancel(
        self,
        session: str,
        *,
        run: str | None = None,
        reason: str | None = None,
        tries_s: float = SEND_S,
    ) -> Cancelled:
        """Ask for the active run, or another of the session, to end; safe to repeat."""
        body = given(run=run, reason=reason)
        told = await self.api.post(of_session(session, "cancel"), body, tries_s=tries_s)
        return msgspec.convert(told, Cancelled)

    async def list_approvals(
        self, *, session: str | None = None, status: str | None = None
    ) -> AsyncGenerator[ApprovalView, None]:
        """Yield the requests for approval that are open, oldest first; or those of a `status`."""
        found = self.api.items("/api/approvals", limit=None, session=session, status=status)
        async with aclosing(found):
            async for one in found:
                yield msgspec.convert(one, ApprovalView)

    async def approve(
        self,
        session: str,
        call: str,
        decision: Verdict = "allow",
        *,
        arguments: JsonObject | None = None,
        reason: str | None = None,
        remember: bool = False,
        digest: str | None = None,
    ) -> FactView:
        """Allow or deny a call that waits for that; the first answer holds.

        With `digest`, only what you were shown is allowed.

        Raises:
            Conflict: somebody was first (`already_answered`), or it is too late (`expired`).
        """
        body = given(decision=decision, arguments=arguments, reason=reason, digest=digest)
        if remember:
            body["remember"] = True
        told = await self.api.post(of_session(session, "approvals", call), body)
        return msgspec.convert(told, FactView)

    async def answer(
        self, session: str, call: str, output: object, *, is_error: bool = False
    ) -> FactView:
        """Give the result of a call that clients answer: text, or any JSON.  Raises as `approve`."""
        body: JsonObject = {"output": output, "is_error": is_error}
        told = await self.api.post(of_session(session, "calls", call, "result"), body)
        return msgspec.convert(told, FactView)

    async def list_runs(
        self,
        *,
        session: str | None = None,
        status: str | None = None,
        purpose: str | None = None,
        limit: int | None = None,
    ) -> AsyncGenerator[RunView, None]:
        """Yield runs, newest first: all, or up to `limit`."""
        found = self.api.items(
            "/api/runs", limit=limit, session=session, status=status, purpose=purpose
        )
        async with aclosing(found):
            async for one in found:
                yield msgspec.convert(one, RunView)

    async def get_run(self, run: str) -> RunDetailView:
        """Return a run with its model calls, its tool calls and what was thought of it."""
        return msgspec.convert(
            await self.api.get(f"/api/runs/{quote(run, safe='')}"), RunDetailView
        )

    async def usage(
        self, *by: str, since: str | None = None, before: str | None = None
    ) -> list[UsageView]:
        """Return tokens and cost of a time, summed `by` what the HTTP reference names."""
        asked = {"by": ",".join(by) or None, "from": since, "to": before}
        found = self.api.items("/api/usage", limit=None, page=PAGE, **asked)
        async with aclosing(found):
            return [msgspec.convert(one, UsageView) async for one in found]
