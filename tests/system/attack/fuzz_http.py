"""Hostile bytes over HTTP: requests and polls to a running server, and answers of peers that it asks.

Equal seeds give equal inputs. A finding is an answer with ``INTERNAL`` or a status of 500, bytes that are no
answer, a connection that is not ended in time, or a server that does not answer ``GET /health`` any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from tests.system.attack.fuzz import FuzzResult
from tests.system.attack.mutations import Mutator

__all__ = ["MCP_ANSWERS", "PROVIDER_ANSWERS", "answering", "fuzz_answers", "fuzz_polls", "fuzz_requests"]

_QUERY: Final = b'{"query":"query($a: Int) { health }","variables":{"a":1}}'
_REQUESTS: Final[Sequence[bytes]] = (
    b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"OPTIONS /graphql HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n\r\n",
    b"POST /graphql HTTP/1.1\r\nHost: localhost\r\nAUTHORIZATION"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(_QUERY), _QUERY),
    b"POST /graphql HTTP/1.1\r\nHost: localhost\r\nAUTHORIZATION"
    b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"%x;a=b\r\n%b\r\n0\r\nX-Trailer: v\r\n\r\n" % (len(_QUERY), _QUERY),
    (
        b"GET /graphql HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
    ),
)
_POLLS: Final[Sequence[bytes]] = (
    b'{"query":"subscription { resourceUpdates { id } }","waitMs":0}',
    (
        b'{"operations":[{"query":"subscription { resourceUpdates { id } }"},{"query":"{ health }",'
        b'"variables":{"a":1},"operationName":null,"extensions":{"resume":{"after":"e:1"}}}],"waitMs":0}'
    ),
    (
        b'{"query":"subscription($id: ID!) { workflowEvents(workflowId: $id) { eventType } }",'
        b'"variables":{"id":"x"},"operationName":"x","extensions":{"resume":{"version":1}},"waitMs":1}'
    ),
)
_CHUNK: Final = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}\n\n'
_LAST: Final = (
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,'
    b'"completion_tokens":2,"total_tokens":3}}\n\ndata: [DONE]\n\n'
)
_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\nconnection: close\r\n\r\n"
PROVIDER_ANSWERS: Final[Sequence[bytes]] = (
    _HEAD % b"text/event-stream" + _CHUNK * 3 + _LAST,
    _HEAD % b"text/event-stream" + b": comment\n\nevent: x\nid: 1\nretry: 5\n" + _CHUNK + _LAST,
    _HEAD
    % b"text/event-stream"
    + b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f",'
    b'"arguments":"{}"}}]},"finish_reason":"tool_calls"}]}\n\n' + _LAST,
    (
        b"HTTP/1.1 400 Bad\r\ncontent-type: application/json\r\n"
        b'connection: close\r\n\r\n{"error":{"message":"m"}}'
    ),
)
_INITIALIZED: Final = (
    b'{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-03-26","capabilities":{"tools":{},'
    b'"resources":{},"prompts":{}},"serverInfo":{"name":"x","version":"1"}}}'
)
_TOOLS: Final = (
    b'{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"t","description":"d","inputSchema":'
    b'{"type":"object","properties":{}}}],"nextCursor":"n"}}'
)
MCP_ANSWERS: Final[Sequence[bytes]] = (
    _HEAD % b"application/json" + _INITIALIZED,
    _HEAD % b"text/event-stream" + b"event: message\ndata: " + _INITIALIZED + b"\n\n",
    _HEAD % b"application/json" + _TOOLS,
    b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
)
_STATUS: Final = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")
_PATIENCE_SECONDS: Final = 15.0
_AT_ONCE: Final = 16
_MAX_ANSWER: Final = 4 * 1024 * 1024


async def fuzz_requests(port: int, seed: int, count: int, *, token: str) -> FuzzResult:
    """Write mutated requests to raw sockets of a server on loopback, one or several on each."""
    line = b"Authorization: Bearer %b\r\n" % token.encode()
    mutator = Mutator(seed, _REQUESTS)
    inputs = [mutator.message().replace(b"AUTHORIZATION", line) for _ in range(count)]
    return await _fuzz_server("HTTP requests", port, seed, inputs)


async def fuzz_polls(port: int, seed: int, count: int, *, token: str) -> FuzzResult:
    """Post mutated polls in whole requests."""
    mutator = Mutator(seed, _POLLS)
    head = (
        "POST /graphql/poll HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nAuthorization: Bearer {token}\r\nContent-Length: "
    ).encode()
    # Without a whole waitMs it would be 20 s.
    bodies = [re.sub(rb'"waitMs":[^01][^,}]*', b'"waitMs":0', mutator.message()) for _ in range(count)]
    inputs = [head + b"%d\r\n\r\n%b" % (len(body), body) for body in bodies]
    return await _fuzz_server("polls", port, seed, inputs)


async def _fuzz_server(name: str, port: int, seed: int, inputs: Sequence[bytes]) -> FuzzResult:
    result = FuzzResult(fuzzer=name, seed=seed)

    async def one(data: bytes) -> None:
        result.messages += 1
        result.connections += 1
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                said = await _said(port, data, ends=name != "polls")
        except (TimeoutError, OSError) as error:
            # A poll whose waiting time was lost waits: it is ended by us, and that is no finding.
            if name != "polls" or not isinstance(error, TimeoutError):
                result.found(f"{type(error).__name__}: {error}", [data])
            return
        status = _STATUS.match(said)
        result.closed(int(status[1]) if status else 0)
        if said and status is None:
            result.found(f"no answer: {said[:100]!r}", [data])
        if b'"INTERNAL"' in said or b"Traceback" in said or b"HTTP/1.1 500" in said:
            result.found(f"INTERNAL: {said[:400]!r}", [data])

    await _side_by_side([lambda data=data: one(data) for data in inputs])  # type: ignore[misc]  # bound
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            said = await _said(port, _REQUESTS[0])
        if b" 200 " not in said[:40]:
            result.found(f"the server is not well: {said[:100]!r}", inputs)
    except (TimeoutError, OSError) as error:
        result.found(f"the server does not answer: {type(error).__name__}", inputs)
    return result


async def _side_by_side(tasks: Sequence[Callable[[], Awaitable[None]]]) -> None:
    waiting = iter(tasks)

    async def work() -> None:
        for task in waiting:
            await task()

    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))


async def _said(port: int, data: bytes, *, ends: bool = True) -> bytes:
    """Write bytes, and the end; return all that the server says.

    :param ends: for a poll it would mean that nobody waits for the answer any more.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    said = b""
    try:
        with contextlib.suppress(ConnectionError):
            writer.write(data)
            await writer.drain()
            if ends:
                writer.write_eof()
            while len(said) < _MAX_ANSWER and (chunk := await reader.read(65_536)):
                said += chunk
    finally:
        writer.transport.abort()
    return said


