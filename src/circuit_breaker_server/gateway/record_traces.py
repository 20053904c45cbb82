"""Traces of the mutations whose records are told to peers that asked for them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Final, final

from circuit_breaker_server.engine.command_origin import origin_of
from circuit_breaker_server.log.event_log import LogCorruptError, Record
from circuit_breaker_server.tracing import Tracer, sampled

__all__ = ["RecordTraces"]

_REMEMBERED: Final = 10_000
_MEMBER: Final = b'"traceparent"'
_END_BYTES: Final = 96
"""``with_origin`` writes the origin last, and its trace at the end: in so many bytes of the body."""


@final
class RecordTraces:
    """Remembers the traces of the records that were read last.

    :param tracer: makes spans for what becomes of them; ``None``: nothing does.

    Example::

        traces = RecordTraces()
        traces.note(records)
        payloads = traces.added(payloads, offsets)
    """

    def __init__(self, tracer: Tracer | None = None) -> None:
        self._tracer = tracer
        # A plain dict would look over the places of all that it has forgotten, to find its oldest.
        self._traces: OrderedDict[int, str] = OrderedDict()

    def note(self, records: Iterable[Record]) -> list[str]:
        """Remember the traces of records, and return them."""
        found = []
        for record in records:
            if _MEMBER not in record.data[-_END_BYTES:]:
                continue  # most have none: to read each would cost a part of telling it
            try:
                traceparent = sampled(origin_of(record).traceparent)
            except LogCorruptError:
                continue  # told by who reads its events
            if traceparent is not None:
                self._traces[record.offset] = traceparent
                found.append(traceparent)
        while len(self._traces) > _REMEMBERED:
            self._traces.popitem(last=False)
        return found

    def added(self, payloads: Sequence[bytes], offsets: Sequence[int]) -> Sequence[bytes]:
        """Return payloads with the resume extension, each with its record's trace beside that."""
        traces = self._traces
        if traces.keys().isdisjoint(offsets):
            return payloads
        return [
            # Behind `"resume":{…}` in `"extensions":{…}` of the payload.
            payload if (trace := traces.get(offset)) is None else _with_trace(payload, trace)
            for payload, offset in zip(payloads, offsets, strict=False)
        ]

    def around(self, on_records: Callable[[Sequence[Record]], None]) -> Callable[[Sequence[Record]], None]:
        """Return what offers new records to the channels, and notes their traces before."""

        def offer(records: Sequence[Record]) -> None:
            found = self.note(records)
            if self._tracer is None or not found:
                on_records(records)
                return
            with self._tracer.project(found):
                on_records(records)
            spans = ExitStack()
            spans.enter_context(self._tracer.deliver(found))
            # Behind the flush, which was scheduled by now.
            asyncio.get_running_loop().call_soon(spans.close)

        return offer


def _with_trace(payload: bytes, traceparent: str) -> bytes:
    return b'%b,"traceparent":"%b"}}' % (payload[:-2], traceparent.encode())
