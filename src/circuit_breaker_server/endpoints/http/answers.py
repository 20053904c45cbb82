"""Read the bodies of requests, and write answers with errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar, final

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_sdk.protocol.json_depth import check_depth
from circuit_breaker_server.endpoints.http.request_headers import header
from circuit_breaker_server.graphql.execute import encode_errors
from circuit_breaker_server.refusals import Refusal, reason_of_status

__all__ = [
    "GRAPHQL_JSON",
    "JSON",
    "NOT_STORED",
    "REFUSAL",
    "BadRequest",
    "OperationAnswer",
    "RefusedAnswer",
    "client_left",
    "error_answer",
    "media_type",
    "read_json",
    "remote_host",
]

JSON: Final = "application/json"
GRAPHQL_JSON: Final = "application/graphql-response+json"

NOT_STORED: Final = {"Cache-Control": "no-store"}
"""Of answers that depend on the moment or the caller: no cache may keep them."""

REFUSAL: Final = "circuit_breaker.refusal"
"""Names in the scope of a request why it is refused (:mod:`.refusal_log`)."""

_Body = TypeVar("_Body")


class BadRequest(Exception):
    """A request cannot be read.

    :ivar status: of the answer.
    """

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


async def read_json(request: Request, decode: Callable[[bytes], _Body], *, max_bytes: int) -> _Body:
    """Read the body of a ``POST``.

    :param decode: may raise ``msgspec.DecodeError``.
    :raises BadRequest: it is of another type, too long, or not what ``decode`` reads.
    :raises ClientDisconnect: the client has left.
    """
    content_type = (header(request, b"content-type") or "").partition(";")[0].strip().lower()
    if content_type != JSON:
        # A page of another origin may post forms and plain text without asking: never execute those.
        raise BadRequest(415, f"the body must be of Content-Type {JSON}, not {content_type or 'none'!r}")
    raw = await _body(request, max_bytes)
    if raw.lstrip().startswith(b"["):
        raise BadRequest(400, "the body must be an object: arrays of operations are not supported")
    try:
        check_depth(raw)
        return decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(400, f"the body is not a GraphQL request: {error}") from error


async def _body(request: Request, max_bytes: int) -> bytes:
    """Read the body. Nearly all come in one message, for which the framework's stream is a detour."""
    body, has_more = bytearray(), True
    while has_more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > max_bytes:
            raise BadRequest(413, f"the body is over {max_bytes} bytes")
        has_more = message.get("more_body", False)
    return bytes(body)


def remote_host(request: Request) -> str:
    """Return the address of the client, empty where it is not known."""
    client = request.scope.get("client")
    return "" if client is None else str(client[0])


def media_type(request: Request) -> str:
    """Return the type of the answer that the client asks for."""
    return GRAPHQL_JSON if GRAPHQL_JSON in (header(request, b"accept") or "") else JSON


@final
class OperationAnswer(Response):
    """The answer to an operation that was executed: 200, with the two headers that each answer has.

    Example::

        answer = OperationAnswer(b'{"data":{}}', GRAPHQL_JSON)
    """

    def __init__(self, body: bytes, kind: str) -> None:
        # What the framework would make of these, which it has to find out each time.
        self.status_code, self.body, self.background = 200, body, None
        self.raw_headers = [
            (b"content-length", b"%d" % len(body)),
            (b"content-type", kind.encode("latin-1")),
        ]


@final
class RefusedAnswer(Response):
    """The answer to a request that is refused; its status says why, unless :meth:`because` does."""

    _reason: Refusal | None = None
    _is_noted = True

    def because(self, reason: Refusal | None) -> RefusedAnswer:
        """Say why the request is refused, as it is logged; ``None``: it is not to be logged."""
        self._reason, self._is_noted = reason, reason is not None
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[REFUSAL] = (self._reason or reason_of_status(self.status_code)) if self._is_noted else None
        await super().__call__(scope, receive, send)


def error_answer(status: int, kind: str, errors: Sequence[GraphQLError], **headers: str) -> RefusedAnswer:
    """Return an answer with errors and without data."""
    return RefusedAnswer(encode_errors(errors), status, headers, kind)


def client_left() -> Response:
    """Return the answer that no client reads: it refuses nothing."""
    return RefusedAnswer(status_code=400).because(None)
