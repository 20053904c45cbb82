"""An operation that is compiled is answered as graphql-core answers it, whatever becomes of its field."""

from __future__ import annotations

import asyncio
import re
from typing import cast

import graphql
import msgspec
import pytest
import structlog
from graphql import ExecutionResult, parse, validate
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from circuit_breaker_server.access.fields import QUERY_RULES
from circuit_breaker_server.engine.cursor import Cursors
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.graphql import operation_root
from circuit_breaker_server.graphql.compiled_operation import compile_operation, compiled_operation
from circuit_breaker_server.graphql.documents import Document, Documents
from circuit_breaker_server.graphql.execute import _encode as encode_answer
from circuit_breaker_server.graphql.execute import run
from circuit_breaker_server.graphql.operation_root import Root
from circuit_breaker_server.graphql.resolvers import Answered, resolve
from circuit_breaker_server.graphql.root_fields import LISTS, QUERIES
from circuit_breaker_server.graphql.schema import load_schema
from tests.server.access.redacted_documents import RULES, Maker, documents, stage_of
from tests.server.engine.worlds import part
from tests.server.graphql.graph import serving


def is_compiled(text: str) -> bool:
    document = Documents(load_schema()).get(text)
    assert compiled_operation(document, None, frozenset()) is None  # it is asked for the first time
    return compiled_operation(document, None, frozenset()) is not None


def by_graphql_core(text: str, value: object, variables: dict[str, object]) -> bytes:
    answer = graphql.execute(
        load_schema(),
        parse(text),
        Answered(value),
        context_value=frozenset(),
        variable_values=variables,
        field_resolver=resolve,
    )
    return encode_answer(cast("ExecutionResult", answer), None)


def answered(text: str, value: object, variables: dict[str, object]) -> bytes:
    """Run a query whose field has this value, or is refused by it."""
    document = Document(text, parse(text))

    def field(_engine: Engine, _given: object) -> object:
        if isinstance(value, Exception):
            raise value
        return value

    async def answer() -> bytes:
        root = Root(cast("Engine", None), is_mutation=False, cursors=Cursors("epoch"))
        compiled_operation(document, None, frozenset())
        return await run(document, variables=variables, operation_name=None, root=root)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operation_root, "QUERIES", dict.fromkeys((*QUERIES, *LISTS), field))
        patch.setattr(operation_root, "LISTS", {})
        return asyncio.run(answer())


@pytest.mark.parametrize("unfit", [False, True])
def test_whatever_the_document_and_the_value_both_answer_the_same(unfit: bool) -> None:
    stage = stage_of("ours")
    met = {"compiled": 0, "unfit": 0}

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(asked=documents(stage, ("query",)), seed=st.integers(0, 2**32))
    def check(asked: tuple[str, str], seed: int) -> None:
        name, document = asked[0], re.sub(r" @\w+\([^)]*\)", "", asked[1])
        assume(not validate(stage.redacting, parse(document), RULES) and QUERY_RULES[name].page is None)
        value, _ = Maker(stage, seed, frozenset(), unfit=unfit, share=0.3).value(
            stage.root("query")[name].type
        )
        operation = compile_operation(load_schema(), Document(document, parse(document)), None, frozenset())
        met["compiled"] += operation is not None
        met["unfit"] += operation is not None and operation.encode(value) is None
        variables: dict[str, object] = {"yes": True}
        assert answered(document, value, variables) == by_graphql_core(document, value, variables)

    check()
    assert met["compiled"] > 20
    assert (met["unfit"] > 0) is unfit


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("query($id: String!) { workflow(id: $id) { id } }", {}),
        ("query($id: String!) { workflow(id: $id) { id } }", {"id": [1]}),
        ('query($id: String = "x") { workflow(id: $id) { id } }', {"id": None}),
    ],
)
def test_variables_that_do_not_fit_are_refused_as_graphql_core_refuses_them(
    text: str, variables: dict[str, object]
) -> None:
    assert is_compiled(text)
    answer = answered(text, None, variables)
    assert answer == by_graphql_core(text, None, variables)
    assert b"errors" in answer


