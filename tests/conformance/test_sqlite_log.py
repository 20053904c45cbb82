"""The SQLite log keeps every rule of the port, on real files."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from circuit_breaker_server.log.event_log import EventLog
from circuit_breaker_server.log.sqlite import SqliteEventLog
from tests.conformance.event_log_suite import EventLogSuite, Place
from tests.conformance.guards_suite import GuardsSuite


class SqlitePlace:
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    async def open(self) -> EventLog:
        return await SqliteEventLog.open(self.directory)

    async def make_hole(self, offset: int) -> None:
        with closing(sqlite3.connect(self.directory / "events.db")) as connection, connection:
            connection.execute("DELETE FROM records WHERE offset = ?", (offset,))


class TestSqliteEventLog(EventLogSuite, GuardsSuite):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return SqlitePlace(tmp_path / "log")

    @pytest.fixture
    def other_place(self, tmp_path: Path) -> Place:
        return SqlitePlace(tmp_path / "other")
