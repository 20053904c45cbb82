"""What a document and its variables ask for, and when two of them ask for the same."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from graphql import parse

from circuit_breaker_server.gateway.subscription_plan import Plans, Refused, make_plan
from circuit_breaker_server.graphql.documents import Document, Documents
from tests.server.gateway.worlds import SCHEMA, plan

QUERY = 'subscription($id: String, $tag: String = "t") { things(id: $id, tag: $tag) { n } }'


def test_equal_documents_and_coerced_variables_have_one_key() -> None:
    assert plan(QUERY, {"id": "a"}).key == plan(QUERY, {"tag": "t", "id": "a"}).key
    assert plan(QUERY, {"id": "a", "unknown": 1}).key == plan(QUERY, {"id": "a"}).key
    assert plan(QUERY, {"id": "b"}).key != plan(QUERY, {"id": "a"}).key
    assert plan(QUERY, {"id": "a"}).key != plan(QUERY + " ", {"id": "a"}).key


def test_null_and_unset_are_not_the_same() -> None:
    assert plan(QUERY, {"id": None}).key != plan(QUERY, {}).key
    assert plan(QUERY, {"id": None}).arguments == {"id": None, "tag": "t"}
    assert plan(QUERY, {}).arguments == {"tag": "t"}


def test_defaults_of_variables_and_of_arguments_are_filled_in() -> None:
    assert plan(QUERY, {"id": "a"}).arguments == {"id": "a", "tag": "t"}
    assert plan("subscription { things { n } }").arguments == {"tag": "any"}


def test_the_operation_name_chooses_and_an_only_operation_needs_none() -> None:
    query = "subscription A { things { n } } subscription B { notes { text } } query C { nothing }"
    assert plan(query, operation_name="A").field == "things"
    assert plan(query, operation_name="B").field == "notes"
    assert (
        plan("subscription A { things { n } }").key == plan("subscription A { things { n } }", None, "A").key
    )
    with pytest.raises(Refused, match="not a subscription"):
        plan(query, operation_name="C")
    with pytest.raises(Refused, match="operation"):
        plan(query, operation_name="D")
    with pytest.raises(Refused, match="operation"):
        plan(query)


@pytest.mark.parametrize(
    ("query", "variables", "text"),
    [
        ("subscription($id: String!) { things(id: $id) { n } }", {}, r"\$id"),
        ("subscription($id: String!) { things(id: $id) { n } }", {"id": None}, r"\$id"),
        ("subscription($id: String!) { things(id: $id) { n } }", {"id": 1}, r"\$id.*String"),
        ("subscription($id: String!) { things(id: $id) { n } }", {"id": {"a": 1}}, r"\$id.*String"),
    ],
)
def test_variables_that_do_not_fit_are_refused_by_name(
    query: str, variables: dict[str, object], text: str
) -> None:
    with pytest.raises(Refused, match=text) as refused:
        plan(query, variables)
    assert refused.value.errors[0].code == "INVALID_INPUT"


def test_a_root_field_that_directives_take_away_is_refused() -> None:
    # Validation refuses such a document; whoever comes without it is stopped here.
    query = "subscription { things @skip(if: true) { n } }"
    with pytest.raises(Refused, match="exactly one field"):
        make_plan(SCHEMA, Document(query, parse(query)))


def test_a_plan_is_compiled_once_and_channels_that_come_and_go_leave_nothing_behind() -> None:
    made = plan(QUERY, {"id": "a"})
    first = made.projection()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(100):
        assert made.projection() is first
    gc.collect()
    assert len(gc.get_objects()) - before < 10


def test_what_was_asked_for_before_is_the_same_plan() -> None:
    plans, document = Plans(SCHEMA), Documents(SCHEMA).get(QUERY)
    first = plans.get(document, variables={"id": "a", "tag": "u"})
    assert first.arguments == {"id": "a", "tag": "u"}
    assert plans.get(document, variables={"tag": "u", "id": "a"}) is first
    assert plans.get(document, variables={"id": "b"}).arguments == {"id": "b", "tag": "t"}
    assert plans.get(document).key == plans.get(document, variables={}).key == plan(QUERY).key


def test_a_plan_is_of_its_operation() -> None:
    query = "subscription A { things { n } } subscription B { notes { text } }"
    plans, document = Plans(SCHEMA), Documents(SCHEMA).get(query)
    assert [plans.get(document, operation_name=name).field for name in "ABA"] == ["things", "notes", "things"]


def test_what_is_refused_is_refused_each_time_and_not_kept() -> None:
    plans, document = Plans(SCHEMA), Documents(SCHEMA).get(QUERY)
    for wrong in (1, True, 1.0):
        with pytest.raises(Refused, match=r"\$id.*String"):
            plans.get(document, variables={"id": wrong})
    nested: Any = "a"
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(Refused):
        plans.get(document, variables={"id": nested})
    assert not len(plans)


def test_the_plans_used_last_are_kept_within_bounds() -> None:
    document = Documents(SCHEMA).get(QUERY)
    plans = Plans(SCHEMA, max_entries=2)
    a, b = (plans.get(document, variables={"id": id_}) for id_ in "ab")
    assert plans.get(document, variables={"id": "a"}) is a
    plans.get(document, variables={"id": "c"})
    assert len(plans) == 2
    assert plans.get(document, variables={"id": "a"}) is a
    assert plans.get(document, variables={"id": "b"}) is not b

    plans = Plans(SCHEMA, max_characters=20 * len(QUERY))
    plans.get(document, variables={"id": "x" * 2 * len(QUERY)})
    assert not len(plans)
    for number in range(30):
        plans.get(document, variables={"id": f"{number:02}" + "x" * (len(QUERY) // 2)})
    assert 10 < len(plans) < 20
