"""Frame the events of one operation as WebSocket text frames of ``next`` messages."""

from __future__ import annotations

from collections.abc import Sequence

from circuit_breaker_sdk.protocol.message_assembly import text_frame_header

__all__ = ["text_frames"]


def text_frames(prefix_bytes: int, payloads: Sequence[bytes]) -> Sequence[bytes]:
    """Frame ``next`` messages of one operation: ``prefix.join`` of it is what one write to a socket carries.

    A frame's header is in front of the prefix and tells the length of all of it, so that the pieces serve
    every operation whose prefix is so long.
    """
    around = prefix_bytes + 1
    pieces: list[bytes] = []
    before = b""
    for payload in payloads:
        pieces.append(before + text_frame_header(around + len(payload)))
        before = payload + b"}"
    pieces.append(before)
    return pieces
