"""Two throw-away tenants on a server, with somebody of every sort, and things of theirs.

Everything is made through the API, and no model is asked for anything: what was said in a session
comes out of a file, and its agent is served nowhere.

Invariant: `close` removes each session and key that was made, of an earlier try as well.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol, TypeAlias, cast
from urllib.parse import quote

import anyio
import msgspec
from msgspec.structs import replace

from hostler.core.errors import SetupError
from hostler.core.events import JsonObject, PrincipalId
from hostler.core.ports import mint
from hostler.testing.isolation_policy import Kind
from hostler.testing.store_kit import a_step, asked, spoke, started

HERE, THERE = "isolation-a", "isolation-b"
CANARY = "canary-of-isolation-a"
"""Said, and written on everything, in the tenant that nobody else may see."""
ENDPOINTS = "/api/endpoints"
WEBHOOKS = "/api/webhooks"
ENDPOINT, OTHER = "openai", "anthropic"
"""Providers that every installation has, unless it has none: of an endpoint, and of no endpoint."""
UNTIL = 4_000_000_000.0
"""When the waits of the sessions' files would end: in 2096."""
AGENT = "isolation-check"
"""Served nowhere, so that its runs end at once and ask no model."""
LATER = timedelta(days=1)
"""After which nobody asks any more."""
EXPIRES_S = 1.0
PATIENCE_S = 20.0
KEY_LIVES_S = 3600.0
"""Keys end by themselves, should a check be killed before it can revoke them."""

Things: TypeAlias = Mapping[Kind, str]


class Told(NamedTuple):
    """An answer, whole."""

    status: int
    headers: Mapping[str, str]
    body: str
    took_s: float = 0.0


