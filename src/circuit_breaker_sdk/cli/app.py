"""The commands and their options; what they do is in a module each."""

from __future__ import annotations

import enum
import math
from pathlib import Path
from typing import Annotated

import typer

from circuit_breaker_sdk._version import __version__
from circuit_breaker_sdk.cli import keys, policy, runtime
from circuit_breaker_sdk.cli.audit import audit_app
from circuit_breaker_sdk.cli.client_commands import query, watch
from circuit_breaker_sdk.cli.exit_codes import EXIT_CODES_HELP
from circuit_breaker_sdk.cli.log import log_app
from circuit_breaker_sdk.errors import UsageError

__all__ = ["app", "run"]

app: typer.Typer = typer.Typer(
    name="circuit-breaker",
    help="Serve and watch Circuit Breaker's real-time GraphQL subscriptions.",
    epilog=EXIT_CODES_HELP,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(keys.app, name="keys")
app.add_typer(policy.app, name="policy")
app.add_typer(audit_app, name="audit")
app.add_typer(log_app, name="log")
app.command(epilog=EXIT_CODES_HELP)(watch)
app.command(epilog=EXIT_CODES_HELP)(query)


class TokenAlgorithm(enum.StrEnum):
    """Algorithms that tokens may be signed with."""

    HS256 = "HS256"
    RS256 = "RS256"
    ES256 = "ES256"
    EDDSA = "EdDSA"


def run() -> None:
    """Parse the command line, run the command, exit with its status."""
    app(prog_name="circuit-breaker")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"circuit-breaker {__version__}")
        raise typer.Exit


def _refuse_if_not_positive(value: float | None) -> float | None:
    if value is not None and not 0 < value < math.inf:
        raise typer.BadParameter(f"{value} is not a number greater than 0")
    return value


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that stand before the command."""


@app.command(epilog=EXIT_CODES_HELP)
def serve(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")
    ] = 4000,
    data: Annotated[
        Path, typer.Option(metavar="DIR", help="Directory of the event log; made where there is none.")
    ] = Path("circuit-breaker-data"),
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
        TokenAlgorithm, typer.Option(help="The one algorithm tokens may be signed with.")
    ] = TokenAlgorithm.HS256,
    token_issuer: Annotated[str | None, typer.Option(help="What `iss` of a token must be.")] = None,
    token_audience: Annotated[str | None, typer.Option(help="What must be in `aud` of a token.")] = None,
    token_leeway: Annotated[
        float,
        typer.Option(min=0, metavar="SECONDS", help="How far the clocks of issuer and server may differ."),
    ] = 30.0,
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
) -> None:
    """Run a server until Ctrl-C. One line says when it is ready, and where.

    SIGTERM drains it: it takes on nothing new, and closes its connections one by one, in 5 s at most.

    Without a --keep option every event can be read again for ever. Whatever goes, the present state and the
    history of resources stay; a client that would resume before the first event kept is told that it cannot.

    Without --token-key-file and --api-keys there is no authentication: the server then listens on loopback
    only, unless --insecure is given.
    """
    # Here, not above: the server is an extra that `watch` does without.
    from circuit_breaker_sdk.cli import serve as command  # noqa: PLC0415 (see the line above)

    try:
        tokens = command.token_settings(
            token_key_file,
            algorithm=token_algorithm.value,
            issuer=token_issuer,
            audience=token_audience,
            leeway_seconds=token_leeway,
        )
    except UsageError as error:
        raise typer.BadParameter(str(error)) from error
    if policy_file is not None and tokens is None and not api_keys:
        raise typer.BadParameter("--policy needs --token-key-file or --api-keys: who asks must be known")
    raise typer.Exit(
        runtime.run(
            lambda stop: command.serve(
                stop,
                host=host,
                port=port,
                tls_cert=tls_cert,
                tls_key=tls_key,
                data=data,
                keep_hours=keep_hours,
                keep_mib=keep_mib,
                keep_records=keep_records,
                tokens=tokens,
                api_keys=api_keys,
                insecure=insecure,
                policy_file=policy_file,
                audit_key_file=audit_key_file,
                audit_anchor=audit_anchor,
                audit_rotate_mib=audit_rotate_mib,
                audit_rotate_days=audit_rotate_days,
                audit_keep_files=audit_keep_files,
                enforce_budgets=enforce_budgets,
                allowed_origins=allowed_origin or (),
                allowed_hosts=allowed_host or (),
                trusted_proxies=trusted_proxy or (),
                allowed_outbound=allow_outbound,
                allowed_redirects=allow_redirect,
                metrics_port=metrics_port,
            )
        )
    )


@app.command(epilog=EXIT_CODES_HELP)
def demo(
    *,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=0.1, metavar="SECONDS", help="How long the workflows run; until Ctrl-C if not given."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON object, the last line of stdout.")
    ] = False,
) -> None:
    """Run a server and real workflows in one process, and show every operation's events arrive.

    Documents are reviewed and software is deployed, several at a time; what breaks a workflow's rules is
    refused. The status is 0 only if every operation received events, and none was lost, duplicated or
    reordered, judged against what the mutations returned. Nothing is left behind.
    """
    from circuit_breaker_sdk.cli import demo as command  # noqa: PLC0415 (the server is an extra, as above)

    raise typer.Exit(runtime.run(lambda stop: command.demo(stop, seconds=seconds, as_json=as_json)))
