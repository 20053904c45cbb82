"""``circuit-breaker query``: send one query or mutation to any GraphQL server, and print what it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from circuit_breaker_sdk import Client
from circuit_breaker_sdk.cli.exit_codes import ExitCode
from circuit_breaker_sdk.cli.requests import Table, failed, print_found
from circuit_breaker_sdk.cli.runtime import print_error, until_stopped
from circuit_breaker_sdk.errors import CircuitBreakerError, GraphQLError

__all__ = ["query"]


async def query(
    stop: asyncio.Event,
    document: str,
    variables: Mapping[str, Any],
    *,
    url: str | Sequence[str],
    token: str | None,
    operation_name: str | None,
) -> int:
    """Print the answer's ``data`` as JSON: indented on a terminal, else on one line.

    A list of flat objects, of a document with one root field, is a table on a terminal.

    Each of the server's errors is a line on stderr, and the status is then 5; what data there is is printed.
    """
    try:
        async with Client(url, token=token) as client:
            asked = client.execute(document, variables, operation_name=operation_name, errors="return")
            result = await until_stopped(stop, asked)
    except CircuitBreakerError as error:
        return failed(error, token)
    if result is None:
        print_error("interrupted: a mutation may have happened")
        return ExitCode.INTERRUPTED
    if result.data is not None:
        print_found(_as_table(result.data) or result.data)
    for each in result.errors:
        print_error(_words(each))
    return ExitCode.REFUSED if result.errors else ExitCode.OK


def _as_table(data: object) -> Table | None:
    """Return a table of what a document with one root field lists; ``None``: it lists nothing flat."""
    if not isinstance(data, dict) or len(data) != 1:
        return None
    (items,) = data.values()
    if not isinstance(items, list) or not items or not all(isinstance(each, dict) for each in items):
        return None
    heads = list(items[0])
    if not heads or any(list(each) != heads or any(map(_is_nested, each.values())) for each in items):
        return None
    rows = [["" if value is None else str(value) for value in each.values()] for each in items]
    return Table(data, heads, rows)


def _is_nested(value: object) -> bool:
    return isinstance(value, list | dict)


def _words(error: GraphQLError) -> str:
    places = [f"line {each.get('line')}, column {each.get('column')}" for each in error.locations or ()]
    return " - ".join((str(error), *places))
