"""The requests of the single connection mode: reserve, open, begin an operation, end one."""

from __future__ import annotations

import re
from functools import partial
from http import HTTPStatus
from typing import Final, final

from graphql import OperationType
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp

from circuit_breaker_server.access.caller import Caller
from circuit_breaker_server.endpoints.event_stream.shared_streams import SharedStream, SharedStreams
from circuit_breaker_server.endpoints.event_stream.stream_request import (
    OpeningStream,
    read_request,
    refusal,
    subscribe,
    too_many,
)
from circuit_breaker_server.endpoints.http.admission import Admission
from circuit_breaker_server.endpoints.http.answers import (
    JSON,
    NOT_STORED,
    BadRequest,
    client_left,
    error_answer,
)
from circuit_breaker_server.endpoints.http.graphql_request import GraphQLRequest
from circuit_breaker_server.endpoints.http.operations import (
    Operations,
    asks_for_cursor,
    asks_for_traces,
    header_context,
)
from circuit_breaker_server.endpoints.services import Services
from circuit_breaker_server.gateway.subscription_errors import internal_error
from circuit_breaker_server.gateway.subscription_plan import Plans, Refused
from circuit_breaker_server.graphql.documents import Document
from circuit_breaker_server.graphql.errors import DocumentInvalid
from circuit_breaker_server.graphql.execute import encode_errors
from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.security.authentication import Unauthenticated

__all__ = ["TOKEN", "SharedStreamRoutes", "stream_token"]

TOKEN: Final = "X-GraphQL-Event-Stream-Token"  # noqa: S105 (the name of a header)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\u2028\u2029]")
_UNKNOWN: Final = "there is no event stream of this token: reserve one with PUT"

logger = get_logger("event_stream")


def stream_token(request: Request) -> str:
    """Return the token of the reserved stream that a request is for; empty for none."""
    return request.headers.get(TOKEN) or request.query_params.get("token", "")


@final
class SharedStreamRoutes:
    """Answers the requests for streams that many operations share.

    Example::

        shared = SharedStreamRoutes(services, admission, operations, plans, SharedStreams(streams))
        answer = await shared.reserve(request)
    """

    def __init__(
        self,
        services: Services,
        admission: Admission,
        operations: Operations,
        plans: Plans,
        streams: SharedStreams,
    ) -> None:
        self._services = services
        self._admission = admission
        self._operations = operations
        self._plans = plans
        self._streams = streams
        self.reserve = admission.guarded(self._reserve, "operations")
        self.begin = admission.guarded(self._begin, "operations")
        self.stop = admission.guarded(self._stop, "operations")

    async def _reserve(self, _request: Request, caller: Caller) -> ASGIApp:
        shared = self._streams.reserve(caller)
        if shared is None:
            answer = refusal(429, "too many event streams were reserved", **{"Retry-After": "30"})
            return answer.because("principal")
        return PlainTextResponse(shared.token, HTTPStatus.CREATED, NOT_STORED)

    async def open(self, request: Request) -> ASGIApp:
        """Open a reserved stream. Its token is the ticket: an ``EventSource`` can send no credentials."""
        await self._admission.enter(request)
        token = stream_token(request)
        shared = self._streams.find(token)
        if shared is not None and request.headers.get("Authorization") is not None:
            try:
                shared = self._streams.find(token, self._admission.caller_of(request))
            except Unauthenticated as error:
                return self._admission.unauthenticated(request, str(error))
        if shared is None:
            return refusal(404, _UNKNOWN)
        if shared.stream is not None:
            return refusal(409, "the event stream of this token is open already")
        refused = await self._admission.refusal(request, shared.caller, "connects", by_address=True)
        if refused is not None:
            return refused
        stream = self._streams.admit(shared, resume=asks_for_cursor(request), traces=asks_for_traces(request))
        if stream is None:
            return too_many(shared.caller)
        return OpeningStream(stream, begin=partial(shared.begun, stream))

    async def _begin(self, request: Request, caller: Caller) -> ASGIApp:
        shared = self._streams.find(stream_token(request), caller)
        if shared is None:
            return refusal(404, _UNKNOWN)
        settings = self._services.settings
        try:
            asked = await read_request(request, max_bytes=settings.max_body_bytes)
            operation_id = self._operation_id(asked)
        except BadRequest as error:
            return refusal(error.status, str(error))
        except ClientDisconnect:
            return client_left()
        # Before it is read: a second one of the same id would else be begun as well.
        refused = self._reserve_id(shared, operation_id)
        if refused is not None:
            return refused
        try:
            return await self._begin_as(operation_id, shared, request, caller, asked)
        except (DocumentInvalid, Refused) as error:
            return error_answer(400, JSON, error.errors, **NOT_STORED).because("invalid")
        finally:
            if not shared.is_running(operation_id):
                shared.release_id(operation_id)

    def _reserve_id(self, shared: SharedStream, operation_id: str) -> ASGIApp | None:
        most = self._services.settings.max_operations
        if shared.operations >= most:
            return refusal(429, f"an event stream has {most} operations at most").because("principal")
        if not shared.reserve_id(operation_id):
            return refusal(409, f"the operation id {operation_id!r} is in use on this event stream")
        return None

    async def _begin_as(
        self,
        operation_id: str,
        shared: SharedStream,
        request: Request,
        caller: Caller,
        asked: GraphQLRequest,
    ) -> ASGIApp:
        services = self._services
        document = await services.documents.read(
            asked.query, asked.variables, key=caller.id or caller.address
        )
        is_subscription = document.operation(asked.operation_name).operation is OperationType.SUBSCRIPTION
        if is_subscription:
            refused = await self._admission.refusal(request, caller, "subscribes")
            if refused is not None:
                return refused
            plan = self._plans.get(document, variables=asked.variables, operation_name=asked.operation_name)
        stream = await shared.opened(seconds=services.settings.init_timeout_seconds)
        if stream is None:
            return refusal(409, "the event stream is not open: open it with GET and its token")
        accepted = Response(status_code=202, headers=NOT_STORED)
        if not is_subscription:
            shared.run(operation_id, partial(self._execute, document, asked, request, caller))
        elif shared.release_id(operation_id):  # else it was stopped meanwhile
            extensions = {**(asked.extensions or {}), **header_context(request)}
            subscribe(stream, operation_id, plan, extensions=extensions)
        return accepted

    async def _execute(
        self, document: Document, asked: GraphQLRequest, request: Request, caller: Caller
    ) -> bytes:
        try:
            return (await self._operations.execute(document, asked, request, caller)).answer
        except Exception:
            logger.exception("execute_failed")
            return encode_errors([internal_error()])

    async def _stop(self, request: Request, caller: Caller) -> ASGIApp:
        shared = self._streams.find(stream_token(request), caller)
        if shared is None:
            return refusal(404, _UNKNOWN)
        operation_id = request.query_params.get("operationId")
        if not operation_id:
            return refusal(400, "the URL needs the parameter operationId")
        shared.stop(operation_id)
        return Response(status_code=200, headers=NOT_STORED)

    def _operation_id(self, asked: GraphQLRequest) -> str:
        operation_id = (asked.extensions or {}).get("operationId")
        most = self._services.settings.max_operation_id_bytes
        if not isinstance(operation_id, str) or not operation_id:
            raise BadRequest(400, "an operation of a shared event stream needs extensions.operationId")
        if len(operation_id.encode(errors="replace")) > most or _CONTROL.search(operation_id):
            raise BadRequest(
                400, f"extensions.operationId has {most} bytes at most, and no control characters"
            )
        return operation_id
