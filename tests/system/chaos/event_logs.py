"""The two event logs that a world can have, and what experiments do to a log as a whole."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from contextvars import ContextVar
from pathlib import Path
from typing import Final, Literal, TypeAlias, final

from tests.system.chaos.brokers import Brokers

__all__ = ["LOGS", "JetStreamLog", "Log", "SqliteLog", "choose_log", "log_of_this_run"]

Log: TypeAlias = Literal["sqlite", "jetstream"]

LOGS: Final[tuple[Log, ...]] = ("sqlite", "jetstream")

_CHOSEN: ContextVar[Log] = ContextVar("log of the chaos experiments", default="sqlite")


def choose_log(log: Log) -> None:
    """Let the worlds that are made from now on have this event log."""
    _CHOSEN.set(log)


def log_of_this_run() -> Log:
    """Name the event log that was chosen: SQLite's, if none was."""
    return _CHOSEN.get()


@final
class SqliteLog:
    """The log in the file ``events.db``. What is done to it as a whole is done while no server runs.

    :ivar data_dir: the data directory of the server.
    :ivar urls: no brokers.
    """

    urls: tuple[str, ...] = ()

    def __init__(self, directory: Path) -> None:
        """Lay it into a directory."""
        self.data_dir = directory
        self._copy = directory.with_name("copy")

    async def start(self) -> None:
        """Do nothing: there is no process beside the server."""

    async def aclose(self) -> None:
        """Do nothing."""

    async def first_offset(self) -> int:
        """Tell where the log begins, while a server runs."""
        path = self.data_dir / "events.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            (first,) = database.execute("SELECT min(offset) FROM records").fetchone()
            return int(first or 0)

    async def wipe(self) -> None:
        """Take everything away."""
        shutil.rmtree(self.data_dir)

    async def copy(self) -> None:
        """Make a copy beside it."""
        shutil.copytree(self.data_dir, self._copy)

    async def put_back(self) -> None:
        """Replace it by the copy, which is used up."""
        shutil.rmtree(self.data_dir)
        self._copy.rename(self.data_dir)


@final
class JetStreamLog:
    """The log on brokers of its own; secrets and keys are in the data directory, and go with it.

    :ivar data_dir: the data directory of the server.
    :ivar brokers: they run from :meth:`start` on.
    """

    def __init__(self, directory: Path, *, brokers: int = 3, is_proxied: bool = False) -> None:
        """Lay brokers and data directory into a directory."""
        self.data_dir = directory / "data"
        self.brokers = Brokers(directory / "brokers", count=brokers, is_proxied=is_proxied)
        self._copy = directory / "copy"

    @property
    def urls(self) -> tuple[str, ...]:
        """Where the server connects."""
        return self.brokers.urls

    async def start(self) -> None:
        """Start the brokers."""
        await self.brokers.start()

    async def aclose(self) -> None:
        """End the brokers."""
        await self.brokers.aclose()

    async def first_offset(self) -> int:
        """Tell where the log begins."""
        return await self.brokers.first_offset()

    async def wipe(self) -> None:
        """Take everything away."""
        shutil.rmtree(self.data_dir)
        await self.brokers.wipe()

    async def copy(self) -> None:
        """Make a copy beside it."""
        shutil.copytree(self.data_dir, self._copy / "data")
        await self.brokers.copy(self._copy / "brokers")

    async def put_back(self) -> None:
        """Replace it by the copy, which is used up."""
        shutil.rmtree(self.data_dir)
        (self._copy / "data").rename(self.data_dir)
        await self.brokers.put_back(self._copy / "brokers")
        shutil.rmtree(self._copy)
