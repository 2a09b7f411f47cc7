"""Traces, as OpenTelemetry has them, made of committed facts.

    invoke_agent NAME                a run, from its first step to its end
    ├─ chat MODEL                    one attempt; CLIENT
    └─ execute_tool NAME             one call
    chat MODEL                       a direct call, of whoever asked

A span is made when its end is committed, from what the log says of it, and ids of spans are made
from ids of facts: a run that another process went on with is one trace without holes.

Invariant: nothing that was said is in a span unless the operator asked for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from hostler.core.events import (
    ApprovalAsked,
    ModelFailed,
    ModelReplied,
    RunEnded,
    RunId,
    RunKey,
    SessionId,
    ToolFinished,
)
from hostler.core.ledger import DirectCall
from hostler.core.trail import Trail, origin, span_id
from hostler.telemetry.content import FINISHED, Value, as_json, asked_for, bounded, said, tokens
from hostler.telemetry.export import EVERY_S, ROOM, Export
from hostler.telemetry.masking import masked
from hostler.telemetry.names import PROVIDERS, chosen
from hostler.telemetry.spans import ToExporter, context, is_sampled, ns, remote
from hostler.telemetry.timeline import Answered, Attempt, Call, Lived

CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
Make: TypeAlias = Callable[[], ReadableSpan]


def wants_content(environ: Mapping[str, str]) -> bool:
    """Whether the operator wants in spans what users, models and tools say."""
    return environ.get(CAPTURE, "").strip().lower() in {"true", "1", "span_only", "span_and_event"}


class Traces:
    """A `Reader` that makes spans."""

    def __init__(
        self,
        exporter: SpanExporter | None = None,
        *,
        version: str,
        environ: Mapping[str, str] = os.environ,
        every_s: float = EVERY_S,
        room: int = ROOM,
    ) -> None:
        """Without an `exporter`, spans go to what `OTEL_EXPORTER_OTLP_*` names."""
        self._names = chosen(environ.get("OTEL_SEMCONV_STABILITY_OPT_IN", ""))
        self.content = wants_content(environ)
        self._resource = Resource.create(
            {
                "service.name": environ.get("OTEL_SERVICE_NAME") or "hostler",
                "service.version": version,
            }
        )
        self._scope = InstrumentationScope("hostler", version)
        out = ToExporter(exporter or OTLPSpanExporter())
        self.export: Export[Make, ReadableSpan] = Export(_made, out, every_s=every_s, room=room)

    def counts(self) -> tuple[int, int]:
        """Return how many spans were exported, and dropped."""
        return self.export.exported, self.export.lost

    def close(self) -> None:
        """Send what is left; blocks for some seconds at most."""
        self.export.close()

    def started(self, run: Lived) -> None:
        """Nothing: a span is made when it ends."""

    def waits(self, run: Lived, asked: ApprovalAsked) -> None:
        """Nothing: the span of the call begins with its effect."""

    def direct(self, call: DirectCall, trail: Trail) -> None:
        if is_sampled(trail.traceparent):
            self.export.put(partial(self._direct, call, trail.traceparent))

    def attempted(self, run: Lived, attempt: Attempt, end: Answered, at: float) -> None:
        if is_sampled(run.trail.traceparent):
            step = run.trail.step
            self.export.put(
                partial(self._chat, run.key, run.trail.traceparent, attempt, end, (at, step))
            )

    def called(self, run: Lived, call: Call, end: ToolFinished, at: float) -> None:
        if is_sampled(run.trail.traceparent):
            self.export.put(partial(self._tool, run.key, run.trail.traceparent, call, end, at))

    def ended(self, run: Lived, end: RunEnded, at: float) -> None:
        if is_sampled(run.trail.traceparent):
            self.export.put(partial(self._run, run, end, at))

    def _chat(
        self,
        key: RunKey,
        parent: str | None,
        attempt: Attempt,
        end: Answered,
        when: tuple[float, int],
    ) -> ReadableSpan:
        asked, (at, step) = attempt.asked, when
        told: dict[str, Value] = {
            "operation": "chat",
            "provider": PROVIDERS.get(asked.provider, asked.provider),
            "request_model": asked.model,
            "hostler.attempt": asked.attempt,
            "hostler.step": step,
        }
        status = Status()
        if isinstance(end, ModelReplied):
            told |= tokens(end.usage)
            told["finish_reasons"] = (FINISHED[end.stop],)
            if self.content:
                told["output_messages"] = as_json([said(end)])
        elif isinstance(end, ModelFailed):
            told["error"] = end.error.code
            status = Status(StatusCode.ERROR, masked(end.error.message))
        elif end.reason != "interrupted":
            told["error"] = end.reason
            status = Status(StatusCode.ERROR, end.reason)
        first = attempt.first_at
        return self._span(
            f"chat {asked.model}",
            key,
            parent,
            part=asked.attempt,
            times=(attempt.at, at),
            kind=SpanKind.CLIENT,
            told=told,
            status=status,
            events=[] if first is None else [Event("first_token", timestamp=ns(first))],
        )

    def _direct(self, call: DirectCall, parent: str | None) -> ReadableSpan:
        told: dict[str, Value] = {
            "operation": "chat",
            "provider": PROVIDERS.get(call.provider, call.provider),
            "request_model": call.model,
            "hostler.direct": call.id,
        }
        status = Status()
        if call.status == "failed":
            told["error"] = call.error_type or "failed"
            status = Status(StatusCode.ERROR, masked(call.error_message or ""))
        elif call.usage is not None:
            told |= tokens(call.usage)
        first_s = call.first_token_s
        return self._span(
            f"chat {call.model}",
            RunKey(call.tenant, SessionId(""), RunId(call.id)),
            parent,
            part=None,
            times=(call.asked_at, call.ended_at or call.asked_at),
            kind=SpanKind.CLIENT,
            told=told,
            status=status,
            events=()
            if first_s is None
            else [Event("first_token", timestamp=ns(call.asked_at + first_s))],
        )

    def _tool(
        self, key: RunKey, parent: str | None, call: Call, end: ToolFinished, at: float
    ) -> ReadableSpan:
        started = call.started
        told: dict[str, Value] = {
            "operation": "execute_tool",
            "tool": started.name,
            "call": started.call,
            "tool_type": "function",
            "hostler.outcome": end.outcome,
        }
        status = Status()
        if end.outcome != "ok":
            told["error"] = end.outcome
            status = Status(StatusCode.ERROR)
        if self.content:
            told |= {"arguments": as_json(started.arguments), "result": bounded(end.output)}
        return self._span(
            f"execute_tool {started.name}",
            key,
            parent,
            part=started.call,
            times=(call.at, at),
            kind=SpanKind.INTERNAL,
            told=told,
            status=status,
        )

    def _run(self, run: Lived, end: RunEnded, at: float) -> ReadableSpan:
        key, parent = run.key, run.trail.traceparent
        told: dict[str, Value] = {"operation": "invoke_agent", "hostler.status": end.status}
        if run.agent is not None:
            told["agent"] = run.agent
        if run.asked is not None:
            told["provider"] = PROVIDERS.get(run.asked.provider, run.asked.provider)
            told["request_model"] = run.asked.model
        told |= tokens(end.usage)
        status = Status()
        if end.status == "failed":
            told["error"] = end.reason or "failed"
            status = Status(StatusCode.ERROR, end.reason)
        if self.content:
            told["input_messages"] = as_json([asked_for(one) for one in run.inputs])
        links = [Link(remote(one, run.trail.tracestate)) for one in run.joined]
        trace, _, _ = origin(key, parent)
        links += [
            Link(context(trace, span_id(key, one)), {"hostler.link": "worker_lost"})
            for one in run.lost
        ]
        events = [
            Event("hostler.claimed", {"worker": one.worker, "claim": one.claim}, ns(when))
            for when, one in run.claims[1:]
        ]
        began = run.started_at or run.accepted_at or at
        return self._span(
            f"invoke_agent {run.agent}" if run.agent else "invoke_agent",
            key,
            parent,
            part=None,
            times=(began, at),
            kind=SpanKind.INTERNAL,
            told=told,
            status=status,
            events=events,
            links=links,
            state=run.trail.tracestate,
        )

    def _span(
        self,
        name: str,
        key: RunKey,
        parent: str | None,
        *,
        part: str | None,
        times: tuple[float, float],
        kind: SpanKind,
        told: Mapping[str, Value],
        status: Status,
        events: Sequence[Event] = (),
        links: Sequence[Link] = (),
        state: str | None = None,
    ) -> ReadableSpan:
        """Return a span of the run itself, or of a `part` of it."""
        trace, asker, _ = origin(key, parent)
        run = span_id(key)
        above = asker if part is None else run
        own = run if part is None else span_id(key, part)
        everywhere: dict[str, Value] = {"hostler.tenant": key.tenant}
        if key.session:
            everywhere |= {"conversation": key.session, "hostler.run": key.run}
        return ReadableSpan(
            name=masked(name),
            context=context(trace, own, state=state),
            parent=None if above is None else context(trace, above, is_remote=part is None),
            resource=self._resource,
            attributes={
                self._names.get(one, one): masked(value) if isinstance(value, str) else value
                for one, value in {**told, **everywhere}.items()
            },
            events=events,
            links=links,
            kind=kind,
            status=status,
            start_time=ns(times[0]),
            end_time=ns(max(times)),
            instrumentation_scope=self._scope,
        )


def _made(make: Make) -> ReadableSpan:
    return make()
