"""The obedient fake (`tests.obedient`) behind the wire APIs of two providers, as a server.

What it is asked in is read strictly: a field that the provider does not document, or a tool result
that answers no call, is refused with a 400.

Invariant: what goes out is what `hostler.testing` writes for that API.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal, TypeVar

import msgspec
from msgspec import Struct
from tests.obedient import Answer, Offered, Question, Turn, answer, tokens
from tests.serving import Client, serving

from hostler.app.agent import Agent
from hostler.app.building import build_agents
from hostler.app.settings import load_settings
from hostler.core.events import JsonObject, Usage
from hostler.testing import wire_anthropic, wire_chat
from hostler.testing.model_script import Args, Begin, End, Step, Text, Think
from hostler.testing.provider_server import Asked, Play, Send, chunk, head, provider_server

T = TypeVar("T")
NAME = "obedient-gpt-5-claude-sonnet-4"
"""Judges look for such names before they ask for thoughts."""
VLLM, ANTHROPIC = f"like-vllm:{NAME}", f"like-anthropic:{NAME}"
CACHED_FROM = 256
"""Tokens that a prompt must share with one before, to be told as cached."""


class Strict(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


# -- Chat Completions ----------------------------------------------------------------------------


class _Url(Strict, frozen=True, kw_only=True):
    url: str


class _Part(Strict, frozen=True, kw_only=True):
    type: Literal["text", "image_url"]
    text: str = ""
    image_url: _Url | None = None


class _Function(Strict, frozen=True, kw_only=True):
    name: str
    arguments: str = "{}"
    description: str = ""
    parameters: JsonObject = {}


class _Called(Strict, frozen=True, kw_only=True):
    id: str
    type: Literal["function"]
    function: _Function


class _ChatMessage(Strict, frozen=True, kw_only=True):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_Part] | None = None
    tool_calls: list[_Called] = []
    tool_call_id: str | None = None


class _Tool(Strict, frozen=True, kw_only=True):
    type: Literal["function"]
    function: _Function


class _Schema(Strict, frozen=True, kw_only=True):
    name: str
    schema: JsonObject
    strict: bool = False


class _Format(Strict, frozen=True, kw_only=True):
    type: Literal["json_object", "json_schema"]
    json_schema: _Schema | None = None


class _StreamOptions(Strict, frozen=True, kw_only=True):
    include_usage: bool


class _ChatBody(Strict, frozen=True, kw_only=True):
    model: str
    messages: list[_ChatMessage]
    stream: Literal[True]
    stream_options: _StreamOptions
    tools: list[_Tool] = []
    tool_choice: Literal["none", "required"] | _Tool | None = None
    parallel_tool_calls: bool = True
    response_format: _Format | None = None
    reasoning_effort: str | None = None
    stop: list[str] = []
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0


def chat_question(body: bytes) -> Question:
    """Return what is asked.  Raises ValueError: it is no request that the provider would take."""
    asked = msgspec.json.decode(body, type=_ChatBody)
    system, turns, open_ = list[str](), list[Turn](), set[str | None]()
    for one in asked.messages:
        said = one.content or ""
        parts = [_Part(type="text", text=said)] if isinstance(said, str) else said
        text, images = "\n".join(part.text for part in parts), [p for p in parts if p.image_url]
        if one.role in ("system", "developer"):
            system.append(text)
            continue
        if (one.role == "tool") != bool(open_):
            raise ValueError("a tool message without its call, or a call without one")
        open_ = open_ - {one.tool_call_id} if one.role == "tool" else {c.id for c in one.tool_calls}
        role = one.role if one.role in ("tool", "assistant") else "user"
        turns.append(Turn(role=role, text=text, images=len(images)))
    choice, format_ = asked.tool_choice, asked.response_format
    return Question(
        system="\n".join(system),
        turns=turns,
        tools=[_offered(one.function.name, one.function.parameters) for one in asked.tools],
        calls="none" if choice == "none" else "some" if choice == "required" else "any",
        tool=choice.function.name if isinstance(choice, _Tool) else None,
        parallel=asked.parallel_tool_calls,
        json=format_ is not None,
        schema=None
        if format_ is None or format_.json_schema is None
        else format_.json_schema.schema,
        stop=asked.stop,
        most=asked.max_completion_tokens or asked.max_tokens,
        effort=asked.reasoning_effort,
    )


# -- Messages ------------------------------------------------------------------------------------


class _Block(Struct, frozen=True, kw_only=True):
    type: Literal["text", "image", "thinking", "redacted_thinking", "tool_use", "tool_result"]
    text: str = ""
    thinking: str = ""
    id: str = ""
    tool_use_id: str = ""
    content: str | list[_Block] = ""
    cache_control: JsonObject | None = None

    @property
    def words(self) -> str:
        inner = self.content
        within = inner if isinstance(inner, str) else "\n".join(one.words for one in inner)
        return self.text or within


class _Message(Strict, frozen=True, kw_only=True):
    role: Literal["user", "assistant"]
    content: list[_Block]


class _MessagesTool(Strict, frozen=True, kw_only=True):
    name: str
    description: str = ""
    input_schema: JsonObject
    cache_control: JsonObject | None = None


class _Choice(Strict, frozen=True, kw_only=True):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class _OutputFormat(Strict, frozen=True, kw_only=True):
    type: Literal["json_schema"]
    schema: JsonObject


class _Output(Strict, frozen=True, kw_only=True):
    effort: str | None = None
    format: _OutputFormat | None = None


class _Thinking(Strict, frozen=True, kw_only=True):
    type: Literal["disabled"]


class _MessagesBody(Strict, frozen=True, kw_only=True):
    model: str
    max_tokens: int
    messages: list[_Message]
    stream: Literal[True]
    system: list[_Block] = []
    tools: list[_MessagesTool] = []
    tool_choice: _Choice = _Choice(type="auto")
    thinking: _Thinking | None = None
    output_config: _Output = _Output()
    stop_sequences: list[str] = []
    temperature: float = 1.0
    top_p: float = 1.0


def messages_question(body: bytes) -> Question:
    """Return what is asked.  Raises ValueError: it is no request that the provider would take."""
    asked = msgspec.json.decode(body, type=_MessagesBody)
    turns, open_ = list[Turn](), set[str]()
    for one in asked.messages:
        results = {block.tool_use_id for block in one.content if block.type == "tool_result"}
        if results != open_:
            raise ValueError("a tool_result without its tool_use, or a tool_use without one")
        open_ = {block.id for block in one.content if block.type == "tool_use"}
        text = "\n".join(block.words for block in one.content if block.words)
        images = sum(block.type == "image" for block in one.content)
        role = "tool" if results else one.role
        turns.append(Turn(role=role, text=text, images=images))
    choice, output = asked.tool_choice, asked.output_config
    return Question(
        system="\n".join(one.text for one in asked.system),
        turns=turns,
        tools=[_offered(one.name, one.input_schema) for one in asked.tools],
        calls={"auto": "any", "tool": "any", "any": "some", "none": "none"}[choice.type],  # type: ignore[arg-type]
        tool=choice.name,
        parallel=not choice.disable_parallel_tool_use,
        schema=None if output.format is None else output.format.schema,
        stop=asked.stop_sequences,
        most=asked.max_tokens,
        effort=None if asked.thinking is not None else output.effort,
    )


def _offered(name: str, parameters: JsonObject) -> Offered:
    return Offered(name=name, parameters=parameters)


# -- the server ----------------------------------------------------------------------------------


class Obedient:
    """Answers whatever it is asked, and remembers prompts as a provider's cache does."""

    def __init__(self) -> None:
        self._prompts = list[list[str]]()

    def __call__(self, asked: Asked) -> Play:
        is_chat = asked.path.endswith("/chat/completions")
        wire = wire_chat.CHAT if is_chat else wire_anthropic.ANTHROPIC
        try:
            question = (chat_question if is_chat else messages_question)(asked.body)
        except ValueError as error:
            refused = wire.refusal("invalid", str(error))
            return [Send(head(400, content_type="application/json") + chunk(refused) + chunk(b""))]
        made = answer(question)
        usage = self._usage(question, made, writes=b'"cache_control"' in asked.body)
        events = wire.events([*_steps(made), End(made.stop, usage)])
        if made.stopped_by is not None:
            events = [_naming(made.stopped_by, one) for one in events]
        return [Send(head()), *(Send(chunk(one)) for one in events), Send(chunk(b""))]

    def _usage(self, question: Question, made: Answer, *, writes: bool) -> Usage:
        """`writes`: the request marks what is to be kept in the cache."""
        tools = [msgspec.json.encode(one.parameters).decode() for one in question.tools]
        texts = (question.system, *tools, *(f"{one.role}: {one.text}" for one in question.turns))
        prompt = [token for text in texts for token in tokens(text)]
        shared = max((_shared(prompt, before) for before in self._prompts), default=0)
        self._prompts.append(prompt)
        read = shared if shared >= CACHED_FROM else 0
        return Usage(
            input_tokens=len(prompt),
            output_tokens=made.tokens,
            cache_read_tokens=read,
            cache_write_tokens=len(prompt) - read if writes and len(prompt) >= CACHED_FROM else 0,
            reasoning_tokens=len(tokens(made.thinking)),
        )


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """Return how many tokens two prompts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _naming(by: str, event: bytes) -> bytes:
    """Return an event, with the stop sequence that ended the answer where the provider has it."""
    told = msgspec.json.encode(by)
    for plain, naming in (
        (b'"finish_reason":"stop"', b'"finish_reason":"stop","stop_reason":%b'),
        (
            b'"stop_reason":"end_turn","stop_sequence":null',
            b'"stop_reason":"stop_sequence","stop_sequence":%b',
        ),
    ):
        event = event.replace(plain, naming % told)
    return event


def _steps(made: Answer) -> list[Step]:
    steps: list[Step] = []
    if made.thinking:
        steps.append(Think(made.thinking))
    steps += [Text(one) for one in tokens(made.text)]
    for number, (name, arguments) in enumerate(made.calls):
        call = f"call {number}"
        steps.append(Begin(call, name, f"id_{number}_{name}"))
        steps.append(Args(call, msgspec.json.encode(arguments).decode()))
    return steps


@asynccontextmanager
async def obedient_house(folder: Path) -> AsyncGenerator[Client]:
    """Serve the models `VLLM` and `ANTHROPIC`: the fake, behind two wire APIs."""
    async with provider_server(Obedient()) as server:
        providers = {
            "like-vllm": {"wire": "openai_chat", "base_url": f"{server.url}/v1"},
            "like-anthropic": {"wire": "anthropic", "base_url": server.url},
        }
        settings = load_settings({"data": folder, "providers": providers})
        agents = [Agent("vllm", model=VLLM), Agent("anthropic", model=ANTHROPIC)]
        async with (
            build_agents(agents, settings) as specs,
            serving(*specs.values(), file=folder / "log.db") as client,
        ):
            yield client
