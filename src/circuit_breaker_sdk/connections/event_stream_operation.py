"""One operation over server-sent events: its request, and what its events mean."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final, final

import msgspec

from circuit_breaker_sdk.connections.event_stream_reader import EventStreamReader
from circuit_breaker_sdk.connections.interfaces import Route
from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_sdk.protocol.error_payload import read_error_payload
from circuit_breaker_sdk.protocol.messages import Subscribe

__all__ = ["EventStreamOperation", "has_only_errors"]

_NO_BEGINNINGS: Final = "from_beginning, since and last need a server that speaks the resume protocol"
_ERRORS_FIRST: Final = b'{"errors"'
# An absent field is told by this very object.
_ABSENT: Final = msgspec.Raw()


class _Failure(msgspec.Struct):
    errors: msgspec.Raw
    data: msgspec.Raw = _ABSENT


_failure: Final = msgspec.json.Decoder(_Failure)


def has_only_errors(payload: bytes) -> bool:
    """Tell whether a result has errors and no data, not even null: the operation was not executed."""
    try:
        return _failure.decode(payload).data is _ABSENT
    except (msgspec.DecodeError, RecursionError):
        return False


@final
class EventStreamOperation:
    """One operation.

    :ivar request: the members of its GraphQL request.
    :ivar resume: where it begins: ``after`` a cursor, or as ``extensions.resume`` says it.
    :ivar extensions: the other ``extensions``, as the trace of the caller.
    :ivar reader: the stream that it is on; ``None`` before.
    :ivar is_live: the server has said that nothing is missed from there on, or gives no cursors.
    :ivar task: begins it, and reads a stream of its own.

    Example::

        operation = EventStreamOperation(Subscribe("00000001", document), route)
        operation.next(b'{"data":{"tick":1}}', event_id=None)
    """

    __slots__ = (
        "_last_errors",
        "extensions",
        "id",
        "is_live",
        "reader",
        "request",
        "resume",
        "route",
        "task",
    )

    def __init__(self, message: Subscribe, route: Route) -> None:
        self.id: str = message.id
        self.route: Route = route
        self.request: dict[str, object] = {"query": message.query}
        if message.variables is not None:
            self.request["variables"] = message.variables
        if message.operation_name is not None:
            self.request["operationName"] = message.operation_name
        self.extensions: dict[str, object] = dict(message.extensions or {})
        resume = self.extensions.pop("resume", None)
        self.resume: dict[str, object] = dict(resume) if isinstance(resume, Mapping) else {}
        self.reader: EventStreamReader | None = None
        self.is_live: bool = False
        self.task: asyncio.Task[None] | None = None
        # Of a `next` without data: why the operation has failed, if it is the last.
        self._last_errors: bytes | None = None

    @property
    def knows_resume(self) -> bool:
        """Whether its server speaks the resume protocol."""
        return self.reader is not None and self.reader.knows_resume

    def accepted(self) -> None:
        """Note that the server has begun it."""
        if self.knows_resume:
            return
        self.is_live = True
        if self.resume and "after" not in self.resume:
            self.route.failed((GraphQLError(message=_NO_BEGINNINGS),))
        else:
            self.route.accepted()

    def positioned(self, cursor: str) -> None:
        """Take the live signal."""
        self.is_live = True
        self.route.positioned(cursor)

    def next(self, payload: bytes, *, event_id: str | None) -> None:
        """Deliver an execution result; ``event_id`` is a cursor of a server without the resume protocol."""
        errors, self._last_errors = self._last_errors, None
        if errors is not None:
            self._deliver(errors)  # it was not the last
        # Some servers write the errors of an event before its data.
        if payload.startswith(_ERRORS_FIRST) and has_only_errors(payload):
            self._last_errors = payload
            return
        self.is_live = True
        self._deliver(payload)
        if event_id and not self.knows_resume:
            self.route.promised(event_id)

    def _deliver(self, payload: bytes) -> None:
        if not self.route.deliver(payload):
            self.route.deliver_checked(payload)

    def refused(self, answer: bytes) -> None:
        """Note the errors that the server has answered the request with."""
        self._last_errors = answer

    def completed(self, redacted: Callable[[tuple[GraphQLError, ...]], tuple[GraphQLError, ...]]) -> None:
        """End it, with the errors of its last result if that had nothing else."""
        payload, self._last_errors = self._last_errors, None
        errors: tuple[GraphQLError, ...] = ()
        if payload is not None:
            try:
                errors = read_error_payload(bytes(_failure.decode(payload).errors))
            except (msgspec.DecodeError, RecursionError):
                errors = (GraphQLError(message="the operation failed, and its errors cannot be read"),)
        if errors:
            self.route.failed(redacted(errors))
        else:
            self.route.completed()
