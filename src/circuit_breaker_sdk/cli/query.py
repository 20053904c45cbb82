"""``circuit-breaker query``: send one query or mutation to any GraphQL server, and print what it answers."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from circuit_breaker_sdk import Client
from circuit_breaker_sdk.cli.exit_codes import ExitCode, exit_code_of
from circuit_breaker_sdk.cli.runtime import give_up_stdout, print_error, until_stopped
from circuit_breaker_sdk.errors import AuthenticationFailed, CircuitBreakerError, GraphQLError, UsageError

__all__ = ["query", "read_document", "read_variables"]

_NAME: Final = re.compile(r"[_A-Za-z][_0-9A-Za-z]*")


def read_document(given: str) -> str:
    """Return a document: the text itself, what is in the file of ``@file``, what stdin brings for ``-``.

    :raises UsageError: it cannot be read, or is empty.
    """
    text = sys.stdin.read() if given == "-" else _read(given[1:]) if given.startswith("@") else given
    if not text.strip():
        raise UsageError("the document is empty")
    return text


def read_variables(given: Sequence[str]) -> dict[str, Any]:
    """Read ``name=value`` each: a value that is JSON is taken as that, any other as text; ``@file`` is read.

    :raises UsageError: it has no name, a name comes twice, or a file cannot be read.
    """
    variables: dict[str, Any] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise UsageError(f"a variable is given as name=value, not as {each!r}")
        if name in variables:
            raise UsageError(f"the variable {name} is given twice")
        text = _read(value[1:]) if value.startswith("@") else value
        try:
            variables[name] = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            variables[name] = text
    return variables


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"{path} cannot be read: {why}") from error


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
