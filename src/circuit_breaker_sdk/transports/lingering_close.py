"""The end of a connection whose peer is still sending: it must not lose what it was told last."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast, final

if TYPE_CHECKING:
    from picows import WSTransport

__all__ = ["LingeringTransport", "plain_transport"]

_QUIET_SECONDS: Final = 0.25
_CLOSED: Final = (OSError, RuntimeError)


@final
class LingeringTransport:
    """A transport for picows, which can be told not to close yet.

    picows answers a broken frame with a close frame, and closes the connection 10 ms later. Where the peer is
    in the middle of a long message then, its system is sent a reset, and may drop the close frame with it:
    the peer never learns that the message was too big, and sends it again. So after :meth:`linger` closing
    only says that nothing more will be written. What still comes is read and dropped by the reader, until
    the peer closes too, nothing has come for a quarter of a second, or :meth:`abort` is called.

    Example::

        transport = LingeringTransport(plain)
        transport.linger()
        transport.close()  # the peer reads the end
        transport.received()  # it still sends
    """

    __slots__ = ("_closing", "_lingers", "plain")

    def __init__(self, plain: asyncio.Transport) -> None:
        self.plain: asyncio.Transport = plain
        self._lingers = False
        self._closing: asyncio.TimerHandle | None = None

    def __getattr__(self, name: str) -> object:
        return getattr(self.plain, name)

    def linger(self) -> None:
        """Close slowly from now on; the caller makes sure that :meth:`abort` follows."""
        self._lingers = True

    def received(self) -> None:
        """Hear that the peer still sends."""
        if self._closing is not None:
            self._close_when_quiet()

    def close(self) -> None:
        """Close, or only this direction, where the other one lingers."""
        if not self._lingers:
            self.plain.close()
        elif self._closing is None and not self.plain.is_closing():
            self._close_when_quiet()
            if self.plain.can_write_eof():
                try:
                    self.plain.write_eof()
                except _CLOSED:
                    self.plain.abort()

    def _close_when_quiet(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
        self._closing = asyncio.get_running_loop().call_later(_QUIET_SECONDS, self.plain.close)


def plain_transport(transport: WSTransport) -> asyncio.Transport:
    """Return the event loop's own transport of a socket."""
    under: object = transport.underlying_transport
    return under.plain if isinstance(under, LingeringTransport) else cast(asyncio.Transport, under)
