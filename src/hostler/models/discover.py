"""Which model to use when nobody named one: the first of these that there is.

    1. `OPENAI_BASE_URL`, when it is not OpenAI's own: the first chat model that it serves
    2. a provider whose key is in the environment, in the order of `PROVIDERS`: its default here
    3. a model server on loopback, in the order of `SERVERS`: the first chat model that it serves
    4. `local:smollm2`

What a person set up goes before what happens to run; what was set up and does not answer is told,
never passed over.  Empty variables count as not set.

Invariant: no key is sent to a server that was only found, and none is in an answer or an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import anyio
import msgspec
from msgspec import Struct

from hostler.core.errors import SetupError

PROBE_S = 0.5
"""On loopback, where a server that is idle answers in a few milliseconds."""
ASK_S = 10.0
"""For a server that was named."""
LAST_RESORT = "local:smollm2"


class Provider(NamedTuple):
    name: str
    keys: Sequence[str]
    """Variables that may hold its key."""
    model: str
    """A current one that calls tools well at a moderate price; November 2026."""


class Server(NamedTuple):
    name: str
    port: int
    says: str
    """What it is, for a person."""


PROVIDERS = (
    Provider("anthropic", ["ANTHROPIC_API_KEY"], "claude-sonnet-5-5"),
    Provider("openai", ["OPENAI_API_KEY"], "gpt-6.1-terra"),
    Provider("gemini", ["GEMINI_API_KEY", "GOOGLE_API_KEY"], "gemini-3.8-flash"),
    Provider("openrouter", ["OPENROUTER_API_KEY"], "openrouter/auto"),
    Provider("mistral", ["MISTRAL_API_KEY"], "mistral-medium-latest"),
    Provider("xai", ["XAI_API_KEY"], "grok-4.7"),
    Provider("deepseek", ["DEEPSEEK_API_KEY"], "deepseek-v4-flash"),
    Provider("groq", ["GROQ_API_KEY"], "openai/gpt-oss-120b"),
    Provider("together", ["TOGETHER_API_KEY"], "openai/gpt-oss-120b"),
)
SERVERS = (
    Server("ollama", 11434, "Ollama"),
    Server("lmstudio", 1234, "LM Studio"),
    Server("llamacpp", 8080, "llama.cpp"),
    Server("vllm", 8000, "vLLM"),
)
_OPENAI = "api.openai.com"
_ID = re.compile(r"[\w.:/@+-]{1,200}")
"""What is told to a person and put into requests, so not just anything that a port answers."""
_NO_CHAT = re.compile(
    r"embed|rerank|whisper|transcri|tts|speech|moderation|guard|dall-e|image|diffusion|\bbge\b|\bclip\b",
    re.IGNORECASE,
)
"""Names of models that answer no chat."""


class Found(Struct, frozen=True, kw_only=True):
    """A model to use, where it is if not at its usual address, and why it was taken."""

    model: str
    why: str
    base_url: str | None = None


class GetJson(Protocol):
    async def __call__(self, url: str, *, key: str | None, timeout_s: float) -> object:
        """Return the JSON at `url`; None for any other answer, and for none.  Never raises.

        `key` goes along as a bearer token; without one nothing goes along that says who asks.
        """
        ...


class _Model(Struct):
    id: str


class _Models(Struct):
    data: list[_Model]


async def discover(environ: Mapping[str, str], get_json: GetJson) -> Found:
    """Return the model to use when none is named.

    Raises:
        SetupError: `OPENAI_BASE_URL` names a server that does not answer, or serves no model.
    """
    base_url = environ.get("OPENAI_BASE_URL", "").strip()
    if base_url and _host(base_url) != _OPENAI:
        return await _served(base_url, environ.get("OPENAI_API_KEY") or None, get_json)
    for provider in PROVIDERS:
        for variable in provider.keys:
            if environ.get(variable, "").strip():
                return Found(
                    model=f"{provider.name}:{provider.model}",
                    why=f"{variable} is set, and no model is named",
                )
    return await _running(get_json) or Found(
        model=LAST_RESORT,
        why="no key is set and no model server runs on this machine, "
        "so a very small model does: good for trying things out, not for work",
    )


async def _served(base_url: str, key: str | None, get_json: GetJson) -> Found:
    """Return the first model of a server that was named."""
    base_url = base_url.rstrip("/")
    for url in (base_url, f"{base_url}/v1")[: 1 if base_url.endswith("/v1") else 2]:
        models = _chat_models(await get_json(f"{url}/models", key=key, timeout_s=ASK_S))
        if models:
            return Found(
                model=f"openai:{models[0]}",
                base_url=url,
                why=f"OPENAI_BASE_URL is set, and this is the first model of {len(models)} there",
            )
    raise SetupError(
        f"OPENAI_BASE_URL is set to {_shown(base_url)}, and GET {_shown(base_url)}/models "
        "names no model: start that server, or name a model with HOSTLER_MODEL"
    )


async def _running(get_json: GetJson) -> Found | None:
    """Return the first model of the first server that runs on this machine."""
    served: dict[Server, Sequence[str]] = {}

    async def look(server: Server) -> None:
        url = f"http://127.0.0.1:{server.port}/v1/models"
        with anyio.move_on_after(2 * PROBE_S):
            served[server] = _chat_models(await get_json(url, key=None, timeout_s=PROBE_S))

    async with anyio.create_task_group() as tasks:
        for server in SERVERS:
            tasks.start_soon(look, server)
    for server in SERVERS:
        if models := served.get(server):
            return Found(
                model=f"{server.name}:{models[0]}",
                base_url=f"http://127.0.0.1:{server.port}/v1",
                why=f"no key is set, and {server.says} seems to run at port {server.port}",
            )
    return None


def _chat_models(answer: object) -> Sequence[str]:
    """Return the ids in an answer to `GET /v1/models` that may be used for a chat."""
    try:
        models = msgspec.convert(answer, _Models).data
    except msgspec.ValidationError:
        return ()
    return [one.id for one in models if _ID.fullmatch(one.id) and not _NO_CHAT.search(one.id)]


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError as error:
        raise SetupError(f"OPENAI_BASE_URL is no URL: {error}") from error


def _shown(url: str) -> str:
    """Return a URL without the credentials that may be in it."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
