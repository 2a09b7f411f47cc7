"""Where somebody talks: a server, and a session there once something was said.

Invariant: no session is made before there is something to say in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from hostler.app.client import Client
from hostler.app.frames import Frame
from hostler.app.settings import Settings
from hostler.app.terminal.reach import Reached, come_back
from hostler.core.events import JsonObject

EXCHANGES = 3
"""How many of the last ones are shown to whom comes back."""


@dataclass(slots=True)
class Place:
    reached: Reached
    settings: Settings
    flags: Mapping[str, object]
    """What was given to get here, and is needed again."""
    agent: str | None = None
    session: str | None = None

    @property
    def client(self) -> Client:
        return self.reached.client

    async def find(self) -> None:
        """See that the session is there, and whose it is.  Raises NotFound."""
        found = await self.client.api.get(f"/api/sessions/{self.session}")
        self.agent = str(found["agent"])

    async def in_session(self) -> str:
        """Return the session; make it, if nothing was said yet."""
        if self.session is None:
            made = await self.client.create_session(agent=self.agent)
            self.session, self.agent = made.id, made.agent
        return self.session

    async def last_exchanges(self) -> tuple[list[Frame], str]:
        """Return the facts of the last runs, and the cursor after them."""
        page = await self.client.api.get("/api/runs", session=self.session, limit=EXCHANGES)
        going = await self.client.api.get(
            "/api/runs", session=self.session, status="running", limit=1
        )
        runs = [run for one in (page, going) for run in cast("list[JsonObject]", one["items"])]
        first = min((int(str(run["first_seq"])) for run in runs), default=1)
        frames = await self.client.facts(str(self.session), after=str(first - 1))
        return frames, frames[-1].id if frames else "0"

    async def about(self) -> str:
        """Return who is talked to, and where."""
        agent = self.agent
        page = await self.client.api.get("/api/agents")
        agents = {str(one["name"]): one for one in cast("list[JsonObject]", page["items"])}
        if agent is None and len(agents) == 1:
            agent = next(iter(agents))
        one = agents.get(agent or "")
        models = ", ".join(cast("list[str]", one["models"])) if one else ""
        where = "in this process" if self.reached.is_ours else f"at {self.client.api.url}"
        return " · ".join(part for part in (agent or "default agent", models, where) if part)

    def goes_on(self) -> str:
        """Return what becomes of a run that is left."""
        if self.reached.is_ours:
            return "the run stops here, and goes on when you come back"
        return f"the run goes on: {come_back('attach', self.flags)} {self.session}"

    def way_back(self) -> str | None:
        """Return the command that leads back here, if there is anything to come back to."""
        if self.session is None:
            return None
        return come_back("chat", {"session": self.session, **self.flags})
