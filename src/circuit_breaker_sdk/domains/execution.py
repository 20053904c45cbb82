"""Queries and mutations over HTTP, decoded into types."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, final

import msgspec

from circuit_breaker_sdk.config import OfflineQueue
from circuit_breaker_sdk.connections import ConnectionSettings, close_each
from circuit_breaker_sdk.delivery.decodable_types import DecodeHook
from circuit_breaker_sdk.delivery.decoding import UnfitPayloadError, json_decoder, read_errors
from circuit_breaker_sdk.domains.offline_queue import MutationQueue
from circuit_breaker_sdk.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    DecodeError,
    GraphQLError,
    OperationError,
    TransportError,
    UsageError,
)
from circuit_breaker_sdk.loop_affinity import LoopAffinity
from circuit_breaker_sdk.protocol.document_scan import is_mutation, refuse_incremental
from circuit_breaker_sdk.subscriptions.variables import encode_variables

if TYPE_CHECKING:
    from circuit_breaker_sdk.transports.http import HttpTransport

__all__ = ["Executor", "Result"]

T = TypeVar("T")


@final
class Result(msgspec.Struct, Generic[T], frozen=True):
    """The answer to a query or mutation: its data, and the server's errors beside it.

    :ivar data: decoded to the type that was asked for; ``None`` where the whole answer failed. A field that
        failed is null in it: its type must allow ``None``.
    :ivar errors: paths kept; empty where all went well.

    Example::

        result = await client.execute(document, type=Orders, errors="return")
        for error in result.errors:
            print(error.path, error.message)
    """

    data: T | None
    errors: tuple[GraphQLError, ...] = ()


class _Response(msgspec.Struct):
    data: msgspec.Raw = msgspec.Raw(b"null")
    errors: list[object] | None = None


_NULL = b"null"
_RESPONSE = msgspec.json.Decoder(_Response)
_ENCODER = msgspec.json.Encoder()
_KEY_HEADER = "Idempotency-Key"
_NOT_YET = frozenset({"TIMEOUT", "UNAVAILABLE"})


@final
class Executor:
    """Send one query or mutation at a time over kept-alive HTTP.

    Nothing is sent twice by itself: of several URLs the next is tried only where no connection could be made.
    With an offline queue, mutations are: see :class:`~circuit_breaker_sdk.config.OfflineQueue`.

    Example::

        health = await executor.field("{ health }", type=str)
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        url: str | Sequence[str],
        *,
        offline_queue: OfflineQueue | None = None,
        affinity: LoopAffinity | None = None,
    ) -> None:
        self._settings = settings
        self._urls = (url,) if isinstance(url, str) else tuple(url)
        self._serving = 0
        self._transports: dict[str, HttpTransport] = {}
        self._queue = None if offline_queue is None else MutationQueue(offline_queue)
        self._affinity = affinity or LoopAffinity()
        self._closed = False

    @property
    def waiting_mutations(self) -> int:
        """The number of mutations that wait for the server's answer."""
        return 0 if self._queue is None else len(self._queue)

    async def execute(
        self,
        document: str,
        variables: Mapping[str, object] | None = None,
        *,
        type: type[T],
        operation_name: str | None = None,
        decode_hook: DecodeHook | None = None,
    ) -> T:
        """Return ``data`` of the answer, decoded to ``type``.

        :raises OperationError: the server answered with errors, paths kept; the data beside them is on it.
        :raises DecodeError: the answer does not fit ``type``.
        :raises TransportError: ``ConnectionFailed`` and its kin: see ``transports.http``.
        :raises UsageError: the variables or the type cannot be used, or the client is closed: nothing was
            sent. One that was under way when the client was closed raises ``ConnectionFailed``.
        """
        # Before anything is sent: a mutation would be executed, and its answer lost.
        decode = json_decoder(type, decode_hook)
        data, errors = await self._answer(document, variables, operation_name)
        if errors:
            raise OperationError(errors, operation=operation_name, data=_plain(data))
        try:
            return decode(data)
        except Exception as error:  # a hook, and a type's own __post_init__, may raise anything
            raise _unfit(operation_name, type, _said(error)) from error

    async def result(
        self,
        document: str,
        variables: Mapping[str, object] | None = None,
        *,
        type: type[T],
        operation_name: str | None = None,
        decode_hook: DecodeHook | None = None,
    ) -> Result[T]:
        """Return the answer's ``data``, decoded to ``type``, and its errors.

        :raises DecodeError: the data does not fit ``type``; chained to the server's errors if there are any.
        :raises TransportError: as above.
        :raises UsageError: as above.
        """
        decode = json_decoder(type, decode_hook)
        data, errors = await self._answer(document, variables, operation_name)
        if bytes(data) == _NULL:
            return Result(None, errors)
        try:
            return Result(decode(data), errors)
        except Exception as error:  # noqa: BLE001 (as above)
            told = OperationError(errors, operation=operation_name, data=_plain(data)) if errors else error
            raise _unfit(operation_name, type, _said(error)) from told

    async def _answer(
        self, document: str, variables: Mapping[str, object] | None, operation_name: str | None
    ) -> tuple[msgspec.Raw, tuple[GraphQLError, ...]]:
        """Return ``data`` as it came, and the errors: one at least where there is no data."""
        self._affinity.enter()
        refuse_incremental(document)
        body: dict[str, object] = {"query": document}
        if (encoded := encode_variables(variables)) is not None:
            body["variables"] = encoded
        if operation_name is not None:
            body["operationName"] = operation_name
        try:
            sent = _ENCODER.encode(body)
        except UnicodeEncodeError as error:
            name = operation_name or "the operation"
            raise UsageError(f"{name} cannot be sent: a text in it is no Unicode ({error})") from error
        if self._settings.tracer is None:
            answer = await self._queue_or_send(document, sent, operation_name, {})
        else:
            name, mutates = operation_name or "", is_mutation(document, operation_name)
            with self._settings.tracer.request(name, is_mutation=mutates) as headers:
                answer = await self._queue_or_send(document, sent, operation_name, headers)
        response = _read(answer)
        if not response.errors and bytes(response.data) != _NULL:
            return response.data, ()
        return response.data, self._settings.credentials.redaction.errors(_errors(response.errors))

    async def _queue_or_send(
        self, document: str, data: bytes, name: str | None, headers: Mapping[str, str]
    ) -> bytes:
        if self._queue is not None and is_mutation(document, name):
            return await self._send_until_answered(self._queue, data, name, headers)
        return await self._send(data, headers)

    async def optional(
        self,
        document: str,
        variables: Mapping[str, object] | None = None,
        *,
        type: type[T],
        operation_name: str | None = None,
    ) -> T | None:
        """Return the value of the document's one root field, decoded to ``type``, or ``None`` for null."""
        # Any: the type is made at run time, msgspec checks it.
        by_name = cast("Any", dict)[str, cast("Any", type) | None]
        data = await self.execute(document, variables, type=by_name, operation_name=operation_name)
        values = tuple(cast("dict[str, T | None]", data).values())
        if len(values) != 1:
            raise _unfit(operation_name, type, f"{len(values)} root fields where one was expected - at `$`")
        return values[0]

    async def field(
        self,
        document: str,
        variables: Mapping[str, object] | None = None,
        *,
        type: type[T],
        operation_name: str | None = None,
    ) -> T:
        """Return the value of the document's one root field, which is never null; errors as above."""
        value = await self.optional(document, variables, type=type, operation_name=operation_name)
        if value is None:
            raise _unfit(operation_name, type, "null where a value was expected")
        return value

    async def aclose(self) -> None:
        """Close all connections; requests under way fail, as do mutations that wait. Idempotent."""
        self._closed = True
        transports, self._transports = self._transports, {}
        try:
            await close_each(transport.aclose() for transport in transports.values())
        finally:
            # Behind them: what was under way is known to have failed.
            if self._queue is not None:
                self._queue.close()

    async def _send_until_answered(
        self, queue: MutationQueue, data: bytes, name: str | None, more: Mapping[str, str]
    ) -> bytes:
        headers = {_KEY_HEADER: str(uuid.uuid4()), **more}

        async def send() -> bytes | None:
            answer = await self._send(data, headers)
            response = _read(answer)
            code = _errors(response.errors)[0].code if response.errors else None
            # These say that it may be sent again under its key.
            return None if code in _NOT_YET else answer

        return await queue.run(name or "the mutation", send)

    async def _send(self, data: bytes, headers: Mapping[str, str] | None = None) -> bytes:
        tokens = self._settings.credentials.tokens
        try:
            return await self._send_to_one(data, headers)
        except AuthenticationFailed:
            # Refused before anything was executed: once more, with a fresh token.
            if not await tokens.replace_refused():
                raise
            return await self._send_to_one(data, headers)

    async def _send_to_one(self, data: bytes, headers: Mapping[str, str] | None) -> bytes:
        """Send to the URL that served last; to the next, where there is no connection to be had."""
        first: ConnectionFailed | None = None
        for _ in self._urls:
            try:
                return await self._open(self._urls[self._serving]).execute(data, extra_headers=headers)
            except TransportError as error:
                self._settings.credentials.redaction.error(error)
                if not isinstance(error, ConnectionFailed) or not error.not_sent:
                    raise
                first = first or error
                self._serving = (self._serving + 1) % len(self._urls)
        if first is None:
            raise UsageError("a client needs a URL")
        raise first

    def _open(self, url: str) -> HttpTransport:
        if self._closed:
            raise UsageError("the client is closed: make a new one")
        transport = self._transports.get(url)
        if transport is None:
            # Imported here: aiohttp costs 100 ms, which `import circuit_breaker_sdk` must not.
            from circuit_breaker_sdk.transports.http import HttpTransport  # noqa: PLC0415 (as said above)

            transport = self._transports[url] = HttpTransport(
                url,
                headers=self._settings.credentials.http_headers,
                ssl=self._settings.ssl,
                timeouts=self._settings.timeouts,
                limits=self._settings.limits,
                positions=self._settings.positions,
                proxy=self._settings.credentials.proxies.of(url),
            )
        return transport


def _read(answer: bytes) -> _Response:
    """Read what the transport has already seen to be a GraphQL response.

    :raises ConnectionFailed: its details are not text, or nested beyond reason.
    """
    try:
        return _RESPONSE.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConnectionFailed(f"the answer cannot be read: {error}") from error


def _plain(data: msgspec.Raw) -> object:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # the errors beside it are what is to be told


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _unfit(operation_name: str | None, type_: object, detail: str) -> DecodeError:
    name = getattr(type_, "__name__", None) or str(type_)
    return DecodeError(operation_name or "query", type_name=name, detail=detail)


def _errors(errors: list[object] | None) -> tuple[GraphQLError, ...]:
    if not errors:
        return (GraphQLError(message="the server answered with neither data nor errors"),)
    try:
        return read_errors(errors)
    except UnfitPayloadError as error:
        return (GraphQLError(message=str(error)),)
