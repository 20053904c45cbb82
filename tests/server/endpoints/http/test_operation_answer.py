"""The answer to an executed operation is sent as the framework sends one with the same body."""

from __future__ import annotations

import pytest
from starlette.responses import Response
from starlette.types import Message

from circuit_breaker_server.endpoints.http.answers import GRAPHQL_JSON, JSON, NOT_STORED, OperationAnswer

SCOPE = {"type": "http", "method": "POST", "path": "/graphql", "headers": []}


async def sent(answer: Response) -> list[Message]:
    messages: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        messages.append(message)

    await answer(SCOPE, receive, send)
    return messages


@pytest.mark.parametrize("kind", [JSON, GRAPHQL_JSON])
@pytest.mark.parametrize("body", [b"", b'{"data":null}', "é".encode() * 5_000])
async def test_it_is_sent_as_the_frameworks_own(kind: str, body: bytes) -> None:
    assert await sent(OperationAnswer(body, kind)) == await sent(Response(body, 200, None, kind))


async def test_headers_can_be_added_to_it() -> None:
    ours, theirs = OperationAnswer(b"{}", JSON), Response(b"{}", 200, None, JSON)
    for answer in (ours, theirs):
        answer.headers.update(NOT_STORED)
        answer.headers["Log-Position"] = "e.1"
    assert await sent(ours) == await sent(theirs)
