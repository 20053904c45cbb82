"""Open a WebSocket, and what both roles share: every failure becomes one error that says what to do."""

from __future__ import annotations

import asyncio
import re
import ssl as tls
from collections.abc import Mapping, Sequence
from typing import Final, final
from urllib.parse import SplitResult, urlsplit

from picows import WSHandshakeError, WSTransport

from circuit_breaker_sdk.config import MessageLimits, Timeouts
from circuit_breaker_sdk.errors import (
    ConnectionFailed,
    HandshakeFailed,
    OperationTimeoutError,
    TransportError,
)
from circuit_breaker_sdk.transports.address_resolution import open_stream
from circuit_breaker_sdk.transports.error_texts import explain_os_error, refusal
from circuit_breaker_sdk.transports.headers import checked_headers
from circuit_breaker_sdk.transports.listeners import ClientListener, ServerListener
from circuit_breaker_sdk.transports.message_socket import ClientSink, MessageSink, SocketState, WebSocket
from circuit_breaker_sdk.transports.picows_protocol import FrameProtocol, frame_protocol_arguments
from circuit_breaker_sdk.transports.proxies import Proxy, ProxyError
from circuit_breaker_sdk.urls import redacted, websocket_url

__all__ = ["ClientSink", "MessageSink", "ServerListener", "SocketState", "WebSocket", "connect"]

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.\d (\d{3})(?: |$)")


async def connect(
    url: str,
    sink: ClientSink,
    *,
    subprotocols: Sequence[str],
    headers: Mapping[str, str] | None = None,
    ssl: tls.SSLContext | None = None,
    limits: MessageLimits,
    timeouts: Timeouts,
    proxy: Proxy | None = None,
) -> WebSocket:
    """Open a WebSocket to ``url`` and return it once one of ``subprotocols`` is agreed on.

    The sink may be called before this returns: a peer may send, or close, right behind its answer. It is
    never called when this raises. Cancelling drops the connection. Redirects are not followed.

    :param url: ``ws``, ``wss``, ``http`` or ``https``; see :func:`~circuit_breaker_sdk.urls.websocket_url`.
    :param subprotocols: offered in this order of preference; at least one.
    :param headers: added to the request, for example ``Authorization``.
    :param ssl: for ``wss``; ``None`` trusts what the system trusts.
    :param timeouts: ``connect_seconds`` bounds all of this together.
    :param proxy: leads to the server by a tunnel, inside of which TLS is; ``None`` connects directly.
    :raises UsageError: the URL or a header is wrong; nothing was sent.
    :raises ConnectionFailed: name look-up, TCP, TLS or a proxy failed, or the server is not able to
        answer now.
    :raises HandshakeFailed: the peer is no WebSocket server at this path, or agreed on no subprotocol.
    :raises AuthenticationFailed: HTTP 401 or 403.
    :raises RateLimitExceeded: HTTP 429.
    :raises OperationTimeoutError: not done within ``connect_seconds``.
    """
    target = websocket_url(url)
    attempt = _Attempt(
        target,
        sink,
        subprotocols=tuple(subprotocols),
        headers=checked_headers(headers),
        limits=limits,
        timeouts=timeouts,
        proxy=proxy,
    )
    try:
        async with asyncio.timeout(timeouts.connect_seconds):
            return await attempt.open(ssl)
    except TransportError:
        raise  # some are a TimeoutError, and not that of the limit
    except TimeoutError:
        raise OperationTimeoutError(
            f"{attempt.place}: {attempt.phase}", seconds=timeouts.connect_seconds
        ) from None


