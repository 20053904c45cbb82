"""The dashboard shows every metric by a name that exists, and Grafana can draw it."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from tests.deploy.prometheus_names import (
    CLIENT_METRICS,
    EXPORTED,
    KINDS,
    LABELS,
    SERVER_METRICS,
    brackets_balance,
    selectors,
)

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
DASHBOARD: Final[dict[str, Any]] = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
PANELS: Final[list[dict[str, Any]]] = DASHBOARD["panels"]
GRAPHS: Final = [panel for panel in PANELS if panel["type"] != "row"]
ALERTS: Final = re.findall(
    r"^ +expr: (.+)$", (DEPLOY / "prometheus-alerts.yml").read_text(encoding="utf-8"), re.MULTILINE
)
COLUMNS: Final = 24

LEFT_OUT: Final[Mapping[str, str]] = {}
"""Metrics that are not on the dashboard, with the reason."""


def expressions() -> list[str]:
    """Return the expressions of all panels."""
    return [target["expr"] for panel in GRAPHS for target in panel["targets"]]


def datasources(part: object) -> Iterator[object]:
    """Yield each data source that a part of the dashboard names, at any depth."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "datasource":
                yield value
            else:
                yield from datasources(value)
    elif isinstance(part, list):
        for value in part:
            yield from datasources(value)


@pytest.mark.parametrize("expression", [*expressions(), *ALERTS])
def test_an_expression_names_series_and_labels_that_exist(expression: str) -> None:
    assert brackets_balance(expression), expression
    found = selectors(expression)
    assert found or "ALERTS{" in expression, expression
    for series, matchers in found:
        assert series in EXPORTED, f"{series} is exported by neither the server nor the client"
        labels = LABELS[EXPORTED[series]]
        for label, value in matchers:
            if label == "instance":
                assert value in ("$instance", "$client")
            else:
                assert value in labels.get(label, ()), f"{series} has no {label}={value!r}"
    named = {
        label for labels in re.findall(r"\bby \(([^)]*)\)", expression) for label in re.split(r", *", labels)
    }
    known = {label for series, _ in found for label in LABELS[EXPORTED[series]]} | {"instance", "le"}
    assert named <= known


@pytest.mark.parametrize("expression", [*expressions(), *ALERTS])
def test_counters_are_rates_and_histograms_quantiles_or_rates(expression: str) -> None:
    for series, _ in selectors(expression):
        kind = KINDS[EXPORTED[series]]
        in_rate = (
            re.search(rf"\b(rate|increase)\({series}(\{{[^}}]*\}})?\[[^\]]+\]\)", expression) is not None
        )
        assert in_rate == (kind != "gauge"), f"{series} is a {kind}: {expression}"
    if "histogram_quantile" in expression:
        assert re.search(r"histogram_quantile\(0\.\d+, (sum by \(le\) \()?rate\(\w+_bucket", expression)


def test_a_panel_of_the_server_asks_for_servers_and_one_of_a_client_for_clients() -> None:
    for expression in expressions():
        for series, matchers in selectors(expression):
            wanted = "$client" if EXPORTED[series] in CLIENT_METRICS else "$instance"
            assert ("instance", wanted) in matchers, expression


@pytest.mark.parametrize("metric", [*SERVER_METRICS, *CLIENT_METRICS])
def test_every_metric_is_on_the_dashboard_or_left_out_for_a_reason(metric: str) -> None:
    shown = {EXPORTED.get(series) for expression in expressions() for series, _ in selectors(expression)}
    assert (metric in shown) != bool(LEFT_OUT.get(metric))
    assert set(LEFT_OUT) <= {*SERVER_METRICS, *CLIENT_METRICS}


def test_panels_have_ids_of_their_own_and_each_target_a_letter() -> None:
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)
    for panel in GRAPHS:
        letters = [target["refId"] for target in panel["targets"]]
        assert letters
        assert len(set(letters)) == len(letters)


def test_no_panel_overlaps_another_or_leaves_the_grid() -> None:
    places = [panel["gridPos"] for panel in PANELS]
    for place in places:
        assert place["x"] >= 0
        assert place["w"] > 0
        assert place["h"] > 0
        assert place["x"] + place["w"] <= COLUMNS
    for one, other in itertools.combinations(places, 2):
        assert (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        ), f"{one} overlaps {other}"


def test_each_panel_has_a_title_a_description_and_a_unit() -> None:
    titles = [panel["title"] for panel in GRAPHS]
    assert all(titles)
    for panel in GRAPHS:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_a_panel_of_seconds_or_bytes_shows_that_unit() -> None:
    units = {"seconds": {"s"}, "bytes": {"bytes", "binBps"}}
    for panel in GRAPHS:
        if panel["type"] == "heatmap":
            continue
        for target in panel["targets"]:
            for series, _ in selectors(target["expr"]):
                unit = EXPORTED[series].removesuffix("_total").rpartition("_")[2]
                if unit in units and not series.endswith("_count"):
                    assert panel["fieldConfig"]["defaults"]["unit"] in units[unit], panel["title"]


def test_every_data_source_is_the_variable() -> None:
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert variables["DS_PROMETHEUS"]["type"] == "datasource"
    assert variables["DS_PROMETHEUS"]["query"] == "prometheus"
    found = list(datasources(DASHBOARD))
    assert len(found) > len(GRAPHS)
    assert all(each == {"type": "prometheus", "uid": "${DS_PROMETHEUS}"} for each in found)
    used = set(re.findall(r'"\$(\w+)"', " ".join(expressions())))
    assert used == set(variables) - {"DS_PROMETHEUS"}
    for name in used:
        assert [series in EXPORTED for series, _ in selectors(variables[name]["definition"])] == [True]


@pytest.mark.parametrize(
    ("expression", "balance"),
    [
        ("sum(rate(a[5m]))", True),
        ("sum(rate(a[5m])", False),
        ("sum(rate(a[5m)])", False),
        ('a{b="("}', True),
        ('a{b="(}', False),
    ],
)
def test_brackets_that_do_not_balance_are_found(expression: str, balance: bool) -> None:
    assert brackets_balance(expression) is balance


def test_promtool_accepts_the_alerts_and_the_configuration(tmp_path: Path) -> None:
    """Where there is no promtool, the expressions are checked above and nothing else is."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on this machine")
    configuration = (DEPLOY / "prometheus.yml").read_text(encoding="utf-8")
    alerts = DEPLOY / "prometheus-alerts.yml"
    changed = tmp_path / "prometheus.yml"
    changed.write_text(
        configuration.replace("/etc/prometheus/prometheus-alerts.yml", str(alerts)), encoding="utf-8"
    )
    for command in (("rules", alerts), ("config", changed)):
        done = subprocess.run(
            [promtool, "check", *map(str, command)], capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
