"""Traces of records: remembered where there are some, and nothing is read or copied where there are none."""

from __future__ import annotations

from typing import Final

import pytest

from circuit_breaker_server.engine.command_origin import Origin, origin_of, with_origin
from circuit_breaker_server.gateway import record_traces
from circuit_breaker_server.gateway.record_traces import RecordTraces
from circuit_breaker_server.log.event_log import Record

TRACE: Final = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PAYLOAD: Final = b'{"data":{},"extensions":{"resume":{"cursor":"c","prev":"b"}}}'


def record_of(offset: int, *, trace: str | None = None, text: bytes = b"") -> Record:
    body = with_origin(b'{"text":"%b"}' % text, Origin(traceparent=trace), node="", term=0)
    return Record(offset=offset, subject="a", id=f"{offset:032x}", time_ms=0, data=body)


def test_a_trace_is_told_behind_the_resume_extension_of_its_record_only() -> None:
    traces = RecordTraces()
    assert traces.note([record_of(1), record_of(2, trace=TRACE), record_of(3)]) == [TRACE]
    told = PAYLOAD[:-2] + b',"traceparent":"%b"}}' % TRACE.encode()
    assert list(traces.added([PAYLOAD, PAYLOAD], [1, 2])) == [PAYLOAD, told]


def test_payloads_without_a_trace_are_shared_as_they_are() -> None:
    traces = RecordTraces()
    traces.note([record_of(2, trace=TRACE)])
    payloads = [PAYLOAD, PAYLOAD]
    assert traces.added(payloads, [1, 3]) is payloads


def test_a_record_without_a_trace_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def noting(record: Record) -> Origin:
        read.append(record.offset)
        return origin_of(record)

    monkeypatch.setattr(record_traces, "origin_of", noting)
    records = [record_of(1), record_of(2, trace=TRACE), record_of(3, text=rb"\"traceparent\""), record_of(4)]
    assert RecordTraces().note(records) == [TRACE]
    assert read == [2]


@pytest.mark.parametrize("characters", [0, 1, 1_000])
def test_a_trace_is_found_whatever_stands_before_it_in_the_origin(characters: int) -> None:
    origin = Origin(principal="p" * characters, action="a" * characters, traceparent=TRACE)
    data = with_origin(b'{"text":""}', origin, node="n" * 64, term=2**62)
    record = Record(offset=1, subject="a", id="0" * 32, time_ms=0, data=data)
    assert RecordTraces().note([record]) == [TRACE]


def test_a_body_that_has_a_member_of_the_name_has_no_trace_for_it() -> None:
    record = Record(
        offset=1, subject="a", id="0" * 32, time_ms=0, data=b'{"traceparent":"%b"}' % TRACE.encode()
    )
    assert RecordTraces().note([record]) == []
