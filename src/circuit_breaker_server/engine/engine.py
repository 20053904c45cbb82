"""The workflow engine: commands in, records out, state folded from the records.

A command reads the state, decides, and appends one record that says what it built on; the state changes
only when the log hands the record back, in the log's order. Nothing is changed by a command that fails.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import final

import msgspec

from circuit_breaker_server.engine.allowed import decode_object, require_allowed
from circuit_breaker_server.engine.cursor import Cursor
from circuit_breaker_server.engine.defining import (
    add_state,
    change_state,
    define_workflow,
    json_object,
    refuse,
)
from circuit_breaker_server.engine.definitions import StateDefinition, timestamp
from circuit_breaker_server.engine.errors import EngineError, ErrorCode, shown
from circuit_breaker_server.engine.folding import Folding
from circuit_breaker_server.engine.inputs import (
    CreateResource,
    CreateWorkflow,
    ExecuteActivity,
    StateInput,
    StateUpdate,
)
from circuit_breaker_server.engine.json_values import encode
from circuit_breaker_server.engine.queries import Queries, Value, resource_value
from circuit_breaker_server.engine.records import (
    ActivityExecuted,
    Body,
    ResourceCreated,
    ResourceImage,
    StateCreated,
    StateUpdated,
    WorkflowCreated,
    encode_body,
    history_tail,
)
from circuit_breaker_server.engine.state import after_activity
from circuit_breaker_server.engine.streams import derive, resource_subject, workflow_subject
from circuit_breaker_server.engine.workflow import Workflow
from circuit_breaker_server.log.event_log import (
    EventLog,
    ExpectationFailed,
    LogClosedError,
    LogError,
    NewRecord,
    Record,
)

__all__ = ["Committed", "Engine"]

MAX_DATA_BYTES = 256 * 1024
MAX_METADATA_BYTES = 64 * 1024

_ATTEMPTS = 16
_NAMED = 20


@final
class Committed(msgspec.Struct, frozen=True):
    """What a command did.

    :ivar value: the answer.
    :ivar record: the one record that the command is.
    :ivar cursor: the place just after the record's last event.
    """

    value: Value
    record: Record
    cursor: Cursor


def _now() -> datetime:
    return datetime.now(UTC)


@final
class Engine(Queries):
    """Executes commands and answers queries; the only writer of its log.

    All methods belong to the event loop that :meth:`start` ran on.

    :param snapshot_every: after how many records the state is saved; a restart reads at most about as many.

    Example::

        engine = Engine(log)
        await engine.start()
        made = await engine.create_workflow(CreateWorkflow(name="review", ...))
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
        self._log = log
        self._now = now
        self._new_id = new_id
        self._definitions = asyncio.Lock()
        self._folding = Folding(log, snapshot_every=snapshot_every)
        super().__init__(self._folding.state)

    @property
    def epoch(self) -> str:
        """The epoch of the log."""
        return self._log.epoch

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

    # --- commands ---

    async def create_workflow(self, given: CreateWorkflow) -> Committed:
        """Make a workflow; answers ``WorkflowGQL``.

        :raises EngineError: ``INVALID_INPUT``, ``UNAVAILABLE``.
        """
        workflow_id, at = str(self._new_id()), timestamp(self._now())
        definition = define_workflow(
            given,
            workflow_id=workflow_id,
            at=at,
            is_workflow=lambda id_: self._state.workflow(id_) is not None,
        )
        body = WorkflowCreated(workflow=definition)
        record = await self._append_own(workflow_subject(workflow_id), body, expected=0)
        return self._committed(Workflow(definition, created=0, last=0).value(), record)

    async def create_resource(self, given: CreateResource) -> Committed:
        """Put a new resource into a workflow; answers ``ResourceGQL``.

        :raises EngineError: ``NOT_FOUND``, ``INVALID_INPUT``, ``UNAVAILABLE``.
        """
        workflow = self._workflow(given.workflow_id)
        state = workflow.definition.initial_state if given.initial_state is None else given.initial_state
        if state not in workflow.states:
            refuse(
                f"initialState: workflow {shown(given.workflow_id)} has no state {shown(state)}",
                states=list(workflow.states)[:_NAMED],
            )
        at = timestamp(self._now())
        image = ResourceImage(
            id=str(self._new_id()),
            workflow_id=given.workflow_id,
            state=state,
            state_definition=workflow.state_encoded(state),
            data=encode(json_object(given.data, "data", max_bytes=MAX_DATA_BYTES)),
            metadata=encode(json_object(given.metadata, "metadata", max_bytes=MAX_METADATA_BYTES)),
            created_at=at,
            updated_at=at,
            history=(),
        )
        subject = resource_subject(given.workflow_id, image.id)
        record = await self._append_own(subject, ResourceCreated(resource=image), expected=0)
        return self._committed(resource_value(image, workflow, list), record)

    async def execute_activity(self, given: ExecuteActivity) -> Committed:
        """Move a resource along an activity; answers ``ResourceGQL``.

        Decided on the resource as it is when this is called: if any other change of it comes first, this
        one is refused.

        :raises EngineError: ``NOT_FOUND``, ``ACTIVITY_NOT_ALLOWED``, ``INVALID_INPUT``, ``CONFLICT``,
            ``UNAVAILABLE``.
        """
        old = self._resource(given.resource_id)
        workflow = self._workflow(old.workflow_id)
        activity = workflow.activities.get(given.activity_id)
        if activity is None:
            raise EngineError(
                ErrorCode.NOT_FOUND,
                f"workflow {shown(old.workflow_id)} has no activity {shown(given.activity_id)}",
                activities=list(workflow.activities)[:_NAMED],
            )
        added = json_object(given.data, "data", max_bytes=MAX_DATA_BYTES)
        require_allowed(activity, old, workflow)
        data = old.data
        if added:
            merged = {**decode_object(old.data), **added}
            data = encode(json_object(merged, "data of the resource", max_bytes=MAX_DATA_BYTES))
        at = timestamp(self._now())
        entry: Value = {
            "timestamp": at,
            "activity": activity.id,
            "fromState": old.state,
            "toState": activity.to_state,
            "data": None if given.data is None else added,
        }
        history = (*self._state.recent_history(old), encode(entry))
        image = ResourceImage(
            id=old.id,
            workflow_id=old.workflow_id,
            state=activity.to_state,
            state_definition=workflow.state_encoded(activity.to_state),
            data=data,
            metadata=old.metadata,
            created_at=old.created_at,
            updated_at=at,
            history=history_tail(history),
        )
        body = ActivityExecuted(
            activity_id=activity.id, from_state=old.state, to_state=activity.to_state, resource=image
        )
        record = await self._append_own(resource_subject(old.workflow_id, old.id), body, expected=old.last)
        new, _ = after_activity(old, body, record.offset)
        return self._committed(resource_value(image, workflow, lambda: self._history(new)), record)

    async def create_state(self, given: StateInput) -> Committed:
        """Add a state to a workflow; answers ``StateGQL``.

        :raises EngineError: ``NOT_FOUND``, ``INVALID_INPUT``, ``UNAVAILABLE``.
        """

        def decide(workflow: Workflow) -> tuple[StateDefinition, Body]:
            state = add_state(workflow, given, at=timestamp(self._now()))
            return state, StateCreated(workflow_id=given.workflow_id, state=state)

        return await self._change_workflow(given.workflow_id, decide)

    async def update_state(self, workflow_id: str, state_id: str, update: StateUpdate) -> Committed:
        """Change a state of a workflow; answers ``StateGQL``.

        :raises EngineError: ``NOT_FOUND``, ``INVALID_INPUT``, ``UNAVAILABLE``.
        """

        def decide(workflow: Workflow) -> tuple[StateDefinition, Body]:
            if state_id not in workflow.states:
                raise EngineError(
                    ErrorCode.NOT_FOUND, f"workflow {shown(workflow_id)} has no state {shown(state_id)}"
                )
            state = change_state(workflow, state_id, update, at=timestamp(self._now()))
            return state, StateUpdated(workflow_id=workflow_id, state=state)

        return await self._change_workflow(workflow_id, decide)

    async def _change_workflow(
        self, workflow_id: str, decide: Callable[[Workflow], tuple[StateDefinition, Body]]
    ) -> Committed:
        """Decide on the workflow as it is, again if someone else changes it first."""
        record_id = self._record_id()
        async with self._definitions:  # one after another; the attempts are for other writers
            for _ in range(_ATTEMPTS):
                workflow = self._workflow(workflow_id)
                state, body = decide(workflow)
                try:
                    record = await self._append(
                        workflow_subject(workflow_id), body, expected=workflow.last, record_id=record_id
                    )
                except ExpectationFailed:
                    continue
                changed = workflow.with_state(state, last=record.offset)
                return self._committed(changed.state_value(state.id), record)
        raise EngineError(
            ErrorCode.CONFLICT, f"workflow {shown(workflow_id)} is being changed by others; try again"
        )

    def _record_id(self) -> str:
        """Make an id that begins with the time: a log that indexes ids appends to the end of its index."""
        milliseconds = int(self._now().timestamp() * 1000) & 0xFFFF_FFFF_FFFF
        return f"{milliseconds:012x}{self._new_id().hex[12:]}"

    async def _append_own(self, subject: str, body: Body, *, expected: int) -> Record:
        try:
            return await self._append(subject, body, expected=expected, record_id=self._record_id())
        except ExpectationFailed as error:
            raise EngineError(
                ErrorCode.CONFLICT,
                "the resource was changed by another operation first; read it, and try again if it fits",
            ) from error

    async def _append(self, subject: str, body: Body, *, expected: int, record_id: str) -> Record:
        if not self._folding.running:
            raise EngineError(ErrorCode.UNAVAILABLE, "the server is not running: nothing was changed")
        new = NewRecord(subject=subject, id=record_id, data=encode_body(body), expected=expected)
        try:
            return await self._log.append(new)
        except ExpectationFailed:
            raise
        except LogClosedError as error:
            raise EngineError(ErrorCode.UNAVAILABLE, "the server is stopping: nothing was changed") from error
        except LogError as error:
            raise EngineError(
                ErrorCode.UNAVAILABLE, f"the event log could not be written: {error}; nothing was changed"
            ) from error

    def _committed(self, value: Value, record: Record) -> Committed:
        index = max(len(derive(record)) - 1, 0)
        return Committed(value, record, Cursor(self.epoch, record.offset, index, record.check))
