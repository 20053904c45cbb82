"""Settings of a server that shares its event log: the brokers that keep it, or the process that writes it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final
from urllib.parse import urlsplit

__all__ = ["ClusterSettings"]

_SCHEMES: Final = ("nats", "tls")
_REPLICAS: Final = (1, 3)
_NODE: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """The event log that several servers share. Secrets stand in files of their own, and are never shown.

    :ivar urls: the brokers, as ``nats://broker:4222`` or ``tls://broker:4222``; one of them is enough to
        find the others of its cluster. Empty: the event log is in SQLite, in the data directory.
    :ivar stream: the name of the stream with the records; the one with the snapshots has ``-state`` behind
        it. Streams that are missing are made.
    :ivar node: the name of this server among those that share the log: letters, digits, ``-`` and ``_``.
        Each has a name of its own: a server that starts under the name of another takes its place, and the
        other one stops.
    :ivar address: where other servers and operators reach this one, as it is shown to them; ``None``: the
        URL that it listens on.
    :ivar replicas: the number of brokers that keep each record, 1 or 3, of streams that are made now.
    :ivar write_patience_seconds: how long a mutation waits while no broker takes its record; then it is
        refused as ``UNAVAILABLE``. An election among three brokers was measured at 4.3 to 7.8 s.
    :ivar connect_seconds: how long a start tries to reach a broker.
    :ivar monitoring_url: the monitoring port of a single broker, as ``http://127.0.0.1:8222``. It is asked
        whether the broker syncs records to its disk before it acknowledges them.
    :ivar user: the name of the user, with ``password_file``.
    :ivar password_file: the file with the user's password.
    :ivar token_file: the file with a token, where the broker asks for one.
    :ivar nkey_file: the file with the seed of an NKey.
    :ivar credentials_file: the file with a user's JWT and seed, as ``nsc`` writes it.
    :ivar tls_ca_file: the certificates (PEM) of the authorities that may vouch for a broker; ``None``: those
        of the system. Where it is set, or a URL begins with ``tls://``, a broker without TLS is refused.
    :ivar tls_cert_file: the server's own certificate (PEM) for brokers that ask for one.
    :ivar tls_key_file: its private key (PEM, without a password).
    :ivar key_file: the file with the key that all servers of the cluster share: 32 random bytes, or 64
        hexadecimal digits, which only its owner may read. Keys of cursors and secrets come from it, and none
        is made in the data directory. With brokers, secrets and API keys are then in a bucket on them. More
        lines of digits are keys of before or after: what they have encrypted is read too.
    :ivar log_socket: the number of an open socket to the process that writes the SQLite log of the data
        directory; ``serve --workers`` sets it.

    Example::

        ClusterSettings(urls=("nats://10.0.0.5:4222",), user="circuit", password_file=Path("nats.password"))
    """

    urls: tuple[str, ...] = ()
    stream: str = "events"
    node: str = "main"
    address: str | None = None
    replicas: int = 1
    write_patience_seconds: float = 12.0
    connect_seconds: float = 10.0
    monitoring_url: str | None = None
    user: str | None = None
    password_file: Path | None = None
    token_file: Path | None = None
    nkey_file: Path | None = None
    credentials_file: Path | None = None
    tls_ca_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    key_file: Path | None = None
    log_socket: int | None = None

    def __post_init__(self) -> None:
        for url in self.urls:
            _check_url("urls", url, _SCHEMES)
        if self.monitoring_url is not None:
            _check_url("monitoring_url", self.monitoring_url, ("http", "https"))
        if not _NODE.fullmatch(self.node):
            raise ValueError(f"node must be 1 to 64 letters, digits, - and _, not {self.node!r}")
        if self.replicas not in _REPLICAS:
            raise ValueError(f"replicas must be 1 or 3, not {self.replicas}")
        for name in ("write_patience_seconds", "connect_seconds"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be greater than 0, not {getattr(self, name)}")
        if self.urls and self.log_socket is not None:
            raise ValueError("urls and log_socket are two event logs: set one")
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file go together: set both or none")
        ways = ("user", "token_file", "nkey_file", "credentials_file")
        if len(given := [name for name in ways if getattr(self, name) is not None]) > 1:
            raise ValueError(f"{given[1]} and {given[0]} are two ways to sign in: set one")
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file go together: set both or none")

    @property
    def is_shared(self) -> bool:
        """Whether the server is one of several on its event log."""
        return bool(self.urls) or self.log_socket is not None

    @property
    def requires_tls(self) -> bool:
        """Whether a broker without TLS is refused."""
        return (
            self.tls_ca_file is not None
            or self.tls_cert_file is not None
            or any(url.startswith("tls://") for url in self.urls)
        )


def _check_url(name: str, url: str, schemes: tuple[str, ...]) -> None:
    # The URL is not in the texts before it is known that no password is in it.
    if "@" in url:
        raise ValueError(
            f"{name} must hold no user, password or token: use cluster.user with cluster.password_file, or "
            "cluster.token_file"
        )
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError(f"{name} must be as {schemes[0]}://host:port, not {url!r}")
