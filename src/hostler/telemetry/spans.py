"""Parts of spans, whose they are and when; and where they go.

Invariant: nothing here is of this process alone: ids are made from what is told.
"""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, TraceFlags
from opentelemetry.trace.span import TraceState


class ToExporter:
    """An `export.Out` of one of OpenTelemetry's exporters."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def send(self, spans: Sequence[ReadableSpan]) -> bool:
        return self._exporter.export(spans) is SpanExportResult.SUCCESS

    def close(self) -> None:
        self._exporter.shutdown()


def is_sampled(parent: str | None) -> bool:
    """Whether who asked wants a span, or nobody said."""
    return parent is None or parent.endswith("1")


def context(
    trace: str, span: str, *, is_remote: bool = False, state: str | None = None
) -> SpanContext:
    return SpanContext(
        int(trace, 16),
        int(span, 16),
        is_remote=is_remote,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
        trace_state=TraceState.from_header([state]) if state else TraceState(),
    )


def remote(parent: str, state: str | None) -> SpanContext:
    _, trace, span, _ = parent.split("-")
    return context(trace, span, is_remote=True, state=state)


def ns(at: float) -> int:
    return round(at * 1_000_000_000)
