"""The plan's table names modules and tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"\| (?P<id>[A-Z]\d+) \| (?P<item>[^|]+) \| (?P<module>[^|]+) \| (?P<proof>[^|]*) ?\|")
ROWS = [found for line in (ROOT / "docs" / "plan.md").read_text().splitlines() if (found := ROW.match(line))]
COUNTS = {
    "O": 14,
    "W": 5,
    "G": 4,
    "M": 3,
    "D": 2,
    "B": 4,
    "E": 2,
    "P": 3,
    "S": 3,
    "T": 3,
    "Q": 3,
    "L": 1,
    "K": 1,
}
PLANNED = [f"{letter}{n}" for letter, count in COUNTS.items() for n in range(1, count + 1)]


def test_every_row_of_the_plan_is_there_once() -> None:
    ids = [row["id"] for row in ROWS]
    assert ids == PLANNED


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row["id"]))
def test_its_module_and_its_proof_exist_or_it_says_that_it_is_not_built(row: re.Match[str]) -> None:
    module, proof = row["module"].strip().strip("`"), row["proof"].strip().strip("`")
    if module.startswith("not built yet"):
        assert not proof
        return
    assert (ROOT / "src" / module).is_file()
    file, _, test = proof.partition("::")
    names = {node.name for node in ast.walk(ast.parse((ROOT / file).read_text())) if hasattr(node, "name")}
    assert any(name.startswith("test_") for name in names)
    assert not test or test in names
