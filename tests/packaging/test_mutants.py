"""Each mutant changes one place that is there: a text that has moved would test nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.safeguard)
def test_the_place_of_a_mutant_is_there_once(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.old) == 1
    assert mutant.new != mutant.old


def test_safeguards_have_names_of_their_own() -> None:
    names = [mutant.safeguard for mutant in MUTANTS]
    assert len(names) == len(set(names))
