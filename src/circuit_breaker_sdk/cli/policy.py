"""``circuit-breaker policy``: what an access policy says, before servers act on it; and give it to them."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circuit_breaker_sdk.cli.exit_codes import ExitCode, help_end
from circuit_breaker_sdk.cli.runtime import one_line, print_error
from circuit_breaker_sdk.cli.server_place import (
    ConfigOption,
    LogOption,
    ServerPlace,
    SetOption,
    opened_bucket,
    server_place,
)

if TYPE_CHECKING:
    from circuit_breaker_sdk.cli.policy_reach import Reach
    from circuit_breaker_server.security.policy import Policy

__all__ = ["app"]

app: typer.Typer = typer.Typer(
    help="The access policy: check a file, give it to servers that share one.",
    epilog=help_end("security.md"),
    no_args_is_help=True,
    rich_markup_mode=None,
)

_STANDINGS = {
    "named": "is named",
    "disabled": "is disabled: may do nothing",
    "anyone": "is not named: has the rights of anyone",
    "unknown": "is not named, and there is no [anyone]: may do nothing",
}


@app.command(epilog=help_end("security.md"))
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The policy, in TOML.", show_default=False)],
    *,
    principal: Annotated[str | None, typer.Option(help="Say also what this principal can reach.")] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print one JSON object, in which each field has the scopes that its inputs take."
        ),
    ] = False,
) -> None:
    """Say whether a policy is valid, and its version. Whatever is wrong with it has a line on stderr.

    circuit-breaker policy check policy.toml

    circuit-breaker policy check policy.toml --principal user-7

    For a principal: the tenant, what it may read, write and administer, and the fields of queries, mutations
    and subscriptions that are open to it with some arguments.
    """
    from circuit_breaker_sdk.cli.policy_reach import reach_of  # noqa: PLC0415 (the server is an extra)
    from circuit_breaker_server.security.policy import Policy, PolicyError  # noqa: PLC0415 (as above)

    try:
        policy = Policy.load(file)
    except PolicyError as error:
        for problem in error.problems:
            print_error(problem)
        raise typer.Exit(ExitCode.VERDICT) from error
    reach = None if principal is None else reach_of(policy, principal)
    if as_json:
        found = {"file": str(file), "version": policy.version} | ({} if reach is None else reach.as_json())
        sys.stdout.write(json.dumps(found) + "\n")
        return
    _print(f"valid: {file} (version {policy.version})")
    if reach is not None:
        _explain(reach)


@app.command(epilog=help_end("settings.md"))
def publish(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The policy, in TOML.", show_default=False)],
    *,
    log: LogOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
) -> None:
    """Check a policy, and give it to all servers that share an event log on NATS JetStream.

    circuit-breaker policy publish policy.toml --log nats://host:4222 --set cluster.key_file=cluster.key

    circuit-breaker policy publish policy.toml --config server.toml

    Servers with the setting security.policy_from=bucket act on it within a second. A policy that is not valid
    is not published; whatever is wrong with it has a line on stderr.
    """
    # Here, not above: the server is an extra.
    from circuit_breaker_server.log.event_log import LogError  # noqa: PLC0415 (see the line above)
    from circuit_breaker_server.security.policy import Policy, PolicyError  # noqa: PLC0415 (as above)
    from circuit_breaker_server.storage.secret_store import SecretStoreError  # noqa: PLC0415 (as above)

    place = server_place(None, log, config, set_)
    if not place.has_bucket:
        print_error("name the brokers with --log, and the cluster key with --set cluster.key_file=FILE")
        raise typer.Exit(ExitCode.USAGE)
    try:
        # Before the brokers are asked for anything.
        Policy.load(file)
        policy, where = asyncio.run(_publish(file, place))
    except PolicyError as error:
        for problem in error.problems:
            print_error(problem)
        raise typer.Exit(ExitCode.VERDICT) from error
    except (LogError, SecretStoreError) as error:
        print_error(error)
        raise typer.Exit(ExitCode.UNREACHABLE) from error
    _print(f"published: {file} (version {policy.version}) in {where}")


async def _publish(file: Path, place: ServerPlace) -> tuple[Policy, str]:
    async with opened_bucket(place) as bucket:
        # Here, not above: it needs the extra cluster.
        from circuit_breaker_server.security.shared_policy import (  # noqa: PLC0415 (see the line above)
            publish_policy,
        )

        return await publish_policy(bucket, file), bucket.where


def _explain(reach: Reach) -> None:
    _print(f"principal: {reach.principal} {_STANDINGS[reach.standing]}")
    if reach.tenant is None:
        return
    _print("tenant: " + ("every" if reach.tenant == "*" else reach.tenant))
    for kind, actions in reach.kinds.items():
        allowed = [f"{action} {', '.join(names)}" for action, names in actions.items() if names]
        _print(f"{kind}: {'; '.join(allowed) or 'nothing'}")
    for root, fields in reach.fields.items():
        _print(f"{root} ({len(fields)} of {reach.totals[root]}): {', '.join(fields) or 'none'}")


def _print(line: str) -> None:
    sys.stdout.write(one_line(line) + "\n")
