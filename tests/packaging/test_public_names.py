"""The public names, frozen: a name appears or goes only where this list is changed with it."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import circuit_breaker_sdk

NAMES = Path(__file__).with_name("public_names.txt")
MODULES = (
    "circuit_breaker_sdk",
    "circuit_breaker_sdk.streams",
    "circuit_breaker_sdk.types",
    "circuit_breaker_sdk.testing",
    "circuit_breaker_server",
)


def frozen() -> dict[str, list[str]]:
    """Read the list: a line with a module's name, then its public names, one a line."""
    names: dict[str, list[str]] = {}
    module = ""
    for line in NAMES.read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            names[module].append(line.strip())
        elif line:
            module = line
            names[module] = []
    return names


@pytest.mark.parametrize("module", MODULES)
def test_the_public_names_are_the_frozen_ones(module: str) -> None:
    assert sorted(importlib.import_module(module).__all__) == frozen()[module]


def test_a_completion_at_the_top_shows_what_a_newcomer_needs() -> None:
    shown = dir(circuit_breaker_sdk)
    assert len(shown) <= 55
    assert shown == frozen()["circuit_breaker_sdk"]


def test_every_name_of_types_and_streams_can_be_imported_from_the_top() -> None:
    names = frozen()
    for module in ("circuit_breaker_sdk.types", "circuit_breaker_sdk.streams"):
        for name in names[module]:
            assert getattr(circuit_breaker_sdk, name) is getattr(importlib.import_module(module), name)
