"""The HTTP requests of GraphQL over server-sent events (graphql-sse, PROTOCOL.md), in both of its modes."""

from __future__ import annotations

from collections.abc import Awaitable, Container, Mapping, Sequence
from typing import TYPE_CHECKING, Final, final
from urllib.parse import quote

from circuit_breaker_sdk.connections.connection_settings import ConnectionSettings
from circuit_breaker_sdk.connections.event_stream_operation import has_only_errors
from circuit_breaker_sdk.connections.event_stream_reader import RESUME, EventStreamReader
from circuit_breaker_sdk.connections.http_endpoints import HttpEndpoints
from circuit_breaker_sdk.errors import ConnectionFailed, HandshakeFailed
from circuit_breaker_sdk.protocol.resume import TRACES_HEADER

if TYPE_CHECKING:
    from circuit_breaker_sdk.transports.http_stream import HttpStream

__all__ = ["EventStreamRequests"]

_TOKEN: Final = "X-GraphQL-Event-Stream-Token"  # noqa: S105 (the name of a header)
_EVENTS: Final = "text/event-stream"
_JSON: Final = "application/json"
_TEXT: Final = "text/plain"
_WITH_CURSORS: Final = {RESUME: "1"}
_WITH_TRACES: Final = {RESUME: "1", TRACES_HEADER: "1"}
_NO_SHARED_STREAMS: Final = frozenset((400, 404, 405, 406, 415, 501))
_NO_SUCH_STREAM: Final = frozenset((404, 409))


@final
class EventStreamRequests:
    """Opens streams, and begins and stops operations on a shared one.

    Example::

        requests = EventStreamRequests(settings, urls)
        reader = await requests.open_shared() or await requests.open_own(body, after=None)
    """

    def __init__(self, settings: ConnectionSettings, urls: Sequence[str]) -> None:
        self._settings = settings
        self._asking = _WITH_CURSORS if settings.tracer is None else _WITH_TRACES
        # Any number at once: one for each operation where the server shares no stream.
        self._endpoints = HttpEndpoints(settings, urls, max_connections=0)

    @property
    def url(self) -> str:
        """The URL that is asked first, without credentials."""
        return self._endpoints.url

    async def open_shared(self) -> EventStreamReader | None:
        """Reserve a stream for many operations and open it; ``None``: the server has none.

        :raises TransportError: it does not answer, or not as it should.
        """
        # graphql-sse refuses a reservation that asks for events.
        statuses = {201, *_NO_SHARED_STREAMS}
        reserved, url = await self._open_any("PUT", None, {}, accept=_TEXT, statuses=statuses)
        token = (await reserved.read_whole()).decode(errors="replace")
        if reserved.status != 201 or not token.isprintable():
            return None
        headers = {**self._asking, _TOKEN: token}
        answer = await self._open(url, "GET", None, headers, statuses=(200, *_NO_SUCH_STREAM))
        self._check_is_there(answer)
        return self._reader(answer, url, token=token)

    async def open_own(self, body: bytes, *, after: object) -> EventStreamReader | bytes:
        """Open the stream of one operation, behind a cursor or as its body says; or return what refuses it.

        :raises TransportError: the server does not answer with server-sent events.
        """
        headers = dict(self._asking)
        if after is not None:
            headers["Last-Event-ID"] = str(after)
        answer, url = await self._open_any("POST", body, headers, statuses=(200, 400))
        if answer.status == 400 and answer.content_type.endswith("json"):
            refusal = await answer.read_whole()
            if has_only_errors(refusal):
                return refusal
        return self._reader(answer, url)

    async def begin(self, reader: EventStreamReader, body: bytes) -> bytes:
        """Begin an operation on a shared stream; return the answer with its errors, nothing if it has none.

        :raises ConnectionFailed: the server knows the stream no more.
        """
        statuses = (202, 400, *_NO_SUCH_STREAM)
        headers = {_TOKEN: reader.token}
        answer = await self._open(reader.url, "POST", body, headers, accept=_JSON, statuses=statuses)
        self._check_is_there(answer)
        return await answer.read_whole()

    async def stop(self, reader: EventStreamReader, operation_id: str) -> None:
        """Ask the server to send nothing more for an operation.

        :raises TransportError: it cannot be asked.
        """
        query = f"operationId={quote(operation_id, safe='')}"
        headers = {_TOKEN: reader.token}
        # graphql-sse takes whatever asks for events for another one that opens the stream.
        answer = await self._open(
            reader.url, "DELETE", None, headers, accept=_TEXT, statuses=range(1000), query=query
        )
        await answer.read_whole()

    async def aclose(self) -> None:
        """Close every connection. Idempotent."""
        await self._endpoints.aclose()

    def _check_is_there(self, answer: HttpStream) -> None:
        if answer.status in _NO_SUCH_STREAM:
            answer.close()
            raise ConnectionFailed("the event stream is gone: the server may have restarted", url=self.url)

    def _reader(self, answer: HttpStream, url: str, *, token: str = "") -> EventStreamReader:
        if answer.content_type != _EVENTS:
            answer.close()
            raise HandshakeFailed(
                f"the server answers with {answer.content_type}, not with server-sent events: check the path",
                url=self.url,
                status=answer.status,
            )
        return EventStreamReader(
            answer,
            url,
            token=token,
            max_bytes=self._settings.limits.max_message_bytes,
            notices_silence=self._settings.heartbeat is not None,
        )

    async def _open_any(
        self,
        method: str,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        accept: str = _EVENTS,
        statuses: Container[int] = (200,),
    ) -> tuple[HttpStream, str]:
        """Send a request to the first URL that answers; return the answer, and which it was."""
        return await self._endpoints.ask_any(
            lambda url: _with(url, self._open(url, method, body, headers, accept=accept, statuses=statuses))
        )

    async def _open(
        self,
        url: str,
        method: str,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        accept: str = _EVENTS,
        statuses: Container[int] = (200,),
        query: str = "",
    ) -> HttpStream:
        return await self._endpoints.transport(url).open_stream(
            method,
            body,
            headers,
            accept=accept,
            statuses=statuses,
            query=query,
            seconds=self._settings.timeouts.acknowledge_seconds,
        )


async def _with(url: str, answer: Awaitable[HttpStream]) -> tuple[HttpStream, str]:
    return await answer, url
