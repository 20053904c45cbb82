"""The rules of any event log; an implementation subclasses :class:`EventLogSuite` to be held to them."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import pytest

from circuit_breaker_server.log.event_log import (
    MAX_DATA_BYTES,
    EventLog,
    ExpectationFailed,
    LogClosedError,
    NewRecord,
    Record,
    SnapshotEntry,
    subject,
)


class Place(Protocol):
    """Where one log lives: it can be opened again after it was closed."""

    async def open(self) -> EventLog:
        """Open the log, making it at the first call."""
        ...

    async def make_hole(self, offset: int) -> None:
        """Make the record at ``offset`` vanish; the log is closed meanwhile."""
        ...


@contextlib.asynccontextmanager
async def opened(place: Place) -> AsyncIterator[EventLog]:
    log = await place.open()
    try:
        yield log
    finally:
        await log.aclose()


def new(name: str = "resource.w.r", data: bytes = b"{}", *, expected: int | None = None) -> NewRecord:
    return NewRecord(subject=name, id=uuid.uuid4().hex, data=data, expected=expected)


async def fill(log: EventLog, *names: str) -> list[Record]:
    """Append one record to each subject, in this order."""
    return [await log.append(new(name, f"{i}".encode())) for i, name in enumerate(names)]


async def fill_and_trim(log: EventLog, count: int, *, before: int) -> list[Record]:
    records = await fill(log, *["resource.w.r"] * count)
    await log.save_snapshot(records[-1].offset, [])
    await log.trim(before)
    return records


async def scanned(log: EventLog, *, after: int = 0, upto: int | None = None) -> list[Record]:
    return [record async for record in log.scan(after=after, upto=upto)]


def offsets(records: Sequence[Record]) -> list[int]:
    return [record.offset for record in records]


class EventLogSuite:
    """Subclass it, name the class ``Test…`` and give it fixtures ``place`` and ``other_place``."""

    # --- a new log -------------------------------------------------------------------------------------

    async def test_a_new_log_is_empty(self, place: Place) -> None:
        async with opened(place) as log:
            assert (log.first_offset, log.last_offset) == (1, 0)
            assert await log.check(0) == "00000000"
            assert await log.last_removed() is None
            assert await log.size_bytes(after=0, upto=9) == 0
            assert await log.check(1) is None
            assert await log.read(after=0) == []
            assert await scanned(log) == []
            snapshot = await log.load_snapshot()
            assert (snapshot.offset, dict(snapshot.entries)) == (0, {})
            assert await log.trim(1) == 0

    async def test_the_epoch_is_16_hex_digits_and_outlives_the_process(self, place: Place) -> None:
        async with opened(place) as log:
            epoch = log.epoch
            assert len(epoch) == 16
            int(epoch, 16)
        async with opened(place) as log:
            assert log.epoch == epoch

    async def test_another_log_has_another_epoch(self, place: Place, other_place: Place) -> None:
        async with opened(place) as log, opened(other_place) as other:
            assert log.epoch != other.epoch

    # --- append ----------------------------------------------------------------------------------------

    async def test_an_append_returns_the_record_as_it_is_read_later(self, place: Place) -> None:
        async with opened(place) as log:
            wanted = new("resource.w.r", b'{"a":1}')
            before_ms = time.time_ns() // 1_000_000
            record = await log.append(wanted)
            after_ms = time.time_ns() // 1_000_000
            assert (record.subject, record.id, record.data) == (wanted.subject, wanted.id, wanted.data)
            assert record.offset == 1
            assert before_ms <= record.time_ms <= after_ms
            assert await log.read(after=0) == [record]
        async with opened(place) as log:
            assert await log.read(after=0) == [record]
            assert (log.first_offset, log.last_offset) == (1, 1)

    async def test_offsets_grow_in_the_order_of_the_appends(self, place: Place) -> None:
        async with opened(place) as log:
            records = await fill(log, *"abcabc")
            assert offsets(records) == sorted(set(offsets(records)))
            assert log.last_offset == records[-1].offset
            assert await log.read(after=0) == records

    @pytest.mark.parametrize("data", [b"", b"\x00\x00", b"\xff\xfe\x80", b"x" * MAX_DATA_BYTES], ids=len)
    async def test_the_body_is_opaque_bytes(self, place: Place, data: bytes) -> None:
        async with opened(place) as log:
            await log.append(new(data=b"before"))
            record = await log.append(new(data=data))
            await log.append(new(data=b"after"))
            assert record.data == data
            assert [r.data for r in await log.read(after=0)] == [b"before", data, b"after"]

    async def test_what_no_log_can_hold_is_refused_without_harm_to_others(self, place: Place) -> None:
        refused = [
            new(""),
            new("a..b"),
            new("a.*"),
            new(">"),
            new("a b"),
            new("a\x00"),
            new("a\ud800"),
            NewRecord(subject="a", id="0" * 31, data=b""),
            NewRecord(subject="a", id="A" * 32, data=b""),
            new(data=b"x" * (MAX_DATA_BYTES + 1)),
        ]
        async with opened(place) as log:
            appends = [log.append(record) for record in [new(), *refused, new()]]
            first, *errors, last = await asyncio.gather(*appends, return_exceptions=True)
            assert isinstance(first, Record)
            assert isinstance(last, Record)
            assert all(isinstance(error, ValueError) for error in errors), errors
            assert len(await log.read(after=0)) == 2

    async def test_64_appenders_at_once_get_an_offset_each(self, place: Place) -> None:
        async def append_some(log: EventLog, name: str) -> list[Record]:
            return [await log.append(new(name, f"{i}".encode())) for i in range(10)]

        async with opened(place) as log:
            answers = await asyncio.gather(*(append_some(log, f"resource.w.{i}") for i in range(64)))
            acknowledged = sorted((r for answer in answers for r in answer), key=lambda r: r.offset)
            assert len(set(offsets(acknowledged))) == 640
            assert await scanned(log) == acknowledged
            for answer in answers:
                assert offsets(answer) == sorted(offsets(answer))

    async def test_more_appends_than_may_be_in_flight_wait_for_their_turn(self, place: Place) -> None:
        async with opened(place) as log:
            records = await asyncio.gather(*(log.append(new()) for _ in range(3000)))
            assert len(set(offsets(records))) == 3000

    # --- the expected offset ---------------------------------------------------------------------------

    async def test_an_expectation_that_holds_lets_the_record_in(self, place: Place) -> None:
        async with opened(place) as log:
            first = await log.append(new("a", expected=0))
            await log.append(new("b"))
            second = await log.append(new("a", expected=first.offset))
            third = await log.append(new("a", expected=second.offset))
            assert (await log.read(after=0, subjects=("a",)))[-1] == third

    async def test_an_expectation_that_fails_appends_nothing_and_says_what_there_is(
        self, place: Place
    ) -> None:
        async with opened(place) as log:
            first = await log.append(new("a"))
            second = await log.append(new("a"))
            for expected in (0, first.offset, second.offset + 1):
                with pytest.raises(ExpectationFailed) as failed:
                    await log.append(new("a", expected=expected))
                error = failed.value
                assert (error.subject, error.expected, error.actual) == ("a", expected, second.offset)
            assert await log.read(after=0) == [first, second]
            assert log.last_offset == second.offset

    async def test_an_untouched_subject_is_at_no_offset_but_0(self, place: Place) -> None:
        async with opened(place) as log:
            record = await log.append(new("b"))
            for expected in (record.offset, record.offset + 1):
                with pytest.raises(ExpectationFailed) as failed:
                    await log.append(new("a", expected=expected))
                assert failed.value.actual == 0
            await log.append(new("a", expected=0))

    async def test_without_an_expectation_nothing_is_in_the_way(self, place: Place) -> None:
        async with opened(place) as log:
            assert len(offsets(await fill(log, "a", "a", "a"))) == 3

    async def test_a_failed_expectation_fails_alone_in_its_group(self, place: Place) -> None:
        async with opened(place) as log:
            taken = await log.append(new("taken"))
            group = [new(f"s{i}", expected=0) if i % 4 else new("taken", expected=0) for i in range(64)]
            outcomes = await asyncio.gather(*map(log.append, group), return_exceptions=True)
            for i, outcome in enumerate(outcomes):
                assert isinstance(outcome, Record if i % 4 else ExpectationFailed)
            assert await log.read(after=0, subjects=("taken",)) == [taken]
            assert len(await log.read(after=taken.offset)) == 48

    async def test_of_those_who_expect_the_same_exactly_one_wins(self, place: Place) -> None:
        async with opened(place) as log:
            last = (await log.append(new("a"))).offset
            for _ in range(5):
                outcomes = await asyncio.gather(
                    *(log.append(new("a", expected=last)) for _ in range(20)), return_exceptions=True
                )
                (won,) = [outcome for outcome in outcomes if isinstance(outcome, Record)]
                lost = [outcome for outcome in outcomes if isinstance(outcome, ExpectationFailed)]
                assert len(lost) == 19
                assert {error.actual for error in lost} == {won.offset}
                last = won.offset
            assert len(await log.read(after=0)) == 6

    async def test_an_expectation_is_judged_alike_after_reopening(self, place: Place) -> None:
        async with opened(place) as log:
            record = await log.append(new("a"))
        async with opened(place) as log:
            with pytest.raises(ExpectationFailed):
                await log.append(new("a", expected=0))
            await log.append(new("a", expected=record.offset))

    async def test_a_subject_that_was_trimmed_away_takes_any_offset_below_the_first(
        self, place: Place
    ) -> None:
        async with opened(place) as log:
            a, b, c = await fill(log, "a", "b", "c")
            await log.save_snapshot(c.offset, [])
            await log.trim(c.offset)
            with pytest.raises(ExpectationFailed) as failed:
                await log.append(new("a", expected=c.offset))
            assert failed.value.actual == 0
            again = await log.append(new("a", expected=a.offset))
            with pytest.raises(ExpectationFailed):
                await log.append(new("a", expected=a.offset))
            await log.append(new("b", expected=0))
            with pytest.raises(ExpectationFailed):
                await log.append(new("b", expected=b.offset))
            await log.append(new("a", expected=again.offset))
            await log.append(new("c", expected=c.offset))

    # --- ids -------------------------------------------------------------------------------------------

    async def test_an_id_again_returns_the_record_there_is_whatever_the_rest_says(self, place: Place) -> None:
        async with opened(place) as log:
            wanted = new("a", b"first", expected=0)
            record = await log.append(wanted)
            assert await log.append(wanted) == record
            changed = NewRecord(subject="b", id=wanted.id, data=b"second", expected=99)
            assert await log.append(changed) == record
            assert await log.read(after=0) == [record]
            next_record = await log.append(new("a", expected=record.offset))
        async with opened(place) as log:
            assert await log.append(wanted) == record
            assert await log.read(after=0) == [record, next_record]

    async def test_an_id_appended_by_many_at_once_is_appended_once(self, place: Place) -> None:
        async with opened(place) as log:
            seen: list[Record] = []
            log.tail(seen.extend)
            wanted = new("a", expected=0)
            records = await asyncio.gather(*(log.append(wanted) for _ in range(30)))
            assert set(offsets(records)) == {1}
            assert await log.read(after=0) == [records[0]] == seen

    # --- read and scan ---------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("patterns", "expected"),
        [
            ((">",), [1, 2, 3, 4, 5, 6, 7]),
            (("resource.w.a",), [2, 7]),
            (("resource.w.*",), [2, 4, 7]),
            (("resource.*.a",), [2, 5, 7]),
            (("resource.>",), [2, 3, 4, 5, 6, 7]),
            (("resource.*",), []),
            (("*.w",), [1]),
            (("*.*.a",), [2, 5, 7]),
            (("resource.*.>",), [2, 3, 4, 5, 6, 7]),
            (("workflow.w", "resource.w.*"), [1, 2, 4, 7]),
            (("resource.w.*", "resource.*.a", ">"), [1, 2, 3, 4, 5, 6, 7]),
            (("resource.w.*", "resource.*.a"), [2, 4, 5, 7]),
            (("resource.w.a", "resource.w2.a"), [2, 5, 7]),
            (("resource.*.b.>",), [6]),
            (("nobody", "resource.nobody.*"), []),
            ((), []),
        ],
    )
    async def test_reading_finds_the_subjects_that_match(
        self, place: Place, patterns: tuple[str, ...], expected: list[int]
    ) -> None:
        async with opened(place) as log:
            await fill(
                log,
                "workflow.w",
                "resource.w.a",
                "resource.w2.x.b.y",
                "resource.w.b",
                "resource.w2.a",
                "resource.w.b.c",
                "resource.w.a",
            )
            assert offsets(await log.read(after=0, subjects=patterns)) == expected

    async def test_odd_characters_in_a_token_mean_themselves(self, place: Place) -> None:
        names = [subject("r", token) for token in ("[ab]", "a", "?", "b", "a.b", "*", ">", "%2E", "ü", "'\"")]
        async with opened(place) as log:
            records = await fill(log, *names)
            for record in records:
                assert await log.read(after=0, subjects=(record.subject,)) == [record]
                assert record in await log.read(after=0, subjects=("r.*",))
            two = await fill(log, subject("[ab]", "x"), subject("a", "x"))
            assert await log.read(after=0, subjects=(f"{subject('[ab]')}.*",)) == two[:1]

    async def test_reading_goes_on_where_the_last_answer_ended(self, place: Place) -> None:
        async with opened(place) as log:
            records = await fill(log, *["a", "b", "b"] * 10)
            wanted = [record for record in records if record.subject == "b"]
            for patterns in (("b",), ("b", "nobody.*"), ("*",)):
                found: list[Record] = []
                while page := await log.read(
                    after=found[-1].offset if found else 0, subjects=patterns, limit=3
                ):
                    assert len(page) <= 3
                    found += page
                assert found == (records if patterns == ("*",) else wanted)
            assert await log.read(after=log.last_offset) == []
            assert await log.read(after=10**9) == []

    @pytest.mark.parametrize("patterns", [(">",), ("b",), ("b", "nobody.*")])
    async def test_an_answer_ends_with_the_record_at_which_the_bytes_reach_the_bound(
        self, place: Place, patterns: tuple[str, ...]
    ) -> None:
        async with opened(place) as log:
            sizes = [1, 2_000, 10, 10, 500, 90_000, 3, 700, 700, 20, 20, 20, 1_000]
            appended = [
                await log.append(new("ab"[i % 2], b"x" * size, expected=None)) for i, size in enumerate(sizes)
            ]
            wanted = [r for r in appended if patterns == (">",) or r.subject == "b"]
            for max_bytes in (1, 400, 1_000, 2_000, 91_000, 10**6):
                found: list[Record] = []
                reached = 0
                while reached < log.last_offset:
                    page = await log.read_page(after=reached, subjects=patterns, limit=9, max_bytes=max_bytes)
                    assert page.reached > reached
                    reached = page.reached
                    found += page.records
                    assert sum(len(record.data) for record in page.records[:-1]) < max_bytes
                    # What a log stores beside the bodies counts as well.
                    size = sum(len(record.data) + 200 for record in page.records)
                    whole = size >= max_bytes or len(page.records) == 9 or reached == log.last_offset
                    assert whole, "it ends only where it has to"
                assert found == wanted
            page = await log.read_page(after=0, subjects=patterns, limit=3, max_bytes=10**6)
            assert (list(page.records), page.reached) == (wanted[:3], wanted[2].offset)
            assert not (await log.read_page(after=log.last_offset, limit=3, max_bytes=10**6)).records
            page = await log.read_page(after=0, subjects=("nobody",), limit=3, max_bytes=10**6)
            assert (list(page.records), page.reached) == ([], log.last_offset)

    async def test_a_scan_yields_what_lies_between(self, place: Place) -> None:
        async with opened(place) as log:
            records = list(await asyncio.gather(*(log.append(new(f"s{i % 7}")) for i in range(1200))))
            records.sort(key=lambda record: record.offset)
            assert await scanned(log) == records
            assert await scanned(log, after=100) == records[100:]
            assert await scanned(log, after=100, upto=900) == records[100:900]
            assert await scanned(log, after=1190, upto=10**9) == records[1190:]
            assert await scanned(log, after=1200) == []

    async def test_a_scan_ends_where_the_log_ended_when_it_began(self, place: Place) -> None:
        async with opened(place) as log:
            records = await fill(log, *"abc")
            found = []
            async for record in log.scan(after=0):
                found.append(record)
                await log.append(new())
            assert found == records

    async def test_a_scan_that_is_left_early_holds_nothing_back(self, place: Place) -> None:
        async with opened(place) as log:
            await fill(log, *"abc")
            async for record in log.scan(after=0):
                assert record.offset == 1
                break
            await log.append(new())

    async def test_no_read_shows_a_record_that_the_tails_have_not_seen(self, place: Place) -> None:
        async with opened(place) as log:
            seen: list[Record] = []
            log.tail(seen.extend)
            appends = asyncio.gather(*(log.append(new()) for _ in range(200)))
            while not appends.done():
                await asyncio.sleep(0)  # A read that has nothing to wait for does not give way.
                found = await log.read(after=0)
                assert found == seen[: len(found)]
            await appends
            assert await log.read(after=0) == seen

    async def test_holes_are_legal(self, place: Place) -> None:
        async with opened(place) as log:
            records = await fill(log, *"aabab")
        await place.make_hole(records[2].offset)
        await place.make_hole(records[0].offset)
        kept = [records[1], records[3], records[4]]
        async with opened(place) as log:
            assert log.first_offset == kept[0].offset
            assert log.last_offset == kept[-1].offset
            assert await log.read(after=0) == kept
            assert await log.read(after=0, limit=2) == kept[:2]
            assert await scanned(log) == kept
            assert await log.check(records[2].offset) is None
            await log.append(new("a", expected=records[3].offset))
            with pytest.raises(ExpectationFailed):
                await log.append(new("b", expected=records[2].offset))
            await log.save_snapshot(kept[-1].offset, [])
            assert await log.trim(records[3].offset) == 1
            assert log.first_offset == records[3].offset
            assert await log.check(kept[0].offset) == kept[0].check

    # --- tails -----------------------------------------------------------------------------------------

    async def test_tails_see_each_new_record_once_in_order_before_its_append_returns(
        self, place: Place
    ) -> None:
        async with opened(place) as log:
            await fill(log, "old")
            seen: list[Record] = []
            log.tail(seen.extend)

            async def append_and_look(i: int) -> Record:
                record = await log.append(new(f"s{i}"))
                assert record in seen
                assert log.last_offset >= record.offset
                return record

            records = await asyncio.gather(*map(append_and_look, range(64)))
            assert offsets(seen) == list(range(2, 66))
            assert sorted(records, key=lambda record: record.offset) == seen

    async def test_tails_are_called_in_the_order_of_their_registration(self, place: Place) -> None:
        async with opened(place) as log:
            calls: list[str] = []
            ends = [log.tail(lambda _, name=name: calls.append(name)) for name in "abc"]  # type: ignore[misc]
            await log.append(new())
            assert calls == ["a", "b", "c"]
            ends[1]()
            ends[1]()
            await log.append(new())
            assert calls == ["a", "b", "c", "a", "c"]

    async def test_a_tail_sees_the_state_of_the_log_that_it_is_told_about(self, place: Place) -> None:
        async with opened(place) as log:
            ends: list[bool] = []
            log.tail(lambda records: ends.append(records[-1].offset == log.last_offset))
            await asyncio.gather(*(log.append(new()) for _ in range(20)))
            assert all(ends)

    async def test_a_tail_that_raises_is_reported_and_disturbs_nobody(self, place: Place) -> None:
        reported: list[object] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: reported.append(context["exception"])
        )
        error = RuntimeError("a bug in a tail")

        def broken(_: Sequence[Record]) -> None:
            raise error

        async with opened(place) as log:
            seen: list[Record] = []
            log.tail(broken)
            log.tail(seen.extend)
            record = await log.append(new())
            assert seen == [record]
            assert reported == [error]

    async def test_a_failed_expectation_reaches_no_tail(self, place: Place) -> None:
        async with opened(place) as log:
            await fill(log, "a")
            groups: list[Sequence[Record]] = []
            log.tail(groups.append)
            with pytest.raises(ExpectationFailed):
                await log.append(new("a", expected=0))
            assert groups == []

    # --- checks, trimming ------------------------------------------------------------------------------

    async def test_a_record_is_recognised_by_its_check(self, place: Place) -> None:
        async with opened(place) as log:
            for record in await fill(log, *"abc"):
                assert record.check == record.id[-8:]
                assert await log.check(record.offset) == record.check
            assert await log.check(4) is None

    async def test_whether_the_log_reaches_an_offset_is_known_with_its_records(self, place: Place) -> None:
        async with opened(place) as log:
            assert await log.reaches(0)
            assert not await log.reaches(1)
            records = await fill(log, *"ab")
            assert await log.reaches(records[-1].offset)
            assert not await log.reaches(records[-1].offset + 1)

    async def test_the_check_of_the_last_record_removed_is_remembered(self, place: Place) -> None:
        async with opened(place) as log:
            records = await fill_and_trim(log, 5, before=4)
        async with opened(place) as log:
            assert [await log.check(offset) for offset in range(5)] == [
                None,
                None,
                None,
                records[2].check,
                records[3].check,
            ]
            await log.trim(5)
            assert await log.check(3) is None
            assert await log.check(4) == records[3].check

    async def test_the_last_record_removed_is_remembered_whole(self, place: Place) -> None:
        async with opened(place) as log:
            records = await fill(log, *"abcde")
            await log.save_snapshot(records[-1].offset, [])
            assert await log.last_removed() is None
            await log.trim(1)
            assert await log.last_removed() is None
            await log.trim(3)
            assert await log.last_removed() == records[1]
            await log.trim(4)
        async with opened(place) as log:
            assert await log.last_removed() == records[2]
            await log.trim(2)
            assert await log.last_removed() == records[2]
            await log.trim(6)
            assert await log.last_removed() == records[4]

    async def test_who_reads_what_a_trim_left_finds_the_first_offset_moved(self, place: Place) -> None:
        async with opened(place) as log:
            await asyncio.gather(*(log.append(new()) for _ in range(1200)))
            await log.save_snapshot(1200, [])
            trim = asyncio.create_task(log.trim(1201))
            while not trim.done():
                read = await log.read(after=0, limit=1)
                first, removed = log.first_offset, await log.last_removed()
                expected = read[0].offset if read else 1201
                assert first >= expected
                assert removed is not None or expected == 1
                assert removed is None or removed.offset >= expected - 1
            assert await trim == 1200

    async def test_the_size_of_a_stretch_counts_what_is_kept_in_it(self, place: Place) -> None:
        async with opened(place) as log:
            records = [await log.append(new(data=b"x" * 1000)) for _ in range(5)]
            one = await log.size_bytes(after=1, upto=2)
            assert 1000 < one < 1500
            assert await log.size_bytes(after=0, upto=5) == 5 * one
            assert await log.size_bytes(after=3, upto=99) == 2 * one
            assert await log.size_bytes(after=3, upto=3) == 0
            assert await log.size_bytes(after=4, upto=2) == 0
            await log.save_snapshot(records[-1].offset, [])
            await log.trim(3)
            assert await log.size_bytes(after=0, upto=5) == 3 * one

    async def test_trimming_removes_what_lies_before(self, place: Place) -> None:
        async with opened(place) as log:
            records = await fill_and_trim(log, 5, before=1)
            assert log.first_offset == 1
            assert await log.trim(3) == 2
            assert await log.trim(3) == 0
            assert await log.trim(-1) == 0
            assert (log.first_offset, log.last_offset) == (3, 5)
            assert await log.read(after=0) == records[2:]
            assert await scanned(log, after=1) == records[2:]
        async with opened(place) as log:
            assert (log.first_offset, log.last_offset) == (3, 5)
            assert await log.read(after=0) == records[2:]

    async def test_offsets_go_on_after_everything_was_trimmed(self, place: Place) -> None:
        async with opened(place) as log:
            records = await fill_and_trim(log, 3, before=4)
            assert (log.first_offset, log.last_offset) == (4, 3)
            assert await log.read(after=0) == []
        async with opened(place) as log:
            assert (log.first_offset, log.last_offset) == (4, 3)
            assert await log.check(3) == records[2].check
            assert (await log.append(new("resource.w.r", expected=3))).offset == 4
            assert (log.first_offset, log.last_offset) == (4, 4)

    async def test_only_what_the_snapshot_covers_may_be_trimmed(self, place: Place) -> None:
        async with opened(place) as log:
            records = await fill(log, *"abc")
            with pytest.raises(ValueError, match="snapshot"):
                await log.trim(2)
            await log.save_snapshot(2, [])
            with pytest.raises(ValueError, match="snapshot"):
                await log.trim(4)
            assert await log.read(after=0) == records
            assert await log.trim(3) == 2

    async def test_trimming_much_lets_appends_through(self, place: Place) -> None:
        async with opened(place) as log:
            await asyncio.gather(*(log.append(new()) for _ in range(2500)))
            await log.save_snapshot(2500, [])
            trim = asyncio.create_task(log.trim(2501))
            records = await asyncio.gather(*(log.append(new()) for _ in range(50)))
            assert await trim == 2500
            assert log.first_offset == 2501
            assert sorted(offsets(records)) == list(range(2501, 2551))

    # --- snapshots -------------------------------------------------------------------------------------

    async def test_a_snapshot_is_the_sum_of_what_was_saved(self, place: Place) -> None:
        async with opened(place) as log:
            await fill(log, *"abc")
            await log.save_snapshot(
                1, [SnapshotEntry(key="a", data=b"1"), SnapshotEntry(key="b", data=b"\x00\xff")]
            )
            await log.save_snapshot(
                3,
                [
                    SnapshotEntry(key="a", data=None),
                    SnapshotEntry(key="nobody", data=None),
                    SnapshotEntry(key="c", data=b"old"),
                    SnapshotEntry(key="c", data=b""),
                    SnapshotEntry(key="d", data=b"1"),
                    SnapshotEntry(key="d", data=None),
                ],
            )
            snapshot = await log.load_snapshot()
            assert (snapshot.offset, dict(snapshot.entries)) == (3, {"b": b"\x00\xff", "c": b""})
        async with opened(place) as log:
            assert await log.load_snapshot() == snapshot

    async def test_a_snapshot_outlives_the_records_it_covers(self, place: Place) -> None:
        async with opened(place) as log:
            await fill(log, *"abc")
            await log.save_snapshot(3, [SnapshotEntry(key="state", data=b"folded")])
            await log.trim(4)
        async with opened(place) as log:
            snapshot = await log.load_snapshot()
            assert (snapshot.offset, dict(snapshot.entries)) == (3, {"state": b"folded"})

    async def test_a_snapshot_goes_neither_backwards_nor_beyond_the_log(self, place: Place) -> None:
        entry = SnapshotEntry(key="a", data=b"wrong")
        async with opened(place) as log:
            await fill(log, *"abc")
            await log.save_snapshot(2, [SnapshotEntry(key="a", data=b"right")])
            for offset in (1, 4):
                with pytest.raises(ValueError, match=str(offset)):
                    await log.save_snapshot(offset, [entry])
            with pytest.raises(ValueError, match="NUL"):
                await log.save_snapshot(3, [SnapshotEntry(key="a\x00", data=b"")])
            snapshot = await log.load_snapshot()
            assert (snapshot.offset, dict(snapshot.entries)) == (2, {"a": b"right"})
            await log.save_snapshot(2, [])
            assert await log.load_snapshot() == snapshot

    async def test_a_snapshot_may_have_many_entries_with_any_key(self, place: Place) -> None:
        entries = {f"resource:{i}:'\"\\\u00fc\n%.*": f"{i}".encode() * 9 for i in range(6000)}
        async with opened(place) as log:
            await fill(log, "a")
            await log.save_snapshot(1, [SnapshotEntry(key=k, data=v) for k, v in entries.items()])
            assert (await log.load_snapshot()).entries == entries

    # --- life and death --------------------------------------------------------------------------------

    async def test_a_cancelled_append_is_there_whole_or_not_at_all(self, place: Place) -> None:
        async with opened(place) as log:
            wanted = [new(f"s{i}", b"whole") for i in range(50)]
            appends = [asyncio.create_task(log.append(record)) for record in wanted]
            await asyncio.sleep(0)
            for append in appends[::2]:
                append.cancel()
            outcomes = await asyncio.gather(*appends, return_exceptions=True)
            assert all(isinstance(outcome, Record) for outcome in outcomes[1::2])
            assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[::2])
            # Whoever was cancelled asks again, with the same id: now it is there, once.
            records = await asyncio.gather(*map(log.append, wanted))
            assert sorted(await scanned(log), key=lambda r: r.offset) == sorted(
                records, key=lambda r: r.offset
            )
            assert {record.data for record in records} == {b"whole"}

    async def test_closing_finishes_the_appends_under_way(self, place: Place) -> None:
        log = await place.open()
        appends = [asyncio.create_task(log.append(new(f"s{i}"))) for i in range(50)]
        await asyncio.sleep(0)
        await log.aclose()
        records = [append.result() for append in appends]
        async with opened(place) as again:
            assert await scanned(again) == sorted(records, key=lambda record: record.offset)

    async def test_a_closed_log_refuses_everything(self, place: Place) -> None:
        log = await place.open()
        await fill(log, "a")
        await asyncio.gather(log.aclose(), log.aclose())
        await log.aclose()
        for refused in (
            log.append(new()),
            log.read(after=0),
            scanned(log),
            log.check(1),
            log.last_removed(),
            log.size_bytes(after=0, upto=1),
            log.trim(1),
            log.save_snapshot(1, []),
            log.load_snapshot(),
        ):
            with pytest.raises(LogClosedError):
                await refused
        assert (log.first_offset, log.last_offset) == (1, 1)