@final
class _Attempt:
    """One attempt to connect: what it knows for a good error when it fails."""

    def __init__(
        self,
        target: str,
        sink: ClientSink,
        *,
        subprotocols: tuple[str, ...],
        headers: dict[str, str],
        limits: MessageLimits,
        timeouts: Timeouts,
        proxy: Proxy | None,
    ) -> None:
        self.place = redacted(target)
        self.phase = "connecting" if proxy is None else f"connecting through the proxy {proxy.place}"
        self._proxy = proxy
        self._parts = urlsplit(target)
        self._sink = sink
        self._subprotocols = subprotocols
        # Where the caller sets it, it is not that of the URL: as over HTTP.
        self._host = next((v for n, v in headers.items() if n.lower() == "host"), self._parts.netloc)
        self._headers = {name: value for name, value in headers.items() if name.lower() != "host"}
        self._limits = limits
        self._timeouts = timeouts

    async def open(self, ssl: tls.SSLContext | None) -> WebSocket:
        """Connect and shake hands."""
        listener = _ClientListener(
            self._sink,
            place=self.place,
            offered=self._subprotocols,
            limits=self._limits,
            close_seconds=self._timeouts.close_seconds,
        )
        protocol = await self._connect(listener, ssl)
        self.phase = "waiting for the answer to the WebSocket handshake"
        refused: TransportError | None = None
        try:
            await protocol.wait_until_handshake_complete()
        except WSHandshakeError as error:
            refused = self._refused(error)
        except BaseException:
            protocol.transport.disconnect(graceful=False)
            raise
        if refused is not None:
            # Not chained: picows' own error repeats the whole answer.
            raise refused
        if listener.refusal is not None:
            raise listener.refusal
        if listener.opened is None:
            raise self._not_answered(protocol)
        return listener.opened

    async def _connect(self, listener: _ClientListener, ssl: tls.SSLContext | None) -> FrameProtocol:
        parts = self._parts
        secure = parts.scheme == "wss"
        context = (ssl or tls.create_default_context()) if secure else None
        host = parts.hostname or ""
        arguments = frame_protocol_arguments(
            lambda: listener,
            max_frame_bytes=self._limits.max_message_bytes,
            request=(self._host, _request_target(parts), self._request_headers()),
        )
        try:
            return await open_stream(
                lambda: FrameProtocol(*arguments),
                host,
                parts.port or (443 if secure else 80),
                context=context,
                seconds=self._timeouts.connect_seconds,
                proxy=self._proxy,
            )
        except TransportError:
            raise  # some are an OSError as well
        except ProxyError as error:
            raise ConnectionFailed(error.text, url=self.place, not_sent=True) from error.__cause__
        except OSError as error:
            text = explain_os_error(error, host=host, secure=secure)
            raise ConnectionFailed(text, url=self.place) from error

    def _request_headers(self) -> dict[str, str]:
        return {"Sec-WebSocket-Protocol": ", ".join(self._subprotocols), **self._headers}

    def _refused(self, error: WSHandshakeError) -> TransportError:
        """Explain an answer that is not a WebSocket handshake."""
        head = error.raw_header or b""
        found = _STATUS_LINE.match(head)
        # picows gives up on HTTP/1.0 and on status codes it does not know: the status line is read here.
        status = int(found[1]) if found else None
        if status is None:
            return HandshakeFailed(f"the answer is not HTTP ({_excerpt(head)})", url=self.place)
        if status != 101:
            return refusal(status, _header_lines(head), url=self.place, purpose="accept WebSocket upgrades")
        return HandshakeFailed(
            f"the answer is not a WebSocket handshake: {error}", url=self.place, status=status
        )

    def _not_answered(self, protocol: FrameProtocol) -> TransportError:
        """Explain a connection that ended without an answer."""
        if not protocol.speaks_http:
            # A TLS server answers a plain request with a TLS alert: record type 21, version 3.
            advice = (
                "it speaks TLS: use wss:// or https://"
                if protocol.head.startswith((b"\x15\x03", b"\x16\x03"))
                else f"it answered {_excerpt(protocol.head)}: check host and port"
            )
            return HandshakeFailed(f"the peer is not an HTTP server; {advice}", url=self.place)
        advice = "" if self._parts.scheme == "wss" else "; if the server speaks TLS at this port, use wss://"
        return ConnectionFailed(
            f"the peer closed the connection during the WebSocket handshake{advice}", url=self.place
        )


@final
class _ClientListener(ClientListener):
    """The client's role: checks what the answer agreed on, then joins socket and sink."""

    __slots__ = ("_client_sink", "_close_seconds", "_offered", "_place", "opened", "refusal")

    def __init__(
        self,
        sink: ClientSink,
        *,
        place: str,
        offered: tuple[str, ...],
        limits: MessageLimits,
        close_seconds: float,
    ) -> None:
        super().__init__(limits)
        self.opened: WebSocket | None = None
        self.refusal: HandshakeFailed | None = None
        self._client_sink = sink
        self._place = place
        self._offered = offered
        self._close_seconds = close_seconds

    def on_ws_connected(self, transport: WSTransport) -> None:
        headers = transport.response.headers
        agreed = headers.getall("Sec-WebSocket-Protocol", [])
        if len(agreed) != 1 or agreed[0] not in self._offered:
            answered = ", ".join(map(repr, agreed)) or "none"
            self._refuse(
                transport,
                f"no subprotocol was agreed on: offered {', '.join(map(repr, self._offered))}, answered "
                f"{answered}; is this the path of a GraphQL server that speaks it?",
            )
        elif "Sec-WebSocket-Extensions" in headers:
            self._refuse(transport, "the answer uses a WebSocket extension that was not offered")
        else:
            self.opened = WebSocket(
                self, transport, url=self._place, subprotocol=agreed[0], close_seconds=self._close_seconds
            )
            self.join(self.opened, self._client_sink)

    def _refuse(self, transport: WSTransport, message: str) -> None:
        self.refusal = HandshakeFailed(message, url=self._place, status=101)
        transport.disconnect(graceful=False)


def _request_target(parts: SplitResult) -> str:
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def _header_lines(head: bytes) -> dict[str, str]:
    """Return the headers of an answer by their names in lower case; lines that are none are left out."""
    lines = (line.decode("latin-1").partition(":") for line in head.split(b"\r\n")[1:])
    return {name.strip().lower(): value.strip() for name, colon, value in lines if colon}


def _excerpt(head: bytes) -> str:
    return repr(head[:40])[1:]
