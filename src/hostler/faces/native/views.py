"""Records of the service as the bodies that clients get."""

from __future__ import annotations

from msgspec.structs import asdict

from hostler.core.events import Fault
from hostler.core.ledger import Rating
from hostler.core.ports import AgentSpec
from hostler.core.records import Approval, RunRow, Session, Share, Storage
from hostler.faces.http.form import stamp
from hostler.faces.native import bodies
from hostler.service.inbox import Receipt
from hostler.service.runs import RunDetail, Waiting


def view_session(session: Session) -> bodies.SessionView:
    return bodies.SessionView(
        id=session.id,
        agent=session.agent,
        title=session.title,
        metadata=session.metadata,
        client_tools=session.client_tools,
        status=session.head.status,
        waits=[
            bodies.WaitView(call=wait.call, kind=wait.kind, expires_at=stamp(wait.expires_at))
            for wait in session.head.waits
        ],
        forked=_forked(session),
        created_at=stamp(session.created_at),
        updated_at=stamp(session.updated_at),
        seq=session.head.seq,
    )


def _forked(session: Session) -> bodies.ForkView | None:
    if not session.lineage:
        return None
    origin, at = session.lineage[-1]
    return bodies.ForkView(session=origin, at=at)


def view_approval(approval: Approval) -> bodies.ApprovalView:
    return bodies.ApprovalView(
        call=approval.call,
        session=approval.session,
        run=approval.run,
        name=approval.name,
        arguments=approval.arguments,
        digest=approval.digest,
        status=approval.status,
        asked_at=stamp(approval.asked_at),
        expires_at=stamp(approval.expires_at),
        principal=approval.principal,
        reason=approval.reason,
        answered_at=_stamp(approval.answered_at),
    )


def view_share(share: Share) -> bodies.ShareView:
    return bodies.ShareView(
        id=share.id,
        session=share.session,
        principal=share.principal,
        created_at=stamp(share.created_at),
        expires_at=stamp(share.expires_at),
    )


def view_new_share(share: Share, token: str) -> bodies.NewShareView:
    url = f"/api/sessions/{share.session}/events?share={token}"
    return bodies.NewShareView(**asdict(view_share(share)), token=token, url=url)


def view_waiting(receipt: Receipt, waiting: Waiting) -> bodies.WaitingReceipt:
    about = bodies.WaitingFor(call=waiting.call, kind=waiting.kind)
    return bodies.WaitingReceipt(**asdict(receipt), waiting=about)


def view_run(run: RunRow) -> bodies.RunView:
    return bodies.RunView(
        id=run.id,
        session=run.session,
        input=run.input,
        agent=run.agent,
        status=run.status,
        reason=run.reason,
        created_at=stamp(run.created_at),
        started_at=_stamp(run.started_at),
        ended_at=_stamp(run.ended_at),
        first_seq=run.first_seq,
        last_seq=run.last_seq,
        usage=run.usage,
        user=run.principal,
        purpose=run.purpose,
        steps=run.steps,
        unpriced_calls=run.unpriced_calls,
        error=_fault(run),
        input_summary=run.input_summary,
        output_summary=run.output_summary,
    )


def _fault(run: RunRow) -> Fault | None:
    if run.error_type is None:
        return None
    return Fault(code=run.error_type, message=run.error_message or "")


def view_feedback(rating: Rating) -> bodies.FeedbackView:
    return bodies.FeedbackView(
        run=rating.run,
        user=rating.principal,
        key=rating.key,
        score=rating.score,
        comment=rating.comment,
        at=stamp(rating.at),
    )


def view_detail(detail: RunDetail) -> bodies.RunDetailView:
    return bodies.RunDetailView(
        run=view_run(detail.run),
        model_calls=[
            bodies.ModelCallView(
                attempt=call.attempt,
                provider=call.provider,
                model=call.model,
                status=call.status,
                asked_at=stamp(call.asked_at),
                ended_at=_stamp(call.ended_at),
                usage=call.usage,
                error=call.error,
                step=call.step,
                number=call.number,
                latency_s=call.latency_s,
                first_token_s=call.first_token_s,
            )
            for call in detail.model_calls
        ],
        tool_calls=[
            bodies.ToolCallView(
                call=call.call,
                name=call.name,
                arguments=call.arguments,
                status=call.status,
                started_at=stamp(call.started_at),
                ended_at=_stamp(call.ended_at),
                output=call.output,
                latency_s=call.latency_s,
            )
            for call in detail.tool_calls
        ],
        feedback=[view_feedback(one) for one in detail.feedback],
    )


def view_agent(agent: AgentSpec) -> bodies.AgentView:
    return bodies.AgentView(
        name=agent.name,
        description=agent.description,
        models=[f"{model.provider}:{model.name}" for model in agent.models],
        tools=[spec.name for spec in agent.tools.specs],
        policy=agent.policy,
        max_steps=agent.limits.max_steps,
    )


def _stamp(at: float | None) -> str | None:
    return None if at is None else stamp(at)


def view_storage(storage: Storage) -> bodies.StorageView:
    return bodies.StorageView(
        sessions=storage.sessions,
        events=storage.events,
        fact_bytes=storage.fact_bytes,
        database_bytes=storage.database_bytes,
        largest=[
            bodies.SizeView(session=session, events=events, fact_bytes=size)
            for session, events, size in storage.largest
        ],
    )
