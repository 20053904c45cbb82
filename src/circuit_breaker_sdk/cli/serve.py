"""``circuit-breaker serve``: run a server until a signal ends it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from circuit_breaker_sdk.cli.exit_codes import ExitCode
from circuit_breaker_sdk.cli.runtime import Stop, print_error, print_marker, settle_memory, until_stopped
from circuit_breaker_sdk.errors import UsageError
from circuit_breaker_server import (
    RecordNotAppliedError,
    Server,
    ServerSettings,
    ServerStartError,
    TokenSettings,
)
from circuit_breaker_server.admission.connection_limits import is_loopback

__all__ = ["serve", "token_settings"]


def token_settings(
    key_file: Path | None,
    *,
    algorithm: str,
    issuer: str | None,
    audience: str | None,
    leeway_seconds: float,
) -> TokenSettings | None:
    """Return which tokens to ask for, ``None`` for none.

    :raises UsageError: an option has no sense, or none without a key.
    """
    if key_file is None:
        # A setting about tokens without a key would look as if tokens were required.
        if issuer is not None or audience is not None or algorithm != "HS256":
            raise UsageError("--token-algorithm, --token-issuer and --token-audience need --token-key-file")
        return None
    try:
        return TokenSettings(
            key=key_file,
            algorithm=algorithm,
            issuer=issuer,
            audience=audience,
            leeway_seconds=leeway_seconds,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error


async def serve(
    stop: Stop,
    *,
    host: str,
    port: int,
    data: Path,
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    keep_hours: float | None = None,
    keep_mib: int | None = None,
    keep_records: int | None = None,
    tokens: TokenSettings | None = None,
    api_keys: bool = False,
    insecure: bool = False,
    policy_file: Path | None = None,
    audit_key_file: Path | None = None,
    audit_anchor: Path | None = None,
    audit_rotate_mib: int | None = None,
    audit_rotate_days: float | None = None,
    audit_keep_files: int | None = None,
    enforce_budgets: bool | None = None,
    allowed_origins: Sequence[str] = (),
    allowed_hosts: Sequence[str] = (),
    trusted_proxies: Sequence[str] = (),
    allowed_outbound: Sequence[str] | None = None,
    allowed_redirects: Sequence[str] | None = None,
    metrics_port: int | None = None,
) -> int:
    """Serve until the event is set; then end every connection properly and close the log.

    SIGTERM drains the server before: connections are closed one by one, over some seconds.

    One line on stdout says when the server is ready, and where: ``ready: http://127.0.0.1:4000/graphql …``.
    One on stderr before it warns where no
    authentication is configured.

    :param port: 0 picks a free one.
    :param data: the directory of the event log; made where there is none.
    :param tls_cert: serves ``https`` and ``wss`` with this certificate and its key; ``None``: without TLS.
    :param keep_hours: older records of the log go; ``None`` keeps them. The two others likewise, by size and
        by number.
    :param tokens: how the tokens of clients are checked. Without tokens and API keys every caller
        has full access.
    :param api_keys: whether API keys are taken.
    :param insecure: whether without tokens and API keys other machines may reach the server; else it is wrong
        usage.
    :param policy_file: the permissions of principals; ``None``: every caller may do everything.
    :param audit_key_file: seals the audit log, which there is where callers are known.
    :param audit_anchor: holds its last seal.
    :param audit_rotate_mib: continues the audit log in a new file above this size; ``None``: the setting's
        default. The next parameter likewise, by age.
    :param audit_keep_files: full files of the audit log that stay; ``None`` keeps all.
    :param enforce_budgets: whether an exhausted budget refuses completions; ``None``: where callers are
        known.
    :param allowed_origins: of pages in browsers that may use the server, besides its own.
    :param allowed_hosts: names by which it may be addressed, besides those of this machine.
    :param trusted_proxies: addresses and networks that may hold any number of connections.
    :param allowed_outbound: where the server may connect for callers, besides public addresses; ``None``:
        loopback, if it listens there without authentication.
    :param allowed_redirects: where OAuth providers may send users back to, besides loopback; ``None``: to the
        address that is configured for the MCP server.
    :param metrics_port: of 127.0.0.1, for Prometheus; 0 picks a free one, ``None`` serves no metrics.
    """
    try:
        settings = ServerSettings(
            host=host,
            port=port,
            data_dir=data,
            tls_cert=tls_cert,
            tls_key=tls_key,
            keep_seconds=None if keep_hours is None else keep_hours * 3600,
            keep_bytes=None if keep_mib is None else keep_mib * 1024 * 1024,
            keep_records=keep_records,
            token_keys=tokens,
            api_keys=api_keys,
            insecure=insecure,
            policy_file=policy_file,
            audit_key_file=audit_key_file,
            audit_anchor_file=audit_anchor,
            audit_keep_files=audit_keep_files,
            enforce_budgets=enforce_budgets,
            allowed_origins=tuple(allowed_origins),
            allowed_hosts=tuple(allowed_hosts),
            trusted_proxies=tuple(trusted_proxies),
            allowed_outbound=None if allowed_outbound is None else tuple(allowed_outbound),
            allowed_redirects=None if allowed_redirects is None else tuple(allowed_redirects),
            metrics_port=metrics_port,
        )
        if audit_rotate_mib is not None:
            settings = replace(settings, audit_rotate_bytes=audit_rotate_mib * 1024 * 1024)
        if audit_rotate_days is not None:
            settings = replace(settings, audit_rotate_seconds=audit_rotate_days * 86_400)
    except ValueError as error:
        print_error(error)
        return ExitCode.USAGE
    if (exposure := settings.exposure()) is not None:
        # Not UNREACHABLE as what else stops the start: no later try would do better.
        print_error(exposure)
        return ExitCode.USAGE
    server = Server(settings)
    try:
        await server.start()
    except RecordNotAppliedError as error:
        print_error(error)
        return ExitCode.FAIL_STOP
    except ServerStartError as error:
        print_error(error)
        return ExitCode.UNREACHABLE
    try:
        settle_memory()
        if settings.is_open:
            print_marker("open", _open_access(settings))
        if server.metrics_url is not None:
            print_marker("metrics", server.metrics_url)
        sys.stdout.write(f"ready: {server.url} (data in {data}; stop with Ctrl-C)\n")
        sys.stdout.flush()
        await until_stopped(stop, server.wait())
        if stop.is_termination:
            await until_stopped(stop.again, server.drain())
    finally:
        await server.aclose()
    if server.failure is not None:
        print_error(f"stopped: {server.failure}")
        return ExitCode.FAIL_STOP
    return ExitCode.INTERRUPTED if stop.again.is_set() else ExitCode.OK


def _open_access(settings: ServerSettings) -> str:
    callers = "any local process" if is_loopback(settings.host) else "any program that reaches this server"
    return (
        f"no authentication configured: {callers} has full access. Set --token-key-file or --api-keys to "
        "require credentials"
    )
