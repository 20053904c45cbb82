"""``circuit-breaker query``: send one query or mutation to any GraphQL server, and print what it answers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from circuit_breaker_sdk import Client
from circuit_breaker_sdk.cli.exit_codes import ExitCode, exit_code_of
from circuit_breaker_sdk.cli.runtime import give_up_stdout, print_error, until_stopped
from circuit_breaker_sdk.errors import AuthenticationFailed, CircuitBreakerError, GraphQLError

__all__ = ["query"]


async def query(
    stop: asyncio.Event,
    document: str,
    variables: Mapping[str, Any],
    *,
    url: str,
    token: str | None,
    operation_name: str | None,
) -> int:
    """Print the answer's ``data`` as JSON: indented on a terminal, else on one line.

    Each of the server's errors is a line on stderr, and the status is then 5; what data there is is printed.
    """
    try:
        async with Client(url, token=token) as client:
            asked = client.execute(document, variables, operation_name=operation_name, errors="return")
            result = await until_stopped(stop, asked)
    except CircuitBreakerError as error:
        advice = "; give a token: --token, or CIRCUIT_BREAKER_TOKEN"
        print_error(f"{error}{advice if isinstance(error, AuthenticationFailed) and token is None else ''}")
        return exit_code_of(error, live=False)
    if result is None:
        print_error("interrupted: a mutation may have happened")
        return ExitCode.INTERRUPTED
    if result.data is not None:
        _print(result.data)
    for each in result.errors:
        print_error(_words(each))
    return ExitCode.REFUSED if result.errors else ExitCode.OK


def _print(data: object) -> None:
    text = msgspec.json.encode(data)
    if sys.stdout.isatty():
        text = msgspec.json.format(text, indent=2)
    try:
        sys.stdout.write(text.decode() + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        give_up_stdout()


def _words(error: GraphQLError) -> str:
    places = [f"line {each.get('line')}, column {each.get('column')}" for each in error.locations or ()]
    return " - ".join((str(error), *places))
