"""What every store promises of conversations that are taken back, and of tools that messages bring."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from hostler.core.events import (
    ClientTool,
    ConversationEdited,
    Key,
    PrincipalId,
    RunId,
    SessionRewound,
)
from hostler.core.memory import remember
from hostler.core.said import ModelSaid, Said, UserSaid
from hostler.core.state import State, fold
from hostler.core.store import Store
from hostler.testing.doubles import a_session, whole_log
from hostler.testing.store_kit import Check, Open, a_fork, a_run, spoke

LOCATE = ClientTool(name="locate", description="Say where the user is.")


async def what_was_taken_back_is_recalled_no_more_and_is_in_the_log(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        await _say(store, key, "run_1")
        await _say(store, key, "run_2")
        await store.append(key, [_rewound("run_2")])
        assert await _said(store, key) == ["hello run_1", "answer run_1"]

        await _say(store, key, "run_3")
        told = ["hello run_1", "answer run_1", "hello run_3", "answer run_3"]
        assert await _said(store, key) == told

        await _say(store, key, "run_4")
        await store.append(key, [_rewound("run_1"), spoke("run_5", "hello again")])
        assert await _said(store, key) == []
        log = await whole_log(store, key)
        assert sum(event.kind == "user_spoke" for event in log) == 5
        assert len(await store.search(key.tenant, "run_2", limit=10)) == 2


async def a_run_is_taken_back_once_and_what_is_none_changes_nothing(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        await _say(store, key, "run_1")
        await _say(store, key, "run_2")
        for run in ("run_2", "run_2", "run_of_nobody"):
            await store.append(key, [_rewound(run)])
            assert await _said(store, key) == ["hello run_1", "answer run_1"]


async def a_fork_takes_back_what_it_begins_with_for_itself(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        await _say(store, key, "run_1")
        await _say(store, key, "run_2")
        fork = await a_fork(store, key.tenant, (key.session, (await store.head(key)).seq))
        await store.append(fork, [_rewound("run_1")])

        assert await _said(store, fork) == []
        assert len(await _said(store, key)) == 4


async def a_message_brings_the_tools_of_the_session_s_clients(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        brings = replace(spoke("run_1"), client_tools=(LOCATE,))
        await store.append(key, [brings, *a_run("run_1", "well", claim=1)])
        assert (await store.session(key)).client_tools == (LOCATE,)

        await store.append(key, [spoke("run_2")])
        assert (await store.recall(key)).client_tools == (LOCATE,)
        assert (await store.sessions(key.tenant, agent=None, status=None, after="", limit=9))[
            0
        ].client_tools == (LOCATE,)

        await store.append(key, [replace(spoke("run_3"), client_tools=())])
        assert (await store.recall(key)).client_tools == ()


async def what_is_put_in_with_no_run_is_recalled_found_and_can_be_cut(make: Open) -> None:
    async with make() as store:
        key = await a_session(store)
        await store.append(key, [_edited(UserSaid("a walrus"), ModelSaid("indeed"))])
        await _say(store, key, "run_1")
        await store.append(key, [_edited(UserSaid("and more"))])
        told = ["a walrus", "indeed", "hello run_1", "answer run_1", "and more"]
        assert await _said(store, key) == told
        (hit,) = await store.search(key.tenant, "walrus", limit=10)
        assert (hit.session, hit.seq, hit.kind) == (key.session, 1, "conversation_edited")

        cut = replace(_edited(ModelSaid("indeed, a walrus")), place=0, taken=2)
        await store.append(key, [cut])
        await _say(store, key, "run_2")
        told = ["indeed, a walrus", *told[2:], "hello run_2", "answer run_2"]
        assert await _said(store, key) == told
        assert len(await store.search(key.tenant, "walrus", limit=10)) == 1
        assert (await store.head(key)).active is None
        assert len(await store.runs(key.tenant, session=None, status=None, after="", limit=9)) == 2


TURNS: Sequence[Check] = (
    what_is_put_in_with_no_run_is_recalled_found_and_can_be_cut,
    what_was_taken_back_is_recalled_no_more_and_is_in_the_log,
    a_run_is_taken_back_once_and_what_is_none_changes_nothing,
    a_fork_takes_back_what_it_begins_with_for_itself,
    a_message_brings_the_tools_of_the_session_s_clients,
)


def _edited(*said: Said) -> ConversationEdited:
    return ConversationEdited(run=None, principal=PrincipalId("p"), said=said)


def _rewound(run: str) -> SessionRewound:
    return SessionRewound(run=None, before=RunId(run), principal=PrincipalId("p"))


async def _say(store: Store, key: Key, run: str) -> None:
    head = await store.head(key)
    said = spoke(run, f"hello {run}")
    facts = a_run(run, f"answer {run}", claim=head.fence + 1, after=head.seq + 1)
    await store.append(key, [said, *facts])


async def _said(store: Store, key: Key) -> list[object]:
    """Return what is part of the conversation; recalled, it is what the whole log says."""
    recall = await store.recall(key)
    state = fold(remember(recall.past), recall.events)
    whole = fold(State(), await whole_log(store, key))
    assert (state.transcript, state.begun) == (whole.transcript, whole.begun)
    return [
        one.content if isinstance(one, UserSaid) else one.text
        for one in state.transcript
        if isinstance(one, UserSaid | ModelSaid)
    ]
