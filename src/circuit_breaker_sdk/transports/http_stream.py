"""An answer of HTTP that is read piece by piece."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final, final

import aiohttp

from circuit_breaker_sdk.errors import ConnectionFailed

__all__ = ["HttpStream"]

_MAX_WHOLE_BYTES: Final = 64 * 1024


@final
class HttpStream:
    """One answer, of which the head is there.

    Example::

        stream = await transport.open_stream("POST", body, {"Accept": "text/event-stream"}, seconds=10.0)
        while piece := await stream.read():
            parser.receive_data(piece)
        stream.close()
    """

    __slots__ = ("_explained", "_response")

    def __init__(
        self, response: aiohttp.ClientResponse, explained: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """``explained`` turns what aiohttp raises into errors of ours."""
        self._response = response
        self._explained = explained

    @property
    def content_type(self) -> str:
        """The type of the body, without parameters."""
        return self._response.content_type

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._response.status

    @property
    def url(self) -> str:
        """Where it comes from: scheme, host and port."""
        return str(self._response.url.origin())

    def header(self, name: str) -> str | None:
        """Return a header, ``None`` if it is missing."""
        return self._response.headers.get(name)

    async def read(self) -> bytes:
        """Wait for the next piece; empty at the end. Cancelling loses nothing.

        :raises ConnectionFailed: the answer was cut.
        """
        with self._explained():
            return await self._response.content.readany()

    async def read_whole(self) -> bytes:
        """Read a short body, and give the connection back.

        :raises ConnectionFailed: the answer was cut, or is longer than 64 KiB.
        """
        whole = bytearray()
        while piece := await self.read():
            whole += piece
            if len(whole) > _MAX_WHOLE_BYTES:
                self.close()
                raise ConnectionFailed("the answer is longer than it may be", url=self.url)
        return bytes(whole)

    def close(self) -> None:
        """Close the connection, if the answer was not read to its end. Idempotent."""
        self._response.close()
