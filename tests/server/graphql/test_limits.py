"""Documents and variables that ask for too much are refused: the limit, what was found and what to do."""

from __future__ import annotations

import graphql
import pytest

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.config import DocumentLimits
from circuit_breaker_server.graphql.documents import Documents
from circuit_breaker_server.graphql.errors import DocumentInvalid
from circuit_breaker_server.graphql.limit_checks import check_document
from circuit_breaker_server.graphql.schema import load_schema


def refusal(query: str, variables: dict[str, object] | None = None, **limits: int) -> GraphQLError:
    with pytest.raises(DocumentInvalid) as raised:
        Documents(load_schema(), limits=DocumentLimits(**limits)).get(query, variables)
    (error,) = raised.value.errors
    return error


def check(query: str, **limits: int) -> None:
    """Count only: the fields need not be in the schema."""
    check_document(graphql.parse(query), DocumentLimits(**limits))


def count_refusal(query: str, **limits: int) -> str:
    with pytest.raises(DocumentInvalid) as raised:
        check(query, **limits)
    (error,) = raised.value.errors
    assert error.code == "DOCUMENT_TOO_COMPLEX"
    return error.message


def nested(levels: int) -> str:
    return "{ a " * levels + "}" * levels


def bomb(fragments: int, *, innermost: str = "health") -> str:
    """Each fragment spreads the next one twice."""
    spread = " ".join(f"fragment F{i} on Query {{ ...F{i + 1} ...F{i + 1} }}" for i in range(fragments))
    return f"{{ ...F0 }} {spread} fragment F{fragments} on Query {{ {innermost} }}"


def test_the_text_is_bounded_in_characters() -> None:
    fits = "{ health }" + " " * (64 * 1024 - 10)
    assert Documents(load_schema()).get(fits).query == fits
    error = refusal(fits + " ")
    assert error.code == "DOCUMENT_TOO_COMPLEX"
    assert "the document has 65537 characters, 65536 are allowed" in error.message


def test_the_text_is_bounded_in_tokens() -> None:
    error = refusal("{" + "health " * 5000 + "}")
    assert (error.code, "more than 5000 tokens" in error.message) == ("DOCUMENT_TOO_COMPLEX", True)


def test_levels_are_bounded() -> None:
    check(nested(15))
    assert "16 levels of selections, 15 are allowed" in count_refusal(nested(16))


def test_levels_are_counted_through_fragments_of_both_kinds() -> None:
    deep = "{ a { ... { b { ...F } } } } fragment F on T { c { ...G } } fragment G on T { d { e } }"
    check(deep, max_depth=5)
    assert "5 levels" in count_refusal(deep, max_depth=4)


def test_a_fragment_counts_the_levels_of_the_deepest_place_it_is_spread() -> None:
    query = "{ ...F a { b { ...F } } } fragment F on T { c { d } }"
    assert "4 levels" in count_refusal(query, max_depth=3)


def test_what_is_inside_of_introspection_has_no_levels() -> None:
    documents = Documents(load_schema(), limits=DocumentLimits(max_depth=1))
    documents.get(graphql.get_introspection_query())
    documents.get('{ __type(name: "Query") { fields { name } } }')


def test_aliases_are_bounded_wherever_they_are() -> None:
    query = "{ " + " ".join(f"a{i}: health" for i in range(50)) + " ...F } fragment F on Query { %s }"
    Documents(load_schema()).get(query % " ".join(f"b{i}: health" for i in range(50)))
    error = refusal(query % " ".join(f"b{i}: health" for i in range(51)))
    assert error.code == "DOCUMENT_TOO_COMPLEX"
    assert "the document has 101 aliases, 100 are allowed" in error.message


def test_root_fields_are_bounded_with_those_of_fragments() -> None:
    check("{ " + "health " * 60 + "...F } fragment F on Query { " + "health " * 40 + "}")
    message = count_refusal("{ " + "health " * 60 + "...F } fragment F on Query { " + "health " * 41 + "}")
    assert "101 root fields in one operation, 100 are allowed" in message
    check("{ a { " + "health " * 200 + "} }")


def test_directives_are_bounded_on_everything_that_may_have_them() -> None:
    query = (
        "query Q($a: Int @d) @d { a @d ... @d { b @d } ...F @d } "
        "fragment F on T @d { c @d { d @d } } mutation M @d { e }"
    )
    check(query, max_directives=10)
    assert "10 directives, 9 are allowed" in count_refusal(query, max_directives=9)


def test_fragments_that_double_each_other_are_counted_and_not_written_out() -> None:
    check(bomb(13, innermost="a"), max_root_fields=10_000)  # 8,192 fields
    message = count_refusal(bomb(14, innermost="a"), max_root_fields=100_000)
    assert "16384 fields once its fragments are written out, 10000 are allowed" in message
    message = count_refusal(bomb(400), max_root_fields=10**12)
    assert "more than 10^12" in message


def test_a_long_chain_of_fragments_is_no_matter_of_the_stack() -> None:
    chain = " ".join(f"fragment F{i} on Query {{ ...F{i + 1} }}" for i in range(600))
    check(f"{{ ...F0 }} {chain} fragment F600 on Query {{ health }}")


@pytest.mark.parametrize(
    "query",
    [
        "{ ...F } fragment F on Query { ...F }",
        "{ ...F } fragment F on Query { ...G ...G } fragment G on Query { health ...F ...F }",
    ],
)
def test_fragments_in_a_circle_are_left_to_validation(query: str) -> None:
    check(query)
    with pytest.raises(DocumentInvalid) as raised:
        Documents(load_schema()).get(query)
    assert {error.code for error in raised.value.errors} == {"GRAPHQL_VALIDATION_FAILED"}


def test_a_fragment_that_is_missing_is_left_to_validation() -> None:
    check("{ ...F }")


def test_each_operation_is_counted_for_itself() -> None:
    check("query A { ...F } query B { ...F } fragment F on Query { a b c }", max_fields=3)


def test_variables_are_bounded_in_number() -> None:
    variables: dict[str, object] = {f"v{i}": 1 for i in range(201)}
    error = refusal("{ health }", variables)
    assert error.code == "INVALID_INPUT"
    assert "201 variables, 200 are allowed" in error.message
    del variables["v0"]
    Documents(load_schema()).get("{ health }", variables)


def test_variables_are_bounded_in_bytes() -> None:
    error = refusal("{ health }", {"v": "x" * 100}, max_variables_bytes=107)
    assert error.code == "INVALID_INPUT"
    assert "108 bytes of JSON, 107 are allowed" in error.message
    Documents(load_schema(), limits=DocumentLimits(max_variables_bytes=108)).get(
        "{ health }", {"v": "x" * 100}
    )


def test_a_document_that_is_kept_is_not_kept_for_any_variables() -> None:
    documents = Documents(load_schema(), limits=DocumentLimits(max_variables=1))
    documents.get("{ health }", {"a": 1})
    with pytest.raises(DocumentInvalid):
        documents.get("{ health }", {"a": 1, "b": 2})


@pytest.mark.parametrize("name", sorted(DocumentLimits.__dataclass_fields__))
def test_a_limit_is_greater_than_0(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be greater than 0, not 0"):
        DocumentLimits(**{name: 0})
