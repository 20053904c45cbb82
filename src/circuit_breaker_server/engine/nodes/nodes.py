"""Join the cluster, leave it, declare others gone, raise the format: records, each by compare-and-set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, final

from circuit_breaker_sdk._version import __version__
from circuit_breaker_server.engine.command import ATTEMPTS, Appender
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.nodes.ownership import Identity, fence_name
from circuit_breaker_server.engine.nodes.records import (
    FORMAT_SUBJECT,
    FormatChanged,
    NodeGone,
    NodeJoined,
    NodeLeft,
    node_subject,
)
from circuit_breaker_server.engine.nodes.state import NodeEntry, NodeState
from circuit_breaker_server.engine.record_bodies import RAISE_COMMAND
from circuit_breaker_server.engine.record_versions import DOWNCASTERS, VERSION
from circuit_breaker_server.log.event_log import ExpectationFailed, Guards
from circuit_breaker_server.logs import get_logger

__all__ = ["Nodes"]

# A node that joins marks the one and checks the other; a change of the format does the reverse. So no node
# joins unseen while the format is raised above what it reads.
_JOINS: Final = "format.joins"
_CHANGES: Final = "format.changes"

_log = get_logger("nodes")


@final
class Nodes:
    """The nodes of the cluster. A server that is alone on its log is none, and writes nothing but the format.

    :param address: where this node serves, for whoever asks the cluster.
    :param reads: the newest version of records that this node reads.
    :param is_log_away: tells whether the log cannot be written now: a node that stops does not wait for it.

    Example::

        await nodes.join()
        await nodes.declare_gone("b", term=3)
        await nodes.leave()
    """

    def __init__(
        self,
        state: NodeState,
        appender: Appender,
        me: Identity,
        *,
        address: str,
        reads: int = VERSION,
        is_log_away: Callable[[], bool],
    ) -> None:
        self._state = state
        self._appender = appender
        self._address = address
        self._is_log_away = is_log_away
        self.reads = reads
        """The newest version of records that this node reads."""
        self.me = me
        """Which node this is."""

    @property
    def is_alone(self) -> bool:
        """Whether this server is the only one on its log."""
        return not self.me.name

    @property
    def lives(self) -> bool:
        """Whether this node has joined, and was not declared gone since."""
        return self.is_alone or self._state.is_live(self.me.name, self.me.term)

    @property
    def is_replaced(self) -> bool:
        """Whether another server has joined under this node's name since."""
        entry = self._state.nodes.get(self.me.name)
        return entry is not None and entry.term > self.me.term

    def all(self) -> Sequence[NodeEntry]:
        """Return all nodes that ever joined, in the order of their first start."""
        return self._state.nodes.values()

    def others(self) -> dict[str, int]:
        """Return the terms of the other nodes that live, by name."""
        return {name: term for name, term in self._state.live.items() if name != self.me.name}

    @property
    def format(self) -> int:
        """The log's format: the version in which all nodes write records."""
        return self._state.format

    async def join(self) -> None:
        """Begin a new term of this node: what it began in earlier ones belongs to whoever lives.

        A server that is alone on its log raises its format instead. So does the first node of a new log.

        :raises EngineError: ``CONFLICT``: another server has the same name, or this program does not write
            the log's format; ``UNAVAILABLE``.
        """
        if self.is_alone or (not self._state.nodes and self._appender.decided_at() == 0):
            await self.raise_format()
        if self.is_alone:
            return
        for _ in range(ATTEMPTS):
            self._require_writable()
            old = self._state.nodes.get(self.me.name)
            term = 1 if old is None else old.term + 1
            body = NodeJoined(
                name=self.me.name,
                term=term,
                at=self._appender.at(),
                address=self._address,
                release=__version__,
                reads=self.reads,
            )
            guards = Guards(decided_at=self._appender.decided_at(), unmarked=(_CHANGES,), marks=(_JOINS,))
            # Before the record is there: what follows from it is decided for this term.
            before, self.me.term = self.me.term, term
            try:
                await self._appender.append(
                    node_subject(self.me.name), body, expected=0 if old is None else old.last, guards=guards
                )
            except ExpectationFailed:
                self.me.term = before
                continue
            except EngineError:
                self.me.term = before
                raise
            _log.info(
                "joined",
                node=self.me.name,
                term=term,
                others=sorted(self.others()),
                reads=self.reads,
                format=self.format,
            )
            return
        raise EngineError(
            ErrorCode.CONFLICT, f"node {self.me.name}: another server joins under this name again and again"
        )

    def _require_writable(self) -> None:
        """Refuse to join where this program has no step down to the log's format.

        :raises EngineError: ``CONFLICT``.
        """
        if any(step not in DOWNCASTERS for step in range(self.format + 1, self.reads + 1)):
            raise EngineError(
                ErrorCode.CONFLICT,
                f"node {self.me.name}: the event log is written in format {self.format}, and this program "
                f"cannot write it beside older nodes: upgrade all nodes to a release in between first, then "
                f"run `{RAISE_COMMAND}`; docs/cluster.md",
            )

    async def raise_format(self) -> bool:
        """Let all nodes write records in the newest version that this node reads; tell whether that is new.

        There is no way back: an older program does not start on this log any more.

        :raises EngineError: ``CONFLICT``: a node that lives does not read it; ``facts`` have their names, or
            nodes join again and again; ``UNAVAILABLE``.
        """
        for _ in range(ATTEMPTS):
            if self.format == self.reads:
                return False
            # Who has the log alone now has it after nodes that were killed, as the workers of before.
            readers = {} if self.is_alone else self._state.readers()
            unable = {name: reads for name, reads in readers.items() if reads < self.reads}
            if unable:
                each = ", ".join(f"{name} (reads {reads})" for name, reads in sorted(unable.items()))
                raise EngineError(
                    ErrorCode.CONFLICT,
                    f"the log's format stays {self.format}: not every node reads {self.reads}: {each}; "
                    "upgrade or stop them first",
                    nodes=sorted(unable),
                )
            body = FormatChanged(format=self.reads, at=self._appender.at(), by=self.me.name)
            guards = Guards(
                decided_at=self._appender.decided_at(), unmarked=(_JOINS, _CHANGES), marks=(_CHANGES,)
            )
            try:
                await self._appender.append(
                    FORMAT_SUBJECT, body, expected=self._state.format_changed_at, guards=guards
                )
            except ExpectationFailed:
                continue
            _log.info("format_raised", format=self.format, node=self.me.name)
            return True
        raise EngineError(ErrorCode.CONFLICT, "the log's format was not raised: nodes join again and again")

    async def leave(self) -> None:
        """Say that this node stops; where the log cannot be written, the others will notice."""
        if self.is_alone or not self.lives or self._is_log_away():
            return
        entry = self._state.nodes.get(self.me.name)
        if entry is None:
            return
        body = NodeLeft(name=self.me.name, term=self.me.term, at=self._appender.at())
        try:
            await self._appender.append(node_subject(self.me.name), body, expected=entry.last)
        except (EngineError, ExpectationFailed) as error:
            _log.warning("not_left", node=self.me.name, reason=str(error))

    async def declare_gone(self, name: str, *, term: int, applied: int = 0) -> bool:
        """Declare that a node does not live any more; tell whether it was this that did it.

        :param applied: the last offset that it told of: its audit lines up to there are written.
        :raises EngineError: ``UNAVAILABLE``.
        """
        entry = self._state.nodes.get(name)
        if entry is None or not self._state.is_live(name, term):
            return False
        # Before a node joins it writes what it had left out.
        audited = max(applied, entry.last)
        body = NodeGone(name=name, term=term, at=self._appender.at(), by=self.me.name, audited=audited)
        # What the node still writes as an owner is refused from here on.
        decided_at = self._appender.decided_at()
        guards = Guards(
            decided_at=decided_at,
            unmarked=(fence_name(self.me.name, self.me.term),),
            marks=(fence_name(name, term),),
        )
        try:
            await self._appender.append(node_subject(name), body, expected=entry.last, guards=guards)
        except ExpectationFailed:
            return False
        _log.warning("node_gone", node=name, term=term, declared_by=self.me.name)
        return True
