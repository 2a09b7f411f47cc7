"""An agent with two tools.  Serve it with `hostler serve forecast:agent`, or run this file."""

from __future__ import annotations

import anyio

from hostler import Agent, CallContext, ToolError, tool

SKY = {"Paris": "sunny, 21 degrees", "Oslo": "snow, 2 degrees below zero"}


@tool(effects="read", twice="safe")
async def weather(city: str) -> str:
    """Say what the weather is in a city.

    Args:
        city: Its name in English.
    """
    if city not in SKY:
        raise ToolError(f"There is no forecast for {city}; there is one for {', '.join(SKY)}.")
    return SKY[city]


@tool(timeout_s=10)
def book(city: str, days: int, context: CallContext) -> dict[str, str | int]:
    """Book a trip to a city."""
    # Whoever books in earnest passes `context.call` on: it is the key that keeps a call that was
    # sent twice from being booked twice.
    return {"booked": city, "days": days, "number": context.call}


agent = Agent(
    "forecaster",
    description="Knows the weather, and books trips.",
    instructions="Say what the weather is. Book only what you are told to book.",
    tools=[weather, book],
)


async def main() -> None:
    """Ask once, and print what happens as it happens."""
    async for frame in agent.stream("What is the weather in Paris?"):
        if frame.event == "tool_started":
            print(f"[{frame.data['name']} {frame.data['arguments']}]")
        elif frame.event == "tool_finished":
            print(f"[{frame.data['outcome']}: {frame.data['output']}]")
        elif frame.event == "delta" and frame.data["part"] == "text":
            print(frame.data["text"], end="", flush=True)
        elif frame.event == "run_ended":
            print(f"\n[{frame.data['status']}]")


if __name__ == "__main__":
    anyio.run(main)
