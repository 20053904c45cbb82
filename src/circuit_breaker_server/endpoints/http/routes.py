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

import asyncio
import html
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar, final

import msgspec
from graphql import OperationType
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_sdk.protocol.json_depth import check_depth
from circuit_breaker_server.access.audit_lines import NO_AUDIT, Auditor
from circuit_breaker_server.access.caller import Caller, Permissions
from circuit_breaker_server.endpoints.http.graphql_request import (
    GraphQLRequest,
    RequestInvalid,
    names_query,
    read_body,
    read_url,
)
from circuit_breaker_server.endpoints.long_poll.poll_request import PollInvalid, read_poll
from circuit_breaker_server.endpoints.long_poll.polls import Polls
from circuit_breaker_server.endpoints.websocket.handshake import RESUME_VERSION
from circuit_breaker_server.endpoints.websocket.services import Execute
from circuit_breaker_server.gateway.subscription_errors import internal_error
from circuit_breaker_server.graphql.documents import Documents
from circuit_breaker_server.graphql.errors import DocumentInvalid
from circuit_breaker_server.graphql.execute import encode_errors
from circuit_breaker_server.graphql.idempotent_execution import Once
from circuit_breaker_server.graphql.limit_checks import REFUSED_SECONDS
from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.paths import OPERATION_PATHS, POLL_PATHS
from circuit_breaker_server.scheduling import Gate
from circuit_breaker_server.security.authentication import Authenticator, Unauthenticated
from circuit_breaker_server.security.rate_limits import RATE_LIMITED, Asked, Rates, too_often
from circuit_breaker_server.settings.rates import RateSettings

__all__ = ["HttpRoutes"]

