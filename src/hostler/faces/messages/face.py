"""The Messages face as operations, to be mounted beside the native ones by `app`.

Invariant: translation only; who may, how often and what is kept of it is the service's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec.structs import replace
from starlette.types import ASGIApp

from hostler.core.ports import mint
from hostler.faces.http.agents import agent_of, conversation_of
from hostler.faces.http.counting import estimated
from hostler.faces.http.direct import Answering, Parts, Words
from hostler.faces.http.endpoint import Call, Operation
from hostler.faces.http.keepsakes import KeepsakesOf
from hostler.faces.http.open_streams import OpenStreams
from hostler.faces.messages.bodies import Count, ErrorBody, Message, NewCount, NewQuestion
from hostler.faces.messages.doing import AgentWriter, spelled_out
from hostler.faces.messages.errors import VendorAnswer, tell
from hostler.faces.messages.question import request_of, shows_thinking
from hostler.faces.messages.writer import Writer
from hostler.service.authorise import authorise
from hostler.service.service import Service

_SESSION = "x-claude-code-session-id"
_SANE = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_HEADERS: Mapping[str, str] = {
    "anthropic-version": "any",
    "anthropic-beta": "any; unknown ones are no error",
}


def messages_operations(
    service: Service, streams: OpenStreams, keepsakes: KeepsakesOf
) -> list[Operation]:
    """Return the operations of this face."""
    do = _Operations(service, streams, keepsakes)
    query = {"beta": "true or left out: the same"}
    return [
        Operation(
            method="POST",
            path="/v1/messages",
            name="create_message",
            summary="Ask a model or an agent as clients of Anthropic's API do; the answer is a message, or streamed",
            run=do.ask,
            begins="run",
            body=NewQuestion,
            query=query,
            headers=_HEADERS,
            returns={200: Message},
            streams=True,
            errors=(404, 413, 500, 504, 529),
            tell=tell,
            tells=ErrorBody,
        ),
        Operation(
            method="POST",
            path="/v1/messages/count_tokens",
            name="count_tokens",
            summary="Estimate how many tokens a question has, by its characters",
            run=do.count,
            body=NewCount,
            query=query,
            headers=_HEADERS,
            returns={200: Count},
            errors=(404,),
            keeps=False,
            tell=tell,
            tells=ErrorBody,
        ),
    ]


class _Operations:
    def __init__(self, service: Service, streams: OpenStreams, keepsakes: KeepsakesOf) -> None:
        self._service, self._streams, self._keepsakes = service, streams, keepsakes

    async def ask(self, call: Call) -> ASGIApp:
        asked = call.body
        assert isinstance(asked, NewQuestion)
        # `ask` asks it again, and too late for the refusal to be written down.
        authorise(call.who, "write", None)
        parts, words = self._answer(call, asked)
        await self._streams.check(call.who, self._service.tenants)
        return Answering(call, self._streams, parts, words, streamed=bool(asked.stream))

    def _answer(self, call: Call, asked: NewQuestion) -> tuple[Parts, Words]:
        """Return what will be answered, and who writes it."""
        who, id_, shows = call.who, mint("msg"), shows_thinking(asked)
        kept, streamed = self._keepsakes(who.tenant), bool(asked.stream)
        agent = agent_of(asked.model)
        if agent is None:
            model = self._service.direct.find(who, asked.model)
            session = call.headers.get(_SESSION, "")
            session = session if _SANE.fullmatch(session) else ""
            parts = self._service.direct.ask(who, model, request_of(asked, kept, session=session))
            return parts, Writer(id_, asked.model, kept, shows_thinking=shows)
        self._service.carried.find(who, agent)
        question = request_of(_spelled_out(asked), kept)
        conversation = conversation_of(question, agent, face="messages")
        parts = self._service.carried.ask(
            who, conversation, streamed=streamed, does=True, asked=call.asked
        )
        writer = AgentWriter(id_, asked.model, kept, shows_thinking=shows, streamed=streamed)
        return parts, writer

    async def count(self, call: Call) -> ASGIApp:
        asked = call.body
        assert isinstance(asked, NewCount)
        kept = self._keepsakes(call.who.tenant)
        agent = agent_of(asked.model)
        if agent is None:
            self._service.direct.find(call.who, asked.model)
            return VendorAnswer(200, Count(input_tokens=estimated(request_of(asked, kept))))
        found = self._service.carried.find(call.who, agent)
        question = request_of(_spelled_out(asked), kept)
        question = replace(
            question,
            system=f"{found.instructions}\n\n{question.system}",
            tools=[*found.tools.specs, *question.tools],
        )
        return VendorAnswer(200, Count(input_tokens=estimated(question)))


def _spelled_out(asked: NewCount) -> NewCount:
    return replace(asked, messages=spelled_out(asked.messages))
