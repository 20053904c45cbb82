"""No event costs more calls, bytecodes or allocations than it did, and none leaves anything behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path as FilePath

import msgspec
import pytest

from tests.hot_path.baseline import Baseline, Difference, differences, nearest, versions
from tests.hot_path.counting import NO_ALLOCATIONS, Counts
from tests.hot_path.paths import PATHS

_ROOT = FilePath(__file__).parents[2]
_NAMES = [path.name for path in PATHS]


@pytest.fixture(scope="module")
def counted() -> dict[str, Counts]:
    """Count in a process of its own: what other tests have left, or trace, would be counted too."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.hot_path", "--json"],
        cwd=_ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("COV")},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return msgspec.json.decode(done.stdout, type=dict[str, Counts])


@pytest.mark.parametrize("name", _NAMES)
def test_an_event_costs_no_more_than_it_did(
    counted: dict[str, Counts], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline, no_baseline = nearest()
    found = [d for d in differences(baseline, counted) if d.path == name]
    grown = [str(difference) for difference in found if difference.grown]
    if no_baseline:
        pytest.skip("; ".join([no_baseline, *grown]))
    assert not grown, (
        f"an event costs more; `make hot-path ARGS='--where'` shows where. Where that is wanted: "
        f"`make hot-path ARGS=--write`, and say why. {versions()}, the baseline: {baseline.versions}"
    )
    if found:
        text = "; ".join(str(difference) for difference in found)
        with capsys.disabled():  # else pytest shows it of failed tests only
            sys.stdout.write(f"\nless: {text}: keep it by `make hot-path ARGS=--write`\n")


@pytest.mark.parametrize("name", _NAMES)
def test_an_event_leaves_nothing_behind(counted: dict[str, Counts], name: str) -> None:
    assert counted[name].retained_blocks <= 0, "each event leaves memory in use though nobody keeps it"
    assert counted[name].cyclic_objects == 0, "each event makes a reference cycle"


def test_the_baseline_has_no_path_that_is_not_counted() -> None:
    assert set(nearest()[0].paths) == set(_NAMES)


@pytest.mark.skipif(NO_ALLOCATIONS is not None, reason=NO_ALLOCATIONS or "")
def test_allocations_are_counted_where_memray_is(counted: dict[str, Counts]) -> None:
    assert all(counts.allocations for counts in counted.values())


def test_more_is_grown_less_is_not_and_what_is_not_counted_is_neither() -> None:
    def counts(**changed: float | None) -> Counts:
        plain = Counts(
            python_calls=4,
            c_calls=3,
            bytecodes=100,
            allocations=20,
            retained_blocks=0,
            cyclic_objects=0,
        )
        return msgspec.structs.replace(plain, **changed)

    before = Baseline(versions={}, paths={"a": counts(), "b": counts(), "gone": counts()})
    found = differences(
        before, {"a": counts(c_calls=3.01, bytecodes=90), "b": counts(allocations=None), "gone": counts()}
    )
    assert found == [Difference("a", "c_calls", 3, 3.01), Difference("a", "bytecodes", 100, 90)]
    assert [difference.grown for difference in found] == [True, False]
    assert all(difference.grown for difference in differences(before, {**before.paths, "new": counts()}))