JSON: Final = "application/json"
GRAPHQL_JSON: Final = "application/graphql-response+json"
KEY: Final = "Idempotency-Key"
REPLAYED: Final = "Idempotency-Replayed"
RESUME: Final = "Resume-Version"
"""A request with this header and the value ``1`` is answered with the cursor of a mutation's record."""

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
<p><code>GET /health</code> answers 200 while the server is up.</p>
</body></html>
"""

_ADVICE: Final = (
    "send operations as POST, or a query as GET with ?query=…; for subscriptions, upgrade to a WebSocket "
    "(graphql-transport-ws), or post them to /graphql/poll"
)

logger = get_logger("http")


_Body = TypeVar("_Body")


class _BadRequest(Exception):
    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


_NOT_STORED: Final = {"Cache-Control": "no-store"}


@final
class HttpRoutes:
    """The routes: an ASGI application.

    Example::

        uvicorn.Config(HttpRoutes(documents, execute, once, polls, max_body_bytes=1_048_576))
    """

    def __init__(
        self,
        documents: Documents,
        execute: Execute,
        once: Once,
        polls: Polls,
        *,
        max_body_bytes: int,
        authenticator: Authenticator | None = None,
        permissions: Permissions | None = None,
        audit: Auditor = NO_AUDIT,
        rates: Rates | None = None,
    ) -> None:
        self._rates = rates or Rates(RateSettings())
        self._gate = Gate()
        self._audit = audit
        self._permissions = permissions or Permissions()
        self._documents = documents
        self._once = once
        self._execute = execute
        self._polls = polls
        self._max_body_bytes = max_body_bytes
        self._authenticator = authenticator or Authenticator()
        post, poll = self._known(self._post, "operations"), self._known(self._poll, "polls")
        self._query_by_get = self._known(self._get_query, "operations")
        self._posts = {**dict.fromkeys(OPERATION_PATHS, post), **dict.fromkeys(POLL_PATHS, poll)}
        self._pages = Starlette(
            routes=[
                Route("/", self._page, methods=["GET"]),
                *(Route(path, self._get, methods=["GET"]) for path in OPERATION_PATHS if path != "/"),
                Route("/health", self._health, methods=["GET"]),
            ]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        answer = self._posts.get(scope["path"]) if scope["type"] == "http" else None
        is_get = answer is not None and scope["method"] == "GET" and scope["path"] in OPERATION_PATHS
        if is_get and names_query(scope["query_string"]):
            answer = self._query_by_get
        elif answer is None or (scope["method"] in ("GET", "HEAD") and scope["path"] in OPERATION_PATHS):
            await self._pages(scope, receive, send)
            return
        elif scope["method"] != "POST":
            answer = self._not_allowed
        # What is asked most goes past the framework's routing.
        response = await answer(Request(scope, receive))
        await response(scope, receive, send)

    def _known(
        self, answer: Callable[[Request, Caller], Awaitable[Response]], asked: Asked
    ) -> Callable[[Request], Awaitable[Response]]:
        """Authenticate each request and limit its rate before ``answer`` is called; refuse the others."""

        async def guarded(request: Request) -> Response:
            if not self._gate.enter_now():
                await self._gate.enter(_host(request))
            try:
                principal = self._authenticator.of_headers(request.headers.getlist("Authorization"))
            except Unauthenticated as reason:
                self._audit.refused(_host(request), request.url.path, str(reason))
                error = GraphQLError(message=str(reason), extensions={"code": "UNAUTHENTICATED"})
                headers = {"WWW-Authenticate": "Bearer", **_NOT_STORED}
                return _errors(401, _media_type(request), [error], **headers)
            caller = Caller(principal, self._permissions, address=_host(request), audit=self._audit)
            wait = self._rates.take(asked, caller.id or caller.address)
            if wait is not None:
                await asyncio.sleep(min(wait, REFUSED_SECONDS))
                return self._too_often(request, caller, asked, wait)
            return await answer(request, caller)

        return guarded

    def _too_often(self, request: Request, caller: Caller, asked: Asked, wait: float) -> Response:
        text, extensions = too_often(asked, wait)
        self._audit.note(caller, "refuse", request.url.path, "refused", reason=RATE_LIMITED)
        headers = {"Retry-After": str(math.ceil(wait)), **_NOT_STORED}
        error = GraphQLError(message=text, extensions=extensions)
        return _errors(429, _media_type(request), [error], **headers)

    async def _health(self, _request: Request) -> Response:
        return PlainTextResponse("ok")

    async def _page(self, request: Request) -> Response:
        url = str(request.url.replace(path="/graphql", query=""))
        socket_url = "ws" + url.removeprefix("http")
        return HTMLResponse(_PAGE.format(http=html.escape(url), ws=html.escape(socket_url)))

    async def _get(self, request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return await self._page(request)
        return _errors(400, _media_type(request), [GraphQLError(message=f"there is no query: {_ADVICE}")])

    async def _not_allowed(self, request: Request) -> Response:
        allowed = "GET, POST" if request.url.path in OPERATION_PATHS else "POST"
        return _errors(405, JSON, [GraphQLError(message=_ADVICE)], Allow=allowed)

    async def _post(self, request: Request, caller: Caller) -> Response:
        try:
            asked = _decode(read_body, await self._read(request))
        except _BadRequest as error:
            return _errors(error.status, _media_type(request), [GraphQLError(message=str(error))])
        except ClientDisconnect:
            return Response(status_code=400)
        return await self._answer(request, caller, asked)

    async def _get_query(self, request: Request, caller: Caller) -> Response:
        try:
            asked = read_url(request.scope["query_string"])
        except RequestInvalid as error:
            answer = _errors(400, _media_type(request), [GraphQLError(message=str(error))])
        else:
            answer = await self._answer(request, caller, asked)
        answer.headers.update(_NOT_STORED)
        return answer

    async def _answer(self, request: Request, caller: Caller, body: GraphQLRequest) -> Response:
        media_type = _media_type(request)
        try:
            document = await self._documents.read(body.query, body.variables, key=caller.id or caller.address)
            operation = document.operation(body.operation_name)
        except DocumentInvalid as error:
            return _errors(400 if media_type == GRAPHQL_JSON else 200, media_type, error.errors)
        if request.method == "GET" and operation.operation is not OperationType.QUERY:
            text = f"a {operation.operation.value} cannot be sent as GET, only a query can: send it as POST"
            return _errors(405, media_type, [GraphQLError(message=text)], Allow="POST")
        keys = request.headers.getlist(KEY) if operation.operation is OperationType.MUTATION else []
        with_cursor = request.headers.get(RESUME) == str(RESUME_VERSION)
        status, headers = None, None
        try:
            if keys:
                # A second header makes a key with a comma and a blank in it, which is none.
                done = await self._once.execute(
                    document,
                    body.variables,
                    body.operation_name,
                    key=", ".join(keys),
                    caller=caller,
                    with_cursor=with_cursor,
                )
                answer, status = done.answer, done.status
                headers = {REPLAYED: "true"} if done.is_replayed else None
            else:
                answer = await self._execute(
                    document, body.variables, body.operation_name, caller, with_cursor=with_cursor
                )
        except Exception:
            logger.exception("execute_failed")
            return _errors(500, media_type, [internal_error()])
        if status is not None:
            return Response(answer, status, media_type=media_type)
        # Without data nothing was executed: the request itself is at fault.
        is_request_error = media_type == GRAPHQL_JSON and answer.startswith(b'{"errors"')
        return Response(answer, 400 if is_request_error else 200, headers, media_type)

    async def _poll(self, request: Request, caller: Caller) -> Response:
        try:
            asked = _decode(read_poll, await self._read(request))
            answer = await self._polls.answer(asked, gone=_disconnected(request), caller=caller)
        except _BadRequest as error:
            return _errors(error.status, JSON, [GraphQLError(message=str(error))], **_NOT_STORED)
        except PollInvalid as error:
            return _errors(400, JSON, [GraphQLError(message=str(error))], **_NOT_STORED)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception:
            logger.exception("poll_failed")
            return _errors(500, JSON, [internal_error()], **_NOT_STORED)
        return Response(answer, 200, _NOT_STORED, JSON)

    async def _read(self, request: Request) -> bytes:
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != JSON:
            # A page of another origin may post forms and plain text without asking: never execute those.
            raise _BadRequest(415, f"the body must be of Content-Type {JSON}, not {content_type or 'none'!r}")
        raw = bytearray()
        async for chunk in request.stream():
            raw += chunk
            if len(raw) > self._max_body_bytes:
                raise _BadRequest(413, f"the body is over {self._max_body_bytes} bytes")
        return bytes(raw)


def _decode(decode: Callable[[bytes], _Body], raw: bytes) -> _Body:
    if raw.lstrip().startswith(b"["):
        raise _BadRequest(400, "the body must be an object: arrays of operations are not supported")
    try:
        check_depth(raw)
        return decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _BadRequest(400, f"the body is not a GraphQL request: {error}") from error


def _host(request: Request) -> str:
    return request.client.host if request.client is not None else ""


async def _disconnected(request: Request) -> None:
    """Return when the client has left; its body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _errors(status: int, media_type: str, errors: Sequence[GraphQLError], **headers: str) -> Response:
    return Response(encode_errors(errors), status, headers, media_type)


def _media_type(request: Request) -> str:
    return GRAPHQL_JSON if GRAPHQL_JSON in request.headers.get("accept", "") else JSON
