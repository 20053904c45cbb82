"""The SQLite log keeps every rule of the port, on real files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.event_log_suite import EventLogSuite, Place
from tests.conformance.guards_suite import GuardsSuite
from tests.conformance.sqlite_place import SqlitePlace


class TestSqliteEventLog(EventLogSuite, GuardsSuite):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return SqlitePlace(tmp_path / "log")

    @pytest.fixture
    def other_place(self, tmp_path: Path) -> Place:
        return SqlitePlace(tmp_path / "other")
