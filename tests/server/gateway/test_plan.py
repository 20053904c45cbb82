"""What a document and its variables ask for, and when two of them ask for the same."""

from __future__ import annotations

import pytest
from graphql import parse

from circuit_breaker_server.gateway.plan import Refused, make_plan
from circuit_breaker_server.graphql.documents import Document
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
