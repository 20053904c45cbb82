"""From inputs to definitions: everything that can be wrong with a workflow is found here.

Pure functions; each refuses with ``INVALID_INPUT`` and a text that names the place in the input.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import NoReturn

from msgspec import UNSET

from circuit_breaker_server.engine.errors import shown
from circuit_breaker_server.engine.json_values import InvalidJSON, check_json, encode
from circuit_breaker_server.engine.rules import conditions as rules
from circuit_breaker_server.engine.validation import (
    check_count,
    check_description,
    check_name,
    check_unique,
    refuse,
)
from circuit_breaker_server.engine.workflows.definitions import (
    ActivityDefinition,
    StateConfig,
    StateDefinition,
    StateType,
    WorkflowDefinition,
)
from circuit_breaker_server.engine.workflows.inputs import (
    ActivityInput,
    CreateWorkflow,
    StateInput,
    StateUpdate,
)
from circuit_breaker_server.engine.workflows.workflow import Workflow

__all__ = ["add_state", "change_state", "check_rules_exist", "define_workflow"]

MAX_CONDITION = 1_000
MAX_CONDITIONS = 50
MAX_STATES = 1_000
MAX_ACTIVITIES = 5_000
MAX_NAMED_RULES = 400
MAX_WORKFLOW_BYTES = 1024 * 1024
MAX_STATE_BYTES = 64 * 1024
"""A state with its activities is written into every record of a resource in it."""


def define_workflow(
    given: CreateWorkflow, *, workflow_id: str, at: str, is_workflow: Callable[[str], bool]
) -> WorkflowDefinition:
    """Make a new workflow's definition.

    :param at: the time of the creation.
    :param is_workflow: tells whether an id names a workflow that already exists.
    """
    check_name(given.name, "name")
    check_description(given.description, "description")
    if not given.states:
        refuse("states: a workflow needs at least one state")
    if not given.activities:
        refuse("activities: a workflow needs at least one activity")
    check_count(given.states, MAX_STATES, "states")
    check_count(given.activities, MAX_ACTIVITIES, "activities")
    check_unique((state.id for state in given.states), "states")
    check_unique((activity.id for activity in given.activities), "activities")
    known = {state.id: None for state in given.states}
    if given.initial_state not in known:
        _refuse_unknown_state("initialState", given.initial_state, known)
    _check_placeholders(given.states, is_workflow)
    states = tuple(
        _define_state(state, f"states[{i}]", initial=given.initial_state, known=known, at=at)
        for i, state in enumerate(given.states)
    )
    activities = tuple(
        _define_activity(activity, f"activities[{i}]", known) for i, activity in enumerate(given.activities)
    )
    definition = WorkflowDefinition(
        id=workflow_id,
        name=given.name,
        description=given.description,
        states=states,
        activities=activities,
        initial_state=given.initial_state,
        created_at=at,
        updated_at=at,
    )
    _check_sizes(Workflow(definition, created=0, last=0), known)
    return definition


def check_rules_exist(workflow: Workflow, find: Callable[[str], rules.Rule | None]) -> None:
    """Refuse a workflow whose activities name rules that are not there, or too many."""
    if len(workflow.rule_ids) > MAX_NAMED_RULES:
        refuse(
            f"activities: their conditions name {len(workflow.rule_ids)} rules; a workflow names "
            f"{MAX_NAMED_RULES} at most"
        )
    for i, activity in enumerate(workflow.definition.activities):
        for j, condition in enumerate(workflow.conditions_of(activity)):
            if isinstance(condition, rules.RuleNamed) and find(condition.id) is None:
                refuse(
                    f"activities[{i}].conditions[{j}]: there is no rule {shown(condition.id)}",
                    condition=activity.conditions[j],
                )


def add_state(workflow: Workflow, given: StateInput, *, at: str) -> StateDefinition:
    """Make the definition of a state to be added to a workflow."""
    if given.id in workflow.states:
        refuse(f"id: workflow {shown(workflow.definition.id)} already has a state {shown(given.id)}")
    if len(workflow.states) >= MAX_STATES:
        refuse(f"the workflow already has {MAX_STATES} states, the most it can have")
    known = {**workflow.states, given.id: None}
    state = _define_state(given, "", initial=workflow.definition.initial_state, known=known, at=at)
    _check_sizes(workflow.with_state(state, last=0), [state.id])
    return state


def change_state(workflow: Workflow, state_id: str, update: StateUpdate, *, at: str) -> StateDefinition:
    """Make the definition that a state of the workflow has after an update."""
    old = workflow.states[state_id]
    if all(getattr(update, field) is UNSET for field in update.__struct_fields__):
        refuse("input: it names nothing to change")
    for value, name in (
        (update.name, "name"),
        (update.state_type, "stateType"),
        (update.is_terminal, "isTerminal"),
    ):
        if value is None:
            refuse(f"{name}: null is not allowed; leave it out to keep it as it is")
    name = update.name if isinstance(update.name, str) else old.name
    description = old.description if update.description is UNSET else update.description
    state_type = update.state_type if isinstance(update.state_type, StateType) else old.state_type
    config = old.config if update.config is UNSET else update.config
    check_name(name, "name")
    check_description(description, "description")
    _check_initial_type(state_type, "", is_initial=old.is_initial)
    if state_type is StateType.TERMINAL and update.is_terminal is False:
        refuse("isTerminal: a state of the type TERMINAL is terminal")
    given_terminal = update.is_terminal if isinstance(update.is_terminal, bool) else old.is_terminal
    if update.config is not UNSET:
        _check_config(config, "config", workflow.states)
    state = StateDefinition(
        id=old.id,
        name=name,
        description=description,
        state_type=state_type,
        is_initial=old.is_initial,
        is_terminal=given_terminal or state_type is StateType.TERMINAL,
        config=config,
        created_at=old.created_at,
        updated_at=at,
    )
    _check_sizes(workflow.with_state(state, last=0), [state.id])
    return state


def _define_state(
    given: StateInput, where: str, *, initial: str, known: Collection[str], at: str
) -> StateDefinition:
    prefix = f"{where}." if where else ""
    check_name(given.id, f"{prefix}id")
    check_name(given.name, f"{prefix}name")
    check_description(given.description, f"{prefix}description")
    is_initial = given.id == initial
    if given.is_initial and not is_initial:
        refuse(f"{prefix}isInitial: the workflow's initialState is {shown(initial)}, not {shown(given.id)}")
    _check_initial_type(given.state_type, prefix, is_initial=is_initial)
    _check_config(given.config, f"{prefix}config", known)
    return StateDefinition(
        id=given.id,
        name=given.name,
        description=given.description,
        state_type=given.state_type,
        is_initial=is_initial,
        is_terminal=bool(given.is_terminal) or given.state_type is StateType.TERMINAL,
        config=given.config,
        created_at=at,
        updated_at=at,
    )


def _define_activity(given: ActivityInput, where: str, known: Collection[str]) -> ActivityDefinition:
    check_name(given.id, f"{where}.id")
    if given.name is not None:
        check_name(given.name, f"{where}.name")
    check_description(given.description, f"{where}.description")
    if not given.from_states:
        refuse(f"{where}.fromStates: an activity needs at least one state to start from")
    check_unique(given.from_states, f"{where}.fromStates")
    for state_id in given.from_states:
        if state_id not in known:
            _refuse_unknown_state(f"{where}.fromStates", state_id, known)
    if given.to_state not in known:
        _refuse_unknown_state(f"{where}.toState", given.to_state, known)
    _check_conditions(given.conditions, f"{where}.conditions")
    return ActivityDefinition(
        id=given.id,
        name=given.name,
        from_states=given.from_states,
        to_state=given.to_state,
        conditions=given.conditions,
        description=given.description,
    )


def _check_placeholders(states: Iterable[StateInput], is_workflow: Callable[[str], bool]) -> None:
    """Refuse states that cannot all belong to the one new workflow (there is no id to name yet)."""
    named = {state.workflow_id for state in states} - {""}
    if len(named) > 1:
        first, second = sorted(named)[:2]
        refuse(
            f"states: workflowId names different workflows ({shown(first)}, {shown(second)}); "
            "the new workflow has no id yet: write an empty string"
        )
    for workflow_id in named:
        if is_workflow(workflow_id):
            refuse(
                f"states: workflowId {shown(workflow_id)} is another workflow; use createState to add to it"
            )


def _check_initial_type(state_type: StateType, prefix: str, *, is_initial: bool) -> None:
    if state_type is StateType.INITIAL and not is_initial:
        refuse(f"{prefix}stateType: only the workflow's initialState may be of the type INITIAL")


def _check_config(config: StateConfig | None, where: str, known: Collection[str]) -> None:
    if config is None:
        return
    if config.timeout_seconds is not None:
        refuse(f"{where}.timeoutSeconds: this server does not end a stay by time yet; leave it out")
    automatic, notifications = config.auto_transition, config.notifications
    if automatic is not None:
        if automatic.enabled:
            refuse(f"{where}.autoTransition: this server makes no transitions of its own yet; disable it")
        if automatic.delay_seconds < 0:
            refuse(f"{where}.autoTransition.delaySeconds: {automatic.delay_seconds} is less than 0")
        if automatic.target_state not in known:
            _refuse_unknown_state(f"{where}.autoTransition.targetState", automatic.target_state, known)
        _check_conditions(automatic.conditions, f"{where}.autoTransition.conditions", may_name_rules=False)
    if notifications is not None and notifications.enabled:
        refuse(f"{where}.notifications: this server sends no messages yet; disable them")
    for value, name in (
        (config.metadata, "metadata"),
        (notifications.templates if notifications else None, "notifications.templates"),
    ):
        try:
            check_json(value)
        except InvalidJSON as error:
            refuse(f"{where}.{name}: {error}")


def _check_conditions(conditions: Collection[str], where: str, *, may_name_rules: bool = True) -> None:
    check_count(conditions, MAX_CONDITIONS, where)
    for i, condition in enumerate(conditions):
        if len(condition) > MAX_CONDITION:
            refuse(f"{where}[{i}]: {len(condition)} characters; at most {MAX_CONDITION} are allowed")
        try:
            read = rules.parse(condition)
        except rules.InvalidCondition as error:
            refuse(f"{where}[{i}]: {error}", condition=condition)
        if isinstance(read, rules.RuleNamed) and not may_name_rules:
            refuse(f"{where}[{i}]: only the conditions of activities name rules", condition=condition)


def _check_sizes(workflow: Workflow, state_ids: Iterable[str]) -> None:
    size = len(bytes(encode(workflow.definition)))
    if size > MAX_WORKFLOW_BYTES:
        refuse(f"the workflow takes {size} bytes as JSON; at most {MAX_WORKFLOW_BYTES} are allowed")
    for state_id in state_ids:
        size = len(bytes(workflow.state_encoded(state_id)))
        if size > MAX_STATE_BYTES:
            refuse(
                f"state {shown(state_id)} with its activities takes {size} bytes as JSON; "
                f"at most {MAX_STATE_BYTES} are allowed"
            )


def _refuse_unknown_state(where: str, state_id: str, known: Collection[str]) -> NoReturn:
    some = ", ".join(map(shown, list(known)[:10])) + (", …" if len(known) > 10 else "")
    refuse(f"{where}: there is no state {shown(state_id)}; the states are {some}")
