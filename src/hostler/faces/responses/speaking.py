"""A request that is kept: in which session it is said, after what, and as which message.

    nothing before it                       a new session
    a conversation                          the session that it is
    a response, the last of its session     that session
    a response that others have followed    a fork that ends with it
    a response that waits for its client    the same run goes on, with what is answered

Invariant: what is said after a response is read after that response and what was before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import NamedTuple

from msgspec import structs

from hostler.beside.responses import response_id
from hostler.core.errors import Conflict, Invalid, NotFound
from hostler.core.events import CallId, Key, Principal, RunId, Seq
from hostler.core.head import Wait
from hostler.core.ports import AgentSpec
from hostler.core.records import Session
from hostler.core.said import Said, ToolSaid
from hostler.faces.http.agents import agent_of
from hostler.faces.http.endpoint import Call
from hostler.faces.http.form import encode
from hostler.faces.http.keepsakes import Keepsakes
from hostler.faces.responses.asking import Asked, asked, conversation_of, input_of, previous_of
from hostler.faces.responses.bodies import NewResponse, Question
from hostler.faces.responses.echo import kept
from hostler.faces.responses.finding import Found, find, locked, model_of, told
from hostler.faces.responses.ids import read_conversation
from hostler.faces.responses.items import (
    Conversation,
    conversation,
    missing,
    names_of_ours,
    unanswered,
    uncalled,
)
from hostler.faces.responses.known import known
from hostler.faces.responses.telling import Teller
from hostler.service.earlier import state_at
from hostler.service.follow import Seat
from hostler.service.inbox import Message, Receipt
from hostler.service.once import Answering
from hostler.service.service import Service
from hostler.service.waits import Decision, Result

BRANCHES = 3
"""How often a place in a session is lost to somebody else before it is said to be busy."""


class Spoken(NamedTuple):
    """A request that is stored."""

    session: Session
    receipt: Receipt
    asked: Asked
    is_resumed: bool


def id_of(receipt: Receipt, is_resumed: bool) -> str:  # noqa: FBT001  the receipt says no word of it
    """Return the name of the response that a message asked for."""
    return response_id(receipt.run, receipt.seq if is_resumed else None)


class _Before(NamedTuple):
    """The response that a request follows, and where it ends."""

    found: Found
    end: Teller


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaking:
    service: Service
    who: Principal
    body: NewResponse
    agent: str
    keepsakes: Keepsakes
    owns: ExitStack
    """Keeps the seat on the session, from before the message is written."""
    call: Call
    """The request, which may have an idempotency key."""

    async def say(self) -> tuple[Spoken, Seat]:
        """Store the request.

        Raises:
            Invalid: what it follows is not there (`previous_response_not_found`), a call has no
                result, or anything of it cannot be asked.
            NotFound: there is no such conversation.
            Conflict: what it follows goes on, or somebody else speaks in the conversation.
        """
        before = await self._before()
        said, asking = await self._said(before)
        conversation_ = conversation_of(self.body)
        if before is not None:
            return await self._after(before, said, asking)
        if conversation_ is None:
            _all_called(said.answers, ())
            if not said.said:
                raise missing("input")
            return await self._new(said, asking, ())
        name = read_conversation(conversation_)
        if name is None:
            raise _no_conversation(conversation_)
        try:
            session = await self.service.sessions.get(self.who, name)
        except NotFound:
            raise _no_conversation(conversation_) from None
        return await self._in(session, said, asking)

    # -- what is said --------------------------------------------------------------------------

    async def _before(self) -> _Before | None:
        name = self.body.previous_response_id
        if name is None:
            return None
        try:
            found = await find(self.service, self.who, name)
        except NotFound:
            raise previous_absent(name) from None
        if not found.is_kept:
            raise previous_absent(name)
        end = await told(self.service, self.who, found)
        if not end.is_over:
            raise Conflict(f"Response '{name[:100]}' is still going on.", code="response_not_done")
        return _Before(found, end)

    async def _said(self, before: _Before | None) -> tuple[Conversation, Asked]:
        items = input_of(self.body)
        replies = await known(self.service, self.who, names_of_ours(items))
        # What is said in a conversation is in it, whoever says it; a chain has instructions.
        leads = self.body.conversation is None
        said = conversation(items, self.keepsakes, replies, leads=leads)
        lead = [*_lead(before), *said.lead]
        asking = asked(self.body, lead)
        echo = previous_of(self.call, asking.echo)
        echo = structs.replace(echo, model=model_of(self.agent), roles=said.roles)
        return said, asking._replace(echo=echo)

    # -- where ---------------------------------------------------------------------------------

    async def _after(
        self, before: _Before, said: Conversation, asking: Asked
    ) -> tuple[Spoken, Seat]:
        found, waits = before.found, before.end.waits
        session = await self.service.sessions.get(self.who, found.session.id)
        if waits:
            _all_answered(said.answers, waits)
            _all_called(said.answers, waits)
            if session.head.active == found.row.id and _calls(session.head.waits) == waits:
                return await self._resume(session, found.row.id, said, asking)
            return await self._beside(before, said, asking)
        _all_called(said.answers, ())
        end = found.row.last_seq
        assert end is not None  # it is over, and waits for nothing
        try:
            return await self._speak(session, said, asking, ends_at=end)
        except Conflict as error:
            if error.code not in ("went_on", "busy"):
                raise
        forked = await self.service.sessions.fork(self.who, session.id, at=end)
        return await self._speak(forked, said, asking)

    async def _in(self, session: Session, said: Conversation, asking: Asked) -> tuple[Spoken, Seat]:
        head = session.head
        if head.active is not None and head.parked:
            waits = _calls(head.waits)
            _all_answered(said.answers, waits)
            _all_called(said.answers, waits)
            return await self._resume(session, head.active, said, asking)
        _all_called(said.answers, ())
        try:
            return await self._speak(session, said, asking)
        except Conflict as error:
            if error.code == "busy":
                raise locked() from None
            raise

    async def _beside(
        self, before: _Before, said: Conversation, asking: Asked
    ) -> tuple[Spoken, Seat]:
        """Say it in a session of its own: what waited there was answered otherwise."""
        service, found = self.service, before.found
        state = await state_at(
            service.store, service.access, self.who, found.session.id, before.end.last
        )
        history, run = [*state.transcript], state.run
        for call in () if run is None else run.asked:
            done = None if run is None else run.answers.get(call.id)
            answer = said.answers.get(call.id)
            if done is not None:
                history.append(ToolSaid(call, done.output, failed=done.outcome != "ok"))
            elif isinstance(answer, Result):
                history.append(ToolSaid(call, answer.output, failed=answer.is_error))
            else:
                raise Conflict("this was decided already", code="already_answered")
        return await self._new(said, asking, history)

    async def _new(
        self, said: Conversation, asking: Asked, history: Sequence[Said]
    ) -> tuple[Spoken, Seat]:
        sessions, opening = self.service.sessions, self.service.carried.opening
        session = sessions.new(self.who, self.agent, client_tools=asking.tools)
        said = replace(said, said=[*history, *said.said])
        roles = {str(int(at) + len(history)): one for at, one in said.roles.items()}
        asking = asking._replace(echo=structs.replace(asking.echo, roles=roles))
        # As it is kept: what is secret in a tool is masked.
        asking = asking._replace(tools=session.client_tools)
        message = self._message(session, said, asking)
        place = Key(session.tenant, session.id)
        seat = self.owns.enter_context(self.service.following.seat(place))
        answering = self._answering(is_resumed=False)
        receipt = await opening.open(self.who, session, message, answering=answering)
        return Spoken(session, receipt, asking, is_resumed=False), seat

    # -- and there -----------------------------------------------------------------------------

    async def _speak(
        self, session: Session, said: Conversation, asking: Asked, *, ends_at: Seq | None = None
    ) -> tuple[Spoken, Seat]:
        message = self._message(session, said, asking)
        message = replace(message, policy="reject", ends_at=ends_at)
        seat = await self._seat(session)
        answering = self._answering(is_resumed=False)
        inbox = self.service.inbox
        receipt = await inbox.speak(self.who, session.id, message, answering=answering)
        return Spoken(session, receipt, asking, is_resumed=False), seat

    async def _resume(
        self, session: Session, run: RunId, said: Conversation, asking: Asked
    ) -> tuple[Spoken, Seat]:
        asking = asking._replace(echo=structs.replace(asking.echo, answers=len(said.answers)))
        message = self._message(session, said, asking)
        seat = await self._seat(session)
        receipt = await self.service.resuming.resume(
            self.who,
            session.id,
            run,
            replace(message, policy="steer"),
            said.answers,
            answering=self._answering(is_resumed=True),
        )
        return Spoken(session, receipt, asking, is_resumed=True), seat

    def _answering(self, *, is_resumed: bool) -> Answering[Receipt] | None:
        key = self.call.asked
        if key is None:
            return None
        return Answering(
            key, lambda receipt: b"200 %b" % encode({"id": id_of(receipt, is_resumed)})
        )

    async def _seat(self, session: Session) -> Seat:
        return self.owns.enter_context(await self.service.following.watch(self.who, session.id))

    def _message(self, session: Session, said: Conversation, asking: Asked) -> Message:
        history, content = said.split()
        terms = asking.terms
        if self.agent != session.agent:
            terms = structs.replace(terms, agent=self.agent)
        # In a conversation, a request that says nothing of tools leaves those that are there.
        stays = self.body.tools is None and self.body.conversation is not None
        return Message(
            content=content,
            policy="reject",
            metadata=kept(asking.echo),
            client_tools=None if stays else asking.tools,
            history=history,
            terms=terms,
        )


def who_answers(service: Service, who: Principal, body: Question) -> str:
    """Return who is asked, by the name that sessions know: an agent, or `provider:model`.

    Raises:
        Invalid: nobody is named (`missing_required_parameter`).
        NotFound: there is no such agent or model.
    """
    name = model_in(body.model)
    if (agent := agent_of(name)) is not None:
        service.carried.find(who, agent)
        return agent
    model = service.direct.find(who, name)
    return f"{model.provider}:{model.name}"


def model_in(name: str | None) -> str:
    """Return the model that is named.  Raises Invalid: none is."""
    if name:
        return name
    raise missing("model")


def is_model(agent: str, agents: Mapping[str, AgentSpec]) -> bool:
    """Whether it is a model as it is."""
    return ":" in agent and agent in agents


def previous_absent(name: str) -> Invalid:
    told_ = f"Previous response with id '{name[:100]}' not found."
    return Invalid(
        told_, code="previous_response_not_found", fields=[("/previous_response_id", told_)]
    )


def _no_conversation(name: str) -> NotFound:
    return NotFound(f"Conversation with id '{name[:100]}' not found.")


def _lead(before: _Before | None) -> Sequence[str]:
    """Return what the items of the requests before it instructed, which holds on."""
    if before is None:
        return ()
    about = before.found.about
    said, own = about.terms.instructions, about.echo.own
    if said is None or own is None:
        return ()
    rest = said[own:].removeprefix("\n\n") if own else said
    return (rest,) if rest else ()


def _calls(waits: Sequence[Wait]) -> frozenset[CallId]:
    return frozenset(wait.call for wait in waits)


def _all_answered(answers: Mapping[CallId, Result | Decision], waits: frozenset[CallId]) -> None:
    for call in waits:
        if call not in answers:
            raise unanswered(call)


def _all_called(
    answers: Mapping[CallId, Result | Decision], waits: frozenset[CallId] | Sequence[CallId]
) -> None:
    for call in answers:
        if call not in waits:
            raise uncalled(call)
