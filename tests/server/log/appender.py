"""A process that appends until it is killed, and says which records were acknowledged.

Usage: appender.py DIRECTORY. Prints one line per acknowledged record: offset, id.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from pathlib import Path

from circuit_breaker_server.log.event_log import NewRecord
from circuit_breaker_server.log.sqlite import SqliteEventLog


async def _append_forever(log: SqliteEventLog, name: str) -> None:
    while True:
        record_id = uuid.uuid4().hex
        record = await log.append(NewRecord(subject=name, id=record_id, data=record_id.encode() * 20))
        sys.stdout.write(f"{record.offset} {record.id}\n")
        sys.stdout.flush()


async def _main(directory: Path) -> None:
    log = await SqliteEventLog.open(directory)
    async with asyncio.TaskGroup() as group:
        for i in range(16):
            group.create_task(_append_forever(log, f"resource.w.{i}"))


asyncio.run(_main(Path(sys.argv[1])))
