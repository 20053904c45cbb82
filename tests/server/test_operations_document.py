"""docs/operations.md has every metric and every path of health, and the alerts name metrics that exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from circuit_breaker_server.instruments import METRICS
from circuit_breaker_server.paths import HEALTH_PATHS

ROOT: Final = Path(__file__).parents[2]
DOCUMENT: Final = ROOT / "docs" / "operations.md"
ALERTS: Final = ROOT / "deploy" / "prometheus-alerts.yml"


def test_the_table_of_metrics_is_that_of_the_instruments() -> None:
    expected = []
    for metric in METRICS:
        labels = [
            f"`{name}`: " + ", ".join(f"`{value}`" for value in values)
            for name, values in (metric.labels or {}).items()
        ]
        shown = "; ".join(labels) or "none"
        expected.append(f"| `{metric.prometheus_name}` | {metric.kind} | {metric.about} | {shown} |")
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    # Those of the client have a test of their own.
    rows = [line for line in lines if re.match(r"\| `circuit_breaker_(?!client_)", line)]
    assert rows == expected


def test_every_path_of_health_is_in_the_document() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert [path for path in HEALTH_PATHS if f"| `GET {path}` |" not in text] == []


def test_every_metric_that_an_alert_names_exists() -> None:
    exported = set()
    for metric in METRICS:
        name = metric.prometheus_name
        endings = ("_bucket", "_count", "_sum") if metric.kind == "histogram" else ("",)
        exported |= {name + ending for ending in endings}
    expressions = re.findall(r"^ +expr: (.+)$", ALERTS.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(expressions) >= 5
    for expression in expressions:
        named = set(re.findall(r"circuit_breaker_\w+", expression))
        assert named, expression
        assert named <= exported, expression


def test_each_alert_has_a_name_of_its_own_and_a_summary() -> None:
    text = ALERTS.read_text(encoding="utf-8")
    names = re.findall(r"^ +- alert: (\w+)$", text, re.MULTILINE)
    assert len(names) == len(set(names)) == text.count("summary:") == text.count("expr:")
