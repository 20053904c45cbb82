"""The rules of guards: what else must hold when a record is appended to any event log."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from circuit_breaker_server.log.event_log import (
    MAX_GUARDS,
    EventLog,
    ExpectationFailed,
    Guards,
    NewRecord,
    Record,
)
from tests.conformance.event_log_suite import Place, fill, opened, scanned


def guarded(
    name: str,
    *,
    decided_at: int,
    unmarked: tuple[str, ...] = (),
    marks: tuple[str, ...] = (),
    expected: int = 0,
) -> NewRecord:
    guards = Guards(decided_at=decided_at, unmarked=unmarked, marks=marks)
    return NewRecord(subject=name, id=uuid.uuid4().hex, data=b"{}", expected=expected, guards=guards)


def naming(name: str, *, decided_at: int) -> NewRecord:
    """Create what names the thing: it must not have ended."""
    return guarded(name, decided_at=decided_at, unmarked=("end.thing",), marks=("named.thing",))


def ending(*, decided_at: int) -> NewRecord:
    """End the thing: nothing may have come to name it."""
    return guarded("ended", decided_at=decided_at, unmarked=("named.thing",), marks=("end.thing",))


def claiming(name: str, *, decided_at: int) -> NewRecord:
    return guarded(name, decided_at=decided_at, unmarked=("claim.k",), marks=("claim.k",))


async def outcomes(log: EventLog, *records: NewRecord) -> list[Record | BaseException]:
    return await asyncio.gather(*(log.append(record) for record in records), return_exceptions=True)


class GuardsSuite:
    """Subclass it beside :class:`EventLogSuite`, with the same fixtures."""

    async def test_an_end_decided_before_a_name_came_is_refused(self, place: Place) -> None:
        async with opened(place) as log:
            (known,) = await fill(log, "thing")
            named = await log.append(naming("a", decided_at=known.offset))
            with pytest.raises(ExpectationFailed) as refused:
                await log.append(ending(decided_at=known.offset))
            assert (refused.value.subject, refused.value.expected) == ("named.thing", known.offset)
            assert refused.value.actual == named.offset
            assert [record.subject for record in await scanned(log)] == ["thing", "a"]

    async def test_a_name_decided_before_the_end_came_is_refused(self, place: Place) -> None:
        async with opened(place) as log:
            (known,) = await fill(log, "thing")
            await log.append(ending(decided_at=known.offset))
            with pytest.raises(ExpectationFailed):
                await log.append(naming("a", decided_at=known.offset))
            assert [record.subject for record in await scanned(log)] == ["thing", "ended"]

    async def test_what_was_decided_after_the_mark_is_appended(self, place: Place) -> None:
        async with opened(place) as log:
            first = await log.append(naming("a", decided_at=0))
            await log.append(ending(decided_at=first.offset))
            await log.append(claiming("b", decided_at=log.last_offset))
            assert [record.subject for record in await scanned(log)] == ["a", "ended", "b"]

    async def test_marks_alone_do_not_exclude_each_other(self, place: Place) -> None:
        async with opened(place) as log:
            names = [f"a{i}" for i in range(40)]
            done = await outcomes(log, *(naming(name, decided_at=0) for name in names))
            assert all(isinstance(outcome, Record) for outcome in done)
            assert sorted(record.subject for record in await scanned(log)) == sorted(names)

    async def test_of_those_who_claim_the_same_at_once_exactly_one_wins(self, place: Place) -> None:
        async with opened(place) as log:
            done = await outcomes(log, *(claiming(f"a{i}", decided_at=0) for i in range(20)))
            won = [outcome for outcome in done if isinstance(outcome, Record)]
            assert len(won) == 1
            assert sum(isinstance(outcome, ExpectationFailed) for outcome in done) == 19
            assert await scanned(log) == won

    async def test_a_name_and_the_end_at_once_never_both_come(self, place: Place) -> None:
        async with opened(place) as log:
            for _ in range(10):
                at, fresh = log.last_offset, uuid.uuid4().hex
                named = guarded(f"n.{fresh}", decided_at=at, unmarked=(f"e.{fresh}",), marks=(f"r.{fresh}",))
                ended = guarded(f"x.{fresh}", decided_at=at, unmarked=(f"r.{fresh}",), marks=(f"e.{fresh}",))
                done = await outcomes(log, named, ended)
                assert sum(isinstance(outcome, Record) for outcome in done) == 1

    async def test_a_refused_record_marks_nothing(self, place: Place) -> None:
        async with opened(place) as log:
            (known,) = await fill(log, "thing")
            with pytest.raises(ExpectationFailed):
                await log.append(guarded("thing", decided_at=known.offset, marks=("claim.k",), expected=0))
            await log.append(claiming("a", decided_at=known.offset))

    async def test_the_expectation_counts_beside_the_guards(self, place: Place) -> None:
        async with opened(place) as log:
            (known,) = await fill(log, "thing")
            with pytest.raises(ExpectationFailed) as refused:
                await log.append(guarded("thing", decided_at=known.offset, unmarked=("a",), expected=0))
            assert (refused.value.subject, refused.value.actual) == ("thing", known.offset)

    async def test_a_guard_that_fails_fails_alone_in_its_group(self, place: Place) -> None:
        async with opened(place) as log:
            first = await log.append(claiming("a", decided_at=0))
            done = await outcomes(
                log,
                guarded("b", decided_at=0),
                claiming("c", decided_at=0),
                guarded("d", decided_at=0, marks=("m",)),
                claiming("e", decided_at=first.offset),
            )
            assert [type(outcome) for outcome in done] == [Record, ExpectationFailed, Record, Record]

    async def test_a_guarded_id_again_returns_the_record_there_is(self, place: Place) -> None:
        async with opened(place) as log:
            wanted = claiming("a", decided_at=0)
            record = await log.append(wanted)
            assert await log.append(wanted) == record
            assert await scanned(log) == [record]

    async def test_a_mark_holds_after_reopening(self, place: Place) -> None:
        async with opened(place) as log:
            (known,) = await fill(log, "thing")
            await log.append(claiming("a", decided_at=known.offset))
        async with opened(place) as log:
            with pytest.raises(ExpectationFailed):
                await log.append(claiming("b", decided_at=known.offset))
            await log.append(claiming("b", decided_at=log.last_offset))

    async def test_marks_are_no_records(self, place: Place) -> None:
        async with opened(place) as log:
            seen: list[Record] = []
            log.tail(seen.extend)
            many = tuple(f"m{i}" for i in range(MAX_GUARDS))
            await log.append(guarded("a", decided_at=0, unmarked=many, marks=many))
            last = await log.append(guarded("b", decided_at=0, unmarked=("x", "y"), marks=("z",)))
            assert [record.subject for record in seen] == ["a", "b"]
            assert await scanned(log) == await log.read(after=0) == seen
            assert (await log.read_page(after=0, limit=9, max_bytes=10**6)).records == seen
            assert log.last_offset == last.offset
            await log.save_snapshot(last.offset, [])
            await log.trim(last.offset)
            assert await log.last_removed() == seen[0]
            assert await scanned(log) == [last]
            await log.append(guarded("c", decided_at=last.offset, unmarked=("m1", "x"), marks=("z",)))

    async def test_guards_that_no_log_can_hold_are_refused(self, place: Place) -> None:
        async with opened(place) as log:
            for names in (("",), ("a b",), (">",), tuple(f"m{i}" for i in range(MAX_GUARDS + 1))):
                with pytest.raises(ValueError, match=r"not a subject|500 guards"):
                    await log.append(guarded("a", decided_at=0, unmarked=names))
                with pytest.raises(ValueError, match=r"not a subject|500 guards"):
                    await log.append(guarded("a", decided_at=0, marks=names))
            with pytest.raises(ValueError, match="expected offset"):
                await log.append(
                    NewRecord(subject="a", id=uuid.uuid4().hex, data=b"", guards=Guards(decided_at=0))
                )
            assert await scanned(log) == []
