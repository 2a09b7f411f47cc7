"""Hostler: a self-hosted agent server in which nothing is lost and nothing happens twice silently.

from hostler import Agent, tool

@tool
async def weather(city: str) -> str:
    \"""Say what the weather is in a city.\"""
    return f"sunny in {city}"

agent = Agent("forecaster", instructions="Be brief.", tools=[weather])
"""

from hostler.app.agent import Agent, Budget, Finished, Frame
from hostler.core.errors import HostlerError, SetupError, ToolDown, ToolError
from hostler.core.events import ClientTool
from hostler.core.ports import CallContext
from hostler.core.shown import DataPart, DocumentPart, FilePart, SourcePart
from hostler.harness.permissions import Permissions
from hostler.tools.command import run_command
from hostler.tools.function import tool

__all__ = [
    "Agent",
    "Budget",
    "CallContext",
    "ClientTool",
    "DataPart",
    "DocumentPart",
    "FilePart",
    "Finished",
    "Frame",
    "HostlerError",
    "Permissions",
    "SetupError",
    "SourcePart",
    "ToolDown",
    "ToolError",
    "run_command",
    "tool",
]
