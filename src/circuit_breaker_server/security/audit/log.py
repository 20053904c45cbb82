"""Write the audit log: lines are sealed when appended, and a thread writes them to the disk in groups."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, Self, final

from circuit_breaker_server.log.directory_lock import DirectoryLock
from circuit_breaker_server.log.event_log import LogError
from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.security.audit.file_writer import FileWriter, open_file
from circuit_breaker_server.security.audit.log_end import find_end, last_position
from circuit_breaker_server.security.audit.paths import AuditLogError, AuditPaths, make_key, sync_directory
from circuit_breaker_server.security.audit.pending_lines import MAX_PENDING_BYTES, PendingLines
from circuit_breaker_server.security.audit.records import OWN_ACTIONS, AuditEvent, Seal, own_members
from circuit_breaker_server.security.audit.rotation import Rotation
from circuit_breaker_server.security.audit.summaries import AuditLimits, Summaries
from circuit_breaker_server.security.clock import Clock, WallClock
from circuit_breaker_server.storage.private_files import make_private_directory

__all__ = ["AuditLog"]

_FLUSH_SECONDS: Final = 0.2
_SYNC_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 1.0

logger = get_logger("audit")


@final
class AuditLog:
    """The one writer of an audit log.

    :meth:`append` seals a line and keeps it. A thread writes what is kept, at most once every
    ``flush_seconds``: lines that a killed process had not written are not in the log. At most once a second
    it makes the written lines durable, and moves the anchor; more often, the event log beside it would wait
    for the disk. Where the disk fails, lines are kept up to ``max_pending_bytes`` and written once it works
    again; events above that are counted, and a line ``lost`` says how many are missing at that place.

    A line about a record of the event log is never dropped. Such lines have ``max_effect_bytes`` of their
    own, which no other line uses; where these are used up, or the disk fails, :attr:`takes_effects` is false,
    and the server refuses mutations until the lines are on the disk.

    A caller that repeats an action must not fill the disk, nor keep it from other callers: of equal events
    that are written together the first eight have a line each, and one more line says how many followed
    (``times``). Of other events the first ones of a principal or address in a window have a line each, and
    the rest of the window is one line ``counted`` with counts by action and reason (:class:`AuditLimits`).

    A file that is full, or old, gets a number, and the chain goes on in a new file (:class:`Rotation`). The
    new file begins only after the old one and the anchor are durable; wherever a crash comes between, the
    next start goes on.

    Example::

        log = await AuditLog.open(AuditPaths.of(Path("data")))
        log.append(
            AuditEvent(action="query", principal="u-7", address="::1", what="health", decision="allowed")
        )
        await log.aclose()
    """

    def __init__(
        self,
        paths: AuditPaths,
        lines: PendingLines,
        writer: FileWriter,
        *,
        lock: DirectoryLock,
        flush_seconds: float,
    ) -> None:
        """Hold the parts of an open log; :meth:`open` makes them."""
        self._paths = paths
        self._lines = lines
        self._writer = writer
        self._lock = lock
        self._flush_seconds = flush_seconds
        # Held while the writer is used.
        self._disk = threading.Lock()
        self._failing = False
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit-log", daemon=True)

    @classmethod
    async def open(
        cls,
        paths: AuditPaths,
        environment: Mapping[str, str] = os.environ,
        *,
        clock: Clock | None = None,
        flush_seconds: float = _FLUSH_SECONDS,
        max_pending_bytes: int = MAX_PENDING_BYTES,
        max_effect_bytes: int = MAX_PENDING_BYTES,
        limits: AuditLimits = AuditLimits(),  # noqa: B008 (a frozen value)
        monotonic: Callable[[], float] = time.monotonic,
        rotation: Rotation = Rotation(),  # noqa: B008 (a frozen value)
        first_position: str | None = None,
    ) -> Self:
        """Open a log, making its files where there are none, and say so in it (``start``).

        A line that a crash has cut short is replaced by a line ``restart``. Whatever else is not as it was
        written stays as it is, and the log is not opened: new lines would cover it up. After a crash all
        lines may be read for this; otherwise the last one is.

        :param environment: may have the key (:data:`KEY_VARIABLE`).
        :param limits: how many lines a principal or address has before the rest is counted.
        :param monotonic: the clock of their windows.
        :param rotation: when the next file begins, and which files stay.
        :param first_position: :attr:`position` of a log that has none yet: the end of the event log.
        :raises AuditLogError: another process writes it, it has been tampered with, it is sealed with another
            key, or a file cannot be used.
        """
        return await asyncio.to_thread(
            cls._open,
            paths,
            environment,
            clock=clock or WallClock(),
            flush_seconds=flush_seconds,
            max_pending_bytes=max_pending_bytes,
            max_effect_bytes=max_effect_bytes,
            summaries=Summaries(limits, monotonic=monotonic),
            rotation=rotation,
            first_position=first_position,
        )

    @classmethod
    def _open(
        cls,
        paths: AuditPaths,
        environment: Mapping[str, str],
        *,
        clock: Clock,
        flush_seconds: float,
        max_pending_bytes: int,
        max_effect_bytes: int,
        summaries: Summaries,
        rotation: Rotation,
        first_position: str | None,
    ) -> Self:
        key = make_key(paths.key, environment)
        seal = Seal(key)
        try:
            make_private_directory(paths.log.parent)
            make_private_directory(paths.anchor.parent)
            lock = DirectoryLock(paths.log.parent)
        except OSError as error:
            raise AuditLogError(f"{error.filename}: cannot be made ({error.strerror})") from error
        except LogError as error:
            raise AuditLogError(str(error)) from error
        try:
            fd = open_file(paths.log)
            try:
                sync_directory(paths.log.parent)
                end = find_end(paths, fd, key, seal, clock)
                position = last_position(paths.log, fd, end, seal) or first_position
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            lock.release()
            raise AuditLogError(
                f"{error.filename or paths.log}: cannot be used ({error.strerror}); "
                "the audit log and its anchor have to be writable for this user"
            ) from error
        except BaseException:
            lock.release()
            raise
        lines = PendingLines(
            paths.log,
            seal,
            end.anchor,
            position=position,
            clock=clock,
            max_pending_bytes=max_pending_bytes,
            max_effect_bytes=max_effect_bytes,
            summaries=summaries,
        )
        writer = FileWriter(paths, fd, seal, end, lines, clock=clock, rotation=rotation)
        log = cls(paths, lines, writer, lock=lock, flush_seconds=flush_seconds)
        if not end.size and end.place.before:
            lines.begin_file(end.place)
        if end.torn:
            lines.add(own_members("restart", "a line was cut short, and is dropped", end.torn))
        lines.add(own_members("start", f"pid {os.getpid()}", record=position))
        log.flush()
        log._thread.start()
        return log

    @property
    def position(self) -> str | None:
        """The last record of the event log whose line is here, as ``epoch.offset``; ``None``: none yet."""
        return self._lines.position

    @position.setter
    def position(self, record: str) -> None:
        self._lines.position = record

    @property
    def durable_position(self) -> str | None:
        """The :attr:`position` up to which all lines are on the disk, and stay there after a power cut."""
        return self._lines.durable_position

    @property
    def lost(self) -> int:
        """The number of events lost since the log was opened, because the disk failed for too long."""
        return self._lines.lost

    @property
    def pending_bytes(self) -> int:
        """The number of bytes in memory that are not on the disk yet."""
        return self._lines.held_bytes

    @property
    def failing(self) -> bool:
        """Whether the last write failed; it is tried again each second."""
        return self._failing

    @property
    def takes_effects(self) -> bool:
        """Whether lines about further records can be written: the disk works, and their share has room."""
        return self.effects_fit and not self._failing

    @property
    def effects_fit(self) -> bool:
        """Whether lines about further records fit into their share of the memory."""
        return self._lines.effects_fit

    def append(self, event: AuditEvent) -> None:
        """Seal an event and keep it to be written. Never waits for the disk; any thread may call it.

        :raises ValueError: the action is one of the log's own.
        :raises RuntimeError: the log is closed.
        """
        if event.action in OWN_ACTIONS:
            raise ValueError(f"{event.action!r} is what the audit log says of itself")
        if self._lines.append(event):
            logger.error("audit_events_lost", pending_bytes=self.pending_bytes, file=str(self._paths.log))
        if not self._wanted.is_set():
            self._wanted.set()

    def flush(self, *, sync: bool = True) -> bool:
        """Write what is kept; with ``sync`` make it durable and move the anchor. Blocks on the disk.

        Tell whether that has worked.
        """
        with self._disk:
            try:
                self._writer.flush(sync=sync)
            except OSError as error:
                self._writer.write_again()
                self._wanted.set()
                if not self._failing:
                    self._failing = True
                    logger.error(  # noqa: TRY400 (the reason says all that a traceback would)
                        "audit_write_failed",
                        advice="mutations are refused until the audit log can be written: make room for it",
                        file=str(error.filename or self._paths.log),
                        why=error.strerror,
                        pending_bytes=self.pending_bytes,
                    )
                return False
            if self._failing:
                self._failing = False
                logger.warning("audit_written_again", lost=self.lost)
                self._wanted.set()  # what was lost has no line yet
            return True

    async def aclose(self) -> None:
        """Say so in the log (``stop``), write everything and let the next writer in. Idempotent.

        Where the disk fails to the end, what is kept is lost: the log has no ``stop`` then, and one error is
        logged.
        """
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        if not self._lines.close():
            return
        self._closing.set()
        self._wanted.set()
        self._thread.join()
        if not self.flush():
            logger.error("audit_not_closed", pending_bytes=self.pending_bytes, file=str(self._paths.log))
        self._writer.close()
        self._lock.release()

    def _run(self) -> None:
        due = 0.0
        while True:
            self._wanted.wait(self._lines.window_seconds_left)
            # First of all: what is set from here on, by a close as well, is seen in the next round.
            self._wanted.clear()
            if self._closing.wait(self._flush_seconds):
                return
            now = time.monotonic()
            sync = now >= due or self._failing
            if sync:
                due = now + _SYNC_SECONDS
            if not self.flush(sync=sync):
                self._wanted.set()
                if self._closing.wait(_RETRY_SECONDS):
                    return
            elif not sync:
                self._wanted.set()
