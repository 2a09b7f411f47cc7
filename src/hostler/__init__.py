"""Hostler: a self-hosted agent server in which nothing is lost and nothing happens twice silently.

from hostler import Agent, tool

@tool
async def weather(city: str) -> str:
    \"""Say what the weather is in a city.\"""
    return f"sunny in {city}"

agent = Agent("forecaster", instructions="Be brief.", tools=[weather])
"""

from typing import TYPE_CHECKING

from hostler.app import wiring
from hostler.app.agent import Agent, Budget
from hostler.app.frames import Finished, Frame, text_of
from hostler.core.errors import (
    CallerError,
    Conflict,
    Forbidden,
    HostlerError,
    Invalid,
    Malformed,
    NotFound,
    SetupError,
    TooLarge,
    ToolDown,
    ToolError,
    TooMany,
    Unauthorised,
    Unavailable,
)
from hostler.core.events import ClientTool
from hostler.core.ports import CallContext
from hostler.core.shown import DataPart, DocumentPart, FilePart, SourcePart
from hostler.harness.permissions import Permissions
from hostler.tools.command import run_command
from hostler.tools.function import tool

if TYPE_CHECKING:
    from hostler.app.client import Client
else:  # not for type checkers, to whom each name would then be there

    def __getattr__(name: str) -> object:
        if name == "Client":
            return wiring.client()
        raise AttributeError(f"module 'hostler' has no attribute {name!r}")


__all__ = [
    "Agent",
    "Budget",
    "CallContext",
    "CallerError",
    "Client",
    "ClientTool",
    "Conflict",
    "DataPart",
    "DocumentPart",
    "FilePart",
    "Finished",
    "Forbidden",
    "Frame",
    "HostlerError",
    "Invalid",
    "Malformed",
    "NotFound",
    "Permissions",
    "SetupError",
    "SourcePart",
    "TooLarge",
    "TooMany",
    "ToolDown",
    "ToolError",
    "Unauthorised",
    "Unavailable",
    "run_command",
    "text_of",
    "tool",
]
