"""Whether the server is ready for clients, and why not."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol, final

from circuit_breaker_server.admission.draining import Draining
from circuit_breaker_server.engine.nodes.membership import Membership
from circuit_breaker_server.logs import get_logger

__all__ = ["Following", "Health", "HealthLog"]

_LOOK_SECONDS: Final = 1.0
"""Anyone may ask: the disk is looked at no more often."""

logger = get_logger("health")


class HealthLog(Protocol):
    """The interface of the event log that its health is read from."""

    @property
    def append_failed(self) -> bool:
        """Whether the last append could not be made durable."""
        ...

    @property
    def last_offset(self) -> int:
        """The offset of the last record."""
        ...

    @property
    def outage(self) -> str | None:
        """Why the log cannot be reached now; ``None`` while it can be."""
        ...

    async def try_write(self) -> bool:
        """Write something harmless after an append that failed; tell whether that has worked."""
        ...


class Following(Protocol):
    """The interface of what follows the log."""

    @property
    def last_offset(self) -> int:
        """The offset of the last record that it was given."""
        ...


class SharedEntries(Protocol):
    """The interface of the bucket of a cluster that its health is read from."""

    @property
    def problem(self) -> str | None:
        """Why its changes are not seen now; ``None`` while they are."""
        ...


@final
class Health:
    """Tells whether the server is ready, and since when it runs.

    :ivar log: the event log.

    Example::

        health = Health(log, gateway, Draining(), data_dir=Path("data"), min_free_disk_bytes=104_857_600)
        reasons = await health.reasons()
    """

    def __init__(
        self,
        log: HealthLog,
        follower: Following,
        draining: Draining,
        *,
        data_dir: Path,
        min_free_disk_bytes: int,
        membership: Membership | None = None,
        bucket: SharedEntries | None = None,
        free_bytes: Callable[[Path], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to count the seconds that the server runs.

        :param membership: of this server among those that share the log, if any do.
        :param bucket: keys, secrets and policy, where servers share them.
        :param free_bytes: returns how much room the disk of a directory has.
        """
        self.log = log
        self._membership = membership
        self._bucket = bucket
        self._follower = follower
        self._draining = draining
        self._data_dir = data_dir
        self._min_free_bytes = min_free_disk_bytes
        self._free_bytes = free_bytes or _free_bytes
        self._clock = clock
        self._began = clock()
        self._looked_at: float | None = None
        self._of_disk: tuple[str, ...] = ()
        self._looking: asyncio.Task[None] | None = None

    @property
    def uptime_seconds(self) -> float:
        """The seconds since the server has started."""
        return self._clock() - self._began

    @property
    def tail_lag_records(self) -> int:
        """The number of records that are in the log and were not offered to subscribers."""
        return max(0, self.log.last_offset - self._follower.last_offset)

    @property
    def nodes(self) -> list[dict[str, object]] | None:
        """The nodes that share the log; ``None`` where this server has it alone."""
        return None if self._membership is None else self._membership.describe()

    @property
    def log_format(self) -> int | None:
        """The version in which the nodes write records; ``None`` as :attr:`nodes`."""
        return None if self._membership is None else self._membership.log_format

    async def reasons(self) -> list[str]:
        """Return why the server is not ready for clients, in words; nothing where it is."""
        await self._look()
        return self.known_reasons()

    def known_reasons(self) -> list[str]:
        """Return the same, by what is known of the disk from the last look."""
        found: list[str] = []
        if self._draining.is_on:
            found.append("the server is draining")
        if (outage := self.log.outage) is not None:
            found.append(outage)
        elif self.log.append_failed:
            found.append("the event log cannot be written: the last append failed")
        if self._membership is not None and (problem := self._membership.problem) is not None:
            found.append(problem)
        if self._bucket is not None and (problem := self._bucket.problem) is not None:
            found.append(problem)
        found += self._of_disk
        if lag := self.tail_lag_records:
            found.append(f"subscribers are {lag} records behind the event log")
        return found

    async def _look(self) -> None:
        """Look at the disk, unless that was done a moment ago; those who ask meanwhile wait for the same."""
        if self._looking is None:
            now = self._clock()
            if self._looked_at is not None and now - self._looked_at < _LOOK_SECONDS:
                return
            self._looked_at = now
            self._looking = asyncio.get_running_loop().create_task(self._look_at_disk())
        await asyncio.shield(self._looking)

    async def _look_at_disk(self) -> None:
        try:
            if self.log.append_failed:
                # Nobody sends mutations to a server that is not ready: it finds out by itself.
                await self.log.try_write()
            # In a thread: a disk over a network may not answer.
            free = await asyncio.to_thread(self._free_bytes, self._data_dir)
            mib = 1024 * 1024
            self._of_disk = ()
            if free < self._min_free_bytes:
                least = f"{self._min_free_bytes / mib:,.0f} MiB (min_free_disk_bytes)"
                self._of_disk = (
                    f"the disk of the event log has {free / mib:,.0f} MiB left, less than {least}",
                )
        except OSError as error:
            logger.warning("disk_unknown", why=error.strerror)
            self._of_disk = ("the disk of the event log cannot be looked at",)
        finally:
            self._looking = None


def _free_bytes(directory: Path) -> int:
    return shutil.disk_usage(directory).free
