"""Look at the text of a document without parsing it: what it does, and what no client here can take."""

from __future__ import annotations

import re
from typing import Final

from circuit_breaker_sdk.errors import UsageError

__all__ = ["is_mutation", "refuse_incremental"]

# Texts and comments are taken whole: what is in them is no document.
_PARTS: Final = re.compile(
    r'"""(?:\\"""|[^"]|"(?!""))*"""|"(?:[^"\\\n]|\\.)*"|#[^\n]*|[{}]|\$\w+|@[\s,]*\w+|\w+'
)
_INCREMENTAL: Final = frozenset({"defer", "stream"})


def is_mutation(document: str, operation_name: str | None = None) -> bool:
    """Tell whether executing a document changes something: its one operation, or the one of this name."""
    depth = 0
    words: list[str] = []
    for part in _PARTS.findall(document):
        if part in "{}":
            depth += 1 if part == "{" else -1
        elif depth == 0 and part[0] not in '"#$@':
            words.append(part)
    return any(
        word == "mutation" and (operation_name is None or words[i + 1 : i + 2] == [operation_name])
        for i, word in enumerate(words)
    )


def refuse_incremental(document: str) -> None:
    """Let a document pass that asks for whole answers: one in parts would be taken for a whole one.

    :raises UsageError: it has the directive ``@defer`` or ``@stream``; the text names it and its place.
    """
    if "defer" not in document and "stream" not in document:
        return
    for found in _PARTS.finditer(document):
        if found[0][0] == "@" and (name := found[0][1:].lstrip(" \t\r\n,")) in _INCREMENTAL:
            line = document.count("\n", 0, found.start()) + 1
            column = found.start() - document.rfind("\n", 0, found.start())
            raise UsageError(
                f"the document has @{name} (line {line}, column {column}): answers in parts are not "
                "supported; leave the directive out"
            )
