"""A worker's log, over an SQLite file that another one writes, keeps every rule of the port."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from circuit_breaker_server.log.event_log import EventLog
from circuit_breaker_server.log.shared_file.log_server import LogServer
from circuit_breaker_server.log.shared_file.worker_log import WorkerLog
from circuit_breaker_server.log.sqlite import SqliteEventLog
from tests.conformance.event_log_suite import EventLogSuite, Place
from tests.conformance.guards_suite import GuardsSuite
from tests.conformance.sqlite_place import SqlitePlace


class SharedFilePlace(SqlitePlace):
    """Each log that is opened is a worker's, with a process of its own that writes; here, in this one."""

    async def open(self) -> EventLog:
        written = await SqliteEventLog.open(self.directory)
        server = LogServer(written)
        ours, theirs = socket.socketpair()
        await server.serve(ours)
        log = await WorkerLog.open(self.directory, theirs)
        close = log.aclose

        async def close_both() -> None:
            await close()
            await server.aclose()
            await written.aclose()

        log.aclose = close_both  # type: ignore[method-assign]
        return log


class TestSharedFileLog(EventLogSuite, GuardsSuite):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return SharedFilePlace(tmp_path / "log")

    @pytest.fixture
    def other_place(self, tmp_path: Path) -> Place:
        return SharedFilePlace(tmp_path / "other")
