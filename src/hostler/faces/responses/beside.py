"""What is asked beside responses: how many tokens a question has, and a conversation made short.

Invariant: nothing of it is kept but the row of a direct call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from starlette.types import ASGIApp

from hostler.core.errors import NotFound
from hostler.core.events import JsonObject, Principal
from hostler.core.ports import Delta, Failure, Reply, Request
from hostler.core.said import ModelSaid, Said, TextPart, ToolSaid, UserSaid
from hostler.faces.http.answers import Answer
from hostler.faces.http.counting import estimated
from hostler.faces.http.direct import Answering
from hostler.faces.http.endpoint import Call
from hostler.faces.http.keepsakes import Keepsake, Keepsakes, KeepsakesOf
from hostler.faces.http.open_streams import OpenStreams
from hostler.faces.http.openai import failed
from hostler.faces.responses.asking import asked, input_of, request_of
from hostler.faces.responses.bodies import Question
from hostler.faces.responses.echo import arguments_of, usage_of
from hostler.faces.responses.errors import tell
from hostler.faces.responses.finding import find, told
from hostler.faces.responses.ids import read_conversation
from hostler.faces.responses.items import Conversation, conversation, missing, names_of_ours
from hostler.faces.responses.known import known
from hostler.faces.responses.speaking import model_in, previous_absent, who_answers
from hostler.service.authorise import authorise
from hostler.service.earlier import state_at
from hostler.service.service import Service

SHORTEN = (
    "You are given a conversation between a user and an assistant.  Write down all that whoever "
    "goes on with it has to know: what the user wants, what was decided and why, facts, names, "
    "numbers and files as they are, what was tried, and what is left to do.  Leave out what does "
    "not matter any more.  Answer with that alone."
)
BEFORE = "What was said before, in short:\n\n"


class Counted(Question, kw_only=True):
    """A question of which only the size is asked for."""


class Long(Question, kw_only=True):
    """A conversation that is to be made short."""

    prompt_cache_key: str | None = None


@dataclass(frozen=True, slots=True)
class Beside:
    service: Service
    streams: OpenStreams
    keepsakes: KeepsakesOf

    async def count(self, call: Call) -> ASGIApp:
        """Estimate how many tokens a question has."""
        body = cast("Counted", call.body)
        authorise(call.who, "read", None)
        if body.model is not None:
            who_answers(self.service, call.who, body)
        said, before = await self._said(call.who, body)
        asking = asked(body, said.lead)
        request = request_of(asking, [*before, *said.said], call.who)
        tokens = estimated(request)
        return Answer(200, {"object": "response.input_tokens", "input_tokens": tokens})

    async def compact(self, call: Call) -> ASGIApp:
        """Have a model make a conversation short."""
        body, who, direct = cast("Long", call.body), call.who, self.service.direct
        authorise(who, "write", None)
        model = direct.find(who, model_in(body.model))
        said, before = await self._said(who, body)
        whole = [*before, *said.said]
        if not whole:
            raise missing("input")
        await self.streams.check(who, self.service.tenants)
        texts = "\n\n".join([*said.lead, *(_line(one) for one in whole)])
        request = Request(system=SHORTEN, transcript=[UserSaid(texts)])
        short = Short(self.service, self.keepsakes(who.tenant), whole)
        parts = direct.ask(who, model, request)
        return Answering(call, self.streams, parts, short, streamed=False)

    async def _said(self, who: Principal, body: Question) -> tuple[Conversation, Sequence[Said]]:
        """Return what a request says, and what was said before it."""
        items = input_of(body)
        replies = await known(self.service, who, names_of_ours(items))
        said = conversation(items, self.keepsakes(who.tenant), replies)
        service, given = self.service, body.conversation
        if given is not None:
            name = given if isinstance(given, str) else given.id
            session = read_conversation(name)
            if session is None:
                raise NotFound(f"Conversation with id '{name[:100]}' not found.")
            at = (await service.sessions.get(who, session)).head.seq
        elif body.previous_response_id is not None:
            try:
                found = await find(service, who, body.previous_response_id)
            except NotFound:
                raise previous_absent(body.previous_response_id) from None
            at, session = (await told(service, who, found)).last, found.session.id
        else:
            return said, ()
        state = await state_at(service.store, service.access, who, session, at)
        return said, state.transcript


class Short:
    """Writes a conversation that was made short: `http.direct.Words` of an answer that is whole."""

    alive = b""
    tell = staticmethod(tell)
    id_headers: Sequence[bytes] = ()

    def __init__(self, service: Service, keepsakes: Keepsakes, said: Sequence[Said]) -> None:
        self._world, self._keepsakes, self._said = service.direct.world, keepsakes, said

    def begin(self) -> Sequence[bytes]:
        return ()

    def add(self, delta: Delta) -> Sequence[bytes]:
        del delta
        return ()

    def end(self, reply: Reply) -> Sequence[bytes]:
        del reply
        return ()

    def error(self, answer: Answer, request: str) -> Sequence[bytes]:
        del answer, request
        return ()

    def whole(self, reply: Reply) -> Answer:
        name = self._world.mint("")[1:]
        texts = [_text(one) for one in self._said if isinstance(one, UserSaid)]
        output: list[JsonObject] = [
            {
                "id": f"msg_{name}_0_{place}",
                "type": "message",
                "status": "completed",
                "role": "user",
                "content": [{"type": "input_text", "text": text}],
            }
            for place, text in enumerate(texts)
        ]
        token = self._keepsakes.give(Keepsake(thinking=BEFORE + reply.text))
        output.append({"id": f"cmp_{name}", "type": "compaction", "encrypted_content": token})
        return Answer(
            200,
            {
                "id": f"resp_{name}",
                "object": "response.compaction",
                "created_at": int(self._world.clock()),
                "output": output,
                "usage": usage_of(reply.usage),
            },
        )

    def failed(self, failure: Failure) -> Answer:
        return failed(failure)


def _line(said: Said) -> str:
    if isinstance(said, ToolSaid):
        return f"[{said.call.name}] {said.output}"
    if isinstance(said, ModelSaid):
        calls = [f"[calls {call.name}] {arguments_of(call)}" for call in said.calls]
        return "\n".join([f"Assistant: {said.text}", *calls])
    return f"User: {_text(said)}"


def _text(said: UserSaid) -> str:
    if isinstance(said.content, str):
        return said.content
    texts = [one.text if isinstance(one, TextPart) else f"[{one}]"[:80] for one in said.content]
    return "\n".join(texts)
