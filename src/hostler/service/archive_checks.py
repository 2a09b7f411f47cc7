"""What the facts of an imported file may hold: ids of our form, sensible times, possible numbers.

Invariant: a fact that passes can be stored, summed and shown.
"""

from __future__ import annotations

import re
from decimal import Decimal

from msgspec.structs import asdict

from hostler.core.errors import Invalid, ToolError
from hostler.core.events import (
    ApprovalAsked,
    AttemptDropped,
    ConversationEdited,
    Fact,
    MessageScheduled,
    ModelFailed,
    ModelReplied,
    PartShown,
    RunEnded,
    RunRated,
    ToolStarted,
    Usage,
    UserSpoke,
)
from hostler.core.ledger import MOST_COST, MOST_TOKENS
from hostler.core.shown import Shown, taken
from hostler.core.terms import NO_TERMS, Terms
from hostler.service.limits import LONGEST_TEXT, check_client_tools
from hostler.service.marks import Mark
from hostler.service.times import LATEST, seconds
from hostler.service.turns import check_history, check_wanted

LONGEST_AGENT = 128
"""Characters of an agent's name: every list of sessions carries it."""
MOST = 2**53
"""Of any other number: what JSON can carry everywhere."""
DIGITS = 30
"""Behind the point of a cost."""
_ID = re.compile(r"[a-z]{1,8}_[A-Za-z0-9_-]{1,64}", re.ASCII)
_IDS = ("run", "input", "call", "attempt", "before")
_NUMBERS = ("scheduled", "seen", "choice", "claim", "at", "place", "taken")
_TIMES = ("retry_after_s", "first_token_s")


def check_agent(name: str) -> None:
    """Refuse a name that no agent has.  Raises Invalid."""
    if not 0 < len(name) <= LONGEST_AGENT:
        wanted = f"1 to {LONGEST_AGENT} characters"
        raise Invalid("the agent's name is too long", fields=[("/session/agent", wanted)])


def check_fact(fact: Fact) -> None:
    """Refuse a fact that no server of ours could have written.  Raises Invalid."""
    for name in _IDS:
        _check_id(name, getattr(fact, name, None))
    for name in _NUMBERS:
        _check_number(name, getattr(fact, name, None) or 0, MOST)
    for name in _TIMES:
        _check_number(name, getattr(fact, name, None) or 0, LATEST)
    _check_values(fact)


def _check_values(fact: Fact) -> None:
    if isinstance(fact, ApprovalAsked | ToolStarted) and fact.expires_at is not None:
        seconds(fact.expires_at)
    elif isinstance(fact, ModelReplied | ModelFailed | AttemptDropped):
        _check_attempt(fact)
    elif isinstance(fact, MessageScheduled):
        seconds(fact.due_at)
        check_fact(fact.message)
    elif isinstance(fact, RunEnded):
        check_usage(fact.usage, MOST)
    elif isinstance(fact, UserSpoke):
        check_client_tools(fact.client_tools or ())  # names may be masked
        check_history(fact.history)
        _check_terms(fact.terms or NO_TERMS)
    elif isinstance(fact, ConversationEdited):
        check_history(fact.said)
    elif isinstance(fact, PartShown):
        _check_part(fact.part)
    elif isinstance(fact, RunRated):
        Mark(score=fact.score).check()  # its key may be masked, and so no label any more


def _check_attempt(fact: ModelReplied | ModelFailed | AttemptDropped) -> None:
    if isinstance(fact, ModelReplied):
        for call in fact.calls:
            _check_id("call", call.id)
    if not isinstance(fact, AttemptDropped):
        check_usage(fact.usage, MOST_TOKENS)
    for stretch in () if isinstance(fact, ModelFailed) else fact.streamed:
        _check_id("call", stretch.call)
        for size in stretch.sizes:  # less than nothing would tell the same text again and again
            _check_number("size", size, MOST)


def _check_terms(terms: Terms) -> None:
    if terms.agent is not None:
        check_agent(terms.agent)
    _check_number("max_output_tokens", terms.max_output_tokens or 0, MOST)
    if len(terms.instructions or "") > LONGEST_TEXT:
        raise Invalid(f"the instructions are over {LONGEST_TEXT:,} characters")
    check_wanted(terms.wanted)


def _check_part(part: Shown) -> None:
    try:
        taken(part)
    except ToolError as error:
        raise Invalid(str(error)) from error


def check_usage(usage: Usage, most: int) -> None:
    """Refuse counts that are none.  Raises Invalid."""
    for name, value in asdict(usage).items():
        if name.endswith("_tokens"):
            _check_number(name, value, most)
    if usage.cost is not None and not _is_amount(usage.cost):
        raise Invalid("a cost is no amount of dollars")


def _is_amount(cost: Decimal) -> bool:
    exponent = cost.as_tuple().exponent
    return cost.is_finite() and 0 <= cost <= MOST_COST and int(exponent) >= -DIGITS


def _check_id(name: str, value: str | None) -> None:
    if value is not None and not _ID.fullmatch(value):
        raise Invalid(f"the id of this {name} has another form than ^{_ID.pattern}$")


def _check_number(name: str, value: float, most: float) -> None:
    if not 0 <= value <= most:
        raise Invalid(f"{name} is not from 0 to {most:.0f}")
