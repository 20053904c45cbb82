"""Compare audit logs with the event log: each record that a caller caused has one line, in one of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterable, Iterator, Sequence
from typing import Final, final

from circuit_breaker_server.engine.command_origin import origin_of
from circuit_breaker_server.log.event_log import Record
from circuit_breaker_server.security.audit import AuditRecord

__all__ = ["AuditComparison"]

_YOUNG_MS: Final = 10_000
"""A record this young may have no line yet: its server is about to write it."""


@final
class _Chain:
    """One audit log: the node that writes it, and where it begins."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.node: str | None = None
        self.begin: int | None = None
        """It has the lines of the records above this offset."""


@final
class AuditComparison:
    """The audit logs of all servers of an event log, compared with it.

    A server writes the lines of the records that it was asked for; the name of a node is in its records, and
    tells whose log a line belongs to. Records from before a node had an audit log need no line. The line of a
    node that was declared gone may be in the log of the node that took over from it; where it is in both,
    that is no fault: one node wrote it just before it was gone.

    :param epoch: of the event log; lines about another one do not count.

    Example::

        comparison = AuditComparison(log.epoch)
        for line in lines:
            comparison.add("data", line.record)
        await comparison.run(log.scan(after=0), now_ms=time.time_ns() // 1_000_000)
        for finding in comparison.findings(): ...
    """

    def __init__(self, epoch: str) -> None:
        self._epoch = epoch
        self._chains: dict[str, _Chain] = {}
        self._lines: dict[int, list[_Chain]] = defaultdict(list)
        self._taken_over: dict[int, str | None] = {}
        self._without: dict[str, list[int]] = defaultdict(list)
        self._doubled: list[int] = []
        self._mixed: list[str] = []
        self._unknown: list[int] = []
        self.records = 0
        """The records that have one line each."""
        self.taken_over = 0
        """Of these, the records whose line only the node has that took over from another one."""

    def add(self, name: str, line: AuditRecord) -> None:
        """Take a line of the audit log of this name."""
        chain = self._chains.setdefault(name, _Chain(name))
        if (at := self._offset(line.taken_over)) is not None:
            self._taken_over[at] = line.taken_from
        if (at := self._offset(line.record)) is None:
            return
        chain.begin = at if chain.begin is None else min(chain.begin, at)
        if line.action == "mutate":
            self._lines[at].append(chain)

    def _offset(self, position: str | None) -> int | None:
        epoch, _, offset = (position or "").rpartition(".")
        return int(offset) if epoch == self._epoch and offset.isdecimal() else None

    async def run(self, records: AsyncIterable[Record], *, first_offset: int, now_ms: int) -> None:
        """Compare with the records of the event log, all that it keeps.

        :raises LogError: it cannot be read.
        """
        last = 0
        async for record in records:
            last = record.offset
            if b'"action":"' in record.data:
                origin = origin_of(record)
                if origin.action:
                    self._compare(record, origin.node, now_ms)
        found = {*self._lines, *self._taken_over}
        self._unknown = sorted(at for at in found if first_offset <= at <= last)

    def _compare(self, record: Record, node: str, now_ms: int) -> None:
        chains = self._lines.pop(record.offset, [])
        is_taken_over = self._taken_over.get(record.offset) == node
        if is_taken_over:
            del self._taken_over[record.offset]
        if not chains and is_taken_over:
            self.records += 1
            self.taken_over += 1
            return
        if not chains:
            if record.time_ms + _YOUNG_MS < now_ms:
                self._without[node].append(record.offset)
            return
        for chain in chains:
            if chain.node is None:
                chain.node = node
            elif chain.node != node:
                self._mixed.append(chain.name)
        if len(chains) > 1:
            self._doubled.append(record.offset)
        else:
            self.records += 1

    def findings(self) -> Iterator[str]:
        """Yield what is wrong, a sentence each."""
        begins: dict[str, int] = {}
        for chain in self._chains.values():
            if chain.node is not None and chain.begin is not None:
                begins[chain.node] = min(chain.begin, begins.get(chain.node, chain.begin))
        for node, offsets in sorted(self._without.items()):
            whose = f"of node {node} " if node else ""
            if node not in begins:
                yield f"{_listed(offsets)} {whose}without a line, and no audit log that was given is its own"
            elif missing := [offset for offset in offsets if offset > begins[node]]:
                yield f"{_listed(missing)} {whose}without a line"
        if self._doubled:
            yield f"{_listed(self._doubled)} with more than one line"
        if self._unknown:
            yield f"{_listed(self._unknown)} with lines, which are not in the event log or are no caller's"
        for name in sorted(set(self._mixed)):
            yield f"{name} has lines for records of several nodes"


def _listed(offsets: Sequence[int]) -> str:
    named = ", ".join(map(str, offsets[:3]))
    more = "" if len(offsets) <= 3 else f", … {offsets[-1]}"
    return f"{len(offsets)} record{'s' * (len(offsets) > 1)} ({named}{more})"
