"""Queries and mutations: what an answer becomes, and what is refused before anything is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import msgspec
import pytest

from circuit_breaker_sdk import Result
from circuit_breaker_sdk.connections import Credentials
from circuit_breaker_sdk.domains.execution import Executor
from circuit_breaker_sdk.errors import (
    CircuitBreakerError,
    DecodeError,
    GraphQLError,
    OperationError,
    UsageError,
)
from circuit_breaker_sdk.types import UNSET
from tests.connections.raw_server import settings
from tests.transports.peers import Peer, serve


class One(msgspec.Struct):
    x: int


class Other(msgspec.Struct):
    x: int


class Requests:
    """What was asked: heads and bodies."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.bodies: list[dict[str, object]] = []


@asynccontextmanager
async def executor(answer: str = "{}") -> AsyncIterator[tuple[Executor, Requests]]:
    requests = Requests()

    async def script(peer: Peer) -> None:
        head = await peer.read_head()
        length = next(
            int(line.split(":")[1])
            for line in head.lower().split("\r\n")
            if line.startswith("content-length")
        )
        requests.heads.append(head)
        requests.bodies.append(msgspec.json.decode(await peer.read(length), type=dict[str, object]))
        peer.send(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
            f"Content-Length: {len(answer)}\r\n\r\n{answer}".encode()
        )
        await peer.read_to_end()

    async with serve(script) as port:
        under_test = Executor(
            settings(port, credentials=Credentials(token="t0ken")), f"http://127.0.0.1:{port}/graphql"
        )
        try:
            yield under_test, requests
        finally:
            await under_test.aclose()


async def test_a_request_has_the_document_what_is_set_of_the_variables_and_the_token() -> None:
    async with executor('{"data":{"x":1}}') as (execute, requests):
        answer = await execute.execute(
            "query Q { x }", {"a": None, "b": UNSET}, type=dict[str, int], operation_name="Q"
        )
    assert answer == {"x": 1}
    assert requests.bodies == [{"query": "query Q { x }", "variables": {"a": None}, "operationName": "Q"}]
    assert "Authorization: Bearer t0ken" in requests.heads[0].split("\r\n")


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        ('{"data":{"x":1},"errors":[{"message":"no","path":["x"]}]}', OperationError, "Q failed: no at x"),
        ('{"data":null}', OperationError, "neither data nor errors"),
        ('{"data":null,"errors":[{"text":"no"}]}', OperationError, "cannot be read"),
        ('{"data":{"x":"1"}}', DecodeError, "Expected `int"),
        ('{"data":{"x":null}}', DecodeError, "null where a value was expected"),
        ('{"data":{}}', DecodeError, "0 root fields"),
        ('{"data":{"x":1,"y":2}}', DecodeError, "2 root fields"),
    ],
)
async def test_an_answer_that_is_no_value_is_an_error_that_says_why(
    answer: str, kind: type[CircuitBreakerError], text: str
) -> None:
    async with executor(answer) as (execute, _):
        with pytest.raises(kind) as caught:
            await execute.field("query Q { x }", type=int, operation_name="Q")
    assert text in str(caught.value)


async def test_null_is_none_only_where_it_is_asked_for() -> None:
    async with executor('{"data":{"x":null}}') as (execute, _):
        assert await execute.optional("{ x }", type=int) is None


async def test_what_cannot_be_sent_or_decoded_is_refused_before_anything_is_sent() -> None:
    async with executor() as (execute, requests):
        with pytest.raises(UsageError, match=r"\$x"):
            await execute.execute("{ x }", {"x": object()}, type=int)
        with pytest.raises(UsageError, match="cannot be decoded"):
            await execute.execute("mutation { x }", type=cast("type[One | Other]", One | Other))
        await execute.aclose()
        await execute.aclose()
        with pytest.raises(UsageError, match="closed"):
            await execute.execute("{ x }", type=int)
    assert requests.bodies == []


async def test_half_a_surrogate_pair_is_refused_before_anything_is_sent() -> None:
    async with executor() as (under_test, requests):
        with pytest.raises(UsageError, match="Find cannot be sent: a text in it is no Unicode"):
            await under_test.execute("query Find { x }", {"id": "\ud800"}, type=dict, operation_name="Find")
    assert requests.bodies == []


PARTIAL = '{"data":{"x":1,"y":null},"errors":[{"message":"no","path":["y"]}]}'


async def test_the_data_beside_errors_is_on_the_error_as_plain_json() -> None:
    async with executor(PARTIAL) as (under_test, _):
        with pytest.raises(OperationError, match="no at y") as caught:
            await under_test.execute("{ x y }", type=One)
    assert caught.value.data == {"x": 1, "y": None}


async def test_data_and_errors_are_returned_where_that_is_asked_for() -> None:
    async with executor(PARTIAL) as (under_test, _):
        answer = await under_test.result("{ x y }", type=One)
    assert answer == Result(One(1), (GraphQLError(message="no", path=("y",)),))
    async with executor('{"data":{"x":1}}') as (under_test, _):
        assert await under_test.result("{ x }", type=One) == Result(One(1), ())
    async with executor('{"data":null,"errors":[{"message":"no"}]}') as (under_test, _):
        assert await under_test.result("{ x }", type=One) == Result(None, (GraphQLError(message="no"),))
    async with executor('{"data":null}') as (under_test, _):
        (error,) = (await under_test.result("{ x }", type=One)).errors
        assert "neither data nor errors" in error.message


async def test_data_that_does_not_fit_beside_errors_is_chained_to_them() -> None:
    async with executor(PARTIAL) as (under_test, _):
        with pytest.raises(DecodeError, match="Expected `int`") as caught:
            await under_test.result("{ x y }", type=dict[str, int])
    assert isinstance(caught.value.__cause__, OperationError)
    assert caught.value.__cause__.data == {"x": 1, "y": None}


async def test_a_hook_that_raises_is_an_answer_that_does_not_fit() -> None:
    def hook(_cls: type, value: object) -> object:
        raise LookupError(f"no such price: {value}")

    class Price:
        pass

    async with executor('{"data":{"x":"?"}}') as (under_test, _):
        with pytest.raises(DecodeError, match="no such price"):
            await under_test.execute("{ x }", type=dict[str, Price], decode_hook=hook)
