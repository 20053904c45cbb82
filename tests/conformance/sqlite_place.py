"""Where an SQLite log lives, for the rules of any log."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from circuit_breaker_server.log.event_log import EventLog
from circuit_breaker_server.log.sqlite import SqliteEventLog


class SqlitePlace:
    """See :class:`~tests.conformance.event_log_suite.Place`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    async def open(self) -> EventLog:
        """Open the log, making it at the first call."""
        return await SqliteEventLog.open(self.directory)

    async def make_hole(self, offset: int) -> None:
        """Make a record vanish; the log is closed meanwhile."""
        with closing(sqlite3.connect(self.directory / "events.db")) as connection, connection:
            connection.execute("DELETE FROM records WHERE offset = ?", (offset,))
