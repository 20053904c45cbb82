"""A digest over the contents of an event log: two logs with equal digests have equal records."""

from __future__ import annotations

import hashlib
import sqlite3
from typing import final

import msgspec

from circuit_breaker_server.log.event_log import EventLog, LogCorruptError, Record
from circuit_breaker_server.log.packing import Damaged, decode_records, encode_record

__all__ = ["ContentsDigest", "LogContents", "contents_of", "contents_of_database"]


@final
class LogContents(msgspec.Struct, frozen=True, kw_only=True):
    """The records of an event log.

    :ivar epoch: names the life of the log.
    :ivar first_offset: of the first kept record; ``last_offset + 1`` where none is kept.
    :ivar digest: SHA-256 over offset and encoded form of each record, in order, in hex.
    """

    epoch: str
    first_offset: int
    last_offset: int
    records: int
    digest: str


@final
class ContentsDigest:
    """The digest while records are added.

    :ivar records: the number of records so far.

    Example::

        digest = ContentsDigest()
        async for record in log.scan(after=0):
            digest.add(record)
        contents = digest.contents(epoch=log.epoch, last_offset=log.last_offset)
    """

    def __init__(self) -> None:
        self.records = 0
        self._first = 0
        self._digest = hashlib.sha256()

    def add(self, record: Record) -> None:
        """Add the next record."""
        self.add_encoded(record.offset, encode_record(record))

    def add_encoded(self, offset: int, body: bytes) -> None:
        """Add the next record in the form in which the log in SQLite keeps it."""
        self._digest.update(offset.to_bytes(8, "big") + len(body).to_bytes(8, "big") + body)
        self.records += 1
        self._first = self._first or offset

    def contents(self, *, epoch: str, last_offset: int) -> LogContents:
        """Return the contents of the log whose records were added."""
        return LogContents(
            epoch=epoch,
            first_offset=self._first or last_offset + 1,
            last_offset=last_offset,
            records=self.records,
            digest=self._digest.hexdigest(),
        )


async def contents_of(log: EventLog) -> LogContents:
    """Read a log, each record whole.

    :raises LogError: it cannot be read.
    """
    digest, last_offset = ContentsDigest(), log.last_offset
    async for record in log.scan(after=log.first_offset - 1, upto=last_offset):
        digest.add(record)
    return digest.contents(epoch=log.epoch, last_offset=last_offset)


def contents_of_database(database: sqlite3.Connection) -> LogContents:
    """Read the log in a SQLite database that no process writes, each record whole.

    :raises LogCorruptError: a record is damaged.
    :raises sqlite3.Error: the database cannot be read.
    """
    digest = ContentsDigest()
    ((epoch, last),) = database.execute("SELECT epoch, trimmed_offset FROM log").fetchall()
    for offset, body in database.execute("SELECT offset, body FROM records ORDER BY offset"):
        try:
            (record,) = decode_records(1, body)
        except Damaged as error:
            raise LogCorruptError(f"the record at offset {offset} is damaged") from error
        if record.offset != offset or offset <= last:
            raise LogCorruptError(f"the record at offset {offset} is damaged")
        digest.add_encoded(offset, body)
        last = offset
    return digest.contents(epoch=epoch, last_offset=last)
