"""Spans of one process, in memory, and mutations that cause events."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from circuit_breaker_sdk import Client

__all__ = ["Traces", "create", "trace_id"]


class Traces:
    """Spans of one process, in memory."""

    def __init__(self, **arguments: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(**arguments)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]


def trace_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.trace_id)


async def create(client: Client, workflow: str, *numbers: int) -> None:
    for n in numbers:
        await client.workflows.create_resource(workflow_id=workflow, data={"n": n})
