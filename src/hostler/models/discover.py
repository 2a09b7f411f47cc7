"""Which model to use when nobody named one: the first of these that there is.

    1. a base URL that somebody set, when it is not OpenAI's own: the first chat model served there
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
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

import anyio
import msgspec
from msgspec import Struct

from hostler.core.errors import SetupError
from hostler.models.exchange import Transport, bearer, endpoint
from hostler.models.faults import Failed

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
    called: str
    """What it is, for a person."""
    variable: str
    """Where a person sets its base URL, if it is elsewhere."""
    key: str = ""
    """Variable that may hold its key."""


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
OPENAI = Server("openai", 443, "OpenAI", "OPENAI_BASE_URL", "OPENAI_API_KEY")
SERVERS = (
    Server("ollama", 11434, "Ollama", "OLLAMA_BASE_URL"),
    Server("lmstudio", 1234, "LM Studio", "LMSTUDIO_BASE_URL"),
    Server("llamacpp", 8080, "llama.cpp", "LLAMACPP_BASE_URL", "LLAMACPP_API_KEY"),
    Server("vllm", 8000, "vLLM", "VLLM_BASE_URL", "VLLM_API_KEY"),
)
_OPENAI_HOST = "api.openai.com"
_CREDENTIALS = re.compile(r"//[^/@\s]+@")
_ID = re.compile(r"[\w.:/@+-]{1,200}")
"""What is told to a person and put into requests, so not just anything that a port answers."""
_NO_CHAT = re.compile(
    r"embed|rerank|whisper|transcri|tts|speech|moderation|guard|dall-e|image|diffusion|\bbge\b|\bclip\b",
    re.IGNORECASE,
)
"""Names of models that answer no chat."""


class Chosen(Struct, frozen=True, kw_only=True):
    """A model to use, why it was taken, and where it is if not at its usual address."""

    model: str
    why: str
    base_url: str | None = None
    keyless: bool = False
    """Its server was only found: it gets no key."""


class _Model(Struct):
    id: str


class _Listed(Struct):
    data: list[_Model]


async def discover(
    environ: Mapping[str, str], transport: Transport, *, servers: Sequence[Server] | None = None
) -> Chosen:
    """Return the model to use when none is named; looks for `SERVERS`, unless told for which.

    Raises:
        SetupError: a base URL is set to a server that does not answer, or serves no model.
    """
    servers = SERVERS if servers is None else servers
    for server in (OPENAI, *servers):
        base_url = environ.get(server.variable, "").strip()
        if base_url and _host(server.variable, base_url) != _OPENAI_HOST:
            return await _named(server, base_url, environ.get(server.key, "").strip(), transport)
    for provider in PROVIDERS:
        for variable in provider.keys:
            if environ.get(variable, "").strip():
                return Chosen(
                    model=f"{provider.name}:{provider.model}",
                    why=f"{variable} is set, and no model is named",
                )
    return await _running(transport, servers) or Chosen(
        model=LAST_RESORT,
        why="no key is set and no model server runs on this machine, "
        "so a very small model does: good for trying things out, not for work",
    )


async def _named(server: Server, base_url: str, key: str, transport: Transport) -> Chosen:
    """Return the first model of a server that was named."""
    base_url, told = base_url.rstrip("/"), ""
    for url in (base_url, f"{base_url}/v1")[: 1 if base_url.endswith("/v1") else 2]:
        try:
            models = _chat_models(await served(transport, url, key or None, timeout_s=ASK_S))
        except Failed as failed:
            told = told or _CREDENTIALS.sub("//", failed.told("it", key or None).message)
            continue
        if models:
            return Chosen(
                model=f"{server.name}:{models[0]}",
                base_url=url,
                why=f"{server.variable} is set, and this is the first of {len(models)} models "
                "there",
            )
    raise SetupError(
        f"{server.variable} is set to {_shown(base_url)}, and GET {_shown(base_url)}/models gives "
        f"no chat model ({told or 'it lists none'}): start that server, correct the URL, or name "
        "a model with --model or HOSTLER_MODEL"
    )


async def _running(transport: Transport, servers: Sequence[Server]) -> Chosen | None:
    """Return the first model of the first server that runs on this machine."""
    found: dict[str, Sequence[str]] = {}

    async def look(server: Server) -> None:
        url = f"http://127.0.0.1:{server.port}/v1"
        with anyio.move_on_after(2 * PROBE_S), suppress(Failed):
            found[server.name] = _chat_models(await served(transport, url, None, timeout_s=PROBE_S))

    async with anyio.create_task_group() as tasks:
        for server in servers:
            tasks.start_soon(look, server)
    for server in servers:
        if models := found.get(server.name):
            return Chosen(
                model=f"{server.name}:{models[0]}",
                base_url=f"http://127.0.0.1:{server.port}/v1",
                why=f"no key is set, and {server.called} seems to run at port {server.port}",
                keyless=True,
            )
    return None


async def served(
    transport: Transport, base_url: str, key: str | None, *, timeout_s: float = 10.0
) -> list[str]:
    """Return the names of the models that a base URL serves, as it lists them.  Raises Failed."""
    headers = bearer(key) if key else dict[str, str]()
    listed = await transport.get_json(
        endpoint(base_url, "/models"), headers=headers, timeout_s=timeout_s
    )
    try:
        models = msgspec.convert(listed, _Listed).data
    except msgspec.ValidationError as error:
        raise Failed("invalid_request", f"its list of models cannot be read: {error}") from error
    return [model.id for model in models]


def _chat_models(names: Sequence[str]) -> Sequence[str]:
    """Return the names that may be used for a chat."""
    return [one for one in names if _ID.fullmatch(one) and not _NO_CHAT.search(one)]


def _host(variable: str, url: str) -> str:
    """Return the host of a URL that somebody set.  Raises SetupError."""
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    if not host:
        raise SetupError(f"{variable} is no URL: write http://HOST:PORT/v1")
    return host


def _shown(url: str) -> str:
    """Return a URL without the credentials that may be in it."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
