"""The commands that talk to any GraphQL server, and their options: ``watch``, ``query`` and their like."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from circuit_breaker_sdk.cli import runtime
from circuit_breaker_sdk.cli.client_options import DEFAULT_URL, DEFAULT_URLS, Token, Urls, only_url
from circuit_breaker_sdk.errors import UsageError

__all__ = ["STREAM_NAMES", "doctor", "nodes", "query", "schema", "watch"]

STREAM_NAMES = (
    "resource-updates",
    "workflow-events",
    "agent-executions",
    "llm-stream",
    "cost-updates",
    "mcp-server-status",
    "mcp-sessions",
)
"""As in ``streams.STREAMS``, which is slow to load."""


def watch(
    stream: Annotated[
        str,
        typer.Argument(
            metavar="STREAM|SUBSCRIPTION",
            help=f"A stream ({', '.join(STREAM_NAMES)}); or a subscription of any GraphQL server: the text, "
            "@file, or - for stdin.",
            show_default=False,
        ),
    ],
    *,
    resource_id: Annotated[
        str | None, typer.Option(help="Only this resource (resource-updates, agent-executions).")
    ] = None,
    workflow_id: Annotated[
        str | None, typer.Option(help="Only this workflow (resource-updates); workflow-events needs it.")
    ] = None,
    state: Annotated[
        str | None, typer.Option(help="Only resources that reach this state (resource-updates).")
    ] = None,
    execution_id: Annotated[
        str | None, typer.Option(help="This run, from its beginning (agent-executions).")
    ] = None,
    agent_id: Annotated[str | None, typer.Option(help="Runs of this agent (agent-executions).")] = None,
    request_id: Annotated[
        str | None, typer.Option(help="The completion, from its beginning; llm-stream needs it.")
    ] = None,
    user_id: Annotated[str | None, typer.Option(help="Only this user (cost-updates, mcp-sessions).")] = None,
    server_id: Annotated[
        str | None, typer.Option(help="Only this MCP server (mcp-server-status, mcp-sessions).")
    ] = None,
    project_id: Annotated[str | None, typer.Option(help="Only this project (cost-updates).")] = None,
    variable: Annotated[
        list[str] | None,
        typer.Option(
            "--variable",
            "-v",
            metavar="NAME=VALUE",
            help="A variable of a subscription: JSON, any other text as it is, or @file; may be repeated.",
        ),
    ] = None,
    url: Urls = DEFAULT_URLS,
    token: Token = None,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Begin with the first event there ever was.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Begin at a time, 2026-01-31T12:00:00Z, or so long ago: 10m, 2h."),
    ] = None,
    last: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Begin with this many events before now.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after this many events.")] = None,
    wait: Annotated[
        float | None,
        typer.Option(min=0.001, metavar="SECONDS", help="End with status 7 after a silence this long."),
    ] = None,
    field: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Show this member of each event only, as history.0.activity."),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="JSON lines on a terminal too; texts of --field without quotes.")
    ] = False,
    rate: Annotated[
        bool, typer.Option("--rate", help="Show once a second how many events come, in place of them.")
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keep in this file how far events were shown, and go on from there; with servers that have "
            "cursors.",
        ),
    ] = None,
) -> None:
    """Show events as they happen: a live table on a terminal, one JSON object a line when piped.

    circuit-breaker watch resource-updates --state approved

    circuit-breaker watch 'subscription($id: ID!) { orderChanged(id: $id) { state } }' -v id=7 --url URL

    stdout holds nothing but events; stderr says when the stream is connected, live, reconnecting, live again
    and ended, and which events are missing.
    """
    from circuit_breaker_sdk.cli import streams  # noqa: PLC0415 (rich is slow to load: not for --help)
    from circuit_breaker_sdk.cli import watch as command  # noqa: PLC0415 (as above)
    from circuit_breaker_sdk.cli.beginnings import Beginning  # noqa: PLC0415 (as below)

    options = {
        "resource_id": resource_id,
        "workflow_id": workflow_id,
        "state": state,
        "execution_id": execution_id,
        "agent_id": agent_id,
        "request_id": request_id,
        "user_id": user_id,
        "project_id": project_id,
        "server_id": server_id,
    }
    if rate and (raw or field is not None):
        raise typer.BadParameter("--rate shows no events: give it, or --field and --raw")
    try:
        watched = streams.choose(stream, options, variable or ())
        beginning = Beginning.of(from_beginning=from_beginning, since=since, last=last)
    except UsageError as error:
        raise typer.BadParameter(str(error)) from error
    raise typer.Exit(
        runtime.run(
            lambda stop: command.watch(
                stop,
                watched,
                url=url,
                token=token,
                beginning=beginning,
                count=count,
                wait_seconds=wait,
                view=partial(command.view_of, field=field, raw=raw, rate=rate),
                place=resume,
            )
        )
    )


def query(
    document: Annotated[
        str,
        typer.Argument(help="A query or mutation: the text, @file, or - for stdin.", show_default=False),
    ],
    *,
    variable: Annotated[
        list[str] | None,
        typer.Option(
            "--variable",
            "-v",
            metavar="NAME=VALUE",
            help="A variable: JSON, any other text as it is, or @file; may be repeated.",
        ),
    ] = None,
    operation: Annotated[
        str | None, typer.Option(help="The operation's name, where the document has several.")
    ] = None,
    url: Urls = DEFAULT_URLS,
    token: Token = None,
) -> None:
    """Send a query or mutation to any GraphQL server; print its data as JSON, its errors on stderr.

    circuit-breaker query '{ workflows { id name } }'

    circuit-breaker query @create.graphql -v name=invoices -v limits='{"perDay": 20}'
    """
    from circuit_breaker_sdk.cli import documents  # noqa: PLC0415 (as below)
    from circuit_breaker_sdk.cli import query as command  # noqa: PLC0415 (as below)

    try:
        text, variables = documents.read_document(document), documents.read_variables(variable or ())
    except UsageError as error:
        raise typer.BadParameter(str(error)) from error
    raise typer.Exit(
        runtime.run(
            lambda stop: command.query(stop, text, variables, url=url, token=token, operation_name=operation)
        )
    )


def doctor(
    url: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="URL", help="The server: ws, wss, http or https; one.", show_default=DEFAULT_URL
        ),
    ] = None,
    *,
    token: Token = None,
    authority: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Trust the authorities in this file (PEM), not the system's."),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="How long each step may take.")
    ] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the steps as one JSON object.")] = False,
) -> None:
    """Examine the way to any GraphQL server step by step: what works, what does not, and what to do.

    circuit-breaker doctor wss://example.com/graphql

    circuit-breaker doctor http://localhost:4000/graphql --token "$TOKEN" --json

    The steps: name, port, TLS, GraphQL over HTTP, clocks, server-sent events, long polling, WebSocket,
    credentials, resume, 1,000 pings. The status is 0 if nothing is wrong, else 1.
    """
    from circuit_breaker_sdk.cli.doctor import examination  # noqa: PLC0415 (aiohttp is slow to load)

    server = only_url(url or DEFAULT_URLS)
    raise typer.Exit(
        runtime.run(
            lambda stop: examination.doctor(
                stop, server, token=token, seconds=seconds, authority=authority, as_json=as_json
            )
        )
    )


def schema(
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what introspection answers, as JSON.")
    ] = False,
    url: Urls = DEFAULT_URLS,
    token: Token = None,
) -> None:
    """Print the schema of any GraphQL server that allows introspection, in the schema language.

    circuit-breaker schema > schema.graphql

    circuit-breaker schema --url https://example.com/graphql --json
    """
    # Here, not above: graphql-core comes with the server's extra.
    from circuit_breaker_sdk.cli.schema import print_server_schema  # noqa: PLC0415 (see the line above)

    raise typer.Exit(
        runtime.run(lambda stop: print_server_schema(stop, url=url, token=token, as_json=as_json))
    )


def nodes(
    context: typer.Context,
    address: Annotated[
        list[str] | None,
        typer.Argument(metavar="URL", help="The server, as --url; one.", show_default=False),
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the nodes as one JSON array.")] = False,
    raise_format: Annotated[
        bool,
        typer.Option(
            "--raise-format",
            help="First let the nodes write records in the newest version that they read. No way back.",
        ),
    ] = False,
    url: Urls = DEFAULT_URLS,
    token: Token = None,
) -> None:
    """List the servers ("nodes") that share one event log, as the one that is asked sees them.

    circuit-breaker nodes

    circuit-breaker nodes https://example.com/graphql --token "$TOKEN" --json

    circuit-breaker nodes https://example.com/graphql --token "$TOKEN" --raise-format

    A node is live, has left in order, or is gone: it was not heard of for ten seconds. BEHIND is the number
    of records that it has yet to read. Each start of a node is a new term. READS is the newest version of
    records that it reads, and the last line the version that all of them write. After an upgrade of all nodes
    --raise-format, as an administrator, lets them write the newer one; older programs cannot start then.
    """
    from circuit_breaker_sdk.cli import nodes as command  # noqa: PLC0415 (aiohttp is slow to load)

    source = context.get_parameter_source("url")
    is_option_given = source is not None and source.name == "COMMANDLINE"
    server = only_url([*(address or ()), *(url if is_option_given or not address else ())])
    raise typer.Exit(
        runtime.run(
            lambda stop: command.nodes(stop, server, token=token, as_json=as_json, raise_format=raise_format)
        )
    )
