"""Limit how fast the frames of one peer are read: in turns with other peers, and per second."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, final

__all__ = ["Pace", "Pacing"]

_SHARE: Final = 16
"""Frames that are taken in a row, before whoever else has something to do has a turn."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Pacing:
    """The bounds of a :class:`Pace`.

    :ivar frames_per_second: taken of one peer in the long run; ``None`` only lets others have their turn.
    :ivar at_once: frames a peer that was quiet may send without being slowed.

    Example::

        Pacing(frames_per_second=2_000, at_once=4_000)
    """

    frames_per_second: int | None
    at_once: int


@final
class Pace:
    """Counts the frames of one socket, and does not read it while its peer is ahead of its due.

    Nothing is refused: what the peer has sent stays in the buffers of the two systems, until its own is full.
    A bucket of ``at_once`` frames is refilled at ``frames_per_second``; it is looked at once in 16 frames, so
    that counting costs next to nothing. Pongs wait behind what the peer has sent before: a caller that
    expects one asks :attr:`holds_back`.

    Example::

        pace = Pace(Pacing(frames_per_second=2_000, at_once=4_000), transport)
        pace.take()  # for each frame
        pace.end()
    """

    __slots__ = ("_at_once", "_left", "_loop", "_per_second", "_saved", "_since", "_transport", "_waiting")

    def __init__(self, pacing: Pacing, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._per_second = pacing.frames_per_second
        self._at_once = pacing.at_once
        # What the peer may still send without being slowed, as of the last look; less than 0: it is ahead.
        self._saved: float = pacing.at_once
        self._since = self._loop.time()
        self._left = _SHARE
        self._waiting: asyncio.Handle | None = None

    @property
    def holds_back(self) -> bool:
        """Whether the peer is ahead of its due: something it has sent may not be read yet."""
        return self._refilled() < 0

    def hold_back(self, seconds: float) -> None:
        """Do not read the peer for so long, or for as long as its pace asks for, whichever is more.

        What one read has brought is still handed on. Without a pace, nobody is held back.
        """
        if self._per_second is not None:
            self._saved = min(self._refilled(), -seconds * self._per_second)
            self._since = self._loop.time()
            self._wait()

    def hurry(self) -> None:
        """Only let others have their turn from now on: what is still read is not answered."""
        self._per_second = None
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = self._loop.call_soon(self._go_on)

    def take(self) -> None:
        """Count a frame; at the end of a share, stop reading until the next one begins."""
        self._left -= 1
        if self._left <= 0 and self._waiting is None:
            self._rest()

    def end(self) -> None:
        """Wait for nothing any more: the connection is gone."""
        if self._waiting is not None:
            self._waiting.cancel()

    def _rest(self) -> None:
        if self._per_second is not None:
            self._saved = self._refilled() - _SHARE
            self._since = self._loop.time()
        self._wait()

    def _wait(self) -> None:
        self._transport.pause_reading()
        if self._waiting is not None:
            self._waiting.cancel()
        if self._per_second is not None and self._saved < 0:
            self._waiting = self._loop.call_later(-self._saved / self._per_second, self._go_on)
        else:
            self._waiting = self._loop.call_soon(self._go_on)

    def _refilled(self) -> float:
        if self._per_second is None:
            return self._at_once
        return min(self._at_once, self._saved + (self._loop.time() - self._since) * self._per_second)

    def _go_on(self) -> None:
        self._waiting = None
        # Frames that had been read already were handed on meanwhile: they are of this share.
        self._left += _SHARE
        if self._left <= 0:
            self._rest()
        elif not self._transport.is_closing():
            self._transport.resume_reading()
