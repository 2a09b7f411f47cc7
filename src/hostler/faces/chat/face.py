"""Chat Completions as operations, to be mounted by `app`.

A face is translation only: what may be asked, by whom and how often, the service says.
"""

from __future__ import annotations

from typing import cast

from starlette.types import ASGIApp

from hostler.core.events import JsonObject
from hostler.faces.chat.asking import request_of
from hostler.faces.chat.bodies import ChatRequest
from hostler.faces.chat.models import ModelLists
from hostler.faces.chat.writing import Named, Writer, tell
from hostler.faces.http.agents import agent_of, conversation_of
from hostler.faces.http.direct import Answering, Parts
from hostler.faces.http.endpoint import Call, Operation
from hostler.faces.http.keepsakes import Keepsakes, KeepsakesOf
from hostler.faces.http.open_streams import OpenStreams
from hostler.faces.http.openai import OpenAiError, tell_openai
from hostler.service.authorise import authorise
from hostler.service.service import Service


class Completions:
    def __init__(self, service: Service, streams: OpenStreams, keepsakes: KeepsakesOf) -> None:
        self._service, self._streams, self._keepsakes = service, streams, keepsakes

    async def complete(self, call: Call) -> ASGIApp:
        body, direct = cast("ChatRequest", call.body), self._service.direct
        authorise(call.who, "write", None)  # so that nobody else learns what there is
        keepsakes = self._keepsakes(call.who.tenant)
        parts, model = self._parts(call, body, keepsakes)
        await self._streams.check(call.who, self._service.tenants)
        named = Named(
            id=f"chatcmpl-{direct.world.mint('')[1:]}",
            created=int(direct.world.clock()),
            model=model,
        )
        options = body.stream_options
        told = options is not None and bool(options.include_usage)
        writer = Writer(named, keepsakes, usage=told)
        return Answering(call, self._streams, parts, writer, streamed=bool(body.stream))

    def _parts(self, call: Call, body: ChatRequest, keepsakes: Keepsakes) -> tuple[Parts, str]:
        """Return what will be answered, and by whom."""
        who, direct, carried = call.who, self._service.direct, self._service.carried
        agent = agent_of(body.model)
        if agent is None:
            model = direct.find(who, body.model)
            parts = direct.ask(who, model, request_of(body, who, keepsakes))
            return parts, f"{model.provider}:{model.name}"
        carried.find(who, agent)
        asked = conversation_of(request_of(body, who, keepsakes), agent, face="chat")
        parts = carried.ask(who, asked, streamed=bool(body.stream), asked=call.asked)
        return parts, body.model


def chat_operations(
    service: Service, streams: OpenStreams, keepsakes: KeepsakesOf
) -> list[Operation]:
    """Return the operations, in the order of the documentation."""
    do = Completions(service, streams, keepsakes)
    return [
        Operation(
            method="POST",
            path="/v1/chat/completions",
            name="chat_completions",
            summary="Ask a model or an agent, as OpenAI's Chat Completions do",
            run=do.complete,
            begins="run",
            body=ChatRequest,
            returns={200: JsonObject},
            streams=True,
            tell=tell,
            tells=OpenAiError,
            errors=(404, 500, 502, 504),
        ),
        *_lists(ModelLists(service)),
    ]


def _lists(do: ModelLists) -> list[Operation]:
    return [
        Operation(
            method="GET",
            path="/v1/models",
            name="models",
            summary="The models that may be asked, as OpenAI or Anthropic list them",
            run=do.all,
            query={
                "limit": "in Anthropic's form: how many, 20 unless it is said, up to 1000",
                "after_id": "the last id of the page before",
                "before_id": "the first id of the page after",
            },
            headers={"Anthropic-Version": "given, the list has Anthropic's form, and pages"},
            returns={200: JsonObject},
            tell=tell_openai,
            tells=OpenAiError,
            errors=(400,),
        ),
        Operation(
            method="GET",
            path="/v1/models/{model}",
            name="model",
            summary="One model, by its whole name or one that is enough",
            run=do.one,
            headers={"Anthropic-Version": "given, the answer has Anthropic's form"},
            returns={200: JsonObject},
            tell=tell_openai,
            tells=OpenAiError,
            errors=(404,),
        ),
    ]
