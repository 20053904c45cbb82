"""The session of one WebSocket: dispatch its messages, write to its socket, and close it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import final

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_sdk.protocol.close_codes import CloseCode, asking_to_return
from circuit_breaker_sdk.protocol.messages import (
    SUBPROTOCOL,
    Complete,
    ConnectionInit,
    Ping,
    Pong,
    Subscribe,
    UnreadableSubscribe,
)
from circuit_breaker_sdk.transports.websocket import WebSocket
from circuit_breaker_server.access.caller import OPEN
from circuit_breaker_server.admission.draining import DRAINING
from circuit_breaker_server.endpoints.principal_connections import TOO_MANY
from circuit_breaker_server.endpoints.rights_review import RightsReview
from circuit_breaker_server.endpoints.services import Services
from circuit_breaker_server.endpoints.websocket.dialects import keep_alive_of, protocol_of
from circuit_breaker_server.endpoints.websocket.frame_headers import text_frames
from circuit_breaker_server.endpoints.websocket.handshake import (
    ack_payload,
    asks_for_traces,
    authenticate,
    negotiates_resume,
)
from circuit_breaker_server.endpoints.websocket.operations import Operations
from circuit_breaker_server.endpoints.websocket.outgoing import Outgoing
from circuit_breaker_server.endpoints.websocket.session_log import SessionLog
from circuit_breaker_server.gateway.feed import Feed
from circuit_breaker_server.gateway.records_behind import asked_places, may_be_told, records_behind
from circuit_breaker_server.gateway.subscription_plan import Plans
from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.refusals import Refusal
from circuit_breaker_server.security.authentication import (
    EXPIRED,
    REVOKED,
    Principal,
    Unauthenticated,
)
from circuit_breaker_server.security.clock import Alarm

__all__ = ["Session"]

logger = get_logger("session")


@final
class Session:
    """One WebSocket of ``graphql-transport-ws``, or the legacy protocol; its messages' sink, its feed's peer.

    Nothing of it blocks or raises. Queries and mutations run as tasks; they are cancelled when the peer
    completes them or the socket closes, and awaited by the owner of the session.

    Example::

        session = Session(socket, services, plans, authorization=None, own=tasks.add, on_end=ended.add)
        session.shut_down()
        await session.wait_closed()
    """

    __slots__ = (
        "_admit",
        "_authorization",
        "_caller",
        "_feed",
        "_init_timer",
        "_is_leaving",
        "_is_over",
        "_keep_alive",
        "_log",
        "_on_end",
        "_operations",
        "_outgoing",
        "_own",
        "_plans",
        "_protocol",
        "_rights",
        "_services",
        "_socket",
        "_token_end",
        "_writable",
    )

    def __init__(
        self,
        socket: WebSocket,
        services: Services,
        plans: Plans,
        *,
        authorization: str | None,
        own: Callable[[asyncio.Task[None]], None],
        on_end: Callable[[Session], None],
        admit: Callable[[Session], bool] = lambda _: True,
    ) -> None:
        """Begin to wait for ``connection_init``.

        ``authorization`` is the header of the upgrade, for a client that puts nothing into its payload.
        ``own`` is given every task, to await it; ``on_end`` is called once the socket is closed; ``admit``
        tells, once the principal is known, whether they may have one more connection.
        """
        settings = services.settings
        self._socket = socket
        self._services = services
        self._plans = plans
        self._authorization = authorization
        self._own = own
        self._admit = admit
        self._on_end = on_end
        self._protocol = protocol_of(socket.subprotocol, settings)
        # Both from the acknowledgement on: before it the protocol lets no operation through.
        self._feed: Feed | None = None
        self._operations: Operations | None = None
        self._caller = OPEN
        self._rights = RightsReview(services)
        self._token_end: Alarm | None = None
        self._writable = True
        self._is_over = False
        self._log = SessionLog(services, socket.remote)
        self._outgoing = Outgoing(
            socket,
            self._protocol,
            self._log,
            max_unsent_bytes=settings.max_unsent_bytes,
            wind_up=self._wind_up,
        )
        # The peer has sent its close frame, and waits for ours.
        self._is_leaving = False
        self._init_timer: asyncio.TimerHandle | None = asyncio.get_running_loop().call_later(
            settings.init_timeout_seconds, self._on_init_timeout
        )
        self._keep_alive = keep_alive_of(socket, settings, ping=self._ping, on_dead=self._on_dead)

    # --- the sink of the socket's messages ---------------------------------------------------------

    def on_message(self, data: bytes) -> None:
        """Handle one message; what it is answered with is written in the next turn of the loop."""
        self._protocol.receive_message(data)
        try:
            for event in self._protocol.events_received():
                if isinstance(event, Subscribe):
                    self._acknowledged.subscribe(event)
                elif isinstance(event, UnreadableSubscribe):
                    self._acknowledged.refuse_unreadable(event)
                elif isinstance(event, Complete):
                    self._acknowledged.complete(event.id)
                elif isinstance(event, ConnectionInit):
                    self._on_init(event)
                elif isinstance(event, Pong):
                    self._keep_alive.pong()
                elif event.payload:
                    # A ping is answered already; what it asks is not.
                    self._tell_behind(event)
        except Exception:
            logger.exception("session_failed", remote=self._socket.remote)
            self.drop()
        else:
            self._outgoing.send_soon()

    def on_writable(self, writable: bool) -> None:
        """Stop or go on feeding the socket."""
        self._writable = writable
        self._protocol.answers_pings = writable
        if self._feed is not None:
            self._feed.set_writable(writable)

    def on_closed(self, code: int, reason: str) -> None:
        """End everything that ran on the socket."""
        feed = self._feed
        self._log.note_closed(
            code,
            reason,
            events=0 if feed is None else feed.delivered_events,
            is_ours=self._outgoing.has_closed,
            caller=None if feed is None else self._caller,
        )
        self._protocol.receive_closed()
        self._wind_up()
        self._on_end(self)

    def on_peer_closing(self) -> bool:
        """Write the answers that are ready; tell whether queries and mutations are still being executed."""
        if self._is_over:
            return False
        self._is_leaving = True
        self._outgoing.send()
        return self._is_executing

    # --- the peer of the feed ----------------------------------------------------------------------

    def write(self, frames: bytes) -> None:
        """Write events, framed by :func:`text_frames`, behind what is queued: a live signal goes first."""
        if self._outgoing.scheduled is not None:
            self._outgoing.send()
        self._socket.write(frames)

    def signal(self, cursors: Sequence[tuple[str, str]]) -> None:
        """Send the live signal of operations (the resume protocol's section 3), in one write."""
        for operation_id, cursor in cursors:
            self._protocol.send_ping({"resume": {"id": operation_id, "cursor": cursor}})
        self._outgoing.send_soon()

    def _tell_behind(self, ping: Ping) -> None:
        """Answer a ping that asks how many records subscriptions are behind, to a peer that reads."""
        asked, feed, gateway = asked_places(ping.payload), self._feed, self._services.gateway
        if asked is None or feed is None or not feed.resume or not self._writable:
            return
        if may_be_told(self._caller, gateway.reader.cursors):
            self._protocol.send_ping({"resume": {"behind": records_behind(gateway, feed, asked)}})

    def caught_up(self, operation_id: str) -> None:
        """Say nothing: the live signal has told where the operation stands."""

    def fail(self, operation_id: str, errors: Sequence[GraphQLError]) -> None:
        """End one operation with errors."""
        self._protocol.send_error(operation_id, errors)
        self._outgoing.send()

    def complete(self, operation_id: str) -> None:
        """End one operation: its stream is over."""
        self._protocol.send_complete(operation_id)
        self._outgoing.send()

    def drop(self) -> None:
        """Close with 4500: the server failed while it served this peer."""
        try:
            self._protocol.send_close(CloseCode.INTERNAL_SERVER_ERROR, "internal error")
            self._outgoing.send()
        except Exception:
            # The socket or its protocol is what failed.
            logger.exception("close_failed", remote=self._socket.remote)
            self._wind_up()
            self._socket.abort()

    # --- the life of the session -------------------------------------------------------------------

    def shut_down(self) -> None:
        """Close with 1012, after what was written so far; no ``complete`` is sent."""
        reason, seconds = "the server is shutting down", self._services.settings.retry_after_seconds
        if seconds is not None:
            # Each is told another moment, so that they do not all come at once.
            reason = asking_to_return(reason, random.uniform(0, seconds))  # noqa: S311 (no secret)
        self._close(CloseCode.SERVICE_RESTART, reason)

    def refuse_subprotocol(self) -> None:
        """Close with 4406: the handshake agreed on no protocol that we speak."""
        self._close(CloseCode.SUBPROTOCOL_NOT_ACCEPTABLE, f"Subprotocol not acceptable: offer {SUBPROTOCOL}")

    async def wait_closed(self) -> None:
        """Wait until the socket is gone."""
        await self._socket.wait_closed()

    def abort(self) -> None:
        """Drop the socket now."""
        self._socket.abort()

    def _on_init_timeout(self) -> None:
        self._protocol.receive_init_timeout()
        self._outgoing.send()

    def _on_init(self, event: ConnectionInit) -> None:
        self._end_init_timer()
        services = self._services
        if services.draining.is_on:
            self._protocol.send_close(CloseCode.TRY_AGAIN_LATER, DRAINING)
            return
        try:
            self._caller = authenticate(
                services, event.payload, authorization=self._authorization, remote=self._socket.remote
            )
        except Unauthenticated as refused:
            self._protocol.send_refuse(str(refused))
            return
        self._authorization = None
        resume = negotiates_resume(event.payload)
        if not self._admit(self):
            self._log.refusal = "principal"
            self._log.note_surplus(self._caller)
            self._protocol.send_close(CloseCode.TRY_AGAIN_LATER, TOO_MANY)
            return
        self._log.note_admitted(self._caller)
        self._rights = RightsReview(services, self._caller)
        self._feed = services.gateway.attach(
            self,
            frame=text_frames,
            resume=resume,
            caller=self._caller,
            traces=asks_for_traces(event.payload),
        )
        self._operations = Operations(
            self._socket,
            self._protocol,
            services,
            self._plans,
            self._feed,
            own=self._own,
            on_done=self._on_operation_done,
        )
        self._feed.set_writable(self._writable)
        tells_behind = may_be_told(self._caller, services.gateway.reader.cursors)
        self._protocol.send_ack(ack_payload(services.epoch, resume=resume, tells_behind=tells_behind))
        self._keep_alive.start()
        self._token_end = services.authenticator.at_end(self._caller.principal, self._on_token_end)
        self._log.note_acknowledged(self._caller, resume=resume)

    @property
    def _acknowledged(self) -> Operations:
        if self._operations is None:
            raise RuntimeError("the protocol lets no operation through before the ack")
        return self._operations

    @property
    def _is_executing(self) -> bool:
        return self._operations is not None and self._operations.are_executing

    def _on_operation_done(self) -> None:
        """Write the answer of a query or mutation; after the last one close, if the peer has asked for it."""
        self._outgoing.send()
        if self._is_leaving and not self._is_executing:
            self._socket.answer_close()

    def _end_init_timer(self) -> None:
        if self._init_timer is not None:
            self._init_timer.cancel()
            self._init_timer = None

    def review(self) -> None:
        """Look again at what the peer may see; close if its principal may do nothing any more."""
        if self._feed is None or self._is_over:
            return
        self._rights.look(self._feed, on_disabled=self.revoke)

    def revoke(self) -> None:
        """Close: the principal, or their API key, is no longer accepted."""
        self._log.note_revoked(self._caller)
        self._close(CloseCode.FORBIDDEN, REVOKED, refusal="revoked")

    def end_surplus(self) -> None:
        """Close: its principal has too many, and has not given one up for it."""
        self._close(CloseCode.TRY_AGAIN_LATER, TOO_MANY, refusal="principal")

    @property
    def remote(self) -> str:
        """The peer's address and port, as logged."""
        return self._socket.remote

    @property
    def principal(self) -> Principal:
        """The principal of the peer."""
        return self._caller.principal

    def _on_token_end(self) -> None:
        """Close between two events: a client that resumes with a new token and last cursor misses none."""
        self._close(CloseCode.FORBIDDEN, EXPIRED, refusal="expired")

    def _ping(self) -> None:
        self._protocol.send_ping()
        self._outgoing.send()

    def _on_dead(self) -> None:
        self._wind_up()
        self._socket.abort()

    def _close(self, code: CloseCode, reason: str, *, refusal: Refusal | None = None) -> None:
        """Close, behind what is queued; ``refusal`` says why where the code does not."""
        if refusal is not None:
            self._log.refusal = refusal
        self._protocol.send_close(code, reason)
        self._outgoing.send()

    def _wind_up(self) -> None:
        """End the operations; the socket may still be open to write what is queued. Idempotent."""
        if self._is_over:
            return
        self._is_over = True
        self._outgoing.cancel()
        self._end_init_timer()
        self._keep_alive.stop()
        if self._token_end is not None:
            self._token_end.cancel()
        if self._feed is not None:
            self._services.gateway.detach(self._feed)
        if self._operations is not None:
            self._operations.cancel()
