"""The names of traces, in one table: OpenTelemetry's semantic conventions for generative AI.

They are unreleased and move: all `gen_ai.*` left the main conventions after v1.41.1.  What we emit
is that version; `OTEL_SEMCONV_STABILITY_OPT_IN` chooses another table.

Invariant: no other module spells a `gen_ai.` name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

NEWEST: Final = "gen_ai_latest_experimental"
OLD: Final = "gen_ai_1_36"
"""Before providers had names of their own: for dashboards that were made for `gen_ai.system`."""

V1_41_1: Mapping[str, str] = {
    "operation": "gen_ai.operation.name",
    "provider": "gen_ai.provider.name",
    "request_model": "gen_ai.request.model",
    "finish_reasons": "gen_ai.response.finish_reasons",
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cache_read_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
    "conversation": "gen_ai.conversation.id",
    "agent": "gen_ai.agent.name",
    "tool": "gen_ai.tool.name",
    "call": "gen_ai.tool.call.id",
    "tool_type": "gen_ai.tool.type",
    "arguments": "gen_ai.tool.call.arguments",
    "result": "gen_ai.tool.call.result",
    "input_messages": "gen_ai.input.messages",
    "output_messages": "gen_ai.output.messages",
    "error": "error.type",
}
V1_36: Mapping[str, str] = {
    **V1_41_1,
    "provider": "gen_ai.system",
    "cache_read_tokens": "hostler.usage.cache_read_tokens",
    "cache_write_tokens": "hostler.usage.cache_write_tokens",
    "reasoning_tokens": "hostler.usage.reasoning_tokens",
}
TABLES: Mapping[str, Mapping[str, str]] = {NEWEST: V1_41_1, OLD: V1_36}
PROVIDERS: Mapping[str, str] = {
    "bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}
"""Well-known values of `gen_ai.provider.name` where they are not our own names."""


def chosen(opt_in: str) -> Mapping[str, str]:
    """Return the table that `OTEL_SEMCONV_STABILITY_OPT_IN` (names by comma) asks for."""
    asked = [one.strip() for one in opt_in.split(",")]
    return next((TABLES[one] for one in asked if one in TABLES), V1_41_1)
