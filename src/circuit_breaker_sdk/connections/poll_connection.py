"""Long-polling at ``/graphql/poll``, where no WebSocket gets through: same operations, same cursors."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, final

import msgspec

from circuit_breaker_sdk.callbacks import background_task
from circuit_breaker_sdk.connections.connection_settings import ConnectionSettings
from circuit_breaker_sdk.connections.guarded_calls import do_for, do_for_each
from circuit_breaker_sdk.connections.http_endpoints import HttpEndpoints
from circuit_breaker_sdk.connections.interfaces import Route
from circuit_breaker_sdk.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    GraphQLError,
    HandshakeFailed,
    ProtocolError,
    TransportError,
    UsageError,
)
from circuit_breaker_sdk.observability import log
from circuit_breaker_sdk.protocol.close_codes import CloseCode
from circuit_breaker_sdk.protocol.error_payload import read_error_payload
from circuit_breaker_sdk.protocol.lenient_json import json_defect, read_leniently
from circuit_breaker_sdk.protocol.messages import MAX_CURSOR_CHARACTERS, Subscribe
from circuit_breaker_sdk.protocol.resume import TRACES_HEADER
from circuit_breaker_sdk.urls import http_url

__all__ = ["PollConnection"]

_WAIT_SECONDS = 20.0
_SHORT_WAIT_SECONDS = 1.0
_MAX_REQUESTS = 4
_SLACK_SECONDS = 10.0


class _Result(msgspec.Struct):
    events: list[msgspec.Raw] = []
    cursor: Annotated[str, msgspec.Meta(max_length=MAX_CURSOR_CHARACTERS)] | None = None
    done: bool = False
    errors: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def has_errors(self) -> bool:
        return bytes(self.errors) != b"null"


class _Answer(msgspec.Struct):
    # Each is decoded alone: one that cannot be is its operation's end only.
    results: list[msgspec.Raw]


_ANSWER = msgspec.json.Decoder(_Answer)
_RESULT = msgspec.json.Decoder(_Result)
_ENCODER = msgspec.json.Encoder()


@final
class _Polled(msgspec.Struct):
    """One operation, and the cursor that its next poll asks behind."""

    request: dict[str, object]
    route: Route
    after: str | None
    is_live: bool = False


@final
class PollConnection:
    """The operations of a client that are polled ride together; nothing runs while there are none.

    A request under way is finished, whatever begins or ends meanwhile: what comes meanwhile is asked for by
    another request, and joins the others when one of them is answered. There are four requests at most.

    It takes the place of a :class:`~circuit_breaker_sdk.connections.connection.Connection` for a while. A
    request that fails is the end of every operation on it, as of a connection that is lost.

    Example::

        connection.subscribe(Subscribe("00000001", document), route)
    """

    resume_negotiated: bool = True
    write_delay_seconds: float = 0.0
    is_usable: bool = True

    def __init__(self, settings: ConnectionSettings, urls: Sequence[str] = ()) -> None:
        self._settings = settings
        self._endpoints = HttpEndpoints(settings, [_poll_url(url) for url in urls or (settings.url,)])
        self._operations: dict[str, _Polled] = {}
        self._held: set[Route] = set()
        # What is asked for by each request under way.
        self._requests: dict[asyncio.Task[None], dict[str, _Polled]] = {}
        self._is_refused = False
        self._is_due = False
        self._closed = False
        self.received_at: float | None = None

    @property
    def url(self) -> str:
        """The URL of the connection, without credentials."""
        return self._endpoints.url

    def subscribe(self, message: Subscribe, route: Route) -> None:
        """Start an operation; its route is told with ``positioned`` once the server has answered.

        :raises ConnectionFailed: it is closed.
        """
        if self._closed:
            raise ConnectionFailed("the client is closed", url=self.url)
        request: dict[str, object] = {"query": message.query}
        if message.variables is not None:
            request["variables"] = message.variables
        if message.operation_name is not None:
            request["operationName"] = message.operation_name
        resume = (message.extensions or {}).get("resume")
        after = resume.get("after") if isinstance(resume, Mapping) else None
        if message.extensions:
            request["extensions"] = message.extensions  # until the server has said where it begins
        self._operations[message.id] = _Polled(request, route, after if isinstance(after, str) else None)
        self._kick()

    def complete(self, id: str, route: Route) -> None:  # noqa: A002 (the protocol's own word)
        """End an operation from our side; nothing happens if it is over already."""
        polled = self._operations.get(id)
        if polled is not None and polled.route is route:
            del self._operations[id]
            self._held.discard(route)
            self._kick()

    def redacted(self, errors: tuple[GraphQLError, ...]) -> tuple[GraphQLError, ...]:
        """Return a server's errors without what this client keeps secret."""
        return self._settings.credentials.redaction.errors(errors)

    def hold(self, route: Route) -> None:
        """Poll nothing for this route for now."""
        self._held.add(route)
        self._kick()

    def release(self, route: Route) -> None:
        """Poll on for this route; nothing happens if it was not held."""
        if route in self._held:
            self._held.discard(route)
            self._kick()

    def let_consumers_run(self) -> None:
        """Do nothing: one turn brings one answer."""

    def drop(self, error: TransportError) -> None:
        """Give every operation up as lost, for this reason."""
        operations, self._operations = self._operations, {}
        self._held.clear()
        do_for_each(
            operations.values(), lambda polled: polled.route.connection_lost(error), "losing the poll"
        )

    async def aclose(self) -> None:
        """End. Idempotent."""
        self._closed = True
        self._operations.clear()
        tasks = tuple(self._requests)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._endpoints.aclose()

    # -------------------------------------------------------------------------------------------------------

    def _kick(self) -> None:
        """Ask, in the next turn, for what no request under way asks for; that one is finished."""
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        self._is_due = False
        if self._closed or self._is_refused:
            return
        idle = self._idle()
        if idle and len(self._requests) < _MAX_REQUESTS:
            task = background_task(self._poll(idle), name="circuit-breaker-poll")
            self._requests[task] = idle
            task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        del self._requests[task]
        self._kick()

    def _idle(self) -> dict[str, _Polled]:
        """Return what is wanted and in no request under way."""
        asked = {id(polled) for each in self._requests.values() for polled in each.values()}
        return {
            id_: polled
            for id_, polled in self._operations.items()
            if id(polled) not in asked and polled.route not in self._held
        }

    async def _poll(self, asked: dict[str, _Polled]) -> None:
        try:
            self._take(asked, await self._ask(asked))
        except AuthenticationFailed as error:
            self._is_refused = True
            try:
                await self._refused(self._settings.credentials.redaction.error(error))
            finally:
                self._is_refused = False
        except UsageError:
            return  # the client was closed
        except TransportError as error:
            self._settings.credentials.redaction.error(error)
            log(logging.DEBUG, "poll failed", url=self.url, error=error)
            self.drop(error)

    async def _refused(self, error: AuthenticationFailed) -> None:
        """Poll on with a fresh token; one that is refused as well is the end."""
        tokens = self._settings.credentials.tokens
        try:
            if not await tokens.replace_refused():
                self.drop(error)
        except (TransportError, UsageError) as failure:
            self.drop(failure if isinstance(failure, TransportError) else error)

    async def _ask(self, asked: dict[str, _Polled]) -> list[_Result]:
        """Send one request, and read its answer."""
        operations = [
            polled.request
            if polled.after is None or not polled.is_live
            else {**polled.request, "extensions": {"resume": {"after": polled.after}}}
            for polled in asked.values()
        ]
        wait = 0.0  # those that wait to go live are answered at once
        if all(polled.is_live for polled in asked.values()):
            # One request is always soon there for what comes meanwhile.
            wait = _WAIT_SECONDS if len(self._requests) < _MAX_REQUESTS else _SHORT_WAIT_SECONDS
        headers = {} if self._settings.tracer is None else {TRACES_HEADER: "1"}
        body = _ENCODER.encode({"operations": operations, "waitMs": int(wait * 1000)})

        async def post(url: str) -> list[_Result]:
            transport = self._endpoints.transport(url)
            answer = await transport.post(body, seconds=wait + _SLACK_SECONDS, extra_headers=headers)
            self.received_at = time.perf_counter()
            return self._read(answer, len(asked))

        return await self._endpoints.ask_any(post)

    def _read(self, body: bytes, count: int) -> list[_Result]:
        try:
            results = _results(body)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise HandshakeFailed(f"the answer is not that of a poll: {error}", url=self.url) from error
        if len(results) != count:
            raise ProtocolError("a poll was answered for other operations", close_code=CloseCode.BAD_RESPONSE)
        return [_result(raw) for raw in results]

    def _take(self, asked: dict[str, _Polled], answer: list[_Result]) -> None:
        for (id_, polled), result in zip(asked.items(), answer, strict=True):
            if not do_for(result, functools.partial(self._take_one, id_, polled), "taking an answer"):
                # Asked again, it would fail again; the others go on.
                self._operations.pop(id_, None)
                lost = ConnectionFailed("the answer could not be taken", url=self.url)
                do_for(polled.route, functools.partial(_lose, lost), "losing the poll")

    def _take_one(self, id_: str, polled: _Polled, result: _Result) -> None:
        route = polled.route
        if self._operations.get(id_) is not polled:
            return
        if not result.has_errors and not polled.is_live:
            start = polled.after or result.cursor
            if start is not None:
                polled.is_live = True
                route.positioned(start)
        for raw in result.events:
            payload = bytes(raw)
            if not route.deliver(payload):
                route.deliver_checked(payload)
            if self._operations.get(id_) is not polled:
                return  # it has ended, or was stopped, in the middle: what follows is read again
        if result.cursor is not None:
            polled.after = result.cursor
            route.resumes_after(result.cursor)
        if result.done or result.has_errors:
            del self._operations[id_]
            errors = read_error_payload(bytes(result.errors)) if result.has_errors else ()
            if errors:
                route.failed(self.redacted(errors))
            else:
                route.completed()


def _poll_url(url: str) -> str:
    path, question_mark, query = http_url(url).partition("?")
    path = path.removesuffix("/ws") + "/graphql" if path.endswith("/ws") else path.rstrip("/")
    return path + "/poll" + question_mark + query


def _lose(error: TransportError, route: Route) -> None:
    route.connection_lost(error)


def _results(body: bytes) -> list[bytes]:
    """Split an answer into the results of its operations, whatever is in them."""
    try:
        return [bytes(raw) for raw in _ANSWER.decode(body).results]
    except msgspec.DecodeError:
        answer = read_leniently(body)
        results = answer.get("results") if isinstance(answer, dict) else None
        if not isinstance(results, list):
            raise
        return [json.dumps(result).encode() for result in results]


def _result(raw: bytes) -> _Result:
    try:
        return _RESULT.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        reason = f"the server's result cannot be read: {json_defect(raw) or error}"
        return _Result(done=True, errors=msgspec.Raw(json.dumps([{"message": reason}]).encode()))
