"""Hand a WebSocket upgrade from uvicorn to picows, on the port that also answers HTTP.

uvicorn parses the request, sees ``Upgrade: websocket``, makes an object of its ``ws=`` class, feeds it the
request once more and gives it the transport. From then on uvicorn knows the socket only as a member of
``server_state.connections``, which its graceful stop asks to shut down and waits for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Final, cast, final

from picows import WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener
from uvicorn.server import ServerState

from circuit_breaker_sdk.config import MessageLimits
from circuit_breaker_sdk.protocol.close_codes import CloseCode
from circuit_breaker_sdk.transports.frame_pacing import Pacing
from circuit_breaker_sdk.transports.picows_protocol import ServerFrameProtocol, frame_protocol_arguments
from circuit_breaker_sdk.transports.websocket import MessageSink, ServerListener, WebSocket
from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.refusals import Refusals, reason_of_status

__all__ = ["Accept", "Refuse", "UpgradeAnswer", "UpgradeRequest", "check_picows", "upgrade_protocol"]

_PICOWS: Final = "2.3.1"


def check_picows(installed: str) -> None:
    """Refuse another version of picows than the one whose protocol object takes over uvicorn's connections.

    :raises ImportError: it is another one.
    """
    if installed != _PICOWS:
        raise ImportError(
            f"circuit_breaker_server hands WebSockets to picows {_PICOWS}, and {installed} is installed: "
            f"pip install 'picows=={_PICOWS}' (the extra [server] does)",
            name="picows",
        )


check_picows(version("picows"))

logger = get_logger("http")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeRequest:
    """The client's request for a WebSocket upgrade.

    :ivar path: as it was sent, without the query.
    :ivar query: what follows ``?``, empty for none.
    :ivar headers: names in any case; a name sent twice shows its first value.
    :ivar subprotocols: all that the client offers, in its order of preference.
    :ivar remote: the peer's address as ``host:port``, empty where it is not known.
    """

    path: str
    query: str
    headers: Mapping[str, str]
    subprotocols: tuple[str, ...]
    remote: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Accept:
    """Complete the handshake.

    :ivar subprotocol: named in the answer; ``None`` names none.
    :ivar open_sink: called once the answer is written, with the open socket; it may close it at once.
    """

    subprotocol: str | None
    open_sink: Callable[[WebSocket], MessageSink]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """Answer with an HTTP error, then close.

    :ivar status: 400 or more.
    :ivar body: plain text for a person.
    :ivar headers: added to the answer, for example ``Retry-After``.
    """

    status: int
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


UpgradeAnswer = Accept | Refuse

# RFC 6455, section 4.4. picows would take the drafts' versions 7 and 8 too.
_WRONG_VERSION: Final = Refuse(
    status=426, body="only WebSocket version 13 is supported", headers={"Sec-WebSocket-Version": "13"}
)


def upgrade_protocol(
    open_session: Callable[[UpgradeRequest], UpgradeAnswer],
    *,
    limits: MessageLimits,
    close_seconds: float = 2.0,
    pacing: Pacing | None = None,
    handshake_seconds: float = 5.0,
    refusals: Refusals | None = None,
) -> type[asyncio.Protocol]:
    """Return the class for uvicorn's ``ws=``.

    :param open_session: decides about each upgrade, inside the read callback; what it raises is logged and
        answered with 500.
    :param limits: what a client may send; more is closed with 1009.
    :param close_seconds: how long a client has to answer a close frame.
    :param pacing: how fast a client's frames are taken; ``None`` takes them as they come.
    :param handshake_seconds: how long the rest of a handshake may last.
    :param refusals: counts and logs the upgrades that are refused.

    Example::

        uvicorn.Config(app, ws=upgrade_protocol(open_session, limits=MessageLimits(max_message_bytes=65_536)))
    """

    noted = refusals or Refusals()

    class UpgradeProtocol(_UpgradeProtocol):
        __slots__ = ()

        # uvicorn passes its config and the application's state too, by name.
        def __init__(self, *, server_state: ServerState, **_unused: object) -> None:
            super().__init__(server_state, self._answer, limits.max_message_bytes, handshake_seconds)

        def connection_lost(self, exc: Exception | None) -> None:
            if not self.is_decided:
                # picows has refused it: it is no handshake, or it was not finished in time.
                self.is_decided = True
                noted.note("malformed", "upgrade", remote=_remote(self.transport.underlying_transport))
            super().connection_lost(exc)

        def _answer(self, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
            self.is_decided = True
            _accept_connection_lists(request)
            answer: UpgradeAnswer
            try:
                answer = (
                    _WRONG_VERSION
                    if _version(request) != "13"
                    else open_session(_upgrade_request(request, self.transport.underlying_transport))
                )
            except Exception:
                # picows would show the text of the exception to the client.
                logger.exception("upgrade_failed")
                answer = Refuse(status=500, body="internal error")
            if isinstance(answer, Refuse):
                noted.note(
                    reason_of_status(answer.status),
                    "upgrade",
                    remote=_remote(self.transport.underlying_transport),
                    status=answer.status,
                )
                response = WSUpgradeResponse.create_error_response(
                    answer.status, answer.body.encode() or None, answer.headers
                )
                if not answer.body:
                    # A client that keeps connections open would wait for a body without a length.
                    response.headers["Content-Length"] = "0"
                return WSUpgradeResponseWithListener(response, None)
            named = {"Sec-WebSocket-Protocol": answer.subprotocol} if answer.subprotocol else {}
            listener = ServerListener(
                answer.open_sink,
                limits=limits,
                close_seconds=close_seconds,
                subprotocol=answer.subprotocol,
                pacing=pacing,
            )
            return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(named), listener)

    # uvicorn calls for an asyncio.Protocol; what it needs of one is data_received. A real one could not be a
    # BufferedProtocol at the same time: the event loops tell the two apart by their class.
    return cast(type[asyncio.Protocol], UpgradeProtocol)


class _UpgradeProtocol(ServerFrameProtocol):
    """A socket that uvicorn gave away, and still counts."""

    __slots__ = ("_connections", "_host", "_leave", "is_decided")

    is_decided: bool

    def __init__(
        self,
        server_state: ServerState,
        answer: Callable[[WSUpgradeRequest], WSUpgradeResponseWithListener],
        max_frame_bytes: int,
        handshake_seconds: float,
    ) -> None:
        super().__init__(
            *frame_protocol_arguments(
                answer, max_frame_bytes=max_frame_bytes, handshake_seconds=handshake_seconds
            )
        )
        self.is_decided = False
        self._leave: Callable[[str], None] | None = None
        self._host = ""
        self._connections: set[object] = cast(set[object], server_state.connections)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._leave is not None:
            self._leave(self._host)
        super().connection_lost(exc)

    def when_lost(self, leave: Callable[[str], None], host: str) -> None:
        """Call ``leave`` with the peer's host when the connection is gone."""
        self._leave, self._host = leave, host

    def data_received(self, data: bytes) -> None:
        """Take the request as uvicorn writes it out again; the buffer may be smaller than the request."""
        rest = memoryview(data)
        while rest:
            buffer = self.get_buffer(len(rest))
            taken = min(len(buffer), len(rest))
            buffer[:taken] = rest[:taken]
            self.buffer_updated(taken)
            rest = rest[taken:]

    def shutdown(self) -> None:
        """Take part in uvicorn's graceful stop: close with 1012, unless the session has begun to close."""
        listener = self.listener
        if isinstance(listener, ServerListener) and listener.socket is not None:
            listener.socket.close(CloseCode.SERVICE_RESTART, "the server is shutting down")
        else:
            self.transport.disconnect()


def _version(request: WSUpgradeRequest) -> str:
    return request.headers.get("Sec-WebSocket-Version", "").strip()


def _accept_connection_lists(request: WSUpgradeRequest) -> None:
    """Let ``Connection: keep-alive, Upgrade`` pass, as Firefox sends it; picows wants ``Upgrade`` alone."""
    tokens = ",".join(request.headers.getall("Connection", [])).lower().split(",")
    if "upgrade" in (token.strip() for token in tokens):
        request.headers["Connection"] = "Upgrade"


def _upgrade_request(request: WSUpgradeRequest, transport: asyncio.BaseTransport) -> UpgradeRequest:
    path, _, query = request.path.decode("latin-1").partition("?")
    offered = ",".join(request.headers.getall("Sec-WebSocket-Protocol", [])).split(",")
    return UpgradeRequest(
        path=path,
        query=query,
        headers=request.headers,
        subprotocols=tuple(name.strip() for name in offered if name.strip()),
        remote=_remote(transport),
    )


def _remote(transport: asyncio.BaseTransport) -> str:
    peer = transport.get_extra_info("peername")
    return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else ""
