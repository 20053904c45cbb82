"""A server to be killed: it dies by SIGKILL as soon as a record with a key is durable, before it answers.

Run with the data directory as argument; it prints its URL.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from circuit_breaker_server import Server, ServerSettings
from circuit_breaker_server.log.event_log import NewRecord, Record
from circuit_breaker_server.log.sqlite import SqliteEventLog

append = SqliteEventLog.append


async def append_and_die(self: SqliteEventLog, record: NewRecord) -> Record:
    stored = await append(self, record)
    if b'"idempotency"' in record.data:
        os.kill(os.getpid(), signal.SIGKILL)
    return stored


async def main(directory: Path) -> None:
    SqliteEventLog.append = append_and_die  # type: ignore[method-assign]  # that is the point
    async with Server(ServerSettings(data_dir=directory, port=0)) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        await server.wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
