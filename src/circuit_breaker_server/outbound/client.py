"""HTTP towards servers that callers have named: checked addresses, no redirects, answers of bounded size.

This module is imported late: httpx2 costs a tenth of a second, which the start of a server must not.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, Final, NoReturn, final

import httpcore2
import httpx2

from circuit_breaker_server.outbound.addresses import AddressRefused, AddressRules
from circuit_breaker_server.outbound.answer_limits import AnswerLimits

__all__ = ["AnswerRefused", "Transport", "open_client", "refusal_in"]

_READ_WHOLE: Final = 300
"""The least status whose answer is read whole, whatever was asked for."""


@final
class AnswerRefused(httpx2.TransportError):
    """An answer is too big or compressed. The text is for the caller."""


def refusal_in(error: BaseException | None) -> AnswerRefused | AddressRefused | None:
    """Find out whether this module's refusal is what an error comes from."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, (AnswerRefused, AddressRefused)):
            return each
        if isinstance(each, BaseExceptionGroup):
            waiting.extend(each.exceptions)
        waiting += [each.__cause__, each.__context__]
    return None


@final
class _Network(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that were checked, and to nothing else."""

    def __init__(self, rules: AddressRules) -> None:
        self._rules = rules
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            addresses = await self._rules.addresses(host, port)
        except OSError as error:
            raise httpcore2.ConnectError(str(error)) from error
        failure: Exception | None = None
        for address in addresses:
            try:
                # An address, so nothing is looked up again.
                return await self._inner.connect_tcp(
                    address, port, timeout=timeout, local_address=local_address, socket_options=socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = failure or error
        raise failure or httpcore2.ConnectError("no address")

    async def connect_unix_socket(self, *_given: object, **_more: object) -> httpcore2.AsyncNetworkStream:
        raise httpcore2.ConnectError("sockets of this machine are not connected to")

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


@final
class _Count:
    """Counts the bytes that come back."""

    def __init__(self, most: int, line: int) -> None:
        self._most, self._line = most, line
        self._all = self._on_line = 0

    def take(self, data: bytes) -> None:
        """Count more bytes.

        :raises AnswerRefused: they are too many.
        """
        self._all += len(data)
        if self._all > self._most:
            raise AnswerRefused(f"answered with more than {self._most} bytes")
        end = max(data.rfind(b"\n"), data.rfind(b"\r"))
        # One read is bounded by the client: a line that begins and ends within it is short enough.
        head = (
            len(data) if end < 0 else min(each for each in (data.find(b"\n"), data.find(b"\r")) if each >= 0)
        )
        if self._on_line + head > self._line:
            raise AnswerRefused(f"answered with a line of more than {self._line} bytes")
        self._on_line = self._on_line + head if end < 0 else len(data) - end - 1


def _refuse_compressed(_data: bytes) -> NoReturn:
    raise AnswerRefused("answered with compressed data, which was not asked for")


@final
class _Bounded(httpx2.AsyncByteStream):
    """The body of an answer, as far as its bounds allow."""

    def __init__(
        self,
        stream: httpx2.AsyncByteStream,
        take: Callable[[bytes], None],
        refuse: Callable[[AnswerRefused], None],
    ) -> None:
        self._stream, self._take, self._refuse = stream, take, refuse

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._stream:
            try:
                self._take(data)
            except AnswerRefused as error:
                self._refuse(error)
                raise
            yield data

    async def aclose(self) -> None:
        await self._stream.aclose()


@final
class Transport(httpx2.AsyncHTTPTransport):
    """Connects as the rules allow, and takes what the limits allow; no proxy of the environment is used.

    :param streams: answers are read piece by piece, each with bounds of its own; else they are read whole,
        and all of them together have one bound.
    :param tls: ``None`` where no https URL is asked for.
    :ivar refusal: why an answer was refused, the last time.
    """

    def __init__(
        self,
        rules: AddressRules,
        limits: AnswerLimits,
        *,
        streams: bool,
        tls: ssl.SSLContext | None,
        max_connections: int | None = None,
    ) -> None:
        super().__init__(verify=tls or False, trust_env=False)
        # The library has no parameter for this; tests see that connections come through here.
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=max_connections,
            max_keepalive_connections=20,
            keepalive_expiry=5.0,
            network_backend=_Network(rules),
        )
        self.refusal: AnswerRefused | None = None
        self._limits = limits
        self._whole = _Count(limits.max_answer_bytes, limits.max_line_bytes)
        self._streams = streams

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Ask, and bound the answer."""
        answer = await super().handle_async_request(request)
        is_plain = answer.headers.get("content-encoding", "identity").strip().lower() == "identity"
        if not is_plain:
            # Refused where it is read, and not here: clients ask again for what fails before it has begun.
            del answer.headers["content-encoding"]
        stream = answer.stream
        if not isinstance(stream, httpx2.AsyncByteStream):
            raise TypeError("an answer that is not read asynchronously")
        limits = self._limits
        if not self._streams:
            count = self._whole
        elif answer.status_code >= _READ_WHOLE:
            count = _Count(limits.max_answer_bytes, limits.max_line_bytes)
        else:
            count = _Count(limits.max_stream_bytes, limits.max_line_bytes)
        answer.stream = _Bounded(stream, count.take if is_plain else _refuse_compressed, self._refuse)
        return answer

    def _refuse(self, refusal: AnswerRefused) -> None:
        self.refusal = refusal


def open_client(
    transport: Transport,
    *,
    timeout_seconds: float,
    headers: Mapping[str, str] | None = None,
    on_answer: Callable[[httpx2.Response], Any] | None = None,
    sent: frozenset[str] | None = None,
) -> httpx2.AsyncClient:
    """Make a client that follows no redirect, asks for no compression, and reads no environment.

    :param timeout_seconds: for each wait.
    :param sent: names of headers in lower case; whatever else a library adds is left out. ``None``: all.
    """

    async def keep(request: httpx2.Request) -> None:
        for name in [name for name in request.headers if name not in (sent or ())]:
            del request.headers[name]

    return httpx2.AsyncClient(
        transport=transport,
        headers={**(headers or {}), "Accept-Encoding": "identity"},
        timeout=timeout_seconds,
        follow_redirects=False,
        trust_env=False,
        event_hooks={
            "request": [] if sent is None else [keep],
            "response": [] if on_answer is None else [on_answer],
        },
    )
