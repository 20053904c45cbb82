"""Dispatch the requests for event streams, and answer those of the distinct connections mode."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final, final

from graphql import OperationType
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Scope

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.access.caller import Caller
from circuit_breaker_server.endpoints.event_stream.event_frames import DistinctFrames
from circuit_breaker_server.endpoints.event_stream.shared_routes import (
    TOKEN,
    SharedStreamRoutes,
    stream_token,
)
from circuit_breaker_server.endpoints.event_stream.shared_streams import SharedStreams
from circuit_breaker_server.endpoints.event_stream.stream_registry import EventStreams
from circuit_breaker_server.endpoints.event_stream.stream_request import (
    EVENTS,
    OpeningStream,
    events_answer,
    knows_resume,
    read_request,
    refusal,
    subscribe,
    too_many,
    where_to_begin,
)
from circuit_breaker_server.endpoints.http.admission import Admission
from circuit_breaker_server.endpoints.http.answers import (
    JSON,
    NOT_STORED,
    BadRequest,
    client_left,
)
from circuit_breaker_server.endpoints.http.graphql_request import GraphQLRequest, names_query
from circuit_breaker_server.endpoints.http.operations import Operations, asks_for_traces
from circuit_breaker_server.endpoints.services import Services
from circuit_breaker_server.gateway.subscription_errors import internal_error
from circuit_breaker_server.gateway.subscription_plan import Plans, Refused
from circuit_breaker_server.graphql.documents import Document
from circuit_breaker_server.graphql.errors import DocumentInvalid
from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.paths import OPERATION_PATHS, STREAM_PATHS

__all__ = ["EventStreamRoutes", "accepts_events"]

_METHODS: Final = "GET, POST, PUT, DELETE"
_TOKEN_HEADER: Final = TOKEN.lower().encode()

logger = get_logger("event_stream")


def accepts_events(request: Request) -> bool:
    """Tell whether a client takes server-sent events, perhaps besides other answers."""
    return EVENTS in request.headers.get("accept", "")


@final
class EventStreamRoutes:
    """Answers the requests for event streams.

    Example::

        routes = EventStreamRoutes(services, admission, operations, streams, SharedStreams(streams))
        if routes.are_asked(scope):
            answer = await routes.answer(Request(scope, receive))
    """

    def __init__(
        self,
        services: Services,
        admission: Admission,
        operations: Operations,
        streams: EventStreams,
        shared: SharedStreams,
    ) -> None:
        self._services = services
        self._admission = admission
        self._operations = operations
        self._streams = streams
        self._plans = Plans(services.documents.schema)
        self._shared = SharedStreamRoutes(services, admission, operations, self._plans, shared)
        self._distinct = admission.guarded(self._answer_distinct, "operations")

    def are_asked(self, scope: Scope) -> bool:
        """Tell whether a request is for an event stream, and for nothing else."""
        path, method = scope["path"], scope["method"]
        if path in STREAM_PATHS:
            return True
        if path not in OPERATION_PATHS:
            return False
        if method in ("PUT", "DELETE"):
            return True
        takes_nothing_else = False
        for name, value in scope["headers"]:
            if name == _TOKEN_HEADER:
                return True
            if name == b"accept":
                # With others named, the operation decides: a query is answered as JSON.
                takes_nothing_else = b"text/event-stream" in value and b"json" not in value
        return takes_nothing_else and (method != "GET" or names_query(scope["query_string"]))

    async def answer(self, request: Request) -> ASGIApp:
        """Answer one request."""
        method, shared = request.method, self._shared
        has_token = bool(stream_token(request))
        if method == "GET" and has_token:
            return await shared.open(request)
        if method == "POST" and has_token:
            return await shared.begin(request)
        if method in ("GET", "POST"):
            return await self._distinct(request)
        if method == "PUT":
            return await shared.reserve(request)
        if method == "DELETE":
            return await shared.stop(request)
        return refusal(405, f"event streams are asked for with {_METHODS}", Allow=_METHODS)

    async def _answer_distinct(self, request: Request, caller: Caller) -> ASGIApp:
        try:
            asked = await read_request(request, max_bytes=self._services.settings.max_body_bytes)
        except BadRequest as error:
            return refusal(error.status, str(error))
        except ClientDisconnect:
            return client_left()
        try:
            document = await self._services.documents.read(
                asked.query, asked.variables, key=caller.id or caller.address
            )
            return await self._answer_document(request, caller, asked, document)
        except DocumentInvalid as error:
            return _failed(error.errors)

    async def _answer_document(
        self, request: Request, caller: Caller, asked: GraphQLRequest, document: Document
    ) -> ASGIApp:
        operation = document.operation(asked.operation_name).operation
        if operation is OperationType.SUBSCRIPTION:
            return await self.subscription(request, caller, asked, document)
        if request.method == "GET" and operation is OperationType.MUTATION:
            return refusal(405, "a mutation cannot be sent as GET, only as POST", Allow="POST")
        try:
            done = await self._operations.execute(document, asked, request, caller)
        except Exception:
            logger.exception("execute_failed")
            return _failed([internal_error()])
        if done.status is not None:
            return Response(done.answer, done.status, NOT_STORED, JSON)
        frames = DistinctFrames(resume=False)
        return events_answer(frames.result("", done.answer) + frames.complete(""))

    async def subscription(
        self, request: Request, caller: Caller, asked: GraphQLRequest, document: Document
    ) -> ASGIApp:
        """Open a stream for one subscription."""
        refused = self._admission.draining_refusal()
        refused = refused or await self._admission.refusal(request, caller, "subscribes")
        refused = refused or await self._admission.refusal(request, caller, "connects", by_address=True)
        if refused is not None:
            return refused
        try:
            plan = self._plans.get(document, variables=asked.variables, operation_name=asked.operation_name)
        except Refused as error:
            return _failed(error.errors)
        resume = knows_resume(request, asked)
        stream = self._streams.admit(
            caller, DistinctFrames(resume=resume), traces=resume and asks_for_traces(request)
        )
        if stream is None:
            return too_many(caller)
        return OpeningStream(
            stream, begin=partial(subscribe, stream, "", plan, extensions=where_to_begin(request, asked))
        )


def _failed(errors: Sequence[GraphQLError]) -> ASGIApp:
    """Return the stream of an operation that fails: status 200, as an ``EventSource`` sees no other body."""
    frames = DistinctFrames(resume=False)
    return events_answer(frames.errors("", errors) + frames.complete(""), refused=True)
