"""OpenAI's own SDK reads in our fake provider's bytes what we read in them.

That makes the fake an exact one: every event is also held against the SDK's types.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from openai import AsyncOpenAI
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseIncompleteEvent,
    ResponseOutputMessage,
    ResponseReasoningItem,
    ResponseStreamEvent,
    ResponseTextDeltaEvent,
)
from pydantic import TypeAdapter
from tests.canaries import canary

from hostler.core.ports import Reply
from hostler.models.capabilities import Capabilities
from hostler.models.openai_responses import ResponsesReading
from hostler.models.responses_request import Maker
from hostler.testing.model_scenarios import ANSWERS
from hostler.testing.model_script import USAGE, Fault, Scenario, Step, Text
from hostler.testing.provider_server import Play, Send, chunk, head, provider_server
from hostler.testing.wire_responses import RESPONSES

KEY = canary("key of an adapter", "sk-test")

EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)


def read_by_us(steps: Sequence[Step]) -> Reply:
    reading = ResponsesReading(Maker("openai", "kit"), Capabilities())
    reading.read([one.rstrip(b"\n").partition(b"data: ")[2] for one in RESPONSES.events(steps)])
    reading.draft.close()
    return reading.reply()


async def read_by_the_sdk(steps: Sequence[Step]) -> Response:
    def play(_: object) -> Play:
        return [Send(head()), Send(chunk(b"".join(RESPONSES.events(steps))) + chunk(b""))]

    async with (
        provider_server(play) as server,
        AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client,
        client.responses.stream(model="kit", input="Hi.") as stream,
    ):
        events = [event async for event in stream]
    last = events[-1]
    assert isinstance(last, ResponseCompletedEvent | ResponseIncompleteEvent)
    deltas = [one.delta for one in events if isinstance(one, ResponseTextDeltaEvent)]
    assert "".join(deltas) == last.response.output_text
    return last.response


@pytest.mark.anyio
@pytest.mark.parametrize("scenario", ANSWERS, ids=str)
async def test_the_sdk_reads_what_we_read(scenario: Scenario) -> None:
    ours, theirs = read_by_us(scenario.steps), await read_by_the_sdk(scenario.steps)

    said, thought, called = "", "", list[tuple[str, str, str]]()
    for item in theirs.output:
        match item:
            case ResponseOutputMessage(content=content):
                said += "".join(
                    one.text if one.type == "output_text" else one.refusal for one in content
                )
            case ResponseReasoningItem(summary=summary):
                thought += "".join(one.text for one in summary)
            case ResponseFunctionToolCall(name=name, call_id=id_, arguments=arguments):
                called.append((name, id_, arguments))
            case _:
                raise AssertionError(item)
    assert (said, thought) == (ours.text, ours.thinking or "")
    assert (theirs.status == "incomplete") == (ours.stop == "length")
    assert [(name, id_) for name, id_, _ in called] == [
        (one.name, one.provider_id) for one in ours.calls
    ]
    for (_, _, arguments), one in zip(called, ours.calls, strict=True):
        assert one.unparsed in {None, arguments}
        whole = one.unparsed is None and not one.cut
        assert not whole or msgspec.json.decode(arguments or "{}") == one.arguments
    usage = theirs.usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (USAGE.input_tokens, USAGE.output_tokens)
    assert usage.input_tokens_details.cached_tokens == ours.usage.cache_read_tokens
    assert usage.output_tokens_details.reasoning_tokens == ours.usage.reasoning_tokens


@pytest.mark.parametrize(
    "steps",
    [*(one.steps for one in ANSWERS), [Text("a"), Fault("rate_limit", "no")]],
    ids=[*(one.name for one in ANSWERS), "it fails"],
)
def test_every_event_is_one_that_the_sdk_knows(steps: Sequence[Step]) -> None:
    for number, raw in enumerate(RESPONSES.events(steps)):
        first, data = raw.rstrip(b"\n").split(b"\n")

        event = EVENT.validate_json(data.removeprefix(b"data: "))

        assert first == b"event: " + event.type.encode()
        assert event.sequence_number == number
        assert set(event.model_extra or {}) <= {"obfuscation"}, "a field that there is not"
