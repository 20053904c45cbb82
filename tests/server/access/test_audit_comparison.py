"""Audit logs are compared with the event log: what is missing, twice or of nothing is told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from circuit_breaker_server.access.audit_comparison import AuditComparison
from circuit_breaker_server.log.event_log import Record
from circuit_breaker_server.security.audit import AuditRecord

NOW = 1_000_000
OLD = NOW - 60_000


def record(offset: int, *, node: str = "", action: str = "createResource", time_ms: int = OLD) -> Record:
    origin = {"action": action, "node": node} if action else {}
    data = json.dumps({"type": "x", "origin": origin}, separators=(",", ":")).encode()
    return Record(offset=offset, subject="r", id=f"{offset:032x}", time_ms=time_ms, data=data)


def line(offset: int, action: str = "mutate", epoch: str = "e") -> AuditRecord:
    return AuditRecord(seq=offset, at="", action=action, record=f"{epoch}.{offset}", previous="", mac="")


async def compared(lines: dict[str, list[AuditRecord]], *records: Record, first: int = 1) -> list[str]:
    async def scan() -> AsyncIterator[Record]:
        for each in records:
            yield each

    comparison = AuditComparison("e")
    for name, those in lines.items():
        for each in those:
            comparison.add(name, each)
    await comparison.run(scan(), first_offset=first, now_ms=NOW)
    return list(comparison.findings())


START = line(0, "start")


@pytest.mark.parametrize(
    ("lines", "records", "said"),
    [
        ({"a": [START, line(1), line(2)]}, [record(1), record(2)], []),
        ({"a": [START, line(1)]}, [record(1), record(2, action="")], []),
        ({"a": [START, line(1)]}, [record(1), record(2)], ["1 record (2) without a line"]),
        ({"a": [START, line(1)]}, [record(1), record(2, time_ms=NOW - 5_000)], []),
        ({"a": [line(3, "start"), line(4)]}, [record(2), record(4)], []),
        ({"a": [START, line(1), line(1)]}, [record(1)], ["1 record (1) with more than one line"]),
        (
            {"a": [START, line(1)], "b": [START, line(1)]},
            [record(1, node="a")],
            ["1 record (1) with more than one line"],
        ),
        (
            {"a": [START, line(1)], "b": [START, line(2)]},
            [record(1, node="a"), record(2, node="b"), record(3, node="c")],
            ["1 record (3) of node c without a line, and no audit log that was given is its own"],
        ),
        (
            {"a": [START, line(1), line(2)]},
            [record(1, node="a"), record(2, node="b")],
            ["a has lines for records of several nodes"],
        ),
        (
            {"a": [START, line(1), line(2)]},
            [record(1), record(3, action="")],
            ["1 record (2) with lines, which are not in the event log or are no caller's"],
        ),
        ({"a": [START, *map(line, range(1, 5)), line(1, epoch="other")]}, [*map(record, range(3, 5))], []),
        (
            {"a": [START, line(1)]},
            [*map(record, range(1, 7))],
            ["5 records (2, 3, 4, … 6) without a line"],
        ),
    ],
)
async def test_what_is_wrong_is_told(
    lines: dict[str, list[AuditRecord]], records: list[Record], said: list[str]
) -> None:
    assert await compared(lines, *records, first=records[0].offset) == said
