"""``circuit-breaker policy``: what an access policy says, before a server acts on it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circuit_breaker_sdk.cli.exit_codes import EXIT_CODES_HELP, ExitCode
from circuit_breaker_sdk.cli.runtime import one_line, print_error

if TYPE_CHECKING:
    from circuit_breaker_server.security.policy import Policy

__all__ = ["app"]

app: typer.Typer = typer.Typer(
    help="The access policy: check a file.",
    epilog=EXIT_CODES_HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
)

_STANDINGS = {
    "named": "is named",
    "disabled": "is disabled: may do nothing",
    "anyone": "is not named: has the rights of anyone",
    "unknown": "is not named, and there is no [anyone]: may do nothing",
}


@app.callback()
def options() -> None:
    """The access policy: check a file."""


@app.command(epilog=EXIT_CODES_HELP)
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The policy, in TOML.", show_default=False)],
    *,
    principal: Annotated[str | None, typer.Option(help="Say also what this principal may do.")] = None,
) -> None:
    """Say whether a policy is valid, and its version. Whatever is wrong with it has a line on stderr."""
    from circuit_breaker_server.security.policy import (  # noqa: PLC0415 (the server is an extra)
        Policy,
        PolicyError,
    )

    try:
        policy = Policy.load(file)
    except PolicyError as error:
        for problem in error.problems:
            print_error(problem)
        raise typer.Exit(ExitCode.VERDICT) from error
    _print(f"valid: {file} (version {policy.version})")
    if principal is not None:
        _explain(policy, principal)


def _explain(policy: Policy, principal: str) -> None:
    standing = policy.standing(principal)
    _print(f"principal: {principal} {_STANDINGS[standing]}")
    if standing in {"named", "anyone"}:
        rights = policy.rights_of(principal)
        _print("tenant: " + ("every" if rights.tenant == "*" else str(rights.tenant)))
        for scope in rights.scopes or ("none",):
            _print(f"scope: {scope}")


def _print(line: str) -> None:
    sys.stdout.write(one_line(line) + "\n")
