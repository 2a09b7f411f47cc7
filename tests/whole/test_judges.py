"""Judges that are not ours say of our faces what the page on compliance says that they say."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from docs.build import compliance
from docs.build.compliance import Flag, Verdict
from docs.build.source import Undocumented
from tests.judges import JUDGES, MODELS, judged, said
from tests.obedient import Offered, Question, Turn, answer
from tests.obedient_wires import chat_question, messages_question

ANN = Turn(role="user", text="What is the weather in Paris?")
WEATHER = Offered(
    name="get_weather",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


@pytest.mark.anyio
@pytest.mark.timeout(180)
@pytest.mark.parametrize("model", MODELS, ids=lambda name: name.partition(":")[0])
@pytest.mark.parametrize("judge", JUDGES)
async def test_a_judge_says_what_is_written_down(judge: str, model: str, tmp_path: Path) -> None:
    written = said(judge, model)

    assert await judged(judge, model, tmp_path) == written, "run `python -m tests.judges`"
    assert written


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ((Flag(check="x", says="fails"),), "flags x, and nobody says why"),
        ((), "no judge flags .* any more"),
    ],
    ids=["without a reason", "that is gone"],
)
def test_a_flag_and_its_reason_come_and_go_together(
    flags: tuple[Flag, ...], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Verdict(judge="j 1", face="chat", provider="p", passed=1, checks=2, flags=flags)
    (tmp_path / "said.json").write_bytes(msgspec.json.encode([one]))
    monkeypatch.setattr(compliance, "RECORD", tmp_path / "said.json")
    if flags:
        monkeypatch.setattr(compliance, "WHY", {})

    with pytest.raises(Undocumented, match=told):
        compliance.compliance()


# -- the fake that is judged through -----------------------------------------------------------


def test_the_fake_calls_what_it_is_told_to_and_nothing_else() -> None:
    asked = Question(turns=[ANN], tools=[WEATHER])
    called = answer(asked)
    result = Turn(role="tool", text="18 degrees")

    assert (called.stop, called.calls) == ("tools", [("get_weather", {"city": "Paris"})])
    assert not answer(Question(turns=[ANN], tools=[WEATHER], calls="none")).calls
    assert "18 degrees" in answer(Question(turns=[ANN, result], tools=[WEATHER])).text
    assert not answer(Question(turns=[Turn(role="user", text="Hi")], tools=[WEATHER])).calls


def test_the_fake_stops_where_it_is_told_to() -> None:
    said = [Turn(role="user", text="Say exactly: alpha beta gamma")]
    stopped, cut = answer(Question(turns=said, stop=["beta"])), answer(Question(turns=said, most=2))

    assert (stopped.text, stopped.stopped_by) == ("alpha ", "beta")
    assert (cut.text, cut.stop, cut.stopped_by) == ("alpha beta ", "length", None)


def test_the_fake_thinks_within_its_limit_and_only_when_it_is_told_to() -> None:
    said = [Turn(role="user", text="Say hello")]
    thinks = answer(Question(turns=said, effort="low", most=3))

    assert (thinks.text, thinks.stop, thinks.tokens) == ("", "length", 3)
    assert not answer(Question(turns=said, effort="none")).thinking
    assert not answer(Question(turns=said)).thinking


@pytest.mark.parametrize(
    "body",
    [
        b'"messages":[],"top_k":1',
        b'"messages":[{"role":"tool","tool_call_id":"x","content":"y"}]',
    ],
    ids=["a field of nobody's", "a result without its call"],
)
def test_the_fake_of_chat_completions_is_as_strict_as_a_provider(body: bytes) -> None:
    body = b'{"model":"m","stream":true,"stream_options":{"include_usage":true},%b}' % body
    with pytest.raises(ValueError, match=r"top_k|without its call"):
        chat_question(body)


@pytest.mark.parametrize(
    "messages",
    [
        b'[{"role":"system","content":[]}]',
        b'[{"role":"user","content":[{"type":"tool_result","tool_use_id":"x"}]}]',
    ],
    ids=["a role of nobody's", "a result without its use"],
)
def test_the_fake_of_messages_is_as_strict_as_a_provider(messages: bytes) -> None:
    body = b'{"model":"m","max_tokens":9,"stream":true,"messages":%b}' % messages
    with pytest.raises(ValueError, match=r"system|without its tool_use"):
        messages_question(body)
