"""What is seen of a document without parsing it."""

from __future__ import annotations

import time

import pytest

from circuit_breaker_sdk import Client, UsageError
from circuit_breaker_sdk.protocol.document_scan import refuse_incremental

BLOCK = '"""'


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("{ user { id ... @defer { orders } } }", "@defer (line 1, column 17)"),
        ("query {\n  orders @stream(initialCount: 2) { id }\n}", "@stream (line 2, column 10)"),
        ("subscription { a @ ,defer { b } }", "@defer (line 1, column 18)"),
        ("subscription { a @\n\tstream }", "@stream (line 1, column 18)"),
        (f"{{ a(b: {BLOCK}x \\{BLOCK} @defer {BLOCK}) ... @defer {{ c }} }}", "@defer"),
        ('{ a(b: "@defer") ... @stream { c } }', "@stream"),
    ],
)
def test_answers_in_parts_are_refused_with_the_directive_and_its_place(document: str, says: str) -> None:
    with pytest.raises(UsageError, match="answers in parts are not supported") as caught:
        refuse_incremental(document)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "document",
    [
        "{ defer stream }",
        "{ a @deferred @streams @include(if: true) }",
        '{ a(b: "... @defer {") }',
        "{ a } # @defer",
        f"{{ a(b: {BLOCK}\n@stream \\{BLOCK} @defer\n{BLOCK}) }}",
        "query stream($defer: Int) { a(b: $defer) }",
    ],
)
def test_what_only_looks_so_passes(document: str) -> None:
    refuse_incremental(document)


def test_a_long_document_is_looked_through_in_linear_time() -> None:
    began = time.process_time()
    for part in ('"', BLOCK, "@ ", "\\", '""', "a@"):
        refuse_incremental("stream " + part * 100_000)
    assert time.process_time() - began < 20


async def test_nothing_is_sent() -> None:
    async with Client("ws://127.0.0.1:9/graphql") as client:
        with pytest.raises(UsageError, match="@defer"):
            await client.execute("{ a ... @defer { b } }")
        with pytest.raises(UsageError, match="@stream"):
            await client.subscribe("subscription { a @stream }")
