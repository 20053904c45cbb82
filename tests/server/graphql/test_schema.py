"""The schema is the contract's workflow domain, and everything in it is described or plain."""

from __future__ import annotations

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLObjectType,
    Node,
    is_introspection_type,
    print_ast,
    validate_schema,
)

from circuit_breaker_server.engine.engine import STREAMS
from circuit_breaker_server.engine.workflows.definitions import StateType
from circuit_breaker_server.graphql.resolvers import MUTATIONS, QUERIES
from circuit_breaker_server.graphql.schema import load_schema

CONTRACT = {
    "Query": """
        workflow(id: String!): WorkflowGQL; workflows: [WorkflowGQL!]!; resource(id: String!): ResourceGQL;
        resources(workflowId: String): [ResourceGQL!]!;
        availableActivities(resourceId: String!): [ActivityGQL!]!;
        state(workflowId: String!, stateId: String!): StateGQL;
        workflowStates(workflowId: String!): [StateGQL!]!; health: String!""",
    "Mutation": """
        createWorkflow(input: WorkflowDefinitionInput!): WorkflowGQL!;
        createResource(input: ResourceCreateInput!): ResourceGQL!;
        executeActivity(input: ActivityExecuteInput!): ResourceGQL!;
        createState(input: StateDefinitionInput!): StateGQL!;
        updateState(workflowId: String!, stateId: String!, input: StateUpdateInput!): StateGQL!""",
    "Subscription": """
        resourceUpdates(resourceId: String, workflowId: String, state: String): ResourceGQL!;
        workflowEvents(workflowId: String!): WorkflowEventGQL!""",
    "WorkflowGQL": """id: ID!; name: String!; description: String; states: [StateGQL!]!;
        activities: [ActivityGQL!]!; initialState: String!; createdAt: String!; updatedAt: String!""",
    "StateGQL": """id: String!; name: String!; description: String; stateType: StateType!;
        isInitial: Boolean!; isTerminal: Boolean!; config: StateConfigGQL; allowedTransitions: [String!]!;
        availableActivities: [ActivityGQL!]!; createdAt: String!; updatedAt: String!""",
    "StateConfigGQL": """timeoutSeconds: Int; autoTransition: AutoTransitionConfigGQL;
        notifications: StateNotificationConfigGQL; metadata: JSON""",
    "AutoTransitionConfigGQL": """enabled: Boolean!; delaySeconds: Int!; targetState: String!;
        conditions: [String!]!""",
    "StateNotificationConfigGQL": "enabled: Boolean!; channels: [String!]!; templates: JSON",
    "ResourceGQL": """id: ID!; workflowId: String!; state: String!; stateDefinition: StateGQL; data: JSON!;
        metadata: JSON!; createdAt: String!; updatedAt: String!; history: [HistoryEventGQL!]!""",
    "ActivityGQL": """id: String!; name: String; fromStates: [String!]!; toState: String!;
        conditions: [String!]!; description: String""",
    "HistoryEventGQL": """timestamp: String!; activity: String!; fromState: String!; toState: String!;
        data: JSON""",
    "WorkflowEventGQL": """eventType: WorkflowEventType!; workflowId: String!; resourceId: String;
        timestamp: String!; data: JSON!; triggeredBy: String; natsSequence: String""",
    "WorkflowDefinitionInput": """name: String!; states: [StateDefinitionInput!]!;
        activities: [ActivityDefinitionInput!]!; initialState: String!; description: String""",
    "StateDefinitionInput": """id: String!; name: String!; workflowId: String!; description: String;
        stateType: StateType!; isInitial: Boolean = false; isTerminal: Boolean = false;
        config: StateConfigInput""",
    "StateUpdateInput": """name: String; description: String; stateType: StateType; isTerminal: Boolean;
        config: StateConfigInput""",
    "StateConfigInput": """timeoutSeconds: Int; autoTransition: AutoTransitionConfigInput;
        notifications: StateNotificationConfigInput; metadata: JSON""",
    "AutoTransitionConfigInput": """enabled: Boolean!; delaySeconds: Int!; targetState: String!;
        conditions: [String!]!""",
    "StateNotificationConfigInput": "enabled: Boolean!; channels: [String!]!; templates: JSON",
    "ActivityDefinitionInput": """id: String!; name: String; fromStates: [String!]!; toState: String!;
        conditions: [String!]!; description: String""",
    "ResourceCreateInput": "workflowId: String!; initialState: String; data: JSON; metadata: JSON",
    "ActivityExecuteInput": "resourceId: String!; activityId: String!; data: JSON",
}
ENUMS = {
    "StateType": "NORMAL INITIAL TERMINAL ERROR WAITING REVIEW",
    "WorkflowEventType": """RESOURCE_CREATED RESOURCE_STATE_CHANGED ACTIVITY_EXECUTED WORKFLOW_UPDATED
        AGENT_TRIGGERED""",
}


def test_the_schema_is_valid_and_built_once() -> None:
    assert validate_schema(load_schema()) == []
    assert load_schema() is load_schema()


def signatures(type_: GraphQLObjectType | GraphQLInputObjectType) -> set[str]:
    found = set()
    for name, field in type_.fields.items():
        arguments = getattr(field, "args", {})
        inside = ", ".join(f"{key}: {argument.type}" for key, argument in arguments.items())
        default = getattr(field.ast_node, "default_value", None)
        ending = f" = {print_ast(default)}" if isinstance(default, Node) else ""
        found.add(f"{name}{f'({inside})' if inside else ''}: {field.type}{ending}")
    return found


@pytest.mark.parametrize("name", CONTRACT)
def test_each_type_has_the_fields_of_the_contract_and_those_we_add(name: str) -> None:
    type_ = load_schema().type_map[name]
    assert isinstance(type_, (GraphQLObjectType, GraphQLInputObjectType))
    assert signatures(type_) == {" ".join(each.split()) for each in CONTRACT[name].split(";")}


@pytest.mark.parametrize("name", ENUMS)
def test_each_enum_has_the_values_of_the_contract(name: str) -> None:
    type_ = load_schema().type_map[name]
    assert isinstance(type_, GraphQLEnumType)
    assert list(type_.values) == ENUMS[name].split()


def test_nothing_is_declared_that_is_not_in_the_contract() -> None:
    declared = {name for name, t in load_schema().type_map.items() if not is_introspection_type(t)}
    plain = {"JSON", "String", "ID", "Int", "Boolean"}
    assert declared == CONTRACT.keys() | ENUMS.keys() | plain


def test_every_root_field_is_served() -> None:
    schema = load_schema()
    assert schema.query_type is not None
    assert schema.mutation_type is not None
    assert schema.subscription_type is not None
    assert schema.query_type.fields.keys() == QUERIES.keys()
    assert schema.mutation_type.fields.keys() == MUTATIONS.keys()
    assert schema.subscription_type.fields.keys() == STREAMS.keys()


def test_the_engines_enum_is_the_schemas() -> None:
    assert [each.value for each in StateType] == ENUMS["StateType"].split()


def test_every_type_and_every_root_field_is_described() -> None:
    for name, type_ in load_schema().type_map.items():
        if is_introspection_type(type_) or name in {"Query", "Subscription"}:
            continue
        if isinstance(type_, GraphQLInputObjectType):
            assert type_.description or any(field.description for field in type_.fields.values()), name
        else:
            assert type_.description, name
    for root in ("Query", "Mutation", "Subscription"):
        type_ = load_schema().type_map[root]
        assert isinstance(type_, GraphQLObjectType)
        assert all(field.description for field in type_.fields.values())
