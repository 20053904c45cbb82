"""Queries and mutations over HTTP, decoded into types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast, final

import msgspec

from circuit_breaker_sdk.connections import ConnectionSettings
from circuit_breaker_sdk.errors import (
    AuthenticationFailed,
    DecodeError,
    GraphQLError,
    OperationError,
    UsageError,
)
from circuit_breaker_sdk.subscriptions.decoding import UnfitPayloadError, check_type, read_errors
from circuit_breaker_sdk.subscriptions.variables import encode_variables

if TYPE_CHECKING:
    from circuit_breaker_sdk.transports.http import HttpTransport

__all__ = ["Executor"]

T = TypeVar("T")


class _Response(msgspec.Struct):
    data: msgspec.Raw = msgspec.Raw(b"null")
    errors: list[object] | None = None


_RESPONSE = msgspec.json.Decoder(_Response)
_ENCODER = msgspec.json.Encoder()


@final
class Executor:
    """Send one query or mutation at a time over kept-alive HTTP; nothing is sent twice by itself.

    Example::

        health = await executor.field("{ health }", type=str)
    """

    def __init__(self, settings: ConnectionSettings, url: str) -> None:
        self._settings = settings
        self._url = url
        self._transport: HttpTransport | None = None
        self._closed = False

    async def execute(
        self,
        document: str,
        variables: Mapping[str, object] | None = None,
        *,
        type: type[T],
        operation_name: str | None = None,
    ) -> T:
        """Return ``data`` of the answer, decoded to ``type``.

        :raises OperationError: the server answered with errors, paths kept.
        :raises DecodeError: the answer does not fit ``type``.
        :raises SubscriptionError: ``ConnectionFailed`` and its kin: see ``transports.http``.
        :raises UsageError: the variables or the type cannot be used, or the client is closed.
        """
        # Before anything is sent: a mutation would be executed, and its answer lost.
        check_type(type)
        body: dict[str, object] = {"query": document}
        if (encoded := encode_variables(variables)) is not None:
            body["variables"] = encoded
        if operation_name is not None:
            body["operationName"] = operation_name
        try:
            data = _ENCODER.encode(body)
        except UnicodeEncodeError as error:
            name = operation_name or "the operation"
            raise UsageError(f"{name} cannot be sent: a text in it is no Unicode ({error})") from error
        response = _RESPONSE.decode(await self._send(data))
        if response.errors or bytes(response.data) == b"null":
            raise OperationError(_errors(response.errors), operation=operation_name)
        try:
            return msgspec.json.decode(response.data, type=type)
        except (msgspec.ValidationError, msgspec.DecodeError) as error:
            raise _unfit(operation_name, type, str(error)) from error

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
        """Close all connections; requests under way fail. Idempotent."""
        self._closed = True
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    async def _send(self, data: bytes) -> bytes:
        tokens = self._settings.credentials.tokens
        try:
            return await self._open().execute(data)
        except AuthenticationFailed:
            # Refused before anything was executed: once more, with a fresh token.
            if not await tokens.replace_refused():
                raise
            return await self._open().execute(data)

    def _open(self) -> HttpTransport:
        if self._closed:
            raise UsageError("the client is closed: make a new one")
        if self._transport is None:
            # Imported here: aiohttp costs 100 ms, which `import circuit_breaker_sdk` must not.
            from circuit_breaker_sdk.transports.http import HttpTransport  # noqa: PLC0415 (as said above)

            self._transport = HttpTransport(
                self._url,
                headers=self._settings.credentials.http_headers,
                ssl=self._settings.ssl,
                timeouts=self._settings.timeouts,
                limits=self._settings.limits,
            )
        return self._transport


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
