"""The options of ``serve``: names for what is set often, and ``--set`` for every other setting."""

from __future__ import annotations

import enum
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from circuit_breaker_sdk.cli import runtime

__all__ = ["serve"]

_HOUR_SECONDS: Final = 3600
_DAY_SECONDS: Final = 86_400
_MIB: Final = 1024 * 1024


class TokenAlgorithm(enum.StrEnum):
    """Algorithms that tokens may be signed with."""

    HS256 = "HS256"
    RS256 = "RS256"
    ES256 = "ES256"
    EDDSA = "EdDSA"


class LogLevel(enum.StrEnum):
    """Levels of the server's log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class LogFormat(enum.StrEnum):
    """Formats of the server's log."""

    KEY_VALUE = "key=value"
    JSON = "json"


def _refuse_if_not_positive(value: float | None) -> float | None:
    if value is not None and not 0 < value < math.inf:
        raise typer.BadParameter(f"{value} is not a number greater than 0")
    return value


def serve(
    *,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Settings from this file (TOML); docs/settings.md has them all."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any setting by its name, as rates.polls_per_second=100; may be repeated.",
        ),
    ] = None,
    print_config: Annotated[
        bool,
        typer.Option("--print-config", help="Print every setting and where it comes from, and stop."),
    ] = False,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.", show_default="4000"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Directory of the event log; made where there is none.",
            show_default="circuit-breaker-data",
        ),
    ] = None,
    log: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Keep the event log on NATS JetStream instead, as nats://host:4222; several brokers with "
            "commas between them. Needs the extra cluster; docs/cluster.md.",
        ),
    ] = None,
    cluster_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The key that all servers of a cluster share: 32 random bytes, or 64 hexadecimal digits.",
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Run N processes on the port, over the one SQLite log of the data directory (or over the "
            "brokers of --log).",
        ),
    ] = 1,
    canary: Annotated[
        bool,
        typer.Option(
            "--canary",
            help="Follow the log of --log with this release, and serve nothing: what it cannot read stops "
            "it, with exit status 8, and not the cluster.",
        ),
    ] = False,
    node: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The name of this server among those that share the event log on NATS.",
            show_default="main",
        ),
    ] = None,
    keep_hours: Annotated[
        float | None,
        typer.Option(
            metavar="H", callback=_refuse_if_not_positive, help="Let events go that are older than H hours."
        ),
    ] = None,
    keep_mib: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            callback=_refuse_if_not_positive,
            help="Let the oldest events go above N MiB of them.",
        ),
    ] = None,
    keep_records: Annotated[
        int | None,
        typer.Option(
            metavar="N", callback=_refuse_if_not_positive, help="Let the oldest events go above N records."
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Serve https and wss with this certificate, and those above it (PEM)."
        ),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The certificate's private key (PEM, without a password)."),
    ] = None,
    token_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Ask every client for a bearer token (JWT), verified with this key: for HS256 a secret of "
            "32 bytes or more, otherwise the public key (PEM or JWK); or several, as JWKS.",
        ),
    ] = None,
    token_algorithm: Annotated[
        TokenAlgorithm | None,
        typer.Option(help="The one algorithm tokens may be signed with.", show_default="HS256"),
    ] = None,
    token_issuer: Annotated[str | None, typer.Option(help="What `iss` of a token must be.")] = None,
    token_audience: Annotated[str | None, typer.Option(help="What must be in `aud` of a token.")] = None,
    token_leeway: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="How far the clocks of issuer and server may differ.",
            show_default="30",
        ),
    ] = None,
    api_keys: Annotated[
        bool, typer.Option("--api-keys", help="Take API keys too: `circuit-breaker keys` makes them.")
    ] = False,
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure",
            help="Listen on an address that other machines reach, and give every caller full access.",
        ),
    ] = False,
    policy_file: Annotated[
        Path | None,
        typer.Option("--policy", metavar="FILE", help="Who may do what; without it, all who are let in may."),
    ] = None,
    audit_key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Seals the audit log; by default audit.key of the data directory."),
    ] = None,
    audit_anchor: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its last seal, to find a cut end; by default beside the data."),
    ] = None,
    audit_rotate_mib: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            callback=_refuse_if_not_positive,
            help="Continue the audit log in a new file above N MiB; 64 by default.",
        ),
    ] = None,
    audit_rotate_days: Annotated[
        float | None,
        typer.Option(
            metavar="D",
            callback=_refuse_if_not_positive,
            help="Continue the audit log in a new file after D days; 30 by default.",
        ),
    ] = None,
    audit_keep_files: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            callback=_refuse_if_not_positive,
            help="Remove full files of the audit log above the newest N; by default all are kept.",
        ),
    ] = None,
    enforce_budgets: Annotated[
        bool | None,
        typer.Option(
            "--enforce-budgets/--no-enforce-budgets",
            help="Refuse completions while their payer's budget is exhausted; by default where callers "
            "are known.",
        ),
    ] = None,
    allowed_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="Let pages of this origin use the server from a browser, as https://app.example.com; "
            "may be repeated.",
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name by which clients address the server, besides localhost; may be repeated.",
        ),
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="A proxy before the server, as 10.0.0.1 or 10.0.0.0/8, which may hold any number of "
            "connections; may be repeated.",
        ),
    ] = None,
    allow_outbound: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST",
            help="Where the server may connect for callers (providers of language models, MCP servers), "
            "besides public addresses: an address, a network as 10.0.0.0/8, a name; may be repeated. "
            "By default loopback, if the server listens there and takes neither tokens nor keys.",
        ),
    ] = None,
    allow_redirect: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Where OAuth providers may send users of MCP servers back to, word for word, besides "
            "loopback; may be repeated. By default to the address that is configured for the MCP server.",
        ),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Serve /metrics for Prometheus on this port of 127.0.0.1; 0 picks a free one.",
        ),
    ] = None,
    log_level: Annotated[
        LogLevel | None,
        typer.Option(help="The server's log on stderr, from this level on.", show_default="warning"),
    ] = None,
    log_format: Annotated[LogFormat | None, typer.Option(help="Its lines.", show_default="key=value")] = None,
) -> None:
    """Run a server until Ctrl-C. One line says when it is ready, and where.

    circuit-breaker serve --port 4000 --data ./data

    circuit-breaker serve --config server.toml --set rates.operations_per_second=500

    A setting is taken from the command line, else from the environment (CIRCUIT_BREAKER_NETWORK_PORT for
    network.port), else from the file of --config, else it has its default.

    SIGTERM drains it: it takes on nothing new, and closes its connections one by one, in 5 s at most. SIGHUP
    lets it read its settings again, without closing a connection.

    Without a --keep option every event can be read again for ever. Whatever goes, the present state and the
    history of resources stay; a client that would resume before the first event kept is told that it cannot.

    Without --token-key-file and --api-keys there is no authentication: the server then listens on loopback
    only, unless --insecure is given.
    """
    # Here, not above: the server is an extra that `watch` does without.
    from circuit_breaker_sdk.cli import serve as command  # noqa: PLC0415 (see the line above)

    options: Mapping[str, tuple[str, Any]] = {
        "--host": ("network.host", host),
        "--port": ("network.port", port),
        "--data": ("storage.data_dir", data),
        "--log": ("cluster.urls", log and tuple(url.strip() for url in log.split(",") if url.strip())),
        "--node": ("cluster.node", node),
        "--cluster-key-file": ("cluster.key_file", cluster_key_file),
        "--keep-hours": ("retention.keep_seconds", _times(keep_hours, _HOUR_SECONDS)),
        "--keep-mib": ("retention.keep_bytes", _times(keep_mib, _MIB)),
        "--keep-records": ("retention.keep_records", keep_records),
        "--tls-cert": ("network.tls_cert", tls_cert),
        "--tls-key": ("network.tls_key", tls_key),
        "--token-key-file": ("security.token.key_file", token_key_file),
        "--token-algorithm": ("security.token.algorithm", token_algorithm and token_algorithm.value),
        "--token-issuer": ("security.token.issuer", token_issuer),
        "--token-audience": ("security.token.audience", token_audience),
        "--token-leeway": ("security.token.leeway_seconds", token_leeway),
        "--api-keys": ("security.api_keys", api_keys or None),
        "--insecure": ("security.insecure", insecure or None),
        "--policy": ("security.policy_file", policy_file),
        "--audit-key-file": ("audit.key_file", audit_key_file),
        "--audit-anchor": ("audit.anchor_file", audit_anchor),
        "--audit-rotate-mib": ("audit.rotate_bytes", _times(audit_rotate_mib, _MIB)),
        "--audit-rotate-days": ("audit.rotate_seconds", _times(audit_rotate_days, _DAY_SECONDS)),
        "--audit-keep-files": ("audit.keep_files", audit_keep_files),
        "--enforce-budgets": ("security.enforce_budgets", enforce_budgets),
        "--allowed-origin": ("network.allowed_origins", _tuple(allowed_origin)),
        "--allowed-host": ("network.allowed_hosts", _tuple(allowed_host)),
        "--trusted-proxy": ("network.trusted_proxies", _tuple(trusted_proxy)),
        "--allow-outbound": ("security.allowed_outbound", _tuple(allow_outbound)),
        "--allow-redirect": ("security.allowed_redirects", _tuple(allow_redirect)),
        "--metrics-port": ("network.metrics_port", metrics_port),
        "--log-level": ("log.level", log_level and log_level.value),
        "--log-format": ("log.format", log_format and log_format.value),
    }
    read = command.settings_reader(config, set_ or (), options)
    if print_config:
        raise typer.Exit(command.print_settings(read))
    if canary:
        raise typer.Exit(runtime.run(lambda stop: command.follow(stop, read)))
    if workers > 1:
        from circuit_breaker_sdk.cli.workers import serve_workers  # noqa: PLC0415 (as above)

        given = sys.argv[sys.argv.index("serve") + 1 :]
        raise typer.Exit(runtime.run(lambda stop: serve_workers(stop, read, given, workers)))
    raise typer.Exit(runtime.run(lambda stop: command.serve(stop, read)))


def _times(value: float | None, factor: int) -> float | None:
    return None if value is None else value * factor


def _tuple(values: list[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(values)
