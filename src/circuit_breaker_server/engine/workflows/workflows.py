"""The commands on workflows and resources: records out, state folded from the records.

A command reads the state, decides, and appends one record that says what it built on; the state changes
only when the log hands the record back, in the log's order. Nothing is changed by a command that fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias, final

from circuit_breaker_server.engine.command import ATTEMPTS, Appender, Committed, Value
from circuit_breaker_server.engine.errors import EngineError, ErrorCode, shown
from circuit_breaker_server.engine.idempotency import Effect
from circuit_breaker_server.engine.json_values import encode
from circuit_breaker_server.engine.log_guards import naming
from circuit_breaker_server.engine.record_bodies import VersionedBody
from circuit_breaker_server.engine.turns import Turns
from circuit_breaker_server.engine.validation import encoded_object, json_object, refuse
from circuit_breaker_server.engine.workflows.definition_validation import (
    add_state,
    change_state,
    check_rules_exist,
    define_workflow,
)
from circuit_breaker_server.engine.workflows.definitions import StateDefinition
from circuit_breaker_server.engine.workflows.guards import decode_object, require_allowed
from circuit_breaker_server.engine.workflows.inputs import (
    CreateResource,
    CreateWorkflow,
    ExecuteActivity,
    StateInput,
    StateUpdate,
)
from circuit_breaker_server.engine.workflows.queries import Queries, RuleBook, resource_value
from circuit_breaker_server.engine.workflows.records import (
    ActivityExecuted,
    ResourceChanged,
    ResourceCreated,
    ResourceImage,
    StateCreated,
    StateUpdated,
    WorkflowCreated,
    history_tail,
)
from circuit_breaker_server.engine.workflows.state import FoldedState
from circuit_breaker_server.engine.workflows.subjects import resource_subject, workflow_subject
from circuit_breaker_server.engine.workflows.workflow import Workflow
from circuit_breaker_server.log.event_log import ExpectationFailed, Guards

__all__ = ["MAX_DATA_BYTES", "Shape", "Workflows"]

MAX_DATA_BYTES = 256 * 1024
MAX_METADATA_BYTES = 64 * 1024

Shape: TypeAlias = Callable[[Value, str], Value]
"""Makes a command's answer of ``ResourceGQL`` and the offset of its record."""

_NAMED = 20
_CHANGED = "the resource was changed by another operation first; read it, and try again if it fits"


def _as_it_is(resource: Value, _offset: str) -> Value:
    return resource


