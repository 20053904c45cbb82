"""docs/operations.md has every event of the server's log, with its levels and its fields."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
SERVER: Final = ROOT / "src" / "circuit_breaker_server"
DOCUMENT: Final = ROOT / "docs" / "operations.md"
LEVELS: Final = {
    "debug": "debug",
    "info": "info",
    "warning": "warning",
    "error": "error",
    "exception": "error",
    "critical": "critical",
    "log": "warning",
}
NOT_FIELDS: Final = frozenset({"exc_info", "key"})

Event = tuple[frozenset[str], frozenset[str]]


def calls() -> Iterator[tuple[ast.Call, ast.Attribute]]:
    for path in SERVER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                yield node, node.func


def written() -> dict[str, Event]:
    """Return the levels and fields of each event that the code writes."""
    levels: defaultdict[str, set[str]] = defaultdict(set)
    fields: defaultdict[str, set[str]] = defaultdict(set)
    for call, method in calls():
        given = {each.arg for each in call.keywords if each.arg is not None} - NOT_FIELDS
        if method.attr == "note" and re.search(r"(refusals|noted)$", ast.unparse(method.value)):
            fields["refused"] |= given
        event = call.args[method.attr == "log"] if len(call.args) > (method.attr == "log") else None
        if method.attr not in LEVELS or not isinstance(event, ast.Constant):
            continue
        assert isinstance(event.value, str)
        levels[event.value].add(LEVELS[method.attr])
        fields[event.value] |= given
    return {event: (frozenset(levels[event]), frozenset(fields[event])) for event in levels}


def documented() -> dict[str, Event]:
    found: dict[str, Event] = {}
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        row = re.fullmatch(
            r"\| `(\w+)` \| ((?:debug|info|warning|error|critical)[a-z, ]*) \| ([^|]*) \| [^|]+ \|", line
        )
        if row is not None:
            assert row[1] not in found, row[1]
            found[row[1]] = (frozenset(row[2].split(", ")), frozenset(re.findall(r"`(\w+)`", row[3])))
    return found


def test_every_event_of_the_log_is_in_the_table_with_its_level_and_fields() -> None:
    assert documented() == written()


def test_no_field_is_named_as_what_must_not_be_logged() -> None:
    names = {name for _, fields in written().values() for name in fields}
    assert (
        names & {"payload", "variables", "token", "query", "authorization", "headers", "body", "cursor"}
        == set()
    )
