"""Read one open stream of server-sent events, and notice when it is silent for too long."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, final

import msgspec

from circuit_breaker_sdk.errors import ConnectionFailed, OperationTimeoutError, TransportError
from circuit_breaker_sdk.protocol.event_stream import EventParser, EventTooLong, ServerSentEvent

if TYPE_CHECKING:
    from circuit_breaker_sdk.connections.interfaces import Route
    from circuit_breaker_sdk.transports.http_stream import HttpStream

__all__ = ["RESUME", "EventStreamReader", "address"]

RESUME: Final = "Resume-Version"
"""The header in which each side says which version of the resume protocol it speaks."""

_SILENCE_SECONDS: Final = 30.0
"""A server that speaks the resume protocol sends a comment every 12 s at least."""


class _Message(msgspec.Struct):
    id: str
    payload: msgspec.Raw = msgspec.Raw(b"null")


_message: Final = msgspec.json.Decoder(_Message)


def address(event: ServerSentEvent) -> tuple[str, bytes]:
    """Return the operation that an event of a shared stream is for, and its payload or its live signal.

    :raises msgspec.DecodeError: it is for none.
    """
    if event.data is None:
        cursor, _, operation_id = (event.id or "").partition(" ")
        return operation_id, cursor.encode()
    message = _message.decode(event.data)
    return message.id, bytes(message.payload)


@final
class EventStreamReader:
    """One open stream.

    :ivar url: where it comes from, with credentials.
    :ivar token: the ticket to a shared stream; empty for one of a single operation.
    :ivar knows_resume: whether the server speaks the resume protocol.

    Example::

        while (events := await reader.read()) is not None:
            take(events)
        reader.close()
    """

    __slots__ = (
        "_held_by",
        "_may_go_on",
        "_parser",
        "_silence_seconds",
        "_stream",
        "knows_resume",
        "token",
        "url",
    )

    def __init__(
        self, stream: HttpStream, url: str, *, token: str = "", max_bytes: int, notices_silence: bool
    ) -> None:
        """``max_bytes`` bounds one event; ``notices_silence``: whether a silent stream counts as lost."""
        self.url: str = url
        self.token: str = token
        self.knows_resume: bool = stream.header(RESUME) == "1"
        self._stream = stream
        self._parser = EventParser(max_bytes=max_bytes)
        self._silence_seconds = _SILENCE_SECONDS if self.knows_resume and notices_silence else None
        self._held_by: set[Route] = set()
        self._may_go_on = asyncio.Event()
        self._may_go_on.set()

    def hold(self, route: Route) -> None:
        """Read nothing for now, for the sake of this route; until :meth:`release`."""
        self._held_by.add(route)
        self._may_go_on.clear()

    def release(self, route: Route) -> None:
        """Read on, as far as this route is concerned; nothing happens if it holds nothing."""
        self._held_by.discard(route)
        if not self._held_by:
            self._may_go_on.set()

    async def read(self) -> Sequence[ServerSentEvent] | None:
        """Return the events that the next piece completes; ``None`` at the end.

        :raises TransportError: the stream was cut, is silent for too long, or has an event that is too long.
        """
        await self._may_go_on.wait()
        try:
            async with asyncio.timeout(self._silence_seconds):
                piece = await self._stream.read()
        except TransportError:
            raise  # some are a TimeoutError, and not that of the limit
        except TimeoutError:
            seconds = self._silence_seconds or 0.0
            raise OperationTimeoutError("a sign of life on the event stream", seconds=seconds) from None
        if not piece:
            return None
        try:
            return self._parser.receive_data(piece)
        except EventTooLong as error:
            raise ConnectionFailed(f"{error} (max_message_bytes)", url=self._stream.url) from error

    def close(self) -> None:
        """Close it. Idempotent."""
        self._stream.close()
