"""What does it cost to be watched?  100 watchers of one run, which speaks 20 tokens a second.

Each token tells when the model wrote it, so *delay* is from there to the watcher that has it.  A
*frame* is what one watcher gets at once; tokens that come together share one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.bare import Client
from bench.drive import Turn, WrongError, is_whole, make_session, percentile, say, until, watching
from bench.setting import Figures, Row, Setting
from bench.wire import Script

GAP_S = 0.05
WARM = Script(tokens=2, stamps=True)


async def run(setting: Setting) -> list[Row]:
    figures, size = Figures("watchers"), setting.size
    ours = setting.servers[0]
    script = Script(tokens=max(2, round(size.secs / GAP_S)), gap_s=GAP_S, stamps=True)
    case = f"{size.watchers} watchers"
    for _ in range(size.reps):
        session = await make_session(ours.client)
        await say(ours.client, session, WARM)
        async with watching(ours.client, [session] * size.watchers) as turns:
            with ours.spent() as spent:
                await _speak(ours.client, session, script, turns)
        frames = sum(len(turn.texts) for turn in turns)
        tokens = script.tokens * len(turns)
        figures.add("hostler", case, "CPU per frame", spent.cpu_s / frames * 1e6, "us")
        figures.add("hostler", case, "tokens per frame", tokens / frames, "")
        delays = [delay for turn in turns for delay in _delays(turn)]
        for percent in (50, 99):
            value = percentile(delays, percent) * 1e3
            figures.add("hostler", case, f"delay p{percent}", value, "ms")
    return figures.rows()


async def _speak(client: Client, session: str, script: Script, turns: Sequence[Turn]) -> None:
    """Say the script and wait until all who watch have heard the end."""
    path = f"/api/sessions/{session}/messages"
    await client.request("POST", path, {"content": script.prompt})
    await until(lambda: all(turn.status for turn in turns))
    for turn in turns:
        if turn.status != "done" or not is_whole(turn, script):
            raise WrongError(f"a watcher missed something: {turn.status}, {''.join(turn.texts)!r}")


def _delays(turn: Turn) -> Iterator[float]:
    for at, text in zip(turn.times, turn.texts, strict=True):
        for token in text.split():
            yield at - float(token.partition(":")[2])
