"""The commands and their options; what they do is in a module each."""

from __future__ import annotations

from typing import Annotated

import typer

from circuit_breaker_sdk._version import __version__
from circuit_breaker_sdk.cli import keys, policy, runtime, tokens
from circuit_breaker_sdk.cli.audit import audit_app
from circuit_breaker_sdk.cli.backups import backup, restore
from circuit_breaker_sdk.cli.client_commands import doctor, nodes, query, schema, watch
from circuit_breaker_sdk.cli.exit_codes import help_end
from circuit_breaker_sdk.cli.log import log_app
from circuit_breaker_sdk.cli.serve_options import serve
from circuit_breaker_sdk.cli.workflow_commands import resource_app, workflow_app

__all__ = ["app", "run"]

app: typer.Typer = typer.Typer(
    name="circuit-breaker",
    help="Serve and watch Circuit Breaker's real-time GraphQL subscriptions.",
    epilog=help_end("command-line.md"),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(workflow_app, name="workflow")
app.add_typer(resource_app, name="resource")
app.add_typer(tokens.app, name="token")
app.add_typer(keys.app, name="keys")
app.add_typer(policy.app, name="policy")
app.add_typer(audit_app, name="audit")
app.add_typer(log_app, name="log")
app.command(epilog=help_end("settings.md"))(serve)
app.command(epilog=help_end("operations.md"))(backup)
app.command(epilog=help_end("operations.md"))(restore)
app.command(epilog=help_end("command-line.md"))(watch)
app.command(epilog=help_end("command-line.md"))(query)
app.command(epilog=help_end("command-line.md"))(schema)
app.command(epilog=help_end("operations.md"))(doctor)
app.command(epilog=help_end("cluster.md"))(nodes)


def run() -> None:
    """Parse the command line, run the command, exit with its status."""
    app(prog_name="circuit-breaker")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"circuit-breaker {__version__}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that stand before the command."""


@app.command(epilog=help_end("command-line.md"))
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

    circuit-breaker demo

    circuit-breaker demo --seconds 10 --json

    Documents are reviewed and software is deployed, several at a time; what breaks a workflow's rules is
    refused. The status is 0 only if every operation received events, and none was lost, duplicated or
    reordered, judged against what the mutations returned. Nothing is left behind.
    """
    from circuit_breaker_sdk.cli import demo as command  # noqa: PLC0415 (the server is an extra, as above)

    raise typer.Exit(runtime.run(lambda stop: command.demo(stop, seconds=seconds, as_json=as_json)))


@app.command(epilog=help_end("cluster.md"))
def cluster(
    *,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=0.1, metavar="SECONDS", help="How long the workflows run; until Ctrl-C if not given."
        ),
    ] = None,
    every: Annotated[
        float, typer.Option(min=0.5, metavar="SECONDS", help="How long from one kill to the next.")
    ] = 6.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as one JSON object, the last line of stdout.")
    ] = False,
) -> None:
    """Run three nodes on three brokers, kill them one after another, and show that no event is lost.

    circuit-breaker cluster

    circuit-breaker cluster --seconds 30 --every 4 --json

    All of it is on this machine, in a temporary directory. The node that the client is connected to is
    killed, then a broker, and so on; each is started again two seconds later. On a terminal the keys n and b
    kill one at once. The status is 0 only if events came, and none was lost, doubled or reordered, judged
    against what the mutations returned. Nothing is left behind. Needs the extra cluster.
    """
    from circuit_breaker_sdk.cli import cluster as command  # noqa: PLC0415 (the server is an extra, as above)

    raise typer.Exit(
        runtime.run(lambda stop: command.cluster(stop, seconds=seconds, every=every, as_json=as_json))
    )
