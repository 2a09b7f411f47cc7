"""A message that also answers what its run waits for: all of it is one write.

Clients of protocols that have no word for an answer send results and decisions with their next
message; a model is not to be asked before it has both.

Invariant: of a message and the answers that come with it, all is written or nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from hostler.core.errors import Conflict
from hostler.core.events import CallId, Fact, Principal, RunId, RunKey, SessionId
from hostler.core.head import Head
from hostler.core.ports import Job
from hostler.service.by_head import by_head
from hostler.service.inbox import Inbox, Message, Receipt, joining, receipt
from hostler.service.once import Answering, once_of
from hostler.service.waits import Decision, Result, Waits, accepting

Answer: TypeAlias = Decision | Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Resuming:
    inbox: Inbox
    waits: Waits

    async def resume(
        self,
        who: Principal,
        session: SessionId,
        run: RunId,
        message: Message,
        answers: Mapping[CallId, Answer],
        *,
        answering: Answering[Receipt] | None = None,
    ) -> Receipt:
        """Say something to a run that waits, with answers to calls of it; its policy is `steer`.

        The model reads the answers, then what the message says.  An empty message is none.

        Raises:
            NotFound: no such session, or no such call.
            Conflict: the run is not the one that is going (`not_waiting`), or a call was answered
                before (`already_answered`) or is too late (`expired`).
            Invalid, TooLarge, TooMany: as `Inbox.speak` and `Waits`.
        """
        key = await self.inbox.access.key(who, "write", session)
        spoke = joining(await self.inbox.spoken(who, key, message), run)
        async with accepting() as accepted:

            async def facts(head: Head) -> list[Fact]:
                if head.active != run:
                    raise Conflict(f"{run} does not wait for anything", code="not_waiting")
                written: list[Fact] = [spoke]
                for call, answer in answers.items():
                    if isinstance(answer, Decision):
                        written.append(await self.waits.given(who, key, head, call, answer))
                    else:
                        made = await self.waits.result(who, key, head, call, answer, accepted)
                        written.append(made)
                return written

            once = once_of(answering, lambda done: receipt(key, spoke, done))
            done = await by_head(self.inbox.store, key, facts, once=once)
        await self.inbox.engine.enqueue(Job(RunKey(*key, run), priority=done.head.priority))
        return receipt(key, spoke, done)