class Wire(Protocol):
    """How a server is reached."""

    async def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Told:
        """Return the answer; of a stream, all of it.  Waits when it is told to by a 429."""
        ...

    async def talk(
        self, path: str, *, headers: Mapping[str, str], says: Sequence[JsonObject]
    ) -> Told:
        """Open a WebSocket, say things, return their answers.

        `status` is that of a refusal, or the code with which the server closed, or 101.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Somebody who asks."""

    name: str
    key: str | None
    own: Things = field(default_factory=dict[Kind, str])
    tenant: str | None = None
    """In which the operator acts."""
    query: str = ""
    """What lets them in, where that is no header."""

    @property
    def headers(self) -> dict[str, str]:
        key = {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
        return key if self.tenant is None else {**key, "Hostler-Tenant": self.tenant}


@dataclass(slots=True, kw_only=True)
class World:
    """Who there is.  Made by `open_world`."""

    wire: Wire
    root: Actor
    """The operator."""
    operator: Actor
    """The operator, in the tenant that nobody else may see."""
    there: Actor
    """The operator, in the other tenant."""
    actors: dict[str, Actor] = field(default_factory=dict[str, Actor])
    ended: str = ""
    """The token of a link that was revoked."""

    def __getitem__(self, name: str) -> Actor:
        return self.actors[name]

    async def do(
        self, who: Actor, method: str, path: str, body: JsonObject | bytes | None = None
    ) -> JsonObject:
        """Do what has to work.  Raises SetupError: it does not."""
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        told = await self.wire.ask(method, path, headers=who.headers, body=raw)
        if told.status >= 300:
            raise SetupError(f"{method} {path} by {who.name}: {told.status} {told.body[:300]}")
        return cast("JsonObject", json.loads(told.body or "{}"))

    async def things(self, who: Actor) -> Things:
        """Make a session of somebody's, with a run, a call and a link."""
        run, call, asked, word = mint("run"), mint("call"), mint("call"), mint("word")
        user = user_of(who.name)
        file = archive(run, call, asked, title=f"{CANARY} {who.name}", word=word, user=user)
        made = await self.do(who, "POST", "/api/sessions/import", file)
        session = str(made["id"])
        share = await self.do(who, "POST", f"/api/sessions/{session}/shares", {})
        later: JsonObject = {
            "content": f"{CANARY} later",
            "at": f"{datetime.now(UTC) + LATER:%FT%TZ}",
        }
        said = await self.do(who, "POST", f"/api/sessions/{session}/messages", later)
        return {
            "session": session,
            "scheduled": str(said["input"]),
            "run": run,
            "response": run.replace("run_", "resp_"),
            "conversation": session.replace("ses_", "conv_"),
            "call": call,
            "asked": asked,
            "share": str(share["id"]),
            "token": str(share["token"]),
            "tenant": HERE,
            "user": user,
            "word": word,
            "cursor": str(int(str(made["seq"])) + 1000),
        }

    async def target(self, kinds: Collection[Kind] = ()) -> Things:
        """Make a session of the owner's that `reader` may see, and a key of their tenant's.

        `kinds`: of what there has to be more.
        """
        key = await self.key("read by nobody", self.operator, role="viewer")
        made: dict[Kind, str] = {**await self.things(self["owner"]), "key": key.own["key"]}
        members = f"/api/sessions/{made['session']}/members/{user_of('reader')}"
        await self.do(self["owner"], "PUT", members, {"role": "viewer"})
        if "secret" in kinds:
            made["secret"] = f"isolation-{secrets.token_hex(6)}"
            value = json.dumps({"value": secrets.token_urlsafe(24)}).encode()
            path = f"/api/secrets/{made['secret']}"
            told = await self.wire.ask("PUT", path, headers=self.operator.headers, body=value)
            if told.status not in (201, 409):  # a house that keeps none
                raise SetupError(f"no secret can be kept: {told.status} {told.body[:300]}")
        if "endpoint" in kinds:
            made["endpoint"] = await self.endpoint()
        if {"webhook", "delivery"} & set(kinds):
            made |= await self.webhook()
        return made

    async def webhook(self) -> dict[Kind, str]:
        """Set a webhook of the owner's tenant, and have it tried out."""
        names: dict[Kind, str] = {"webhook": mint("whk"), "delivery": mint("evt")}
        body = json.dumps({"url": f"https://isolation.example/{CANARY}"}).encode()
        told = await self.wire.ask("POST", WEBHOOKS, headers=self.operator.headers, body=body)
        # A house may keep no secrets, or an operator have closed such hosts.
        if told.status not in (201, 409, 422):
            raise SetupError(f"no webhook can be set: {told.status} {told.body[:300]}")
        if told.status == 201:
            names["webhook"] = str(json.loads(told.body)["id"])
            made = await self.do(self.operator, "POST", f"{WEBHOOKS}/{names['webhook']}/test")
            names["delivery"] = str(made["id"])
        return names

    async def endpoint(self) -> str:
        """Set an endpoint of the owner's tenant; return its provider."""
        body = json.dumps({"base_url": f"https://isolation.example/{CANARY}"}).encode()
        path = f"{ENDPOINTS}/{ENDPOINT}"
        told = await self.wire.ask("PUT", path, headers=self.operator.headers, body=body)
        # An operator may have closed such hosts, or serve agents that ask no provider.
        if told.status not in (200, 201, 404, 422):
            raise SetupError(f"no endpoint can be set: {told.status} {told.body[:300]}")
        return ENDPOINT

    async def ticket(self, who: Actor) -> str:
        return str((await self.do(who, "POST", "/api/socket-tickets", {}))["ticket"])

    async def link(self, *, expires_in_s: float = 3600.0) -> tuple[str, str]:
        """Make a link to a session of the owner's; return its token and its path."""
        of = f"/api/sessions/{(await self.things(self['owner']))['session']}/shares"
        made = await self.do(self["owner"], "POST", of, {"expires_in_s": expires_in_s})
        return str(made["token"]), f"{of}/{made['id']}"

    async def key(
        self,
        name: str,
        tenant: Actor,
        *,
        role: str,
        user: str | None = None,
        expires_in_s: float = KEY_LIVES_S,
    ) -> Actor:
        body: JsonObject = {"role": role, "title": CANARY, "expires_in_s": expires_in_s}
        body |= {} if user is None else {"user": user}
        made = await self.do(tenant, "POST", "/api/keys", body)
        return Actor(name=name, key=str(made["key"]), own={"key": str(made["id"])})

    async def look(self, things: Things) -> str:
        """Return all that its owner sees of a session."""
        session, owner = f"/api/sessions/{things['session']}", self["owner"]
        seen: list[str] = []
        for path in ("", "/events", "/scheduled", "/shares", "/members"):
            told = await self.wire.ask("GET", session + path, headers=owner.headers)
            seen.append(f"{told.status} {told.body}")
        keys = await self.do(self.operator, "GET", "/api/keys?limit=1000")
        states = {one["id"]: one.get("revoked_at") for one in _items(keys)}
        told = await self.wire.ask("GET", ENDPOINTS, headers=self.operator.headers)
        seen.append(told.body)
        told = await self.wire.ask("GET", WEBHOOKS, headers=self.operator.headers)
        # How its tries went changes by itself.
        hooks = _items(json.loads(told.body)) if told.status == 200 else []
        seen += [f"{one['id']} {one['url']} {one['description']}" for one in hooks]
        return "\n".join([*seen, str(states.get(things["key"], "absent"))])

    async def clean(self) -> None:
        """Remove every session, secret, endpoint and webhook, and end every key of both tenants."""
        for tenant in (self.operator, self.there):
            for path, name in ((WEBHOOKS, "id"), ("/api/secrets", "name")):
                kept = await self.wire.ask("GET", path, headers=tenant.headers)
                for one in _items(json.loads(kept.body)) if kept.status == 200 else []:
                    await self.do(tenant, "DELETE", f"{path}/{one[name]}")
            for one in _items(await self.do(tenant, "GET", ENDPOINTS)):
                await self.do(tenant, "DELETE", f"{ENDPOINTS}/{one['provider']}")
            while found := _items(await self.do(tenant, "GET", "/api/sessions?limit=1000")):
                for one in found:
                    await self.do(tenant, "DELETE", f"/api/sessions/{one['id']}")
            await self._end_keys(tenant)

    async def _end_keys(self, tenant: Actor) -> None:
        after = ""
        while True:
            page = await self.do(tenant, "GET", f"/api/keys?limit=1000{after}")
            for one in _items(page):
                if one.get("revoked_at") is None:
                    await self.do(tenant, "DELETE", f"/api/keys/{one['id']}")
            if not page["more"]:
                break
            after = f"&after={quote(str(page['cursor']))}"


async def open_world(wire: Wire, admin: str) -> World:
    """Make the tenants and who is in them.

    Raises:
        SetupError: the key is not the operator's, or the server does not do what it should.
    """
    root, operator = Actor(name="operator", key=admin), Actor(name="here", key=admin, tenant=HERE)
    there = Actor(name="there", key=admin, tenant=THERE)
    world = World(wire=wire, root=root, operator=operator, there=there)
    for tenant in (HERE, THERE):
        told = await wire.ask(
            "POST",
            "/api/tenants",
            headers=root.headers,
            body=json.dumps({"id": tenant, "title": tenant}).encode(),
        )
        if told.status not in (201, 409):
            raise SetupError(f"the tenant {tenant} cannot be made: {told.status} {told.body[:300]}")
    await world.clean()
    expired = await world.key("expired", operator, role="admin", expires_in_s=EXPIRES_S)
    await _people(world)
    revoked = await world.key("revoked", operator, role="admin")
    await world.do(operator, "DELETE", f"/api/keys/{revoked.own['key']}")
    world.ended, where = await world.link()
    await world.do(world["owner"], "DELETE", where)
    short, _ = await world.link(expires_in_s=EXPIRES_S)
    over = Actor(name="expired link", key=None, query=f"share={short}")
    with anyio.fail_after(PATIENCE_S):  # nobody tells when a key expires
        for one in (expired, over):
            path = f"/api/me?{one.query}"
            while (await wire.ask("GET", path, headers=one.headers)).status != 401:  # noqa: ASYNC110
                await anyio.sleep(0.1)
    outsiders = (
        Actor(name="anonymous", key=None),
        revoked,
        expired,
        Actor(name="revoked link", key=None, query=f"share={world.ended}"),
        over,
        Actor(name="ticket", key=None, query=f"ticket={await world.ticket(world['owner'])}"),
    )
    world.actors |= {one.name: one for one in outsiders}
    return world


async def _people(world: World) -> None:
    """Make those who are let in."""
    members = dict.fromkeys(("owner", "colleague", "reader"), "member")
    for name, role in {**members, "viewer": "viewer", "admin": "admin"}.items():
        one = await world.key(name, world.operator, role=role, user=user_of(name))
        world.actors[name] = one
    world.actors["stranger"] = await world.key("stranger", world.there, role="admin")
    for name in ("owner", "colleague", "stranger"):
        one = world[name]
        own: Things = {**await world.things(one), **one.own}
        world.actors[name] = Actor(name=name, key=one.key, own=own)
    await world.endpoint()
    guested = await world.things(world["owner"])
    world.actors["guest"] = Actor(name="guest", key=guested["token"], own=guested)
    by_link = f"share={guested['token']}"
    world.actors["link"] = Actor(name="link", key=None, own=guested, query=by_link)


def user_of(name: str) -> str:
    return f"user-{name}"


def archive(
    run: str,
    call: str,
    client: str,
    *,
    session: str | None = None,
    title: str = CANARY,
    word: str = "",
    user: str = "p",
) -> bytes:
    """Return the file of a session in which a call waits for an approval, and one for a client."""
    facts = [
        replace(spoke(run, f"{CANARY} {word}"), principal=PrincipalId(user)),
        *a_step(run, call, client, claim=1),
        asked(run, call),
        started(run, client, expires_at=UNTIL),
    ]
    about = {
        "id": session or mint("ses"),
        "agent": AGENT,
        "title": title,
        "metadata": {"note": CANARY},
        "created_at": "2026-01-01T00:00:00Z",
    }
    lines: list[object] = [{"hostler": 1, "session": about, "events": len(facts)}]
    for seq, fact in enumerate(facts, start=1):
        lines.append({"seq": seq, "at": "2026-01-01T00:00:00Z", "fact": fact})
    return b"\n".join(msgspec.json.encode(line) for line in lines) + b"\n"


def absent(kind: Kind, text: str) -> str:
    """Return the name of nothing that looks like that of something."""
    if kind == "tenant":
        return f"{text[:-1]}0"  # which stands in a list where the other does
    if kind == "endpoint":
        return OTHER
    if kind == "cursor":
        return str(int(text) + 1)
    if kind in ("token", "once"):
        return text[:3] + secrets.token_urlsafe(64)[: len(text) - 3]
    return text[:-12] + secrets.token_hex(6)


def _items(page: JsonObject) -> list[JsonObject]:
    return cast("list[JsonObject]", page["items"])
