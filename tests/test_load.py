"""The table of ``make load`` says of each target whether it is met."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from benchmarks.row import Row, Scale, at_least, at_most
from benchmarks.verdicts import judge


def rows(_scale: Scale) -> Iterator[Row]:
    row = Row(benchmark="held at once", unit="subscriptions", ours=1_000)
    yield row.aim({"subscriptions": at_least(1_000, 1_000), "p99 ms": at_most(100, 250)})


def met(_scale: Scale) -> Iterator[Row]:
    row = Row(benchmark="held at once", unit="subscriptions", ours=1_000)
    yield row.aim({"subscriptions": at_least(1_000, 1_000)})


def broken(_scale: Scale) -> Iterator[Row]:
    yield from ()
    raise OSError("no port")


def test_each_target_has_a_line_and_one_that_is_missed_fails_the_whole(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert judge({"a": rows}, Scale(short=True), as_json=True) == 1
    assert [
        (line["target"], line["met"]) for line in map(json.loads, capsys.readouterr().out.splitlines())
    ] == [
        ("subscriptions 1,000 (at least 1,000)", True),
        ("p99 ms 250 (at most 100)", False),
    ]


def test_a_load_that_breaks_hides_no_other_and_fails_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert judge({"b": broken, "a": met}, Scale(), as_json=False) == 1
    out, err = capsys.readouterr()
    assert err == "b: OSError: no port\n"
    assert out.splitlines() == [
        "met    | a          | held at once: 1,000 subscriptions | subscriptions 1,000 (at least 1,000)",
        "0 missed, 1 not measured",
    ]


def test_where_all_is_met_it_passes() -> None:
    assert judge({"a": met}, Scale(), as_json=False) == 0
