"""What is withheld is nowhere in what is sent, whatever the document, data and rights; the rest is there."""

from __future__ import annotations

import re
from typing import Any, cast

import graphql
import msgspec
import pytest
from graphql import ExecutionResult, Executor, GraphQLObjectType, GraphQLSchema, parse, validate
from graphql.execution.execute import execute_subscription_event
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from circuit_breaker_server.engine.events import whole
from circuit_breaker_server.gateway.projection import Projection
from circuit_breaker_server.graphql.compiled_operation import compile_operation
from circuit_breaker_server.graphql.documents import Document
from circuit_breaker_server.graphql.execute import _encode as encode_answer
from circuit_breaker_server.graphql.resolvers import resolve
from circuit_breaker_server.graphql.schema import REDACTION, Redaction, load_schema
from tests.server.access.redacted_documents import RULES, VIEWS, Maker, Stage, documents, stage_of

# --- documents -------------------------------------------------------------------------------------


# --- values ----------------------------------------------------------------------------------------


def plainly(stage: Stage, document: str, root: dict[str, object], *, event: bool) -> bytes:
    """Answer by the schema that withholds nothing."""
    variables = {"yes": True}
    if event:
        executor = build(stage.plain, document)
        answer = execute_subscription_event(executor.build_per_event_executor(root))
        result = cast("ExecutionResult", answer)
    else:
        result = cast(
            "ExecutionResult",
            graphql.execute(
                stage.plain, parse(document), root, variable_values=variables, field_resolver=resolve
            ),
        )
    return encode_answer(result, None)


def build(schema: GraphQLSchema, document: str, withheld: frozenset[str] = frozenset()) -> Executor[None]:
    executor = Executor.build(
        schema, parse(document), context_value=withheld, raw_variable_values={"yes": True}
    )
    assert isinstance(executor, Executor)
    return cast("Executor[None]", executor)


def check_hides(answer: bytes, maker: Maker) -> None:
    text = answer.decode()
    assert "canary-" not in text
    assert not [canary for canary in maker.canaries if canary in text]


_settings = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
_views = st.sampled_from(VIEWS)
_seeds = st.integers(0, 2**32)


@pytest.mark.parametrize("unfit", [False, True])
@pytest.mark.parametrize("schema", ["ours", "nested"])
def test_no_event_has_what_is_withheld_and_each_has_the_rest(schema: str, unfit: bool) -> None:
    stage = stage_of(schema)

    @_settings
    @given(asked=documents(stage, ("subscription",)), withheld=_views, seed=_seeds)
    def check(asked: tuple[str, str], withheld: frozenset[str], seed: int) -> None:
        name, document = asked
        assume(not validate(stage.redacting, parse(document), RULES))
        maker = Maker(stage, seed, withheld, unfit=unfit)
        value, left = maker.value(stage.root("subscription")[name].type)
        assume(value is not None)
        projection = Projection(build(stage.redacting, document, withheld))
        assert projection.compiled
        event = cast("dict[str, object]", value)
        compiled, fallback = projection.encode(event) + b"}", projection._execute(event) + b"}"
        check_hides(compiled, maker)
        check_hides(fallback, maker)
        assert msgspec.json.decode(compiled) == msgspec.json.decode(fallback)
        expected: dict[str, Any] = msgspec.json.decode(plainly(stage, document, {name: left}, event=True))
        told: dict[str, Any] = msgspec.json.decode(compiled)
        assert told["data"] == expected["data"]
        assert [e["path"] for e in told.get("errors", ())] == [e["path"] for e in expected.get("errors", ())]
        assert unfit or not projection.fallbacks

    check()


@pytest.mark.parametrize("schema", ["ours", "nested"])
def test_no_answer_has_what_is_withheld_and_each_has_the_rest(schema: str) -> None:
    stage = stage_of(schema)

    @_settings
    @given(asked=documents(stage, ("query", "mutation")), withheld=_views, seed=_seeds)
    def check(asked: tuple[str, str], withheld: frozenset[str], seed: int) -> None:
        name, document = asked
        assume(not validate(stage.redacting, parse(document), RULES))
        maker = Maker(stage, seed, withheld, unfit=False)
        kind = document.partition(" ")[0]
        value, left = maker.value(stage.root(kind)[name].type)
        result = graphql.execute(
            stage.redacting,
            parse(document),
            {name: whole(value)},
            context_value=withheld,
            variable_values={"yes": True},
            field_resolver=resolve,
        )
        answer = encode_answer(cast("ExecutionResult", result), None)
        check_hides(answer, maker)
        assert answer == plainly(stage, document, {name: whole(left)}, event=False)

    check()


@pytest.mark.parametrize("schema", ["ours", "nested"])
def test_no_compiled_answer_has_what_is_withheld_and_each_has_the_rest(schema: str) -> None:
    stage = stage_of(schema)
    compiled = 0

    @_settings
    @given(asked=documents(stage, ("query", "mutation")), withheld=_views, seed=_seeds)
    def check(asked: tuple[str, str], withheld: frozenset[str], seed: int) -> None:
        nonlocal compiled
        name, document = asked[0], re.sub(r" @\w+\([^)]*\)", "", asked[1])
        assume(not validate(stage.redacting, parse(document), RULES))
        maker = Maker(stage, seed, withheld, unfit=False)
        value, left = maker.value(stage.root(document.partition(" ")[0])[name].type)
        operation = compile_operation(stage.redacting, Document(document, parse(document)), None, withheld)
        if operation is not None:
            encoded = operation.encode(value)
            assert encoded is not None
            check_hides(encoded, maker)
            assert encoded + b"}" == plainly(stage, document, {name: whole(left)}, event=False)
            compiled += 1

    check()
    assert compiled > 20


def test_every_field_that_is_withheld_is_reached_by_a_root_field() -> None:
    stage = stage_of("ours")
    reached = {name for _, name in stage.roots}
    assert {"natsResource", "mcpSessions", "mcpServer", "createWorkflowInstance"} <= reached
    assert {"workflowEvents", "natsResourceStream", "mcpSessionEvents"} <= reached


@pytest.mark.parametrize("context", [None, "nobody", ("log:read:sequence",)])
def test_whoever_is_not_known_sees_nothing_of_what_is_withheld(context: object) -> None:
    for type_ in load_schema().type_map.values():
        for field in type_.fields.values() if isinstance(type_, GraphQLObjectType) else ():
            redaction = field.extensions.get(REDACTION)
            assert not isinstance(redaction, Redaction) or redaction.withholds(context)
