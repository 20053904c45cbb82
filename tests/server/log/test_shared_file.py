"""One SQLite log for several processes: what one of them appends, all are told of, in order."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from circuit_breaker_server import Server, ServerSettings, ServerStartError
from circuit_breaker_server.log.event_log import (
    AppendOutcomeUnknown,
    ExpectationFailed,
    LogClosedError,
    LogError,
    LogWriteError,
    NewRecord,
    Record,
)
from circuit_breaker_server.log.shared_file import log_server
from circuit_breaker_server.log.shared_file.log_server import LogServer
from circuit_breaker_server.log.shared_file.messages import Frames, encode_frame
from circuit_breaker_server.log.shared_file.worker_log import WorkerLog
from circuit_breaker_server.log.sqlite import SqliteEventLog
from circuit_breaker_server.log.writer import Writer
from circuit_breaker_server.settings.cluster import ClusterSettings
from tests.waiting import until


def new(name: str = "resource.w.r", *, expected: int | None = None, data: bytes = b"{}") -> NewRecord:
    return NewRecord(subject=name, id=uuid.uuid4().hex, data=data, expected=expected)


class Stage:
    """A log, what serves it, and workers."""

    def __init__(self, directory: Path, log: SqliteEventLog) -> None:
        self.directory = directory
        self.log = log
        self.server = LogServer(log)
        self.workers: list[WorkerLog] = []

    async def connected(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        await self.server.serve(ours)
        return theirs

    async def worker(self) -> WorkerLog:
        log = await WorkerLog.open(self.directory, await self.connected())
        self.workers.append(log)
        return log


@contextlib.asynccontextmanager
async def staged(directory: Path) -> AsyncIterator[Stage]:
    stage = Stage(directory, await SqliteEventLog.open(directory))
    try:
        yield stage
    finally:
        for worker in stage.workers:
            await worker.aclose()
        await stage.server.aclose()
        await stage.log.aclose()


async def test_workers_see_all_records_in_order_whoever_appends_them(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        a, b = await stage.worker(), await stage.worker()
        seen: dict[str, list[Record]] = {"a": [], "b": []}
        a.tail(seen["a"].extend)
        b.tail(seen["b"].extend)

        async def lane(log: WorkerLog, name: str) -> None:
            last = 0
            for _ in range(50):
                last = (await log.append(new(name, expected=last))).offset
                assert log.last_offset >= last, "the tails have it before its append returns"

        await asyncio.gather(*(lane(log, f"r.{n}.{k}") for n, log in enumerate((a, b)) for k in range(8)))
        await until(lambda: len(seen["a"]) == len(seen["b"]) == 800)
        assert [record.offset for record in seen["a"]] == list(range(1, 801))
        assert seen["a"] == seen["b"] == await stage.log.read(after=0)


async def test_of_two_who_expect_the_same_one_is_refused_and_sees_why(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        workers = [await stage.worker() for _ in range(3)]
        outcomes = await asyncio.gather(
            *(worker.append(new("one", expected=0)) for worker in workers), return_exceptions=True
        )
        refused = [each for each in outcomes if isinstance(each, ExpectationFailed)]
        assert len(refused) == 2
        assert {(error.subject, error.expected, error.actual) for error in refused} == {("one", 0, 1)}
        assert [worker.last_offset for worker in workers] == [1] * 3, "and has the record that was first"


async def test_an_id_that_is_in_the_log_is_answered_with_its_record(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        a, b = await stage.worker(), await stage.worker()
        record = new()
        stored = await a.append(record)
        await b.append(new("other"))
        assert await b.append(record) == stored
        assert list(await asyncio.gather(a.append(record), b.append(record))) == [stored, stored]
        assert stage.log.last_offset == 2


async def test_a_worker_that_is_behind_reaches_what_the_log_has(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        a, b = await stage.worker(), await stage.worker()
        for _ in range(20):
            offset = (await a.append(new())).offset
            assert await b.reaches(offset)
            assert b.last_offset >= offset
            assert not await b.reaches(offset + 1)


async def test_a_worker_that_comes_later_has_all_of_before(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        a = await stage.worker()
        appending = [asyncio.create_task(a.append(new(f"r.{n}"))) for n in range(300)]
        await asyncio.sleep(0)
        seen: list[Record] = []
        b = await stage.worker()
        b.tail(seen.extend)
        before = b.last_offset
        await asyncio.gather(*appending)
        await until(lambda: b.last_offset == 300)
        read = await b.read(after=0, limit=before)
        assert [record.offset for record in [*read[:before], *seen]] == list(range(1, 301))


async def test_what_one_worker_trims_is_gone_for_all(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        a, b = await stage.worker(), await stage.worker()
        for n in range(30):
            await a.append(new(f"r.{n}"))
        await a.save_snapshot(30, [])
        assert await a.trim(21) == 20
        assert [record.offset for record in await b.read(after=0)] == list(range(21, 31))
        assert (a.first_offset, b.first_offset) == (21, 21), "a finished read says what it missed"
        with pytest.raises(ValueError, match="would trim above"):
            await b.trim(99)
        await stage.log.trim(26)  # nobody is told: it is not a worker that trims
        assert [record.offset for record in await b.read(after=0)] == list(range(26, 31))
        assert b.first_offset == 26


async def test_heartbeats_reach_all_workers_the_sender_too(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        heard: list[tuple[str, bytes]] = []
        for name in ("a", "b"):
            worker = await stage.worker()
            await worker.heartbeats.listen(lambda beat, name=name: heard.append((name, beat)))  # type: ignore[misc]
        await stage.workers[0].heartbeats.send(b"beat")
        await until(lambda: sorted(heard) == [("a", b"beat"), ("b", b"beat")])


async def test_a_disk_that_refuses_is_told_and_a_write_that_works_again_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with staged(tmp_path) as stage:
        worker = await stage.worker()

        def full(*_: object) -> None:
            raise LogWriteError("the disk is full")

        with monkeypatch.context() as broken:
            broken.setattr(Writer, "append", full)
            broken.setattr(Writer, "touch", full)
            with pytest.raises(LogWriteError, match="the disk is full") as raised:
                await worker.append(new())
            assert not isinstance(raised.value, AppendOutcomeUnknown)
            before = worker.append_failed, await worker.try_write(), worker.append_failed
        assert before == (True, False, True)
        assert (await worker.try_write(), worker.append_failed) == (True, False)
        assert (await worker.append(new())).offset == 1


async def test_a_log_whose_writer_is_gone_has_ended(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        worker = await stage.worker()
        ended: list[LogError] = []
        worker.on_end(ended.append)
        await worker.append(new())
        cancelled = asyncio.create_task(worker.append(new()))
        appending = asyncio.create_task(worker.append(new()))
        await asyncio.sleep(0)
        cancelled.cancel()
        for each in tuple(stage.server._shared.workers):
            assert each._transport is not None
            each._transport.abort()
        with pytest.raises(AppendOutcomeUnknown, match="is gone"):
            await appending
        assert [str(error) for error in ended] == ["the process that writes the event log is gone"]
        with pytest.raises(LogClosedError, match="is gone"):
            await worker.append(new())
        with pytest.raises(LogClosedError, match="is gone"):
            await worker.read(after=0)


async def test_appends_that_wait_for_their_turn_are_refused_when_the_writer_is_gone(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        worker = await stage.worker()
        tasks = [asyncio.create_task(worker.append(new(f"r.{n}"))) for n in range(1500)]
        await asyncio.sleep(0)
        (each,) = stage.server._shared.workers
        assert each._transport is not None
        each._transport.abort()
        _, left = await asyncio.wait(tasks, timeout=10)
        assert not left
        kinds = {type(task.exception()) for task in tasks}
        assert kinds == {AppendOutcomeUnknown, LogClosedError}
        told: list[LogError] = []
        worker.on_end(told.append)
        await until(lambda: told)


async def test_a_worker_that_begins_when_the_writer_is_gone_says_so(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with pytest.raises(LogError, match="is gone"):
        await WorkerLog.open(tmp_path, theirs)


async def test_a_worker_that_reads_nothing_is_given_up_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_server, "_MAX_UNREAD_BYTES", 1_000_000)
    async with staged(tmp_path) as stage:
        worker, stopped = await stage.worker(), await stage.connected()
        with contextlib.closing(stopped):
            await until(lambda: len(stage.server._shared.workers) == 2)
            for _ in range(60):
                await worker.append(new(data=b"x" * 100_000))
                if len(stage.server._shared.workers) == 1:
                    break
            assert len(stage.server._shared.workers) == 1
            assert (await worker.append(new())).offset == worker.last_offset


async def test_cancelled_appends_are_in_the_log_or_not_and_the_worker_closes(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        worker = await stage.worker()
        tasks = [asyncio.create_task(worker.append(new(f"r.{n}"))) for n in range(2000)]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        kept = [task.result() for task in tasks if not task.cancelled()]
        assert {record.offset for record in kept} <= {
            r.offset for r in await worker.read(after=0, limit=2000)
        }
        async with asyncio.timeout(10):
            await worker.aclose()


@pytest.mark.parametrize("step", [1, 3, 64, 10_000])
def test_frames_are_cut_wherever_the_bytes_are(step: int) -> None:
    frames = [encode_frame([]), *(encode_frame(()) for _ in range(3))]
    sent = b"".join(frames)
    reader = Frames()
    found = [body for at in range(0, len(sent), step) for body in reader.feed(sent[at : at + step])]
    assert found == [frame[4:] for frame in frames]


async def test_a_socket_that_is_none_is_refused(tmp_path: Path) -> None:
    server = Server(ServerSettings(port=0, data_dir=tmp_path, cluster=ClusterSettings(log_socket=9999)))
    with pytest.raises(ServerStartError, match=r"cluster\.log_socket: 9999 is no open socket"):
        await server.start()


def test_two_logs_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="urls and log_socket are two event logs"):
        ClusterSettings(urls=("nats://127.0.0.1",), log_socket=3)
