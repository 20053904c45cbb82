"""The engine: all domains on one log; commands in, records out, state folded from the records."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import final

from circuit_breaker_server.engine.command import Appender
from circuit_breaker_server.engine.events import Selection
from circuit_breaker_server.engine.folding import Folding
from circuit_breaker_server.engine.workflows.state import FoldedState
from circuit_breaker_server.engine.workflows.streams import select_resource_updates, select_workflow_events
from circuit_breaker_server.engine.workflows.workflows import Workflows
from circuit_breaker_server.log.event_log import EventLog

__all__ = ["STREAMS", "Engine"]


def _now() -> datetime:
    return datetime.now(UTC)


@final
class Engine:
    """Executes commands and answers queries; the only writer of its log.

    All methods belong to the event loop that :meth:`start` ran on.

    :param snapshot_every: after how many records the state is saved; a restart reads at most about as many.

    Example::

        engine = Engine(log)
        await engine.start()
        made = await engine.workflows.create_workflow(CreateWorkflow(name="review", ...))
        await engine.aclose()
    """

    def __init__(
        self,
        log: EventLog,
        *,
        now: Callable[[], datetime] = _now,
        new_id: Callable[[], uuid.UUID] = uuid.uuid4,
        snapshot_every: int = 10_000,
    ) -> None:
        workflows = FoldedState()
        self._folding = Folding(log, [workflows], snapshot_every=snapshot_every)
        appender = Appender(log, is_running=lambda: self._folding.running, now=now, new_id=new_id)
        self.epoch = log.epoch
        """The epoch of the log."""
        self.workflows = Workflows(workflows, appender)
        """Workflows, states, resources, activities."""

    async def start(self) -> None:
        """Fold the log's snapshot and the records after it, then follow the log.

        Whoever follows the log as well, and reads this state for it, starts following afterwards.

        :raises LogCorruptError: a record or the snapshot cannot be read.
        """
        await self._folding.start()

    async def aclose(self) -> None:
        """Refuse further commands and save the state. Idempotent; the log stays open.

        A state that cannot be saved is logged: the next start then reads more records.
        """
        await self._folding.aclose()

    def select(self, field: str, arguments: Mapping[str, object]) -> Selection:
        """Tell what a subscription reads.

        :raises EngineError: the arguments name what is not there.
        """
        return STREAMS[field](self, arguments)


STREAMS: Mapping[str, Callable[[Engine, Mapping[str, object]], Selection]] = {
    "resourceUpdates": lambda engine, arguments: select_resource_updates(engine.workflows, arguments),
    "workflowEvents": lambda engine, arguments: select_workflow_events(engine.workflows, arguments),
}
"""By subscription field: from coerced arguments to what to read.

An event belongs to a subscription if its record's subject matches, its ``stream`` is the field, and
``matches`` agrees.
"""