@final
class Workflows(Queries):
    """Commands and queries on workflows and resources.

    Example::

        made = await engine.workflows.create_workflow(CreateWorkflow(name="review", ...))
    """

    def __init__(self, state: FoldedState, appender: Appender, rules: RuleBook) -> None:
        super().__init__(state, rules)
        self._appender = appender
        self._turns = Turns[str]()

    async def create_workflow(self, given: CreateWorkflow) -> Committed[Value]:
        """Make a workflow; answers ``WorkflowGQL``.

        :raises EngineError: ``INVALID_INPUT``, ``RATE_LIMITED``, ``UNAVAILABLE``; ``CONFLICT``: a rule that
            it names was deleted first.
        """
        self._appender.count_creation()
        workflow_id, at = self._appender.new_id(), self._appender.at()
        definition = define_workflow(
            given,
            workflow_id=workflow_id,
            at=at,
            is_workflow=lambda id_: self._state.workflow(id_) is not None,
        )
        workflow = Workflow(definition, created=0, last=0)
        body = WorkflowCreated(workflow=definition)
        check_rules_exist(workflow, self._rules.find)
        guards = None
        if workflow.rule_ids:
            guards = naming("rule", workflow.rule_ids, decided_at=self._appender.decided_at())
        record = await self._appender.append_own(
            workflow_subject(workflow_id),
            body,
            expected=0,
            conflict="a rule that the workflow names was deleted first",
            effect=Effect(lambda _: workflow.value()),
            guards=guards,
        )
        return self._appender.committed(workflow.value(), record)

    async def create_resource(
        self, given: CreateResource, *, triggered_by: str | None = None, shape: Shape = _as_it_is
    ) -> Committed[Value]:
        """Put a new resource into a workflow; answers ``ResourceGQL``, in the requested shape.

        ``triggered_by`` is part of the events.

        :raises EngineError: ``NOT_FOUND``, ``INVALID_INPUT``, ``UNAVAILABLE``.
        """
        workflow = self._workflow(given.workflow_id)
        state = workflow.definition.initial_state if given.initial_state is None else given.initial_state
        if state not in workflow.states:
            refuse(
                f"initialState: workflow {shown(given.workflow_id)} has no state {shown(state)}",
                states=list(workflow.states)[:_NAMED],
            )
        at = self._appender.at()
        image = ResourceImage(
            id=self._appender.new_id(),
            workflow_id=given.workflow_id,
            state=state,
            state_definition=workflow.state_encoded(state),
            data=encoded_object(given.data, "data", max_bytes=MAX_DATA_BYTES),
            metadata=encoded_object(given.metadata, "metadata", max_bytes=MAX_METADATA_BYTES),
            created_at=at,
            updated_at=at,
            history=(),
        )
        subject = resource_subject(given.workflow_id, image.id)
        record = await self._appender.append_own(
            subject,
            ResourceCreated(resource=image, triggered_by=triggered_by),
            expected=0,
            conflict=_CHANGED,
            effect=Effect(lambda offset: shape(resource_value(image, workflow, list), offset)),
        )
        value = shape(resource_value(image, workflow, list), str(record.offset))
        return self._appender.committed(value, record)

    async def execute_activity(
        self,
        given: ExecuteActivity,
        *,
        triggered_by: str | None = None,
        new_state: str | None = None,
        shape: Shape = _as_it_is,
        guards: Guards | None = None,
    ) -> Committed[Value]:
        """Move a resource along an activity; answers ``ResourceGQL``, in the requested shape.

        Decided on the resource as it is when this is called: if any other change of it comes first, this
        one is refused. ``triggered_by`` is part of the events and the history. An activity that does not
        lead to ``new_state`` is refused; ``None`` leaves that to the workflow. ``guards`` say what else must
        hold.

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
        if new_state is not None and new_state != activity.to_state:
            refuse(
                f"newState: activity {shown(activity.id)} leads to {shown(activity.to_state)}, "
                f"not to {shown(new_state)}",
                toState=activity.to_state,
            )
        added = json_object(given.data, "data", max_bytes=MAX_DATA_BYTES)
        require_allowed(activity, old, workflow, self._rules.find)
        data = old.data
        if added:
            merged = {**decode_object(old.data), **added}
            data = encoded_object(merged, "data of the resource", max_bytes=MAX_DATA_BYTES)
        at = self._appender.at()
        entry: Value = {
            "timestamp": at,
            "activity": activity.id,
            "fromState": old.state,
            "toState": activity.to_state,
            "data": None if given.data is None else added,
        }
        if triggered_by is not None:
            entry["triggeredBy"] = triggered_by
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
            activity_id=activity.id,
            from_state=old.state,
            to_state=activity.to_state,
            resource=image,
            triggered_by=triggered_by,
        )

        def answers(offset: str) -> Value:
            def whole_history() -> list[Value]:
                return [*self._history(old), {**entry, "natsSequence": offset}]

            return shape(resource_value(image, workflow, whole_history), offset)

        record = await self._appender.append_own(
            resource_subject(old.workflow_id, old.id),
            body,
            expected=old.last,
            conflict=_CHANGED,
            effect=Effect(answers),
            guards=guards,
        )
        return self._appender.committed(answers(str(record.offset)), record)

    async def add_data(
        self, resource_id: str, added: Mapping[str, object], *, guards: Guards | None = None
    ) -> Committed[Value]:
        """Merge data into a resource's, key by key, outside an activity; answers ``ResourceGQL``.

        :raises EngineError: ``NOT_FOUND``, ``INVALID_INPUT``, ``CONFLICT``, ``UNAVAILABLE``.
        """
        old = self._resource(resource_id)
        workflow = self._workflow(old.workflow_id)
        merged = {**decode_object(old.data), **added}
        image = ResourceImage(
            id=old.id,
            workflow_id=old.workflow_id,
            state=old.state,
            state_definition=workflow.state_encoded(old.state),
            data=encoded_object(merged, "data of the resource", max_bytes=MAX_DATA_BYTES),
            metadata=old.metadata,
            created_at=old.created_at,
            updated_at=self._appender.at(),
            history=history_tail(self._state.recent_history(old)),
        )
        record = await self._appender.append_own(
            resource_subject(old.workflow_id, old.id),
            ResourceChanged(resource=image),
            expected=old.last,
            conflict=_CHANGED,
            guards=guards,
        )
        return self._appender.committed(resource_value(image, workflow, lambda: self._history(old)), record)

    async def create_state(self, given: StateInput) -> Committed[Value]:
        """Add a state to a workflow; answers ``StateGQL``.

        :raises EngineError: ``NOT_FOUND``, ``INVALID_INPUT``, ``RATE_LIMITED``, ``UNAVAILABLE``.
        """
        self._workflow(given.workflow_id)
        self._appender.count_creation()

        def decide(workflow: Workflow) -> tuple[StateDefinition, VersionedBody]:
            state = add_state(workflow, given, at=self._appender.at())
            return state, StateCreated(workflow_id=given.workflow_id, state=state)

        return await self._change_workflow(given.workflow_id, decide)

    async def update_state(self, workflow_id: str, state_id: str, update: StateUpdate) -> Committed[Value]:
        """Change a state of a workflow; answers ``StateGQL``.

        :raises EngineError: ``NOT_FOUND``, ``INVALID_INPUT``, ``UNAVAILABLE``.
        """

        def decide(workflow: Workflow) -> tuple[StateDefinition, VersionedBody]:
            if state_id not in workflow.states:
                raise EngineError(
                    ErrorCode.NOT_FOUND, f"workflow {shown(workflow_id)} has no state {shown(state_id)}"
                )
            state = change_state(workflow, state_id, update, at=self._appender.at())
            return state, StateUpdated(workflow_id=workflow_id, state=state)

        return await self._change_workflow(workflow_id, decide)

    async def _change_workflow(
        self, workflow_id: str, decide: Callable[[Workflow], tuple[StateDefinition, VersionedBody]]
    ) -> Committed[Value]:
        """Decide on the workflow as it is, again if someone else changes it first."""
        record_id = self._appender.record_id()
        # One after another, so that the attempts are for other writers: the expected offset is what counts.
        async with self._turns.of(workflow_id):
            for _ in range(ATTEMPTS):
                workflow = self._workflow(workflow_id)
                state, body = decide(workflow)
                value = workflow.with_state(state, last=workflow.last).state_value(state.id)
                try:
                    record = await self._appender.append(
                        workflow_subject(workflow_id),
                        body,
                        expected=workflow.last,
                        record_id=record_id,
                        effect=Effect.of(value),
                    )
                except ExpectationFailed:
                    continue
                return self._appender.committed(value, record)
        raise EngineError(
            ErrorCode.CONFLICT, f"workflow {shown(workflow_id)} is being changed by others; try again"
        )
