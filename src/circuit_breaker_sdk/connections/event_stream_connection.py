"""Subscriptions over server-sent events (graphql-sse): on one stream for all, or on one each."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, final

import msgspec

from circuit_breaker_sdk.callbacks import background_task
from circuit_breaker_sdk.connections.connection_settings import ConnectionSettings
from circuit_breaker_sdk.connections.event_stream_operation import EventStreamOperation
from circuit_breaker_sdk.connections.event_stream_reader import EventStreamReader, address
from circuit_breaker_sdk.connections.event_stream_requests import EventStreamRequests
from circuit_breaker_sdk.connections.guarded_calls import do_for, do_for_each
from circuit_breaker_sdk.connections.interfaces import Route
from circuit_breaker_sdk.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    GraphQLError,
    OperationTimeoutError,
    TransportError,
    UsageError,
)
from circuit_breaker_sdk.observability import log
from circuit_breaker_sdk.protocol.event_stream import ServerSentEvent
from circuit_breaker_sdk.protocol.messages import Subscribe
from circuit_breaker_sdk.urls import redacted

__all__ = ["EventStreamConnection"]

_IDLE_SECONDS: Final = 5.0

_encode: Final = msgspec.json.Encoder().encode


@final
class EventStreamConnection:
    """The operations of a client over server-sent events; nothing runs while there are none.

    All share one stream where the server has such (the single connection mode of graphql-sse); else each has
    a request of its own. A stream that is lost is the end of every operation on it, as of a WebSocket. An
    event's cursor is in its payload where the server speaks the resume protocol; the ``id`` of any other
    server's event is sent back as ``Last-Event-ID``.

    Example::

        connection.subscribe(Subscribe("00000001", document), route)
    """

    resume_negotiated: bool = True
    write_delay_seconds: float = 0.0
    is_usable: bool = True

    def __init__(self, settings: ConnectionSettings, urls: Sequence[str] = ()) -> None:
        self._settings = settings
        self._requests = EventStreamRequests(settings, urls or (settings.url,))
        self._operations: dict[str, EventStreamOperation] = {}
        self._by_route: dict[Route, EventStreamOperation] = {}
        self._held: set[Route] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._has_shared_streams = True
        self._opening: asyncio.Task[EventStreamReader | None] | None = None
        self._shared: EventStreamReader | None = None
        self._closed = False
        self.received_at: float | None = None

    @property
    def url(self) -> str:
        """The URL of the connection, without credentials."""
        return self._requests.url

    # The link ----------------------------------------------------------------------------------------------

    def subscribe(self, message: Subscribe, route: Route) -> None:
        """Start an operation; its route is told with ``positioned`` or ``accepted`` once it has begun.

        :raises ConnectionFailed: it is closed.
        """
        if self._closed:
            raise ConnectionFailed("the client is closed", url=self.url)
        operation = EventStreamOperation(message, route)
        self._operations[message.id] = self._by_route[route] = operation
        operation.task = self._do(self._run(operation))

    def complete(self, id: str, route: Route) -> None:  # noqa: A002 (the protocol's own word)
        """End an operation from our side; nothing happens if it is over already."""
        operation = self._operations.get(id)
        if operation is None or operation.route is not route:
            return
        self._forget(operation)
        reader = operation.reader
        if reader is not None and reader is self._shared:
            _ = self._do(self._stop_on_server(operation.id, reader))
        elif operation.task is not None:
            operation.task.cancel()

    def redacted(self, errors: tuple[GraphQLError, ...]) -> tuple[GraphQLError, ...]:
        """Return a server's errors without what this client keeps secret."""
        return self._settings.credentials.redaction.errors(errors)

    def hold(self, route: Route) -> None:
        """Read nothing for this route for now: of a shared stream, nothing at all."""
        self._held.add(route)
        reader = self._reader_of(route)
        if reader is not None:
            reader.hold(route)

    def release(self, route: Route) -> None:
        """Read on for this route; nothing happens if it was not held."""
        self._held.discard(route)
        reader = self._reader_of(route)
        if reader is not None:
            reader.release(route)

    def let_consumers_run(self) -> None:
        """Do nothing: they have a turn after each piece that is read."""

    def drop(self, error: TransportError) -> None:
        """Give every operation up as lost, for this reason."""
        self._drop_shared()
        self._lose(tuple(self._operations.values()), error)

    async def aclose(self) -> None:
        """End. Idempotent."""
        self._closed = True
        self._operations.clear()
        self._by_route.clear()
        self._held.clear()
        self._drop_shared()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._requests.aclose()

    # Operations --------------------------------------------------------------------------------------------

    def _do(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = background_task(work, name="circuit-breaker-event-stream")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _is_running(self, operation: EventStreamOperation) -> bool:
        return self._operations.get(operation.id) is operation

    def _forget(self, operation: EventStreamOperation) -> None:
        del self._operations[operation.id]
        if self._by_route.get(operation.route) is operation:
            self.release(operation.route)
            del self._by_route[operation.route]
        if not self._operations and not self._closed:
            # A while later: what subscribes again at once finds the stream open.
            asyncio.get_running_loop().call_later(_IDLE_SECONDS, self._drop_idle)

    def _lose(self, operations: Sequence[EventStreamOperation], error: TransportError) -> None:
        lost = [each for each in operations if self._is_running(each)]
        for operation in lost:
            self._forget(operation)
            if operation.task is not None and operation.task is not asyncio.current_task():
                operation.task.cancel()
        do_for_each(lost, lambda each: each.route.connection_lost(error), "losing the event stream")

    def _reader_of(self, route: Route) -> EventStreamReader | None:
        operation = self._by_route.get(route)
        return None if operation is None else operation.reader

    def _put_on(self, reader: EventStreamReader, operation: EventStreamOperation) -> None:
        """Note the stream that brings an operation; of one whose route is held nothing is read."""
        operation.reader = reader
        if operation.route in self._held:
            reader.hold(operation.route)

    async def _run(self, operation: EventStreamOperation) -> None:
        """Begin an operation, on the shared stream or on one of its own, and read that to its end."""
        try:
            try:
                await self._begin(operation)
            except AuthenticationFailed:
                if not await self._settings.credentials.tokens.replace_refused():
                    raise
                await self._begin(operation)
        except UsageError as error:
            # The client was closed, or a header cannot be sent.
            self._lose((operation,), ConnectionFailed(str(error), url=self.url))
        except TransportError as error:
            self._settings.credentials.redaction.error(error)
            log(logging.DEBUG, "event stream failed", url=self.url, error=error)
            self._lose((operation,), error)

    async def _begin(self, operation: EventStreamOperation) -> None:
        reader = await self._shared_reader()
        if not self._is_running(operation):
            return
        if reader is None:
            await self._read_own(operation)
        else:
            await self._begin_on(reader, operation)

    async def _begin_on(self, reader: EventStreamReader, operation: EventStreamOperation) -> None:
        extensions: dict[str, object] = {**operation.extensions, "operationId": operation.id}
        if operation.resume:
            extensions["resume"] = operation.resume
        self._put_on(reader, operation)  # before it is sent: the first event may come before the answer
        try:
            errors = await self._requests.begin(
                reader, _encode({**operation.request, "extensions": extensions})
            )
        except ConnectionFailed:
            if reader is self._shared:
                self._drop_shared()  # the server, or this life of it, may know it no more
            raise
        if not self._is_running(operation):
            await self._stop_on_server(operation.id, reader)
        elif errors:
            operation.refused(errors)
            self._completed(operation)
        elif not operation.is_live:
            self._accepted(operation)

    async def _read_own(self, operation: EventStreamOperation) -> None:
        request, after = operation.request, operation.resume.get("after")
        extensions = operation.extensions
        if operation.resume and after is None:
            extensions = {**extensions, "resume": operation.resume}
        if extensions:
            request = {**request, "extensions": extensions}
        reader = await self._requests.open_own(_encode(request), after=after)
        if isinstance(reader, bytes):
            if self._is_running(operation):
                operation.refused(reader)
                self._completed(operation)
            return
        self._put_on(reader, operation)
        try:
            self._accepted(operation)
            await self._read(reader, functools.partial(self._take_own, operation))
        finally:
            reader.close()

    async def _read(self, reader: EventStreamReader, take: Callable[[ServerSentEvent], None]) -> None:
        """Read to the end, which comes unexpectedly: an operation that is completed cancels its task."""
        while (events := await reader.read()) is not None:
            self.received_at = time.perf_counter()
            for event in events:
                do_for(event, take, "taking an event")
            await asyncio.sleep(0)  # a piece that is there already is read without a turn of the loop
        raise ConnectionFailed("the event stream ended without `complete`", url=redacted(reader.url))

    def _take_own(self, operation: EventStreamOperation, event: ServerSentEvent) -> None:
        if not self._is_running(operation):
            return
        if event.data is None:
            if operation.knows_resume and event.id:
                operation.positioned(event.id)
        elif event.type == "next":
            operation.next(event.data, event_id=event.id)
        elif event.type == "complete":
            self._completed(operation)

    def _completed(self, operation: EventStreamOperation) -> None:
        self._forget(operation)
        if operation.task is not None and operation.reader is not self._shared:
            operation.task.cancel()  # it may be this one: it ends with its next wait
        operation.completed(self.redacted)

    def _accepted(self, operation: EventStreamOperation) -> None:
        """Expect the live signal of an operation; if it does not come, something holds the stream back."""
        operation.accepted()
        seconds = self._settings.timeouts.subscribe_seconds

        def look() -> None:
            if not operation.is_live:
                error = OperationTimeoutError("the live signal on the event stream", seconds=seconds)
                self._lose((operation,), error)

        asyncio.get_running_loop().call_later(seconds, look)

    # The shared stream -------------------------------------------------------------------------------------

    async def _shared_reader(self) -> EventStreamReader | None:
        """Return the shared stream, opened once for all; ``None``: the server has none."""
        if self._shared is not None:
            return self._shared
        if not self._has_shared_streams:
            return None
        if self._opening is None:
            self._opening = self._do(self._open_shared())
        return await asyncio.shield(self._opening)

    async def _open_shared(self) -> EventStreamReader | None:
        try:
            reader = self._shared = await self._requests.open_shared()
            if reader is None:
                self._has_shared_streams = False
            else:
                _ = self._do(self._read_shared(reader))
            return reader
        finally:
            self._opening = None

    async def _read_shared(self, reader: EventStreamReader) -> None:
        try:
            await self._read(reader, functools.partial(self._take_shared, reader))
        except TransportError as error:
            if self._shared is reader:
                self._shared = None
            self._lose([each for each in self._operations.values() if each.reader is reader], error)
        finally:
            reader.close()

    def _take_shared(self, reader: EventStreamReader, event: ServerSentEvent) -> None:
        operation_id, content = address(event)
        operation = self._operations.get(operation_id)
        if operation is None or operation.reader is not reader:
            return  # it has ended meanwhile
        if event.data is None:
            operation.positioned(content.decode())
        elif event.type == "next":
            operation.next(content, event_id=None)
        elif event.type == "complete":
            self._completed(operation)

    async def _stop_on_server(self, operation_id: str, reader: EventStreamReader) -> None:
        """Ask the server to send nothing more; if that fails, what it sends is ignored."""
        try:
            await self._requests.stop(reader, operation_id)
        except (TransportError, UsageError) as error:
            log(logging.DEBUG, "operation not stopped on the server", operation_id=operation_id, error=error)

    def _drop_idle(self) -> None:
        if not self._operations:
            self._drop_shared()

    def _drop_shared(self) -> None:
        reader, self._shared = self._shared, None
        if reader is not None:
            reader.close()  # its task ends with the error of a closed answer
