"""What an operation may cost, and that it is refused, executed at once, or in slices by that."""

from __future__ import annotations

import pytest

from circuit_breaker_server.graphql import operation_root
from circuit_breaker_server.graphql.documents import Documents
from circuit_breaker_server.graphql.list_lengths import how_many
from circuit_breaker_server.graphql.root_fields import LISTS
from circuit_breaker_server.graphql.schema import load_schema
from circuit_breaker_server.security.rights import EVERYTHING
from tests.server.engine.worlds import part
from tests.server.graphql.graph import serving

DOCUMENTS = Documents(load_schema())


@pytest.mark.parametrize(
    ("query", "values"),
    [
        ("{ health }", 1),
        ("{ a: health b: health }", 2),
        ('{ workflow(id: "w") { id name } }', 3),
        ('{ workflow(id: "w") { states { id name } } }', 1 + 5 * 3),
        ("{ workflows { id } }", 1_000 * 2),
        ("{ workflows(first: 10) { id name states { id } } }", 10 * (3 + 5 * 2)),
        ("query($n: Int) { workflows(first: $n) { id } }", 20 * 2),
        ("query($x: Int) { workflows(first: $x) { id } }", 1_000 * 2),
        ("{ workflows(first: 999999999) { id } }", 1_000 * 2),
        ("{ workflows(first: -5) { id } }", 2),
        ("{ a: workflows(first: 10) { id } b: resources(first: 20) { id } health }", 20 + 40 + 1),
        (
            "{ ...F } fragment F on Query { workflows(first: 10) { ...G } } fragment G on WorkflowGQL { id }",
            20,
        ),
        ("{ mcpServers { edges { node { id } } } }", 1 + 100 * 3),
        ("{ __typename }", 1),
        ("{ __schema { types { name } } }", 20_000),
        ("subscription { resourceUpdates { id state } }", 3),
    ],
)
def test_the_values_of_an_answer_are_estimated_from_the_document_alone(query: str, values: int) -> None:
    assert DOCUMENTS.get(query).cost(None, {"n": 20}) == values


async def test_what_would_answer_too_much_is_refused_before_it_is_executed() -> None:
    query = f"{{ {' '.join(f'a{n}: resources {{ id state }}' for n in range(100))} }}"
    async with serving() as graph:
        workflow = (await graph.create_workflow())["id"]
        # Of what is there for the caller, not of what might be.
        assert "errors" not in await graph.answer(query, max_cost=2_000)
        for _ in range(10):
            await graph.create_resource(workflow)
        answer = await graph.answer(query, max_cost=2_000)
        (error,) = part(answer, "errors", list)
    assert error["extensions"]["code"] == "DOCUMENT_TOO_COMPLEX"
    assert "3000 values, 2000 are allowed" in error["message"]
    assert "data" not in answer


async def test_a_list_has_pages_that_are_whole_together() -> None:
    async with serving() as graph:
        workflow = (await graph.create_workflow())["id"]
        made = [(await graph.create_resource(workflow))["id"] for _ in range(7)]
        asked = "it: resources(workflowId: $w, first: 3, after: $after) { id }"
        query = f"query($w: String, $after: String) {{ {asked} }}"
        for given in ({}, {"w": workflow}):
            found: list[object] = []
            while True:
                after = {"after": found[-1]} if found else {}
                page = part(await graph.data(query, {**given, **after}), "it", list)
                if not page:
                    break
                found += [each["id"] for each in page]
            assert found == made


@pytest.mark.parametrize(
    "field",
    ["workflows", "resources", "rules", "agents", "llmProviders", 'stateAgentConfigs(stateId: "s", ARGS)'],
)
async def test_a_page_that_cannot_be_is_refused(field: str) -> None:
    call = field if "ARGS" in field else f"{field}(ARGS)"
    async with serving() as graph:
        for given, says in (("first: 0", "first: 0"), ("first: 1001", "1001"), ('after: "x"', "no item")):
            error = await graph.error(f"{{ {call.replace('ARGS', given)} {{ id }} }}")
            assert says in str(error["message"])


async def test_an_answer_is_bounded_in_bytes_and_says_what_to_do() -> None:
    async with serving() as graph:
        workflow = (await graph.create_workflow())["id"]
        for _ in range(40):
            await graph.create_resource(workflow, data={"text": "x" * 250_000})
        error = await graph.error("{ resources { id data } }")
        assert "first" in str(error["message"])
        assert len(part(await graph.data("{ resources { id } }"), "resources", list)) == 40
        assert len(part(await graph.data("{ resources(first: 20) { data } }"), "resources", list)) == 20


async def test_the_lists_of_an_answer_are_bounded_in_values(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as graph:
        for _ in range(5):
            await graph.create_workflow()
        lists = " ".join(f"s{number}: states {{ id name }}" for number in range(30))
        query = f"{{ a: workflows {{ {lists} }} b: health }}"
        states = part(await graph.data(query), "a", list)[0]["s0"]
        values = 30 * 3 * len(states)  # the items of each list, and their two fields
        monkeypatch.setattr(operation_root, "MAX_ANSWER_VALUES", 4 * values)
        assert "errors" not in await graph.answer(query)
        monkeypatch.setattr(operation_root, "MAX_ANSWER_VALUES", 4 * values - 1)
        error = await graph.error(query)
        assert "ask for fewer items at a time (first)" in str(error["message"])
        assert "errors" not in await graph.answer(query.replace("workflows", "workflows(first: 3)"))


async def test_of_each_list_with_pages_it_is_known_how_long_it_is() -> None:
    async with serving() as graph:
        for field in LISTS:
            assert 0 <= how_many(field, None, graph.engine, EVERYTHING) <= 1
