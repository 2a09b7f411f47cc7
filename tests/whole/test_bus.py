"""Nodes of a fleet: what happens on one is seen on the other, whatever becomes of the bus."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TypeAlias, cast

import anyio
import anyio.lowlevel
import asyncpg  # pyright: ignore[reportMissingTypeStubs]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.fleets import Hub, a_name, a_node, a_redis, acquainted, until
from tests.followed import R, Session, Viewer, as_bytes, play
from tests.serving import serving

from hostler.app.bus import make_bus
from hostler.app.settings import load_settings
from hostler.core.events import (
    CancelRequested,
    Event,
    Key,
    Principal,
    PrincipalId,
    RunKey,
    Seq,
    SessionId,
)
from hostler.core.news import Piece
from hostler.core.ports import Delta, Reply
from hostler.faces.http.open_streams import OpenStreams
from hostler.faces.native.wire import sse
from hostler.service.follow import Following
from hostler.signals import cutting, listening, notify_wire, outgoing, redis_wire, words
from hostler.signals.fleet import FleetSignals
from hostler.signals.local import LocalSignals
from hostler.signals.notify_wire import NotifyWire
from hostler.signals.redis_wire import RedisWire
from hostler.testing.doubles import ModelDouble, an_agent, whole_log
from hostler.testing.signals_suite import ALICE, ATTEMPT, KEY, RUN, asked, text_of
from hostler.testing.store_suite import spoke

Listens: TypeAlias = "Callable[..., Awaitable[None]]"

pytestmark = pytest.mark.anyio
STEPS = ("word", "pause", "words", "steer", "word", "pause", "drop", "words", "pause") * 4


def listens(node: FleetSignals, key: Key) -> bool:
    """Return whether all that is said of a session is heard on a node from now on."""
    return any(one.key == key and one.stands for one in node._listening)


async def test_who_watches_elsewhere_gets_the_same_frames_to_the_byte(tmp_path: Path) -> None:
    fleet = a_name()
    async with (
        a_redis(tmp_path) as redis,
        a_node(RedisWire(redis.url), fleet) as here,
        a_node(RedisWire(redis.url), fleet) as there,
    ):
        session, near, far, said = Session(here), Viewer(), Viewer(), dict[Seq, str]()
        await session.begin()
        elsewhere = Following(store=session.store, signals=there)
        with anyio.fail_after(10), here.on_cancel(RunKey(*session.key, R), lambda: None):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: near.watch(session, cuts=()))
                tasks.start_soon(lambda: far.watch(session, cuts=(), following=elsewhere))
                await until(lambda: listens(here, session.key) and listens(there, session.key))
                await until(lambda: len(far.facts) == len(near.facts) == 3)
                for _ in range(4):
                    await session.ask()
                    for word in ("one ", "two ", "three "):
                        session.say(word)
                        said[session.asked] = said.get(session.asked, "") + word
                        await until(lambda: near.texts == far.texts == said)
                        await session.write(spoke(R, policy="steer"))
                        await until(lambda: near.cursor == far.cursor and far.facts[-1].offset > 0)
                    await session.drop()
                await session.reply("done")

    assert [sse(one) for one in far.facts] == [sse(one) for one in near.facts]
    assert far.texts == near.texts == said


@pytest.mark.parametrize("seed", range(4))
async def test_under_cuts_nothing_is_lost_or_comes_twice(seed: int, tmp_path: Path) -> None:
    chance, fleet = Random(seed), a_name()
    texts = dict[Seq, str]()
    cuts = [[chance.randint(0, 4) for _ in range(8)] for _ in range(3)]
    async with (
        a_redis(tmp_path) as redis,
        a_node(RedisWire(redis.url), fleet) as here,
        a_node(RedisWire(redis.url), fleet) as there,
    ):
        session, viewers = Session(here), [Viewer() for _ in cuts]
        await session.begin()
        elsewhere = Following(store=session.store, signals=there)
        with anyio.fail_after(15), here.on_cancel(RunKey(*session.key, R), lambda: None):
            async with anyio.create_task_group() as tasks:
                for viewer, cut in zip(viewers, cuts, strict=True):
                    tasks.start_soon(
                        lambda v=viewer, c=cut: v.watch(session, cuts=c, following=elsewhere)
                    )
                texts |= await play(session, STEPS)
        log = await whole_log(session.store, session.key)

    for viewer in viewers:
        assert as_bytes(viewer.facts) == as_bytes(log)
        for at, text in viewer.texts.items():
            assert texts[at].startswith(text)


async def test_a_redis_that_dies_in_mid_reply_costs_liveliness_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "DOWN_S", 0.2)
    fleet, viewer = a_name(), Viewer()
    async with (
        a_redis(tmp_path) as redis,
        a_node(RedisWire(redis.url), fleet) as here,
        a_node(RedisWire(redis.url), fleet) as there,
    ):
        session = Session(here)
        await session.begin()
        elsewhere = Following(store=session.store, signals=there)
        with anyio.fail_after(18), here.on_cancel(RunKey(*session.key, R), lambda: None):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lambda: viewer.watch(session, cuts=(), following=elsewhere))
                await until(lambda: listens(there, session.key))
                await session.ask()
                session.say("before ")
                await until(lambda: "before " in viewer.texts.values())

                redis.kill()
                await until(lambda: not there.is_up and not here.is_up)
                session.say("meanwhile ")
                await session.write(CancelRequested(run=R, principal=ALICE, reason="no"))
                await until(lambda: len(viewer.facts) == 5)
                assert "before " in viewer.texts.values()

                await redis.start()
                await until(lambda: there.is_up and here.is_up)
                session.say("after")
                await until(lambda: "before meanwhile after" in viewer.texts.values())
                await session.reply("before meanwhile after")
        log = await whole_log(session.store, session.key)

    assert as_bytes(viewer.facts) == as_bytes(log)


async def test_a_redis_that_answers_nothing_is_noticed_and_heard_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_wire, "SILENT_S", 0.2)
    async with a_redis(tmp_path) as redis, a_node(RedisWire(redis.url), a_name()) as node:
        with node.watch(KEY, quiet_s=1.0) as watch, anyio.fail_after(10):
            while await watch.next() != []:  # a silence, in which Redis answers
                watch.begin()
            assert node.is_up
            redis.pause()
            await until(lambda: not node.is_up)
            redis.resume()
            await until(lambda: node.is_up)


async def test_a_silent_postgres_is_asked_whether_it_is_there(
    monkeypatch: pytest.MonkeyPatch, postgres_server: str
) -> None:
    monkeypatch.setattr(notify_wire, "SILENT_S", 0.1)
    async with a_node(NotifyWire(postgres_server), a_name()) as node:
        with node.watch(KEY, quiet_s=0.5) as watch, anyio.fail_after(10):
            await until(lambda: listens(node, KEY))
            while await watch.next() != []:
                watch.begin()
            assert node.is_up
            assert listens(node, KEY)


async def test_a_connection_that_ends_while_it_is_told_what_to_hear_is_made_again(
    monkeypatch: pytest.MonkeyPatch, postgres_server: str
) -> None:
    failed, real = list[object](), cast("Listens", asyncpg.Connection.add_listener)  # pyright: ignore[reportUnknownMemberType]

    async def fails_once(*given: object) -> None:
        if not failed:
            failed.append(given)
            raise asyncpg.InternalClientError("another operation is in progress")
        await real(*given)

    monkeypatch.setattr(asyncpg.Connection, "add_listener", fails_once)
    async with a_node(NotifyWire(postgres_server), a_name()) as node:
        with node.watch(KEY, quiet_s=1.0), anyio.fail_after(10):
            await until(lambda: listens(node, KEY))

    assert failed


async def test_a_thousand_sessions_are_watched_at_once(tmp_path: Path) -> None:
    fleet, heard = a_name(), set[SessionId]()
    keys = [Key(KEY.tenant, SessionId(f"ses_{number}")) for number in range(1000)]

    async def watch(node: FleetSignals, key: Key) -> None:
        with node.watch(key, quiet_s=60) as one:
            while key.session not in heard:
                for item in await one.next() or one.begin():
                    heard.add(item.session)

    async with (
        a_redis(tmp_path) as redis,
        a_node(RedisWire(redis.url), fleet) as here,
        a_node(RedisWire(redis.url), fleet) as there,
    ):
        with anyio.fail_after(15):
            async with anyio.create_task_group() as tasks:
                for key in keys:
                    tasks.start_soon(watch, there, key)
                await until(lambda: sum(one.stands for one in there._listening) == len(keys))
                await until(lambda: here.peers == 1)
                for key in keys:
                    here.publish(key, [replace(asked(1), session=key.session)])

    assert len(heard) == len(keys)


async def test_a_cancel_that_was_not_heard_is_read_in_the_log() -> None:
    hub, rung = Hub(), anyio.Event()
    wire, session = hub.wire(), Session()
    here = FleetSignals(LocalSignals(), wire)
    await session.begin()
    with here.on_cancel(RunKey(*session.key, R), rung.set), anyio.fail_after(10):
        here.publish(session.key, await whole_log(session.store, session.key))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(here.serve, session.store.read)
            await until(lambda: here.is_up)
            ears = wire.cut()
            await session.write(CancelRequested(run=R, principal=ALICE, reason=None))
            wire.plug(ears)
            await rung.wait()
            tasks.cancel_scope.cancel()


async def test_a_slow_wire_slows_nobody_here_and_what_finds_no_room_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outgoing, "MOST_BYTES", 2000)
    hub = Hub()
    slow, fleet = hub.wire(), a_name()
    async with a_node(slow, fleet) as here, a_node(hub.wire(), fleet) as there:
        with here.watch(KEY, quiet_s=60) as near, there.watch(KEY, quiet_s=60) as far:
            near.begin()
            far.begin()
            slow.goes = anyio.Event()
            for seq in range(1, 101):
                here.publish(KEY, [asked(seq)])
                await anyio.lowlevel.checkpoint()
            with anyio.fail_after(10):
                assert len(await near.next() or ()) == 100
                assert here.figures.dropped > 50
                slow.goes.set()
                while await far.next() is not None:
                    pass


async def test_a_node_that_is_alone_says_nothing_of_its_sessions() -> None:
    hub, fleet = Hub(), a_name()
    async with a_node(hub.wire(), fleet) as here:
        await until(lambda: bool(hub.wires[0].sent))
        begun = len(hub.wires[0].sent)
        here.publish(KEY, [asked(1)])
        here.typing(KEY, ALICE)
        here.lost(KEY)
        here.tell("mark")
        await until(lambda: len(hub.wires[0].sent) > begun)

    assert [channel for channel, _ in hub.wires[0].sent] == [f"{fleet}.all"] * (begun + 1)


async def test_a_node_that_comes_later_is_told_what_is_written_from_then_on() -> None:
    hub, fleet = Hub(), a_name()
    async with a_node(hub.wire(), fleet) as here:
        here.publish(KEY, [asked(1)])
        async with a_node(hub.wire(), fleet) as there:
            with there.watch(KEY, quiet_s=60.0) as watch:
                await acquainted(hub)
                await until(lambda: listens(there, KEY))
                here.publish(KEY, [asked(2)])
                with anyio.fail_after(10):
                    while (news := await watch.next()) is not None and not any(
                        isinstance(one, Event) and one.seq == 2 for one in news
                    ):
                        pass


async def test_a_node_that_asks_for_text_is_told_what_is_written_from_then_on() -> None:
    hub, fleet = Hub(), a_name()
    stranger = "0123456789ab"
    async with a_node(hub.wire(), fleet) as here:
        with here.on_cancel(RUN, lambda: None), anyio.fail_after(10):
            asks = words.encode(words.Ask(*KEY, wanted=True))
            here.heard(f"{fleet}.all", words.message(stranger, [asks]))
            here.publish(KEY, [asked(1)])
            await until(lambda: any(b"model_asked" in data for _, data in hub.wires[0].sent))


async def test_text_is_sent_to_nobody_who_did_not_ask_for_it() -> None:
    hub = Hub()
    wire, fleet = hub.wire(), a_name()
    async with a_node(wire, fleet) as here, a_node(hub.wire(), fleet) as there:
        await acquainted(hub)
        with here.on_cancel(RUN, lambda: None), anyio.fail_after(10):
            here.publish(KEY, [asked(1)])
            here.delta(RUN, asked(1).seq, ATTEMPT, Delta("text", "unheard"))
            await until(lambda: any(b"model_asked" in data for _, data in wire.sent))
            with there.watch(KEY, quiet_s=60) as watch:
                await until(lambda: text_of(watch.begin()) == "unheard")
    assert sum(b"unheard" in data for _, data in wire.sent) == 1


@given(st.lists(st.binary(max_size=200), max_size=20))
@settings(max_examples=50, deadline=None)
def test_noise_on_the_bus_breaks_nothing(noise: list[bytes]) -> None:
    async def scenario() -> None:
        hub, fleet = Hub(), a_name()
        async with a_node(hub.wire(), fleet) as here, a_node(hub.wire(), fleet) as there:
            await acquainted(hub)
            with there.watch(KEY, quiet_s=60) as watch:
                for data in noise:
                    for one in (data, b"1aaaaaaaaaaaa" + data, b"1aaaaaaaaaaaa[" + data + b"]"):
                        for channel in list(hub.wires[1].wanted):
                            hub.say(channel, one)
                watch.begin()
                here.publish(KEY, [asked(1)])
                with anyio.fail_after(10):
                    while not [one for one in await watch.next() or () if one.seq == 1]:
                        watch.begin()

    anyio.run(scenario)


@pytest.mark.parametrize(
    "item",
    [
        b'["e",1,1.5,"x",{"kind":"x","a":"b"\n\n}]',
        b'["e",1,1.5,"x",{"a":"b","kind":"x"}]',
        b'["e",1,1.5,"x","text"]',
        b'["e",-1,1.5,"x",{"kind":"x"}]',
        b'["e",1,1e300,"x",{"kind":"x"}]',
        b'["e",1,1.5,"model_asked",{"kind":"model_asked","run":7}]',
        b'["e",99999999999999999999,1.5,"x",{"kind":"x"}]',
        b'["e"]',
        b'["z",1,2,3]',
        b"[]",
        b"null",
    ],
)
async def test_what_no_node_says_is_shown_to_nobody(item: bytes) -> None:
    hub, fleet = Hub(), a_name()
    async with a_node(hub.wire(), fleet) as there:
        with there.watch(KEY, quiet_s=0.3) as watch:
            watch.begin()
            hub.say(words.channel_of(fleet, KEY), words.message("a" * 12, [item]))
            with anyio.fail_after(10):
                while (items := await watch.next()) is None:
                    watch.begin()
            assert items == []


@pytest.mark.parametrize(
    "sizes", ["[9]", "[1,1]", "[-1,8]", "[7,0,0,1]", "[1000001]", '["7"]', "7"]
)
async def test_text_whose_sizes_lie_is_not_taken(sizes: str) -> None:
    hub, fleet = Hub(), a_name()
    said_so = f'["d","default","ses_1","run_1",1,"att_1",1,0,"text","hostile",null,null,{sizes}]'
    async with a_node(hub.wire(), fleet) as there:
        with there.watch(KEY, quiet_s=60) as watch:
            inbox = next(one for one in hub.wires[0].wanted if ".n." in one)
            hub.say(inbox, words.message("a" * 12, [said_so.encode()]))
            assert watch.begin() == ()


async def test_what_a_newer_build_says_beside_what_we_know_is_passed_over() -> None:
    hub, fleet = Hub(), a_name()
    event = words.written(asked(1), 10_000)
    async with a_node(hub.wire(), fleet) as there:
        with there.watch(KEY, quiet_s=60) as watch:
            watch.begin()
            items = [b'["new",{"a":1}]', event[:-1] + b',"a field to come"]', b'{"q":1}']
            hub.say(words.channel_of(fleet, KEY), words.message("a" * 12, items))
            with anyio.fail_after(10):
                found = await watch.next()
            assert [one.seq for one in found or ()] == [1]


deltas = st.builds(
    Delta,
    st.sampled_from(["text", "thinking"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
)


@given(st.lists(deltas, min_size=1, max_size=12), st.integers(200, 500))
@settings(max_examples=200, deadline=None)
def test_text_is_the_same_after_it_was_joined_and_cut(texts: list[Delta], limit: int) -> None:
    async def scenario() -> None:
        pieces, start = list[Piece](), 0
        for delta in texts:
            pieces.append(
                Piece(
                    session=KEY.session,
                    run=RUN.run,
                    asked=asked(1).seq,
                    attempt=ATTEMPT,
                    seq=asked(1).seq,
                    start=start,
                    delta=delta,
                )
            )
            start = pieces[-1].end
        items = list(cutting.said(KEY, pieces, limit))
        read, is_all = words.read(words.message("a" * 12, items))
        assert is_all
        found = [words.piece(one) for one in read if isinstance(one, words.Said)]

        assert len(found) == len(items)
        assert text_of([one for one in found if one]) == "".join(one.text for one in texts)
        assert max(map(len, items)) <= max(limit, 220)

    anyio.run(scenario)


async def test_what_is_revoked_on_one_node_is_told_on_the_other() -> None:
    hub, fleet, heard = Hub(), a_name(), list[Sequence[str]]()
    async with a_node(hub.wire(), fleet) as here, a_node(hub.wire(), fleet) as there:
        there.on("revoked", heard.append)
        here.on("revoked", lambda _: heard.append(["by myself"]))
        here.tell("revoked", "key_1")
        here.tell("something newer", "x")
        await until(lambda: bool(heard))
    assert heard == [("key_1",)]


async def test_who_types_on_a_node_that_nobody_watches_on_is_seen() -> None:
    hub, fleet, bob = Hub(), a_name(), PrincipalId("bob")
    async with a_node(hub.wire(), fleet) as here, a_node(hub.wire(), fleet) as there:
        await acquainted(hub)
        with here.attend(KEY, bob), anyio.fail_after(10):
            there.typing(KEY, bob)
            await until(lambda: any(one.typing for one in here.present(KEY)))


async def test_a_server_whose_redis_is_not_there_serves(tmp_path: Path) -> None:
    bus = make_bus(load_settings({"data": tmp_path, "redis": "redis://127.0.0.1:1"}))
    agent = an_agent(ModelDouble(lambda _: Reply(text="fine", stop="end")))
    async with serving(agent, file=tmp_path / "log.db", bus=bus) as client:
        session = await client.session()
        frames = await client.speak(session)
        assert frames[-1].event == "run_ended"


@dataclass
class Cut:
    """Streams of one node, of which one is open."""

    streams: OpenStreams = field(default_factory=OpenStreams)
    why: str | None = None

    async def hold(self, who: Principal, session: SessionId) -> None:
        with self.streams.one({"type": "http"}, _send, who, session=session) as stream:
            await anyio.sleep_forever()
        self.why = stream.why


async def _send(_: object) -> None: ...


async def test_what_was_revoked_or_unshared_on_one_node_is_cut_on_the_other() -> None:
    hub, fleet = Hub(), a_name()
    by_key = Principal(id=ALICE, tenant=KEY.tenant, role="member", key="key_1")
    bob = Principal(id=PrincipalId("bob"), tenant=KEY.tenant, role="member")
    async with a_node(hub.wire(), fleet) as here, a_node(hub.wire(), fleet) as there:
        streams, keyed = OpenStreams(), Cut()
        unshared, other = Cut(keyed.streams), Cut(keyed.streams)
        streams.join(here)
        keyed.streams.join(there)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(keyed.hold, by_key, KEY.session)
            tasks.start_soon(unshared.hold, bob, KEY.session)
            tasks.start_soon(other.hold, bob, SessionId("ses_2"))
            await until(lambda: len(keyed.streams) == 3)
            streams.revoke("key_1")
            streams.unshare(KEY.tenant, bob.id, KEY.session)
            await until(lambda: len(keyed.streams) == 1)
            tasks.cancel_scope.cancel()
    assert (keyed.why, unshared.why, other.why) == ("revoked", "unshared", None)