@pytest.mark.parametrize(
    "refusal", [EngineError(ErrorCode.NOT_FOUND, "there is none"), RuntimeError("a defect")]
)
def test_a_field_that_is_refused_is_an_error_with_its_path_and_is_asked_once(refusal: Exception) -> None:
    text = '{ w: workflow(id: "1") { id } }'
    with structlog.testing.capture_logs():
        answer = answered(text, refusal, {})
        assert answer == by_graphql_core(text, refusal, {})
    (error,) = msgspec.json.decode(answer)["errors"]
    assert error["path"] == ["w"]
    assert "a defect" not in error["message"]


def test_a_field_is_asked_once_also_where_its_value_does_not_fit() -> None:
    asked = []

    def field(_engine: Engine, _given: object) -> object:
        asked.append(1)
        return {"id": None}

    text = '{ workflow(id: "1") { id } }'

    async def answer() -> bytes:
        root = Root(cast("Engine", None), is_mutation=False, cursors=Cursors("epoch"))
        document = Document(text, parse(text))
        compiled_operation(document, None, frozenset())
        assert compiled_operation(document, None, frozenset()) is not None
        return await run(document, variables=None, operation_name=None, root=root)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operation_root, "QUERIES", dict.fromkeys((*QUERIES, *LISTS), field))
        patch.setattr(operation_root, "LISTS", {})
        told = msgspec.json.decode(asyncio.run(answer()))
    assert asked == [1]
    assert told["data"] == {"workflow": None}
    assert told["errors"][0]["path"] == ["workflow", "id"]


@pytest.mark.parametrize(
    "text",
    [
        "{ health workflows { id } }",
        "{ __typename }",
        "{ __schema { types { name } } }",
        "query($yes: Boolean!) { workflows { id name @include(if: $yes) } }",
        "{ workflows { ...F @skip(if: true) id } } fragment F on WorkflowGQL { id }",
    ],
)
def test_what_is_not_of_one_plain_field_is_left_to_graphql_core(text: str) -> None:
    assert not is_compiled(text)


@pytest.mark.parametrize(
    "text",
    [
        "{ health }",
        "{ a: workflows { id b: name ...F } } fragment F on WorkflowGQL { states { id } }",
        "mutation($i: ResourceCreateInput!) { createResource(input: $i) { id state data } }",
    ],
)
def test_plain_operations_are_compiled(text: str) -> None:
    assert is_compiled(text)


async def test_what_is_compiled_is_kept_with_its_document_by_operation_and_rights() -> None:
    text = "query A { health } query B { workflows { id } }"
    document = Documents(load_schema()).get(text)
    asked = [("A", frozenset[str]()), ("B", frozenset[str]()), ("A", frozenset(("log:read:sequence",)))]
    assert [compiled_operation(document, *each) for each in asked] == [None] * 3
    first, *others = (compiled_operation(document, *each) for each in asked)
    assert first is not None
    assert first is compiled_operation(document, "A", frozenset())
    assert None not in others
    assert first not in others


def test_what_would_cost_much_is_not_compiled() -> None:
    documents = Documents(load_schema())
    parts = [
        f"fragment {level} on RuleGQL {{ id n{level}: name ...{after} o{level}: name ...{after} }}"
        for level, after in (("A", "B"), ("B", "C"), ("C", "D"))
    ]
    last = "fragment D on RuleGQL { " + " ".join(f"f{n}: name" for n in range(70)) + " }"
    wide = documents.get(" ".join(["{ rules { ...A } }", *parts, last]))
    assert not wide.is_plain
    many = documents.get(" ".join(f"query Q{n} {{ health }}" for n in range(20)))
    for _ in range(2):
        kept = [compiled_operation(many, f"Q{n}", frozenset()) for n in range(20)]
    assert sum(each is not None for each in kept) == len(many.compiled) == 8


async def test_a_mutation_is_answered_with_its_cursor_and_happens_once() -> None:
    async with serving() as graph:
        made = await graph.create_workflow()
        text = "mutation($i: ResourceCreateInput!) { createResource(input: $i) { id workflowId data } }"
        given_ = {"workflowId": made["id"], "data": {"n": 1}}
        await graph.answer(text, {"i": given_})
        answer = await graph.answer(text, {"i": given_})
        assert list(answer) == ["data", "extensions"]
        found = await graph.data("{ resources { id workflowId data } }")
        assert part(answer, "data", dict)["createResource"] == part(found, "resources", list)[1]
        assert len(part(found, "resources", list)) == 2
