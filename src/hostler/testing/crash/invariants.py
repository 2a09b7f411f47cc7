"""The one checker: ten promises, held against the store, what clients were told, and what tools did.

    I1   what was acknowledged is there
    I2   a run that was accepted has one end
    I3   positions have no gaps, and a client that comes back with its last one sees each once
    I4   a call that may not be run twice began once at most, and after it was written that it would
    I5   a call has one result before the model is asked again
    I6   what runs are said to have cost is what the providers said
    I7   no secret is where none may be
    I8   another tenant learns of nothing
    I9   nothing is left behind: processes, descriptors, files, messages that are still to be said
    I10  no death needs a person

Invariant: nothing here asks the servers' own word for what it can read in the store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hostler.core.events import (
    ApprovalGiven,
    CancelRequested,
    Event,
    InputDropped,
    MessageScheduled,
    ModelFailed,
    ModelReplied,
    RunEnded,
    ToolFinished,
    ToolStarted,
    Usage,
    UserSpoke,
)
from hostler.core.ledger import LlmRow
from hostler.core.records import RunRow
from hostler.testing.canaries import Canaries, Sighting
from hostler.testing.crash.caller import Input, Later, Told
from hostler.testing.crash.served import SAFE, Effect
from hostler.testing.crashing import check_log

FINEST_S = 0.001
"""Logs have microseconds: what was said so little before its time was said then."""


class Violation(NamedTuple):
    promise: str
    what: str


@dataclass(kw_only=True)
class Found:
    """What is in the store, read after all servers had stopped."""

    logs: Mapping[str, Sequence[Event]] = field(default_factory=dict[str, "Sequence[Event]"])
    """By session: its whole log, of a fork with what it reads of others."""
    runs: Sequence[RunRow] = ()
    calls: Mapping[str, Sequence[LlmRow]] = field(default_factory=dict[str, "Sequence[LlmRow]"])
    """By run: what models were asked."""
    titles: Mapping[str, str | None] = field(default_factory=dict[str, "str | None"])
    webhooks: frozenset[str] = frozenset()
    secrets: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()
    scheduled: Sequence[str] = ()
    """Messages that are still to be said."""
    chains: Sequence[str] = ()
    """Where an audit log is not whole."""
    sightings: Sequence[Sighting] = ()
    """Canaries in files and tables."""
    damage: Sequence[str] = ()
    """What the database says of itself that is not well."""
    strays: Sequence[str] = ()
    """Files that nothing accounts for."""


@dataclass(kw_only=True)
class Evidence:
    """All that is known after a case."""

    told: Told
    found: Found
    effects: Sequence[Effect] = ()
    delivered: Sequence[bytes] = ()
    """Bodies that a receiver of webhooks got."""
    canaries: Canaries = field(default_factory=Canaries)
    learned: Sequence[str] = ()
    """What another tenant was told that differs from what is told of nothing."""
    left: Sequence[str] = ()
    """What processes hold, at rest, that one which has done nothing does not."""
    trouble: Sequence[str] = ()
    """What needed a person, or would have."""


def violations(of: Evidence) -> list[Violation]:
    """Return all that is not as it was promised."""
    checks = {
        "I1": acknowledged(of.told, of.found),
        "I2": ends(of.told, of.found),
        "I3": positions(of.told, of.found),
        "I4": once(of.found, of.effects),
        "I5": conversations(of.found),
        "I6": costs(of.found),
        "I7": secrets(of),
        "I8": of.learned,
        "I9": [*of.left, *of.found.strays, *unsaid(of.found)],
        "I10": [*of.trouble, *of.found.damage, *of.found.chains],
    }
    found = [Violation(name, what) for name, told in checks.items() for what in told]
    found += [Violation("I1", what) for what in deliveries(of)]
    # First what kept the work from its end: most others come of that.
    return sorted(found, key=lambda one: one.promise != "I10")


def acknowledged(told: Told, found: Found) -> Generator[str]:
    """Yield what was acknowledged and is not there, or is there and was removed."""
    for session in told.sessions:
        if session in told.deleted and session in found.logs:
            yield f"{session} was deleted, and is there"
        if session not in told.deleted and session not in found.logs:
            yield f"{session} was made, and is not there"
    for given in told.inputs:
        if given.session not in told.deleted:
            yield from _input(given, found.logs.get(given.session, ()))
    for later in told.scheduled:
        if later.given.session not in told.deleted:
            log = found.logs.get(later.given.session, ())
            yield from _scheduled(later, log)
            is_withdrawn = later.given.input in told.withdrawn
            yield from _withdrawn(later, log) if is_withdrawn else _said(later, log)
    for what in told.twice:
        yield f"sent twice, answered in two ways: {what}"
    yield from _unasked(told, found)
    yield from _answers(told, found)
    yield from _beside(told, found)


def _unasked(told: Told, found: Found) -> Generator[str]:
    """Yield what is there of which no client was told: sent again, it was done once more."""
    for session in set(found.logs) - set(told.sessions):
        yield f"{session} is there, and nobody was told of it"
    known = {given.input for given in told.inputs}
    known |= {later.given.input for later in told.scheduled}
    for session, log in found.logs.items():
        for event in log:
            if isinstance(event.fact, UserSpoke) and event.fact.input not in known:
                yield f"{event.fact.input} is in {session}, and nobody was told of it"
            if isinstance(event.fact, MessageScheduled) and event.fact.message.input not in known:
                name = event.fact.message.input
                yield f"{name} is scheduled in {session}, and nobody was told of it"


def _answers(told: Told, found: Found) -> Generator[str]:
    for call, (session, decision) in told.decisions.items():
        facts = [event.fact for event in found.logs.get(session, ())]
        given = [f.decision for f in facts if isinstance(f, ApprovalGiven) and f.call == call]
        if given != [decision]:
            yield f"{call} was answered {decision}, and the log has {given}"
    for session, run in told.cancelled:
        facts = [event.fact for event in found.logs.get(session, ())]
        if not any(isinstance(f, CancelRequested) and f.run == run for f in facts):
            yield f"{run} was cancelled, and the log does not know"


def _beside(told: Told, found: Found) -> Generator[str]:
    for session, title in told.titles.items():
        if found.titles.get(session) != title:
            yield f"{session} has the title {found.titles.get(session)!r}, and not {title!r}"
    for fork, (origin, at) in told.forks.items():
        mine, theirs = found.logs.get(fork, ()), found.logs.get(origin, ())
        if [e.raw for e in mine[:at]] != [e.raw for e in theirs[:at]]:
            yield f"{fork} does not begin with what {origin} said up to {at}"
    for what, promised, there in (
        ("webhook", set(told.webhooks), found.webhooks),
        ("secret", told.secrets, found.secrets),
        ("key", told.keys, found.keys),
        ("tenant", told.tenants, found.tenants),
    ):
        for one in promised - there:
            yield f"the {what} {one} was kept, and is not there"


def _input(given: Input, log: Sequence[Event]) -> Generator[str]:
    said = [event for event in log if isinstance(event.fact, UserSpoke)]
    mine = [e for e in said if isinstance(e.fact, UserSpoke) and e.fact.input == given.input]
    if [(e.seq, e.fact.content) for e in mine if isinstance(e.fact, UserSpoke)] != [
        (given.seq, given.content)
    ]:
        yield f"{given.input} was accepted at {given.seq} of {given.session}, which has {mine}"


def _scheduled(later: Later, log: Sequence[Event]) -> Generator[str]:
    given = later.given
    kept = [
        (event.seq, event.fact.message.run, event.fact.message.content, event.fact.due_at)
        for event in log
        if isinstance(event.fact, MessageScheduled) and event.fact.message.input == given.input
    ]
    if kept != [(given.seq, given.run, given.content, later.due_at)]:
        yield f"{given.input} was scheduled for {later.due_at} in {given.session}, which has {kept}"


def _said(later: Later, log: Sequence[Event]) -> Generator[str]:
    """Yield what is not as its receipt says: said once, when it was time, and not dropped."""
    given = later.given
    said = _of(given, log)
    told = [(fact.scheduled, fact.run, fact.content) for _, fact in said]
    if told != [(given.seq, given.run, given.content)]:
        yield f"{given.input} was to be said once in {given.session}, which has {told}"
    for at, _ in said:
        if at < later.due_at.timestamp() - FINEST_S:
            yield f"{given.input} was said at {at}, and was to be at {later.due_at.timestamp()}"
    if dropped := _dropped(given, log):
        yield f"{given.input} was to be said, and was dropped: {dropped}"


def _withdrawn(later: Later, log: Sequence[Event]) -> Generator[str]:
    given = later.given
    if said := _of(given, log):
        yield f"{given.input} was withdrawn, and {given.session} has {said}"
    if (dropped := _dropped(given, log)) != ["withdrawn"]:
        yield f"{given.input} was withdrawn, and dropped for {dropped}"


def _of(given: Input, log: Sequence[Event]) -> list[tuple[float, UserSpoke]]:
    """Return when and how something was said."""
    said = [(event.at, event.fact) for event in log if isinstance(event.fact, UserSpoke)]
    return [(at, fact) for at, fact in said if fact.input == given.input]


def _dropped(given: Input, log: Sequence[Event]) -> list[str]:
    facts = [event.fact for event in log]
    return [f.reason for f in facts if isinstance(f, InputDropped) and f.input == given.input]


def unsaid(found: Found) -> Generator[str]:
    """Yield what still waits for its time: no message that is left to itself is that far ahead."""
    for one in found.scheduled:
        yield f"{one} is still to be said"


def ends(told: Told, found: Found) -> Generator[str]:
    """Yield runs that were accepted and have no end, or several."""
    for session, log in found.logs.items():
        ended = Counter(str(e.fact.run) for e in log if isinstance(e.fact, RunEnded))
        begun = {str(e.fact.run) for e in log if isinstance(e.fact, UserSpoke)}
        begun |= {given.run for given in told.spoken() if given.session == session}
        for run in sorted(begun | set(ended)):
            if ended[run] != 1:
                yield f"{run} of {session} has {ended[run]} ends"
    for row in found.runs:
        if row.ended_at is None:
            yield f"the row of {row.id} has no end"


def positions(told: Told, found: Found) -> Generator[str]:
    """Yield gaps in logs, and what followers saw twice, not at all, or otherwise."""
    for session, log in found.logs.items():
        if [event.seq for event in log] != list(range(1, len(log) + 1)):
            yield f"{session} has the positions {[event.seq for event in log]}"
    for session, seen in told.seen.items():
        if [one.seq for one in seen] != list(range(1, len(seen) + 1)):
            yield f"who followed {session} saw {[one.seq for one in seen]}"
        log = found.logs.get(session)
        if log is not None and [(e.seq, e.kind) for e in log] != [tuple(one) for one in seen]:
            yield f"who followed {session} saw {len(seen)} facts, and it has {len(log)}, or others"


def once(found: Found, effects: Sequence[Effect]) -> Generator[str]:
    """Yield calls that began twice, or without a word, or did not begin and are said to be done."""
    for effect, times in Counter(effects).items():
        if times > 1 and effect.tool not in SAFE:
            yield f"{effect.tool} was run {times} times for {effect.call}"
    facts = [event.fact for log in found.logs.values() for event in log]
    intents = {(str(f.run), f.call) for f in facts if isinstance(f, ToolStarted)}
    for effect in set(effects):
        if (effect.run, effect.call) not in intents:
            yield f"{effect.tool} was run for {effect.call}, of which nobody had written that it would"
    began = {effect.call for effect in effects}
    for fact in facts:
        if isinstance(fact, ToolFinished) and fact.outcome == "ok" and fact.call not in began:
            yield f"{fact.call} is said to be done, and was not"


def conversations(found: Found) -> Generator[str]:
    """Yield logs that add up to no conversation: wherever they are cut, each call has an answer."""
    for session, log in found.logs.items():
        try:
            check_log(log)
        except AssertionError as error:
            yield f"{session}: {error}"


def costs(found: Found) -> Generator[str]:
    """Yield runs whose sum is not what providers reported, reply by reply."""
    for session, log in found.logs.items():
        reported = dict[str, list[Usage]]()
        for event in log:
            if isinstance(event.fact, ModelReplied | ModelFailed):
                reported.setdefault(str(event.fact.run), []).append(event.fact.usage)
        for event in log:
            fact = event.fact
            if isinstance(fact, RunEnded):
                own = reported.get(str(fact.run), [])
                if _tokens(fact.usage) != _sum(own):
                    yield f"{fact.run} of {session} ended with {fact.usage}, and had {own}"
                kept = [row.usage for row in found.calls.get(str(fact.run), ()) if row.usage]
                if str(fact.run) in found.calls and _sum(kept) != _sum(own):
                    yield f"the rows of {fact.run} have {kept}, and it had {own}"


def _tokens(usage: Usage) -> tuple[int, int]:
    return usage.input_tokens, usage.output_tokens


def _sum(several: Sequence[Usage]) -> tuple[int, int]:
    return sum(u.input_tokens for u in several), sum(u.output_tokens for u in several)


def secrets(of: Evidence) -> Generator[str]:
    """Yield where a canary was seen: in answers, files, tables, lines of the log, deliveries."""
    posted = (("a delivery", body) for body in of.delivered)
    for seen in [*of.found.sightings, *of.canaries.seen_among([*of.told.heard, *posted])]:
        yield f"{seen.canary} is in {seen.where}: {seen.around}"


def deliveries(of: Evidence) -> Generator[str]:
    """Yield ends of runs that a webhook was not told of."""
    if not of.told.webhooks:
        return
    said = b"\n".join(of.delivered)
    for given in of.told.spoken():
        if given.session not in of.told.deleted and f'"{given.run}"'.encode() not in said:
            yield f"no webhook was told of the end of {given.run}"
