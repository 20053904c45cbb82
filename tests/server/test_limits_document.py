"""docs/limits.md has every bound of the server, with its default and a test that exists."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from circuit_breaker_server.caller_limits import CallerLimits
from circuit_breaker_server.config import ClusterSettings, DocumentLimits, RateSettings, ServerSettings
from circuit_breaker_server.outbound import AnswerLimits
from circuit_breaker_server.security.audit.summaries import AuditLimits

ROOT: Final = Path(__file__).parents[2]
SERVER: Final = ROOT / "src" / "circuit_breaker_server"
DOCUMENT: Final = ROOT / "docs" / "limits.md"

SETTINGS: Final = {
    "": ServerSettings,
    "document_limits.": DocumentLimits,
    "rates.": RateSettings,
    "answer_limits.": AnswerLimits,
    "caller_limits.": CallerLimits,
    "cluster.": ClusterSettings,
    "audit_limits.": AuditLimits,
}
NO_BOUNDS: Final = frozenset(
    {
        "port",
        "metrics_port",
        # how often the server does something by itself
        "snapshot_every",
        "ping_seconds",
        "mcp_check_seconds",
        "advance_seconds",
        "trim_every_seconds",
        # from when on the log tells of what is slow
        "slow_append_seconds",
        "slow_operation_seconds",
        "slow_loop_seconds",
        # a number of the system
        "cluster.log_socket",
        # when clients are asked to come back
        "retry_after_seconds",
        # how many brokers keep a record
        "cluster.replicas",
        # how long a timer sleeps before it looks at the clock again
        "engine/costs/costs.py: _MAX_SLEEP_SECONDS",
        "engine/mcp/session_deadlines.py: _MAX_SLEEP_SECONDS",
        "security/clock.py: _MAX_SLEEP_SECONDS",
        # how far a reader of the log looks ahead
        "gateway/catch_up.py: _MAX_STRIDE",
    }
)


class Row(NamedTuple):
    """A row of the table."""

    bound: str
    default: str
    test: str


def rows() -> Iterator[Row]:
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if found := re.fullmatch(r"\| `([^`]+)` \| ([^|]*) \| [^|]+ \| (?:`([^`]+)`|none) \|", line):
            yield Row(found[1], found[2], found[3] or "")


def constants(path: Path) -> Iterator[tuple[str, object]]:
    """Yield the numbers that a module holds in names of its own."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign):
            target: ast.expr = node.targets[0]
        elif isinstance(node, ast.AnnAssign):
            target = node.target
        else:
            continue
        if isinstance(target, ast.Name) and target.id.lstrip("_").isupper() and node.value is not None:
            expression = ast.unparse(node.value)
            if re.fullmatch(r"[\d\s.e*+()_-]+", expression):
                yield target.id, eval(expression)  # noqa: S307 (digits and operators of our own source)


def numbers() -> dict[str, object]:
    """Return every number of the settings, and every constant of the server that is one."""
    found: dict[str, object] = {}
    for prefix, settings in SETTINGS.items():
        for field in dataclasses.fields(settings):
            if re.fullmatch(r"(int|float)( \| None)?", str(field.type)):
                found[prefix + field.name] = field.default
    for path in SERVER.rglob("*.py"):
        for name, value in constants(path):
            found[f"{path.relative_to(SERVER).as_posix()}: {name}"] = value
    return found


def is_bound(name: str) -> bool:
    is_constant = ": " in name
    return name not in NO_BOUNDS and (not is_constant or bool(re.search(r": _?MAX_", name)))


def written(name: str, value: object) -> str:
    """Write a default as the table has it."""
    if value is None:
        return "none"
    assert isinstance(value, int | float)
    lower = name.lower()
    if lower.endswith("bytes") or name.endswith(("_MAX_ANSWER", "_MAX_GROUP_BYTES")):
        for size, unit in ((1024 * 1024, "MiB"), (1024, "KiB")):
            if value >= size and value % size == 0:
                return f"{value // size:,} {unit}"
        return f"{value:,} bytes"
    if lower.endswith(("seconds", "_max_lifetime")):
        return f"{value:,g} s" if value < 1_000_000 else f"{value // 86_400:,g} days"
    if lower.endswith("_ms"):
        return f"{value:,} ms"
    return f"{value:,.0f}" if isinstance(value, float) else f"{value:,}"


def test_every_bound_of_the_server_is_in_the_table_once() -> None:
    listed = [row.bound for row in rows()]
    assert len(listed) == len(set(listed))
    assert {name for name in numbers() if is_bound(name)} - set(listed) == set()


def test_nothing_is_in_the_table_that_the_server_does_not_have() -> None:
    assert {row.bound for row in rows()} - numbers().keys() == set()


def test_the_defaults_in_the_table_are_those_of_the_code() -> None:
    found = numbers()
    wrong = {
        row.bound: (row.default, written(row.bound, found[row.bound]))
        for row in rows()
        if row.default != written(row.bound, found[row.bound])
    }
    assert wrong == {}


def test_every_test_that_the_table_names_exists() -> None:
    missing = set()
    for row in rows():
        if row.test:
            path, _, name = row.test.partition("::")
            source = ROOT / path
            if not source.is_file() or f"def {name}(" not in source.read_text(encoding="utf-8"):
                missing.add(row.test)
    assert missing == set()
