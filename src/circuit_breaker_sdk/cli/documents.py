"""Documents and variables as they are given on the command line."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from circuit_breaker_sdk.errors import UsageError

__all__ = ["read_document", "read_variables"]

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
