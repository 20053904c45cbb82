"""Read the requests for event streams, and open the streams that answer them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.access.caller import Caller
from circuit_breaker_server.endpoints.event_stream.event_stream import EventStream
from circuit_breaker_server.endpoints.event_stream.streamed_answer import HAND_OVER
from circuit_breaker_server.endpoints.http.answers import (
    JSON,
    NOT_STORED,
    BadRequest,
    RefusedAnswer,
    error_answer,
    read_json,
)
from circuit_breaker_server.endpoints.http.graphql_request import (
    GraphQLRequest,
    RequestInvalid,
    names_query,
    read_body,
    read_url,
)
from circuit_breaker_server.endpoints.http.operations import asks_for_cursor, header_context
from circuit_breaker_server.endpoints.principal_connections import TOO_MANY
from circuit_breaker_server.endpoints.websocket.handshake import RESUME_VERSION
from circuit_breaker_server.gateway.subscription_errors import internal_error
from circuit_breaker_server.gateway.subscription_plan import Plan, Refused
from circuit_breaker_server.logs import get_logger

__all__ = [
    "EVENTS",
    "OpeningStream",
    "events_answer",
    "knows_resume",
    "read_request",
    "refusal",
    "subscribe",
    "too_many",
    "where_to_begin",
]

EVENTS: Final = "text/event-stream"

_HEAD: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    # Asks nginx, and what imitates it, to pass each event on at once.
    (b"x-accel-buffering", b"no"),
    (b"connection", b"close"),
    # For clients that negotiate it; others do not know it.
    (b"resume-version", str(RESUME_VERSION).encode()),
)

logger = get_logger("event_stream")


async def read_request(request: Request, *, max_bytes: int) -> GraphQLRequest:
    """Read the GraphQL request in a body, or in the URL of a ``GET``.

    :raises BadRequest: there is none.
    :raises ClientDisconnect: the client has left.
    """
    if request.method == "POST":
        return await read_json(request, read_body, max_bytes=max_bytes)
    if not names_query(request.scope["query_string"]):
        raise BadRequest(400, "there is no subscription: send it as POST, or as GET with ?query=…")
    try:
        return read_url(request.scope["query_string"])
    except RequestInvalid as error:
        raise BadRequest(400, str(error)) from error


def knows_resume(request: Request, asked: GraphQLRequest) -> bool:
    """Tell whether a client knows the resume protocol, by its header or what it asks for."""
    return asks_for_cursor(request) or "resume" in (asked.extensions or {})


def where_to_begin(request: Request, asked: GraphQLRequest) -> Mapping[str, object] | None:
    """Return the extensions of a request; its headers win: a browser sends one when it comes again."""
    extensions = {**(asked.extensions or {}), **header_context(request)}
    after = request.headers.get("Last-Event-ID")
    return {**extensions, "resume": {"after": after}} if after else extensions or None


def subscribe(
    stream: EventStream, operation_id: str, plan: Plan, *, extensions: Mapping[str, object] | None
) -> None:
    """Begin a subscription on an open stream; what it is refused for is sent as its errors."""
    try:
        stream.subscribe(operation_id, plan, extensions=extensions)
    except Refused as refused:
        stream.fail(operation_id, refused.errors)
    except Exception:
        logger.exception("subscribe_failed", remote=stream.remote)
        stream.fail(operation_id, [internal_error()])


def refusal(status: int, text: str, **headers: str) -> RefusedAnswer:
    """Return the answer to a request that is not served."""
    return error_answer(status, JSON, [GraphQLError(message=text)], **NOT_STORED, **headers)


def too_many(caller: Caller) -> ASGIApp:
    """Return the answer to a principal that has too many connections."""
    caller.audit.note(caller, "connect", "event stream", "refused", reason=TOO_MANY)
    return refusal(429, TOO_MANY, **{"Retry-After": "1"}).because("principal")


@final
class OpeningStream:
    """The answer whose head opens a stream: an ASGI application.

    Example::

        return OpeningStream(stream, begin=lambda: subscribe(stream, "", plan, extensions=None))
    """

    def __init__(self, stream: EventStream, *, begin: Callable[[], None]) -> None:
        """``begin`` is called once the stream is open."""
        self._stream = stream
        self._begin = begin

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Send the head, and hand the connection over to the stream."""
        stream, hand_over = self._stream, scope[HAND_OVER]
        if scope["http_version"] == "1.0":
            hand_over.without_chunks()
        try:
            await send({"type": "http.response.start", "status": 200, "headers": list(_HEAD)})
            if stream.begin(hand_over):
                self._begin()
        finally:
            if not stream.is_open:
                stream.abort()


def events_answer(events: bytes, *, refused: bool = False) -> Response:
    """Return a whole answer of server-sent events.

    :param refused: whether its events are the errors for which nothing was begun.
    """
    if refused:
        return RefusedAnswer(events, 200, NOT_STORED, EVENTS).because("invalid")
    return Response(events, 200, NOT_STORED, EVENTS)
