"""Draw the cluster: what arrives and from which node, who is killed, and what must stay zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from circuit_breaker_sdk.cli.cluster.deliveries import Deliveries
from circuit_breaker_sdk.cli.cluster.member import Kind, Member, State
from circuit_breaker_sdk.cli.cluster.processes import Cluster
from circuit_breaker_sdk.cli.demo.judge import Verdict
from circuit_breaker_sdk.cli.demo.table import Row, events_table, mutations_text, verdict_text
from circuit_breaker_sdk.cli.demo.tally import Mutations

__all__ = ["ClusterView"]

_STYLES = {State.LIVE: "green", State.STARTING: "yellow", State.KILLED: "bold red"}


@final
class ClusterView:
    """The picture of the demo's screen.

    :param certain: judges what is certain by now.
    :param keys: what can be pressed, in words; empty where there is no keyboard.
    """

    def __init__(
        self, cluster: Cluster, deliveries: Deliveries, *, certain: Callable[[], Verdict], keys: str
    ) -> None:
        self._cluster = cluster
        self._deliveries = deliveries
        self._certain = certain
        self._keys = keys

    def __call__(
        self, rows: Sequence[Row], *, title: str, mutations: Mutations, verdict: Verdict | None
    ) -> RenderableType:
        """Draw it; ``verdict`` is ``None`` while it runs."""
        parts: list[RenderableType] = [
            events_table(rows, title=title, nodes=self._deliveries.last_node),
            self._members(),
            mutations_text(mutations),
            self._counters(verdict or self._certain()),
        ]
        if verdict is not None:
            parts.append(Text(verdict_text(verdict), style=_style(verdict)))
        elif self._keys:
            parts.append(Text(self._keys, style="dim"))
        return Group(*parts)

    def _members(self) -> Table:
        table = Table()
        table.add_column("process", no_wrap=True)
        table.add_column("state", no_wrap=True)
        table.add_column("kills", justify="right", no_wrap=True)
        table.add_column("events delivered", justify="right", no_wrap=True)
        for member in self._cluster.members:
            state = Text(member.state, style=_STYLES[member.state])
            table.add_row(str(member), state, str(member.kills), self._delivered(member))
        return table

    def _delivered(self, member: Member) -> str:
        return f"{self._deliveries.by_node[member.name]:,}" if member.kind is Kind.NODE else ""

    def _counters(self, found: Verdict) -> Text:
        node_kills, broker_kills = (
            sum(each.kills for each in members) for members in (self._cluster.nodes, self._cluster.brokers)
        )
        return Text.assemble(
            (
                f"lost {found.lost}, doubled {found.duplicated}, reordered {found.reordered}",
                _style(found),
            ),
            f"; nodes killed {node_kills}, brokers killed {broker_kills}; longest pause between events "
            f"{self._deliveries.longest_pause_seconds:.1f} s",
        )


def _style(verdict: Verdict) -> str:
    return "green" if verdict.is_clean else "bold red"
