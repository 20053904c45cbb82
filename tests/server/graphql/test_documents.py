"""Documents: parsed and validated once, bounded, refused with errors that say where."""

from __future__ import annotations

import gc
import weakref
from typing import NoReturn

import pytest

from circuit_breaker_server.graphql import documents
from circuit_breaker_server.graphql.documents import Documents
from circuit_breaker_server.graphql.errors import DocumentInvalid
from circuit_breaker_server.graphql.schema import load_schema


def with_data(literal: str) -> str:
    given = f'{{ resourceId: "r", activityId: "a", data: {literal} }}'
    return f"mutation {{ executeActivity(input: {given}) {{ id }} }}"


def refusal(query: str, documents: Documents | None = None) -> DocumentInvalid:
    with pytest.raises(DocumentInvalid) as raised:
        (documents or Documents(load_schema())).get(query)
    return raised.value


def test_a_document_is_parsed_once() -> None:
    documents = Documents(load_schema())
    assert documents.get("{ health }") is documents.get("{ health }")
    assert documents.get("{health}") is not documents.get("{ health }")
    assert len(documents) == 2


def test_the_documents_used_last_are_kept() -> None:
    documents = Documents(load_schema(), max_entries=2)
    one, two = documents.get("{ a: health }"), documents.get("{ b: health }")
    documents.get("{ a: health }")
    documents.get("{ c: health }")
    assert len(documents) == 2
    assert documents.get("{ a: health }") is one
    assert documents.get("{ b: health }") is not two


def test_what_is_kept_is_bounded_in_characters_and_what_is_large_is_not_kept() -> None:
    documents = Documents(load_schema(), max_characters=400)
    for i in range(30):
        documents.get(f"{{ alias{i:010d}: health }}")
    assert 1 < len(documents) <= 15
    before = len(documents)
    large = "{ health }" + " " * 100
    assert documents.get(large) is not documents.get(large)
    assert len(documents) == before


def test_what_is_not_kept_is_not_held_anywhere() -> None:
    documents = Documents(load_schema(), max_entries=1)
    gone = weakref.ref(documents.get("{ a: health }"))
    documents.get("{ b: health }")
    gc.collect()
    assert gone() is None


def test_no_more_than_twenty_errors_of_a_document_are_told_and_that_there_are_more() -> None:
    for wrong, told in ((20, 20), (21, 21), (60, 21)):
        errors = refusal("{ " + " ".join(f"wrong{number}" for number in range(wrong)) + " }").errors
        assert len(errors) == told
        assert ("error limit reached" in errors[-1].message) == (wrong > 20)
        assert {error.code for error in errors} == {"GRAPHQL_VALIDATION_FAILED"}


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("", "Syntax Error: Unexpected <EOF>"),
        ("{", "Syntax Error: Expected Name"),
        ("{}", "Syntax Error: Expected Name"),
        ("nonsense", "Syntax Error"),
        ('{ resource(id: "\\ud800") { id } }', "Syntax Error: Invalid Unicode"),
        ("{" * 4000, "Syntax Error"),
        ("{ a " * 2400 + "}" * 2400, "nested too deeply"),
    ],
)
def test_a_document_that_does_not_parse_is_refused_with_the_place(query: str, says: str) -> None:
    (error,) = refusal(query).errors
    assert says in error.message
    assert error.code == "GRAPHQL_PARSE_FAILED"
    assert error.locations


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("{ nonsense }", "Cannot query field 'nonsense' on type 'Query'."),
        ("{ resource { id } }", "of type 'String!' is required"),
        ("{ resource(id: 5) { id } }", "String cannot represent a non string value"),
        ('{ resource(id: "x") }', "must have a selection of subfields"),
        ('{ resource(id: "x", nonsense: 1) { id } }', "Unknown argument 'nonsense'"),
        ("query($x: Nonsense) { health }", "Unknown type 'Nonsense'"),
        ("query { health @nonsense }", "Unknown directive '@nonsense'"),
        ("fragment F on Query { health }", "Fragment 'F' is never used"),
        ("{ ...F } fragment F on Query { ...F }", "Cannot spread fragment 'F' within itself"),
        (
            'subscription { resourceUpdates { id } workflowEvents(workflowId: "w") { timestamp } }',
            "must select only one top level field",
        ),
        (
            with_data("{ x: FOO }"),
            "JSON cannot represent an enum value; write it as a string.",
        ),
        (
            with_data("9" * 5000),
            "more than 64 bits",
        ),
        (
            with_data("{ x: 1, x: 2 }"),
            "There can be only one input field named 'x'",
        ),
    ],
)
def test_a_document_that_does_not_fit_the_schema_is_refused_with_the_place(query: str, says: str) -> None:
    errors = refusal(query).errors
    assert any(says in error.message for error in errors), errors
    assert {error.code for error in errors} == {"GRAPHQL_VALIDATION_FAILED"}
    assert all(error.locations for error in errors)
    assert says in str(refusal(query))


@pytest.mark.parametrize(
    ("literal", "says"),
    [
        ("{ x: [0, 1e999] }", "x[1]: not a finite number"),
        ("[" * 100 + "]" * 100, "nested more than 64 levels deep"),
        ("{ x: -9223372036854775809 }", "x: an integer of more than 64 bits"),
    ],
)
def test_a_json_literal_that_json_cannot_carry_is_refused_with_the_place_in_the_value(
    literal: str, says: str
) -> None:
    (error,) = refusal(with_data(literal)).errors
    assert says in error.message
    assert error.code == "GRAPHQL_VALIDATION_FAILED"


def test_a_document_that_exhausts_the_stack_is_refused_like_any_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def exhausted(*_: object, **__: object) -> NoReturn:
        raise RecursionError

    monkeypatch.setattr(documents, "validate", exhausted)
    (error,) = refusal("{ health }").errors
    assert (error.message, error.code) == ("the document is nested too deeply", "GRAPHQL_PARSE_FAILED")


def test_many_mistakes_in_one_document_do_not_make_a_long_answer() -> None:
    errors = refusal("{" + "".join(f" nonsense{i}" for i in range(90)) + "}").errors
    assert len(errors) < 30


def test_an_operation_is_chosen_by_name_or_by_being_the_only_one() -> None:
    documents = Documents(load_schema())
    one = documents.get("query Only { health }")
    assert one.operation(None) is one.operation("Only") is one.operation("")
    several = documents.get("query A { health } query B { health }")
    assert several.operation("B") is several.operations["B"]
    for document, name, says in (
        (several, None, "operationName must say which operation to execute: A, B"),
        (several, "C", "no operation 'C'; it has: A, B"),
        (one, "C", "no operation 'C'; it has: Only"),
        (documents.get("{ health }"), "C", "no operation 'C'; it has: none with a name"),
    ):
        with pytest.raises(DocumentInvalid) as raised:
            document.operation(name)
        assert says in str(raised.value)
        assert raised.value.errors[0].code == "OPERATION_RESOLUTION_FAILURE"
