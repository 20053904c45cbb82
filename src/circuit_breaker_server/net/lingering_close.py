"""Closing a connection whose peer is still sending: the last answer must reach it.

A socket that is closed with unread bytes in it sends a reset, and a reset may destroy an answer that the
peer has not read yet (RFC 9112, section 9.6). So the server closes its own direction first, and reads and
drops what still comes until the peer closes too or is quiet for half a second, and for 5 seconds at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, final

__all__ = ["LingeringClose", "SlowlyClosed"]

_QUIET_SECONDS: Final = 0.5
_MOST_SECONDS: Final = 5.0


@final
class LingeringClose:
    """Close a connection slowly; from then on nothing may be written to it.

    Its protocol reports what is received, drops it, and reports the connection's end.

    Example::

        transport.write(answer)
        closing = LingeringClose(transport, loop)
        closing.received()  # from data_received
        closing.ended()  # from connection_lost
    """

    __slots__ = ("_has_received", "_last", "_quiet", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._has_received = False
        self._last = loop.call_later(_MOST_SECONDS, transport.abort)
        self._quiet = loop.call_later(_QUIET_SECONDS, self._close_if_quiet, loop)
        transport.resume_reading()
        if transport.can_write_eof():
            transport.write_eof()

    def received(self) -> None:
        """Note that the peer still sends."""
        self._has_received = True

    def ended(self) -> None:
        """Stop the timers: the connection is gone."""
        self._last.cancel()
        self._quiet.cancel()

    def _close_if_quiet(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._has_received:
            self._transport.close()
            return
        self._has_received = False
        self._quiet = loop.call_later(_QUIET_SECONDS, self._close_if_quiet, loop)


@final
class SlowlyClosed:
    """A transport for one of uvicorn's answers, which closes the connection so that the answer is read."""

    __slots__ = ("_plain", "close")

    def __init__(self, plain: asyncio.Transport, close: Callable[[], None]) -> None:
        self._plain = plain
        self.close = close

    def __getattr__(self, name: str) -> object:
        return getattr(self._plain, name)
