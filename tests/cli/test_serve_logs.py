"""``serve --log-format json``: every line of stderr is JSON, but those of the command line itself."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

from tests.cli.process import READY, running
from tests.transports.peers import raw_client


async def test_each_line_of_stderr_is_json(tmp_path: Path) -> None:
    arguments = (
        "serve",
        "--data",
        str(tmp_path),
        "--port",
        "0",
        "--log-level",
        "debug",
        "--log-format",
        "json",
    )
    with running(*arguments) as server:
        url = await asyncio.to_thread(server.wait_for, READY.pattern)
        port = int(url.rpartition(":")[2].partition("/")[0])
        peer = await raw_client(port)
        assert "101" in await peer.read_head()
        await peer.close()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"nonsense\r\n\r\n")
        await writer.drain()
        await asyncio.to_thread(server.wait_for, "malformed")
        writer.close()
        server.signal(signal.SIGINT)
        await asyncio.to_thread(server.end)
    events = [json.loads(line)["event"] for line in server.err if not line.startswith("open:")]
    assert {"started", "opened", "closed", "refused", "stopped"} <= set(events)
