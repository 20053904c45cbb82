"""A few requests to a server, and their result as JSON or as a table."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from circuit_breaker_sdk import Client
from circuit_breaker_sdk.cli.client_options import ADVICE_WITHOUT_CREDENTIALS
from circuit_breaker_sdk.cli.exit_codes import ExitCode, exit_code_of
from circuit_breaker_sdk.cli.runtime import give_up_stdout, one_line, print_error, until_stopped
from circuit_breaker_sdk.errors import AuthenticationFailed, CircuitBreakerError

__all__ = ["Table", "failed", "print_found", "print_text", "request", "table_text"]

_WIDEST: Final = 48


class Table(msgspec.Struct, frozen=True):
    """A value that is a table on a terminal, and JSON else.

    :ivar value: for JSON.
    :ivar rows: cells as text.
    """

    value: object
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


async def request(
    stop: asyncio.Event,
    url: str | Sequence[str],
    token: str | None,
    ask: Callable[[Client], Awaitable[object]],
) -> int:
    """Ask the server and print what comes back; return the exit status."""

    async def run() -> object:
        async with Client(url, token=token) as client:
            return await ask(client)

    try:
        found = await until_stopped(stop, run())
    except CircuitBreakerError as error:
        return failed(error, token)
    if found is None:
        print_error("interrupted: a mutation may have happened")
        return ExitCode.INTERRUPTED
    print_found(found)
    return ExitCode.OK


def print_found(found: object) -> None:
    """Print a table, a text as it is, or anything else as JSON."""
    if isinstance(found, Table):
        _print_table(found)
    elif isinstance(found, str):
        print_text(found)
    else:
        _print_json(found)


def failed(error: CircuitBreakerError, token: str | None, *, live: bool = False) -> int:
    """Tell an error in one line, and what to do where a token is missing; return the exit status.

    :param live: as :func:`.exit_codes.exit_code_of`.
    """
    advice = (
        f"; {ADVICE_WITHOUT_CREDENTIALS}" if isinstance(error, AuthenticationFailed) and token is None else ""
    )
    print_error(f"{error}{advice}")
    return exit_code_of(error, live=live)


def _print_json(value: object) -> None:
    """Print a value as JSON: indented on a terminal, else on one line."""
    text = msgspec.json.encode(value)
    if sys.stdout.isatty():
        text = msgspec.json.format(text, indent=2)
    print_text(text.decode())


def print_text(text: str) -> None:
    """Print a text; a reader of stdout that has gone is a good end."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        give_up_stdout()


def _print_table(table: Table) -> None:
    if not sys.stdout.isatty():
        _print_json(table.value)
        return
    print_text(table_text(table))


def table_text(table: Table) -> str:
    """Write a table as lines of text, the columns below each other."""
    lines = [list(table.heads), *([_cell(each) for each in row] for row in table.rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cell(text: str) -> str:
    text = one_line(text)
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"
