"""Answer plain HTTP requests: operations, polls, the server's health, a page for people.

Operations follow the GraphQL-over-HTTP draft: ``POST`` with a JSON body, queries also ``GET`` with ``query``,
``variables``, ``operationName`` and ``extensions`` in the URL. A client that accepts
``application/graphql-response+json`` sees a request that cannot be executed as 400; one that accepts only
``application/json`` sees it as 200 with ``errors``. What is no request at all is 400 for both.

A mutation with an ``Idempotency-Key`` is executed once, however often it is sent
(:mod:`.graphql.idempotent_execution`); an answer that is sent again has ``Idempotency-Replayed: true``. A
refused key has a status of its own, for all clients: 400 for an invalid key, 422 for the key of another
request, 409 where the answer is not available.

If the server has authentication, operations and polls need a token in ``Authorization: Bearer``; without it
they are 401 for all clients, and the server does not read the body.
"""

from __future__ import annotations

import html
from typing import Final, final

from graphql import OperationType
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.access.caller import Caller
from circuit_breaker_server.endpoints.event_stream.routes import EventStreamRoutes, accepts_events
from circuit_breaker_server.endpoints.http.admission import Admission
from circuit_breaker_server.endpoints.http.answers import (
    GRAPHQL_JSON,
    JSON,
    NOT_STORED,
    BadRequest,
    OperationAnswer,
    RefusedAnswer,
    client_left,
    error_answer,
    media_type,
    read_json,
)
from circuit_breaker_server.endpoints.http.graphql_request import (
    GraphQLRequest,
    RequestInvalid,
    names_query,
    read_body,
    read_url,
)
from circuit_breaker_server.endpoints.http.health_routes import HealthRoutes
from circuit_breaker_server.endpoints.http.node_routes import NodeRoutes
from circuit_breaker_server.endpoints.http.operations import Operations, asks_for_traces
from circuit_breaker_server.endpoints.long_poll.poll_request import PollInvalid, read_poll
from circuit_breaker_server.endpoints.long_poll.polls import Polls
from circuit_breaker_server.endpoints.positions import HEADER
from circuit_breaker_server.endpoints.services import Services
from circuit_breaker_server.gateway.subscription_errors import internal_error
from circuit_breaker_server.graphql.errors import DocumentInvalid
from circuit_breaker_server.graphql.idempotent_execution import Done
from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.paths import FORMAT_PATH, OPERATION_PATHS, POLL_PATHS

__all__ = ["HttpRoutes"]

REPLAYED: Final = "Idempotency-Replayed"

