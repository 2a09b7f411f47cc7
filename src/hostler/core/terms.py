"""What may be asked of an answer, and of the run that gives it, beyond what its agent says.

Invariant: nothing here imports anything of ours.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

_Object: TypeAlias = dict[str, object]


class Wanted(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is wanted of one answer, in nobody's words.  None: as the model does it by itself.

    A provider that has no word for something is not told of it.
    """

    temperature: float | None = None
    """From 0 on: how far it may stray."""
    top_p: float | None = None
    """Of the likely next words, those that add up to this share are taken."""
    stop: tuple[str, ...] = ()
    """The answer ends before the first of these."""
    calls: Literal["any", "none", "some"] = "any"
    """Whether it may call tools, must not, or must."""
    tool: str | None = None
    """The tool that it must call."""
    parallel: bool = True
    """False: one call at a time."""
    json: bool = False
    """The text is a JSON object."""
    json_schema: _Object | None = None
    """The JSON Schema that it has to fit, if it is one."""
    effort: str | None = None
    """How much to think: `none`, `minimal`, `low`, `medium`, `high`, `xhigh` or `max`."""


AS_IT_IS = Wanted()


class Terms(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a message asks of the run that answers it, from there on.  None: as the agent has it."""

    agent: str | None = None
    """Who answers, where that is not the session's agent."""
    instructions: str | None = None
    """What the client has to say to the model, which reads it after what the agent says."""
    max_output_tokens: int | None = None
    """Of each answer."""
    wanted: Wanted = AS_IT_IS
    """Of each answer."""
    ends_unanswered: bool = False
    """The run ends with a call that no client answers in time; else the model is told of it."""


NO_TERMS = Terms()
