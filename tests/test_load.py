"""The table of ``make load`` says of each target whether it is met."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from benchmarks import load
from benchmarks.row import Row, Scale, at_least, at_most


def rows(_scale: Scale) -> Iterator[Row]:
    row = Row(benchmark="held at once", unit="subscriptions", ours=1_000)
    yield row.aim({"subscriptions": at_least(1_000, 1_000), "p99 ms": at_most(100, 250)})


def broken(_scale: Scale) -> Iterator[Row]:
    yield from ()
    raise OSError("no port")


@pytest.mark.parametrize(
    ("loads", "status", "said"),
    [({"a": rows}, 1, ""), ({"b": broken}, 1, "b: OSError: no port\n"), ({}, 0, "")],
)
def test_a_target_that_is_missed_and_a_load_that_breaks_fail_the_whole(
    loads: dict[str, object],
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(load, "LOADS", loads)
    monkeypatch.setattr("sys.argv", ["load", "--json"])
    assert load.main() == status
    out, err = capsys.readouterr()
    assert err == said
    if "a" in loads:
        assert [(line["target"], line["met"]) for line in map(json.loads, out.splitlines())] == [
            ("subscriptions 1,000 (at least 1,000)", True),
            ("p99 ms 250 (at most 100)", False),
        ]


def test_it_covers_the_limits_memory_recovery_and_throughput() -> None:
    assert set(load.LOADS) == {"concurrent", "limit", "memory", "recovery", "throughput"}
