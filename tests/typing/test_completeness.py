"""Everything that the package exports has a type that every type checker agrees on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

BIN = Path(sys.executable).parent


class _Counts(msgspec.Struct, rename="camel"):
    with_known_type: int
    with_ambiguous_type: int
    with_unknown_type: int


class _Symbol(msgspec.Struct, rename="camel"):
    name: str
    is_exported: bool
    is_type_known: bool


class _Completeness(msgspec.Struct, rename="camel"):
    exported_symbol_counts: _Counts
    completeness_score: float
    symbols: list[_Symbol]


class _Report(msgspec.Struct, rename="camel"):
    type_completeness: _Completeness


@pytest.mark.timeout(180)
def test_the_public_api_is_completely_typed() -> None:
    done = subprocess.run(
        [
            str(BIN / "basedpyright"),
            "--verifytypes",
            "circuit_breaker_sdk",
            "--ignoreexternal",
            "--outputjson",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
        # This environment and no other, whether or not it is the active one.
        env={**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "VIRTUAL_ENV": str(BIN.parent)},
    )
    report = msgspec.json.decode(done.stdout, type=_Report).type_completeness
    lacking = [s.name for s in report.symbols if s.is_exported and not s.is_type_known]
    assert lacking == []
    assert report.exported_symbol_counts.with_known_type > 1_000, "it found the package"
    assert report.completeness_score == 1.0
