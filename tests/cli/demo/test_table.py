"""What the demo's table shows."""

from __future__ import annotations

import io

from rich.console import Console, RenderableType

from circuit_breaker_sdk.cli.demo.judge import Verdict
from circuit_breaker_sdk.cli.demo.table import RateMeter, Row, demo_view, verdict_text
from circuit_breaker_sdk.cli.demo.tally import Latency, Mutations, Tally


def _drawn(view: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(view)
    output = console.file
    assert isinstance(output, io.StringIO)
    return output.getvalue()


def test_a_row_shows_counts_rate_latency_and_the_last_event_as_it_is() -> None:
    tally = Tally(operation="workflows.resourceUpdates", events=1_234, last_event="doc [bold]x[/bold] → done")
    row = Row(tally, 56.4, Latency(p50_ms=1.234, p99_ms=9.876))
    text = _drawn(demo_view([row], title="t", mutations=Mutations(7, 2), verdict=None))
    for expected in ("workflows.resourceUpdates", "1,234", "56", "1.23", "9.88", "doc [bold]x[/bold] → done"):
        assert expected in text
    assert "7 mutations accepted, 2 refused" in text
    assert "lost" not in text


def test_the_verdict_stands_below_the_table_once_there_is_one() -> None:
    row = Row(Tally(operation="o"), 0.0, None)
    clean = Verdict(lost=0, duplicated=0, reordered=0)
    assert verdict_text(clean) in _drawn(demo_view([row], title="t", mutations=Mutations(), verdict=clean))


def test_a_verdict_names_each_count() -> None:
    text = verdict_text(Verdict(lost=1, duplicated=22, reordered=333))
    assert "lost: 1, duplicated: 22, reordered: 333" in text


def test_the_rate_is_taken_over_the_last_seconds() -> None:
    clock = 0.0

    def now() -> float:
        return clock

    meter = RateMeter(now)
    assert meter.read(0) == 0.0
    for second in range(1, 11):
        clock = float(second)
        rate = meter.read(second * 100)
    assert rate == 100.0
    for second in range(11, 16):
        clock = float(second)
        rate = meter.read(1_000)
    assert rate == 0.0
