"""The rows as a reader sees them: lines on a terminal, a table in the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.row import Row, Target

__all__ = ["markdown", "summary", "target_text", "text"]

_BEGIN, _END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"


def text(row: Row) -> str:
    """Return a row as lines of text."""
    lines = [f"{row.benchmark}: {_number(row.ours)} {row.unit}"]
    if row.limit is not None:
        lines.append(f"    limit of the machine  {_number(row.limit)} ({row.ratio_to_limit} of it)")
    for name, figure in row.peers.items():
        lines.append(f"    {name:<21} {_number(figure)} ({row.times[name]} times)")
    lines += [f"    {name}: {value}" for name, value in row.detail.items()]
    lines += [
        f"    {'met' if each.met else 'MISSED'}: {target_text(name, each)}"
        for name, each in row.targets.items()
    ]
    return "\n".join(lines)


def markdown(page: Path, rows: Sequence[Row], machine: Mapping[str, str]) -> None:
    """Put the whole table where the page has its marks."""
    lines = [
        "Measured on " + ", ".join(f"{name} {value}" for name, value in machine.items()) + ".\n",
        "\n",
        "| benchmark | ours | limit of the machine | the others | targets |\n",
        "|---|---|---|---|---|\n",
    ]
    for row in rows:
        limit = "" if row.limit is None else f"{_number(row.limit)} ({row.ratio_to_limit})"
        peers = "<br>".join(
            f"{name} {_number(figure)} (ours {row.times[name]} times)" for name, figure in row.peers.items()
        )
        detail = "".join(f"; {name} {value}" for name, value in row.detail.items())
        targets = "<br>".join(
            f"{'met' if each.met else '**missed**'}: {target_text(name, each)}"
            for name, each in row.targets.items()
        )
        lines.append(
            f"| {row.benchmark} | {_number(row.ours)} {row.unit}{detail} | {limit} | {peers} | {targets} |\n"
        )
    _put(page, lines)


_IN_SHORT: Final = (
    "client, plain handler",
    "client, async for",
    "server, fan-out to 100 sockets, 1 event per write",
    "server, 1,000 channels",
    "latency, mutation to handler",
)
"""The rows of the summary."""


def summary(page: Path, rows: Sequence[Row], machine: Mapping[str, str]) -> None:
    """Put some rows, in short, where the page has its marks: the figures, the ratios, what was missed."""
    lines = [
        f"Measured on {machine['processor']}, {machine['cores']} cores, Python {machine['python']}; ",
        "ratios are medians of pairs from one run.\n",
        "\n",
        "| benchmark | ours | of the limit | times the others | targets |\n",
        "|---|---|---|---|---|\n",
    ]
    for row in rows:
        if not row.benchmark.startswith(_IN_SHORT):
            continue
        share = "" if row.ratio_to_limit is None else f"{row.ratio_to_limit:.2f}"
        times = ", ".join(f"{name} {_ratio(ratio)}" for name, ratio in row.times.items())
        missed = "; ".join(target_text(name, each) for name, each in row.targets.items() if not each.met)
        verdict = f"**missed**: {missed}" if missed else "met" if row.targets else ""
        lines.append(
            f"| {row.benchmark} | {_number(row.ours)} {row.unit} | {share} | {times} | {verdict} |\n"
        )
    _put(page, lines)


def _put(page: Path, lines: Sequence[str]) -> None:
    before, _, rest = page.read_text().partition(_BEGIN)
    page.write_text(before + _BEGIN + "".join(lines) + _END + rest.partition(_END)[2])


def _ratio(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def target_text(name: str, target: Target) -> str:
    """Return what was measured beside what it has to be."""
    bound = (
        f"at least {target.at_least:,g}" if target.at_least is not None else f"at most {target.at_most:,g}"
    )
    measured = "not measured" if target.measured is None else f"{target.measured:,g}"
    return f"{name} {measured} ({bound})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"