_PAGE: Final = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Circuit Breaker</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:42em;margin:3em auto;padding:0 1em}}
pre{{background:#f4f4f4;padding:1em;overflow:auto}}</style></head>
<body>
<h1>Circuit Breaker server</h1>
<p>This server runs workflows and streams what happens in them. It speaks GraphQL: queries and mutations as
<code>POST {http}</code>, subscriptions over WebSocket (<code>graphql-transport-ws</code>) at
<code>{ws}</code>, or as <code>POST {http}/poll</code> where no WebSocket comes through.</p>
<pre>curl {http} -H 'Content-Type: application/json' -d '{{"query": "{{ health }}"}}'</pre>
<pre>from circuit_breaker_sdk import Client

async with Client("{ws}") as client:
    async for resource in client.workflows.subscribe_resource_updates():
        print(resource.id, resource.state)</pre>
<p><code>GET /health</code> answers 200 while the server is up; accept <code>application/json</code> for more.
<code>GET /health/ready</code> answers 503, with the reasons, while it is not ready for clients.</p>
</body></html>
"""

_ADVICE: Final = (
    "send operations as POST, or a query as GET with ?query=…; for subscriptions, upgrade to a WebSocket "
    "(graphql-transport-ws), accept text/event-stream, or post them to /graphql/poll"
)

logger = get_logger("http")


@final
class HttpRoutes:
    """The routes: an ASGI application.

    Example::

        uvicorn.Config(HttpRoutes(services, admission, operations, polls, streams, health=health))
    """

    def __init__(
        self,
        services: Services,
        admission: Admission,
        operations: Operations,
        polls: Polls,
        streams: EventStreamRoutes,
        *,
        health: HealthRoutes,
        nodes: NodeRoutes | None = None,
    ) -> None:
        self._documents = services.documents
        self._admission = admission
        self._positions = services.positions
        self._max_body_bytes = services.settings.max_body_bytes
        self._operations = operations
        self._polls = polls
        self._streams = streams
        post = admission.guarded(self._post, "operations")
        poll = admission.guarded(self._poll, "polls")
        self._query_by_get = admission.guarded(self._get_query, "operations")
        self._posts = {**dict.fromkeys(OPERATION_PATHS, post), **dict.fromkeys(POLL_PATHS, poll)}
        if nodes is not None:
            self._posts[FORMAT_PATH] = admission.guarded(nodes.raise_format, "operations")
        self._pages = Starlette(
            routes=[
                Route("/", self._page, methods=["GET"]),
                *(Route(path, self._get, methods=["GET"]) for path in OPERATION_PATHS if path != "/"),
                *health.routes,
            ]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        answer = self._posts.get(scope["path"]) if scope["type"] == "http" else None
        is_get = answer is not None and scope["method"] == "GET" and scope["path"] in OPERATION_PATHS
        if scope["type"] == "http" and self._streams.are_asked(scope):
            answer = self._stream
        elif is_get and names_query(scope["query_string"]):
            answer = self._query_by_get
        elif answer is None or (scope["method"] in ("GET", "HEAD") and scope["path"] in OPERATION_PATHS):
            await self._pages(scope, receive, send)
            return
        elif scope["method"] != "POST":
            answer = self._not_allowed
        # What is asked most goes past the framework's routing.
        response = await answer(Request(scope, receive))
        await response(scope, receive, send)

    async def _stream(self, request: Request) -> ASGIApp:
        refused = None if request.method == "DELETE" else self._admission.draining_refusal()
        return refused or await self._streams.answer(request)

    async def _page(self, request: Request) -> Response:
        url = str(request.url.replace(path="/graphql", query=""))
        socket_url = "ws" + url.removeprefix("http")
        return HTMLResponse(_PAGE.format(http=html.escape(url), ws=html.escape(socket_url)))

    async def _get(self, request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return await self._page(request)
        error = GraphQLError(message=f"there is no query: {_ADVICE}")
        return error_answer(400, media_type(request), [error])

    async def _not_allowed(self, request: Request) -> Response:
        allowed = "GET, POST, PUT, DELETE" if request.url.path in OPERATION_PATHS else "POST"
        return error_answer(405, JSON, [GraphQLError(message=_ADVICE)], Allow=allowed)

    async def _post(self, request: Request, caller: Caller) -> ASGIApp:
        try:
            asked = await read_json(request, read_body, max_bytes=self._max_body_bytes)
        except BadRequest as error:
            return error_answer(error.status, media_type(request), [GraphQLError(message=str(error))])
        except ClientDisconnect:
            return client_left()
        return await self._answer(request, caller, asked)

    async def _get_query(self, request: Request, caller: Caller) -> ASGIApp:
        try:
            asked = read_url(request.scope["query_string"])
        except RequestInvalid as error:
            answer: ASGIApp = error_answer(400, media_type(request), [GraphQLError(message=str(error))])
        else:
            answer = await self._answer(request, caller, asked)
        if isinstance(answer, Response):
            answer.headers.update(NOT_STORED)
        return answer

    async def _answer(self, request: Request, caller: Caller, asked: GraphQLRequest) -> ASGIApp:
        kind = media_type(request)
        try:
            document = await self._documents.read(
                asked.query, asked.variables, key=caller.id or caller.address
            )
            operation = document.operation(asked.operation_name)
        except DocumentInvalid as error:
            status = 400 if kind == GRAPHQL_JSON else 200
            return error_answer(status, kind, error.errors).because("invalid")
        if operation.operation is OperationType.SUBSCRIPTION and accepts_events(request):
            return await self._streams.subscription(request, caller, asked, document)
        if request.method == "GET" and operation.operation is not OperationType.QUERY:
            text = f"a {operation.operation.value} cannot be sent as GET, only a query can: send it as POST"
            return error_answer(405, kind, [GraphQLError(message=text)], Allow="POST")
        try:
            done = await self._operations.execute(document, asked, request, caller)
        except Exception:
            logger.exception("execute_failed")
            return error_answer(500, kind, [internal_error()])
        answer = _answer_of(done, kind)
        if self._positions is not None:
            answer.headers[HEADER] = self._positions.own
        return answer

    async def _poll(self, request: Request, caller: Caller) -> ASGIApp:
        if (refused := self._admission.draining_refusal()) is not None:
            return refused
        try:
            asked = await read_json(request, read_poll, max_bytes=self._max_body_bytes)
            answer = await self._polls.answer(
                asked, gone=_disconnected(request), caller=caller, traces=asks_for_traces(request)
            )
        except BadRequest as error:
            return error_answer(error.status, JSON, [GraphQLError(message=str(error))], **NOT_STORED)
        except PollInvalid as error:
            return error_answer(400, JSON, [GraphQLError(message=str(error))], **NOT_STORED)
        except ClientDisconnect:
            return client_left()
        except Exception:
            logger.exception("poll_failed")
            return error_answer(500, JSON, [internal_error()], **NOT_STORED)
        return Response(answer, 200, NOT_STORED, JSON)


def _answer_of(done: Done, kind: str) -> Response:
    """Return the answer to an operation that was executed, or refused before."""
    if done.status is not None:
        return Response(done.answer, done.status, media_type=kind)
    headers = {REPLAYED: "true"} if done.is_replayed else None
    if done.answer.startswith(b'{"errors"'):
        # Without data nothing was executed: the request itself is at fault.
        status = 400 if kind == GRAPHQL_JSON else 200
        return RefusedAnswer(done.answer, status, headers, kind).because("invalid")
    if headers is None:
        return OperationAnswer(done.answer, kind)
    return Response(done.answer, 200, headers, kind)


async def _disconnected(request: Request) -> None:
    """Return when the client has left; its body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