@contextlib.asynccontextmanager
async def answering(
    address: str, seed: int, valid: Sequence[bytes]
) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Answer each request with other hostile bytes; yield where, and what was answered."""
    mutator, answered = Mutator(seed, valid), list[bytes]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: ([0-9]+)", head.lower())
            await reader.readexactly(0 if length is None else int(length[1]))
            answered.append(mutator.message())
            writer.write(answered[-1])
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, address, 0) as server:
        yield f"http://{address}:{server.sockets[0].getsockname()[1]}/v1", answered


async def fuzz_answers(
    name: str,
    seed: int,
    count: int,
    answered: Sequence[bytes],
    ask: Callable[[], Awaitable[Mapping[str, Any]]],
) -> FuzzResult:
    """Have the server ask a peer that :func:`answering` runs, so often; no answer may be ``INTERNAL``.

    :param ask: makes the server ask, and returns what it answered to the caller.
    """
    result = FuzzResult(fuzzer=name, seed=seed)

    async def one() -> None:
        result.connections += 1
        try:
            async with asyncio.timeout(4 * _PATIENCE_SECONDS):
                said = json.dumps(await ask())
        except (TimeoutError, OSError, ValueError) as error:
            result.found(f"{type(error).__name__}: {error}", answered)
            return
        result.closed(0 if '"errors"' not in said else 1)
        if '"INTERNAL"' in said or "Traceback" in said:
            result.found(f"INTERNAL: {said[:400]}", answered)

    await _side_by_side([one] * count)
    result.messages = len(answered)
    return result
