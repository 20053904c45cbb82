"""The series that a server and a client export, and those that an expression of PromQL names."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from circuit_breaker_sdk.observability.instruments import INSTRUMENTS
from circuit_breaker_server.instruments import METRICS

__all__ = [
    "CLIENT_METRICS",
    "EXPORTED",
    "KINDS",
    "LABELS",
    "SERVER_METRICS",
    "Selector",
    "brackets_balance",
    "selectors",
]

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTOR: Final = re.compile(r"\b(circuit_breaker_\w+)(?:\{([^}]*)\})?")
_MATCHER: Final = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"([^\"]*)\"")
_PAIRS: Final = {")": "(", "]": "[", "}": "{"}

SERVER_METRICS: Final = tuple(metric.prometheus_name for metric in METRICS)
CLIENT_METRICS: Final = tuple(instrument.prometheus_name for instrument in INSTRUMENTS)

KINDS: Final = {metric.prometheus_name: metric.kind for metric in METRICS} | {
    instrument.prometheus_name: instrument.kind for instrument in INSTRUMENTS
}
"""Each metric's kind."""

LABELS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    metric.prometheus_name: dict(metric.labels or {}) for metric in METRICS
} | {
    instrument.prometheus_name: {} if instrument.label is None else dict([instrument.label])
    for instrument in INSTRUMENTS
}
"""Each metric's labels, with their values."""


def _series() -> dict[str, str]:
    found: dict[str, str] = {}
    for name, kind in KINDS.items():
        endings = ("_bucket", "_count", "_sum") if kind == "histogram" else ("",)
        found |= {name + ending: name for ending in endings}
    return found


EXPORTED: Final = _series()
"""The metric of each series that Prometheus stores: three of a histogram, one of another metric."""


class Selector(NamedTuple):
    """A series that an expression names, with the labels that it asks for and what it compares them with."""

    series: str
    matchers: tuple[tuple[str, str], ...]


def selectors(expression: str) -> list[Selector]:
    """Find the series of this project that an expression names."""
    return [
        Selector(found[1], tuple(_MATCHER.findall(found[2] or "")))
        for found in _SELECTOR.finditer(expression)
    ]


def brackets_balance(expression: str) -> bool:
    """Tell whether each bracket outside of strings has its partner."""
    opened: list[str] = []
    for character in _STRING.sub("", expression):
        if character in _PAIRS.values():
            opened.append(character)
        elif character in _PAIRS and (not opened or opened.pop() != _PAIRS[character]):
            return False
    return not opened and '"' not in _STRING.sub("", expression)
