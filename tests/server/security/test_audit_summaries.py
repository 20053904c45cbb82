"""Beyond a rate the refusals of one caller are counted, and leave room for the lines of others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from circuit_breaker_server.security.audit import (
    AuditEvent,
    AuditLimits,
    AuditLine,
    AuditLog,
    AuditPaths,
    AuditRecord,
    read,
    read_key,
    verify,
)
from circuit_breaker_server.security.audit.summaries import Summaries

LIMITS = AuditLimits(refusals=5, others=8, strangers=12, window_seconds=10, sources=4)


class Monotonic:
    """A clock that a test sets."""

    time = 100.0

    def __call__(self) -> float:
        return self.time


def refusal(
    number: int = 0, principal: str = "eve", *, address: str = "192.0.2.1", reason: str = "hidden"
) -> AuditEvent:
    return AuditEvent(
        action="query",
        principal=principal,
        tenant="acme",
        address=address,
        what=f"workflow {number}",
        decision="refused",
        reason=reason,
    )


def read_by(number: int, principal: str = "eve") -> AuditEvent:
    return AuditEvent(
        action="subscribe", principal=principal, address="", what=f"stream {number}", decision="allowed"
    )


@pytest.fixture
def paths(tmp_path: Path) -> AuditPaths:
    return AuditPaths.of(tmp_path / "data")


async def opened(paths: AuditPaths, clock: Monotonic, flush_seconds: float = 3600) -> AuditLog:
    return await AuditLog.open(paths, {}, flush_seconds=flush_seconds, limits=LIMITS, monotonic=clock)


def records(paths: AuditPaths) -> list[AuditRecord]:
    key = read_key(paths.key, {})
    assert verify(paths.log, key, paths.anchor).whole
    return [each.record for each in read(paths.log, key, paths.anchor) if isinstance(each, AuditLine)][1:-1]


async def test_refusals_beyond_the_limit_become_one_line_when_the_window_ends(paths: AuditPaths) -> None:
    clock = Monotonic()
    log = await opened(paths, clock)
    for number in range(20):
        log.append(refusal(number, reason="hidden" if number % 2 else "FORBIDDEN"))
    clock.time += 10
    log.append(refusal(99))
    await log.aclose()
    *listed, summary, after = records(paths)
    assert [each.what for each in listed] == [f"workflow {number}" for number in range(5)]
    assert (summary.action, summary.principal, summary.tenant) == ("counted", "eve", "acme")
    assert (summary.address, summary.decision, summary.count) == ("192.0.2.1", "refused", 15)
    assert summary.what == "query refused hidden: 8, query refused FORBIDDEN: 7"
    assert after.what == "workflow 99"


async def test_a_window_that_nobody_ends_is_ended_by_the_log_and_by_its_close(paths: AuditPaths) -> None:
    clock = Monotonic()
    log = await opened(paths, clock, flush_seconds=0.001)
    for number in range(6):
        log.append(refusal(number))
    clock.time += 10
    while not any(b'"counted"' in line for line in paths.log.read_bytes().splitlines()):
        os.sched_yield()
    for number in range(7):
        log.append(refusal(number))
    await log.aclose()
    assert [each.count for each in records(paths) if each.action == "counted"] == [1, 2]


async def test_refusals_of_one_caller_take_no_line_from_another_and_hide_no_read(paths: AuditPaths) -> None:
    log = await opened(paths, Monotonic())
    for number in range(50):
        log.append(refusal(number))
    log.append(refusal(0, "bob"))
    log.append(read_by(0))
    await log.aclose()
    assert [(each.action, each.principal) for each in records(paths)[5:]] == [
        ("query", "bob"),
        ("subscribe", "eve"),
        ("counted", "eve"),
    ]


async def test_reads_beyond_their_limit_are_counted_and_lines_about_records_never(paths: AuditPaths) -> None:
    log = await opened(paths, Monotonic())
    for number in range(20):
        log.append(read_by(number))
        log.append(
            AuditEvent(
                action="mutate",
                principal="eve",
                address="",
                what="",
                decision="allowed",
                record=f"e.{number}",
            )
        )
    await log.aclose()
    found = records(paths)
    assert sum(each.action == "subscribe" for each in found) == 8
    assert sum(each.action == "mutate" for each in found) == 20
    assert found[-1].what == "subscribe allowed: 12"


async def test_callers_without_a_principal_are_limited_by_address_and_together(paths: AuditPaths) -> None:
    log = await opened(paths, Monotonic())
    for address in range(4):
        for number in range(10):
            log.append(refusal(number, "", address=f"192.0.2.{address}", reason="no token"))
    await log.aclose()
    found = records(paths)
    assert [each.address for each in found if each.action == "query"] == [
        *["192.0.2.0"] * 5,
        *["192.0.2.1"] * 5,
        *["192.0.2.2"] * 2,
    ]
    assert [(each.address, each.count) for each in found if each.action == "counted"] == [
        ("192.0.2.0", 5),
        ("192.0.2.1", 5),
        ("192.0.2.2", 8),
        ("192.0.2.3", 10),
    ]


def test_the_table_is_bounded_however_many_callers_there_are() -> None:
    summaries = Summaries(LIMITS, monotonic=Monotonic())
    for number in range(1000):
        summaries.lists(refusal(0, f"user-{number}"))
        summaries.lists(read_by(0, f"user-{number}"))
        summaries.lists(refusal(0, "", address=f"2001:db8::{number:x}"))
    assert summaries.sources <= 2 * (LIMITS.sources + 2)
    taken = [*summaries.take()]
    assert len(taken) <= 6
    assert summaries.sources == 0
    assert b'"principal":""' in taken[0].members
    assert summaries.lists(refusal(0, "user-999"))


def test_reasons_are_counted_apart_up_to_a_bound() -> None:
    summaries = Summaries(LIMITS, monotonic=Monotonic())
    for number in range(100):
        summaries.lists(refusal(number, reason=f"{number} {'x' * 1000}"))
    (summary,) = summaries.take()
    assert summary.events == 95
    assert summary.members.count(b"query refused") <= 16


def test_what_the_server_itself_does_is_listed_always() -> None:
    summaries = Summaries(LIMITS, monotonic=Monotonic())
    change = AuditEvent(action="policy", principal="", address="", what="policy", decision="allowed")
    assert all(summaries.lists(change) for _ in range(100))


async def test_summaries_on_a_full_disk_stay_within_the_memory_of_other_lines(
    paths: AuditPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Monotonic()
    log = await AuditLog.open(
        paths, {}, flush_seconds=3600, limits=LIMITS, monotonic=clock, max_pending_bytes=3000
    )

    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "pwrite", fail)
        for _ in range(50):
            for number in range(7):
                log.append(refusal(number))
            clock.time += 10
            assert not log.flush()
            assert log.pending_bytes < 4000
    lost = log.lost
    await log.aclose()
    found = records(paths)
    listed = sum(each.action == "query" for each in found)
    counted = sum(each.count or 0 for each in found if each.action == "counted")
    assert lost == sum(each.count or 0 for each in found if each.action == "lost")
    assert listed + counted + lost == 350
