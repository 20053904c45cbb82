"""The settings with which a server starts: frozen values, every number with its unit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

from circuit_breaker_server.admission.connection_limits import is_loopback, network
from circuit_breaker_server.admission.hosts import host_name
from circuit_breaker_server.admission.origins import origin_parts
from circuit_breaker_server.caller_limits import CallerLimits
from circuit_breaker_server.outbound import LOOPBACK, AddressRules, AnswerLimits, Outbound
from circuit_breaker_server.outbound.addresses import host_of, rule
from circuit_breaker_server.settings.cluster import ClusterSettings
from circuit_breaker_server.settings.document_limits import DocumentLimits
from circuit_breaker_server.settings.oauth_providers import OAuthProviderSettings
from circuit_breaker_server.settings.rates import RateSettings
from circuit_breaker_server.settings.tokens import TokenSettings

__all__ = ["ServerSettings"]

_LOG_FORMATS: Final = ("key=value", "json")
_POLICY_SOURCES: Final = ("file", "bucket")
_NOT_POSITIVE: Final = frozenset(
    {"port", "metrics_port", "insecure", "traces", "api_keys", "audit", "enforce_budgets"}
)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """The settings with which a server starts.

    :ivar data_dir: the directory of the event log, secrets, keys and the audit log; the server makes it if it
        is missing. With brokers (``cluster.urls``) the event log is not in it, and all else is.
    :ivar cluster: the event log on NATS JetStream.
    :ivar host: the address to listen on.
    :ivar port: the TCP port; 0 takes a free one, see :attr:`Server.port`.
    :ivar tls_cert: serves HTTPS and WSS, TLS 1.2 and later, with this certificate in PEM, first of the file;
        those between it and the authority follow. It is read at the start and by
        :meth:`Server.reload`. ``None``: without TLS.
    :ivar tls_key: its private key in PEM, without a password.
    :ivar ring_size: events a channel keeps encoded; a subscriber further behind is read from the log.
    :ivar ring_bytes: encoded bytes a channel keeps; the older events are dropped first.
    :ivar snapshot_every: records between two snapshots of the folded state, as many as a start reads at most.
        1,000 of them, if they changed as many entries of the state: mutations wait while a snapshot is
        written, some 5 ms for a thousand entries.
    :ivar max_message_bytes: one WebSocket message from a client; a bigger one closes with 1009.
    :ivar max_body_bytes: one HTTP request body; a bigger one is answered 413.
    :ivar max_request_line_bytes: method, target and version of an HTTP request; more is answered 414. Over
        this bound and the next five the connection is closed as well.
    :ivar max_header_bytes: name and value of one header; more is answered 431, as for the next three.
    :ivar max_headers_bytes: names and values of all headers of a request.
    :ivar max_headers: how many headers a request has, its trailers among them.
    :ivar max_trailers_bytes: names and values of the trailers behind a chunked body. They are dropped: a
        trailer is never taken for a header.
    :ivar max_chunk_extensions_bytes: what the chunks of one body have besides their sizes and data; more is
        answered 413.
    :ivar max_operations: operations in use at once on one socket, or in one poll.
    :ivar max_operation_id_bytes: the id that a client gives an operation, in UTF-8; a longer one closes the
        socket with 4400.
    :ivar document_limits: how much one operation may ask for.
    :ivar poll_bytes: events in one answer to a poll, all its operations together; the rest comes with the
        next. One event that is bigger goes alone.
    :ivar max_unsent_bytes: written to a socket and not taken by its peer; above it the socket is aborted.
        Events never count here: a socket that is full is not written to.
    :ivar reuse_port: whether other processes of this user may listen on the same port; the system then
        gives each connection to one of them. ``serve --workers`` sets it.
    :ivar send_buffer_bytes: the system's buffer of each socket; ``None`` leaves it to the system, which may
        give a slow peer some megabytes.
    :ivar max_connections_per_address: open connections of one address, HTTP and WebSocket together, from
        this machine too; of IPv6, of one network of 64 bits. One more is answered 429 and closed.
        Handshakes of TLS that are not over count apart, by the same bounds; one more is closed.
    :ivar max_connections: open connections of all; one more is answered 503 and closed. ``None``: no bound.
    :ivar trusted_proxies: addresses and networks, as ``10.0.0.0/8``, that may hold any number: behind a proxy
        all clients have its address.
    :ivar head_seconds: from the beginning of a connection or a request to the end of its headers; after it
        the connection is closed, with 408 where something came. A handshake of TLS has as long again.
    :ivar body_seconds: from the headers of a request to the end of its body, likewise.
    :ivar keep_alive_seconds: how long an HTTP connection is kept that is between two requests.
    :ivar init_timeout_seconds: from the handshake to ``connection_init``; after it the close is 4408.
    :ivar ping_seconds: between two pings to a peer.
    :ivar pong_seconds: from a ping to its pong; a peer that does not answer is dropped.
    :ivar stall_seconds: how long a peer that still has something to take may take nothing before it is
        dropped; meanwhile a pong is not expected of it.
    :ivar execute_seconds: one query or mutation.
    :ivar provider_seconds: each wait for a provider of language models: to connect, to begin, between pieces.
    :ivar mcp_check_seconds: between two checks of an MCP server.
    :ivar mcp_session_seconds: how long a session of an MCP server lasts at most without being refreshed.
    :ivar oauth_providers: where users of MCP servers may sign in, besides the built-in providers.
    :ivar idempotency_seconds: how long the answer to a mutation with an ``Idempotency-Key`` is kept.
    :ivar close_seconds: the closing handshake; after it the socket is aborted.
    :ivar shutdown_seconds: requests and sockets under way when the server stops.
    :ivar drain_seconds: over which a draining server spreads the closing of its connections, at most.
    :ivar retry_after_seconds: over which clients are asked to come back when the server stops: each WebSocket
        is told a part of it, drawn at random, as ``retry-after=SECONDS`` in the reason of its close. ``None``
        tells them nothing, and they come back at once.
    :ivar advance_seconds: how often the cursor of a subscription that received nothing is moved on.
    :ivar begin_seconds: how long a subscriber waits for a completion or an agent's run that has not begun.
    :ivar keep_seconds: records older than this go, by the clock that dates them; ``None`` keeps them.
    :ivar keep_bytes: where the log's records take more than this, the oldest go; ``None`` keeps them. What
        counts is the records as they are encoded, their bodies mostly; indexes (some 200 bytes a record) and
        the state come on top. The file does not shrink: the room is used again.
    :ivar keep_records: where the log holds more records than this, the oldest go; ``None`` keeps them.

        Removed records are missing for resuming only, and a subscription that would miss events gets an
        error (``RESUME_GAP``, ``trimmed``): the state stays whole, the history of resources as well. The
        stream of a completion that has ended can be read again from its beginning for 24 hours, and of an
        agent's run until the first run is triggered after as long, as far as these limits leave its records;
        after that it is ``NOT_FOUND``.
    :ivar min_free_disk_bytes: where the disk of the data directory has less room, the server says that it is
        not ready (``GET /health/ready``); it goes on serving.
    :ivar metrics_port: serves ``GET /metrics`` for Prometheus (docs/operations.md) on this port of 127.0.0.1,
        to every program of this machine; 0 takes a free one. It needs the extra ``prometheus``. ``None``:
        off.
    :ivar traces: makes OpenTelemetry spans of operations, appends, projections and deliveries, with the
        provider that the process has set up, as the command ``opentelemetry-instrument`` does. It needs the
        extra ``otel``. Traces that callers bring are kept and told to clients with a tracer also without it.
    :ivar trim_every_seconds: between two looks at whether something has to go. A record stays at least so
        long, whatever the limits.
    :ivar token_keys: how the server verifies the bearer token of each client; ``None``: it accepts no token.
        Without tokens and API keys there is no authentication: the server accepts every client.
    :ivar insecure: without tokens and API keys a server listens on loopback only, which no other machine
        reaches; this lets it listen elsewhere, and every client that reaches it may do everything.
    :ivar api_keys: whether the API keys of the data directory are taken, or those of the cluster
        (``cluster.key_file``), as ``circuit-breaker keys`` makes them.
    :ivar policy_file: the access policy (docs/security.md); ``None``: every authenticated caller may do
        everything. The server reads it again when it changes.
    :ivar policy_from: ``file``: the access policy is that of ``policy_file``. ``bucket``: it is that of the
        cluster, as ``circuit-breaker policy publish`` puts it there; this needs ``cluster.urls`` and
        ``cluster.key_file``.
    :ivar enforce_budgets: whether an exhausted budget refuses completions (``BUDGET_EXHAUSTED``); ``None``:
        where callers are known.
    :ivar audit: whether what callers do is written to the audit log; ``None``: where callers are known.
    :ivar audit_key_file: seals its lines; made if it is missing. ``None`` is ``audit.key`` in the data
        directory: a process that can write there can forge the log, so keep the key elsewhere.
    :ivar audit_anchor_file: holds its last seal, so that a cut end is found; ``None`` stands beside the data
        directory.
    :ivar audit_rotate_bytes: an audit log that is so long goes on in a new file.
    :ivar audit_rotate_seconds: likewise one whose file is so old.
    :ivar audit_keep_files: full files of the audit log that stay; older ones are removed. ``None`` keeps all.
    :ivar rates: how often clients may ask.
    :ivar max_connections_per_principal: sockets of one principal, where callers are known. For 30 s there may
        be twice as many: each of them may be replaced by one with a fresh token.
    :ivar allowed_origins: pages of these origins may use the server from a browser, besides its own: exact,
        as ``https://app.example.com``. A request without ``Origin`` is of no browser, and is not checked.
    :ivar allowed_hosts: names by which the server may be addressed, as ``app.localhost``, besides
        ``localhost``, ``127.0.0.1`` and ``[::1]``; on any port. Another ``Host`` is answered 421. The server
        checks ``Host`` where it has no authentication and listens on loopback, and wherever this setting
        has names.
    :ivar allowed_outbound: where the server may connect for callers (providers of language models, MCP
        servers) besides public addresses: addresses, networks as ``10.0.0.0/8``, names of hosts. ``None`` is
        loopback where the server has no authentication and listens on loopback; else nothing. The token
        endpoints of ``oauth_providers`` are the operator's own, and always allowed.
    :ivar allowed_redirects: exact URLs to which OAuth providers may send users back, besides loopback.
        ``None``: to the address that is configured for the MCP server.
    :ivar answer_limits: bounds of the answers of providers, MCP servers and token endpoints.
    :ivar caller_limits: the shares of tenants and principals in what all of them use.
    :ivar log_level: ``debug``, ``info``, ``warning``, ``error`` or ``critical``.
    :ivar log_format: ``key=value`` or ``json``: one line for each event, on stderr.
    :ivar slow_append_seconds: a commit of appends, or a snapshot, that takes longer is logged; ``None``: none
        is.
    :ivar slow_operation_seconds: a query or mutation that takes longer is logged, and a record that
        subscribers are not offered for longer; ``None``: none is.
    :ivar slow_loop_seconds: a longer delay of the event loop is logged; ``None``: none is.

    Example::

        ServerSettings(data_dir=Path("data"), port=4000)
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 4000
    tls_cert: Path | None = None
    tls_key: Path | None = None
    ring_size: int = 1024
    ring_bytes: int = 256 * 1024
    snapshot_every: int = 10_000
    max_message_bytes: int = 64 * 1024
    max_body_bytes: int = 1024 * 1024
    max_request_line_bytes: int = 8 * 1024
    max_header_bytes: int = 8 * 1024
    max_headers_bytes: int = 32 * 1024
    max_headers: int = 100
    max_trailers_bytes: int = 8 * 1024
    max_chunk_extensions_bytes: int = 8 * 1024
    max_operations: int = 2000
    max_operation_id_bytes: int = 128
    document_limits: DocumentLimits = field(default_factory=DocumentLimits)
    poll_bytes: int = 1024 * 1024
    max_unsent_bytes: int = 16 * 1024 * 1024
    reuse_port: bool = False
    send_buffer_bytes: int | None = None
    max_connections_per_address: int = 200
    max_connections: int | None = None
    trusted_proxies: tuple[str, ...] = ()
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    keep_alive_seconds: int = 5
    init_timeout_seconds: float = 3.0
    ping_seconds: float = 12.0
    pong_seconds: float = 10.0
    stall_seconds: float = 60.0
    execute_seconds: float = 30.0
    provider_seconds: float = 60.0
    mcp_check_seconds: float = 30.0
    mcp_session_seconds: float = 86_400.0
    oauth_providers: tuple[OAuthProviderSettings, ...] = ()
    idempotency_seconds: float = 86_400.0
    close_seconds: float = 2.0
    shutdown_seconds: float = 5.0
    drain_seconds: float = 5.0
    retry_after_seconds: float | None = None
    advance_seconds: float = 30.0
    begin_seconds: float = 60.0
    keep_seconds: float | None = None
    keep_bytes: int | None = None
    keep_records: int | None = None
    min_free_disk_bytes: int = 100 * 1024 * 1024
    metrics_port: int | None = None
    traces: bool = False
    trim_every_seconds: float = 60.0
    token_keys: TokenSettings | None = None
    insecure: bool = False
    api_keys: bool = False
    policy_file: Path | None = None
    policy_from: str = "file"
    enforce_budgets: bool | None = None
    audit: bool | None = None
    audit_key_file: Path | None = None
    audit_anchor_file: Path | None = None
    audit_rotate_bytes: int = 64 * 1024 * 1024
    audit_rotate_seconds: float = 30 * 86_400.0
    audit_keep_files: int | None = None
    rates: RateSettings = field(default_factory=RateSettings)
    max_connections_per_principal: int = 20
    allowed_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    allowed_outbound: tuple[str, ...] | None = None
    allowed_redirects: tuple[str, ...] | None = None
    answer_limits: AnswerLimits = field(default_factory=AnswerLimits)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    caller_limits: CallerLimits = field(default_factory=CallerLimits)
    log_level: str = "warning"
    log_format: str = "key=value"
    slow_append_seconds: float | None = 0.5
    slow_operation_seconds: float | None = 1.0
    slow_loop_seconds: float | None = 0.25

    def __post_init__(self) -> None:
        positive = {
            name: getattr(self, name)
            for name in self.__dataclass_fields__
            if type(getattr(self, name)) in (int, float) and name not in _NOT_POSITIVE
        }
        for name, value in positive.items():
            if not value > 0:
                raise ValueError(f"{name} must be greater than 0, not {value}")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key (--tls-cert, --tls-key) go together: set both or none")
        if self.policy_file is not None and self.token_keys is None and not self.api_keys:
            raise ValueError(
                "policy_file says who may do what: set token_keys or api_keys "
                "(--token-key-file, --api-keys) as well"
            )
        self._check_policy_from()
        lists: tuple[tuple[str, Iterable[str], Callable[[str], object]], ...] = (
            ("allowed_origins", self.allowed_origins, origin_parts),
            ("allowed_hosts", self.allowed_hosts, host_name),
            ("trusted_proxies", self.trusted_proxies, network),
            ("allowed_outbound", self.allowed_outbound or (), rule),
            ("allowed_redirects", self.allowed_redirects or (), host_of),
        )
        for name, values, read in lists:
            try:
                for value in values:
                    read(value)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port must be between 0 and 65535, not {self.port}")
        if not 0 <= (self.metrics_port or 0) <= 65535:
            raise ValueError(f"metrics_port must be between 0 and 65535, not {self.metrics_port}")
        if self.log_level.upper() not in logging.getLevelNamesMapping():
            raise ValueError(f"log_level must be one of logging's level names, not {self.log_level!r}")
        if self.log_format not in _LOG_FORMATS:
            raise ValueError(f"log_format must be one of {', '.join(_LOG_FORMATS)}, not {self.log_format!r}")

    def _check_policy_from(self) -> None:
        if self.policy_from not in _POLICY_SOURCES:
            raise ValueError(f"policy_from must be file or bucket, not {self.policy_from!r}")
        if self.policy_from == "file":
            return
        if self.policy_file is not None:
            raise ValueError("policy_from is bucket, and policy_file names a file: set one of them")
        if not self.cluster.urls or self.cluster.key_file is None:
            raise ValueError(
                "policy_from is bucket: set cluster.urls and cluster.key_file (--log, --cluster-key-file) "
                "as well"
            )
        if self.token_keys is None and not self.api_keys:
            raise ValueError(
                "policy_from says where it stands who may do what: set token_keys or api_keys "
                "(--token-key-file, --api-keys) as well"
            )

    @property
    def own_dir(self) -> Path:
        """The directory of what only this process writes: the audit log. A worker has one of its own."""
        if self.cluster.log_socket is None:
            return self.data_dir
        return self.data_dir / "workers" / self.cluster.node

    @property
    def is_open(self) -> bool:
        """Whether the server has no authentication: neither token keys nor API keys."""
        return self.token_keys is None and not self.api_keys

    @property
    def asks_for_host(self) -> bool:
        """Whether requests must be for a name of this machine, or one of :attr:`allowed_hosts`."""
        return bool(self.allowed_hosts) or (self.is_open and is_loopback(self.host))

    @property
    def outbound(self) -> Outbound:
        """The address rules and answer limits for servers that callers have named."""
        allowed = self.allowed_outbound
        if allowed is None:
            # A client of such a server is on this machine, and can reach its loopback without the server.
            allowed = LOOPBACK if self.is_open and is_loopback(self.host) else ()
        return Outbound(rules=AddressRules(allowed), limits=self.answer_limits)

    def exposure(self) -> str | None:
        """Return why a server must not start with these settings and what to do; ``None``: it may start."""
        if not self.is_open or self.insecure or is_loopback(self.host):
            return None
        return (
            f"{self.host or 'every address'} is reached from other machines, and no authentication is "
            "configured: set token_keys or api_keys (--token-key-file, --api-keys), listen on 127.0.0.1, or "
            "give every caller full access with insecure (--insecure)"
        )
