"""One socket: the protocol, the operations that run on it, and the feed of its subscriptions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, final

from graphql import OperationType

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_sdk.protocol.close_codes import CloseCode
from circuit_breaker_sdk.protocol.codec import next_prefix
from circuit_breaker_sdk.protocol.message_assembly import text_frame_header
from circuit_breaker_sdk.protocol.messages import (
    SUBPROTOCOL,
    Complete,
    ConnectionInit,
    Pong,
    Subscribe,
    UnreadableSubscribe,
)
from circuit_breaker_sdk.protocol.transport_ws import ServerProtocol
from circuit_breaker_sdk.transports.heartbeat import Pulse
from circuit_breaker_sdk.transports.websocket import WebSocket
from circuit_breaker_server.access.audit_lines import NO_AUDIT, Auditor
from circuit_breaker_server.access.caller import OPEN, Caller, Permissions
from circuit_breaker_server.gateway.fan_out import Gateway, resume_after
from circuit_breaker_server.gateway.feed import Feed, internal_error
from circuit_breaker_server.gateway.subscription_plan import Plans, Refused
from circuit_breaker_server.graphql.documents import Document, Documents, begins_with_subscription
from circuit_breaker_server.graphql.errors import DocumentInvalid
from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.security.authentication import (
    EXPIRED,
    REVOKED,
    Authenticator,
    Principal,
    Unauthenticated,
)
from circuit_breaker_server.security.clock import Alarm
from circuit_breaker_server.security.rate_limits import RATE_LIMITED, Asked, Rates, too_often
from circuit_breaker_server.settings.rates import RateSettings
from circuit_breaker_server.settings.server import ServerSettings

__all__ = ["TOO_MANY", "Execute", "Services", "Session", "text_frames"]


class Execute(Protocol):
    """Execute a query or a mutation; return the answer's JSON."""

    def __call__(
        self,
        document: Document,
        variables: Mapping[str, object] | None,
        operation_name: str | None,
        caller: Caller,
        /,
        *,
        with_cursor: bool,
    ) -> Awaitable[bytes]: ...


"""Runs a query or mutation; returns the encoded execution result, errors included."""

RESUME_VERSION: Final = 1
_REFUSED_SECONDS: Final = 0.1
"""The shortest time for which the server does not read from a peer that it refused by rate."""
TOO_MANY: Final = "too many connections of one principal"
"""Why a session of a principal that has too many is closed."""

logger = get_logger("session")


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


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The services that all sessions share.

    Example::

        Services(gateway=gateway, documents=documents, execute=execute, epoch=log.epoch, settings=settings)
    """

    gateway: Gateway
    documents: Documents
    execute: Execute
    epoch: str
    settings: ServerSettings
    authenticator: Authenticator = field(default_factory=Authenticator)
    permissions: Permissions = field(default_factory=Permissions)
    audit: Auditor = NO_AUDIT
    rates: Rates = field(default_factory=lambda: Rates(RateSettings()))


@final
class Session:
    """One WebSocket of ``graphql-transport-ws``; the sink of its messages, and the peer of its feed.

    Nothing of it blocks or raises. Queries and mutations run as tasks; they are cancelled when the peer
    completes them or the socket closes, and awaited by who made the session.

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
        "_in_order",
        "_init_timer",
        "_is_leaving",
        "_is_over",
        "_on_end",
        "_own",
        "_plans",
        "_protocol",
        "_pulse",
        "_reading",
        "_rights",
        "_sending",
        "_services",
        "_socket",
        "_tasks",
        "_token_end",
        "_took_at",
        "_unsent",
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
        self._protocol = ServerProtocol(
            max_operations=settings.max_operations, max_id_bytes=settings.max_operation_id_bytes
        )
        self._feed: Feed | None = None
        self._caller = OPEN
        self._rights = OPEN.rights
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._in_order = asyncio.Lock()
        self._reading: set[asyncio.Task[None] | None] = set()
        self._token_end: Alarm | None = None
        self._writable = True
        self._is_over = False
        # The peer has sent its close frame, and waits for ours.
        self._is_leaving = False
        self._sending: asyncio.Handle | None = None
        loop = asyncio.get_running_loop()
        self._init_timer: asyncio.TimerHandle | None = loop.call_later(
            settings.init_timeout_seconds, self._on_init_timeout
        )
        self._pulse = Pulse(
            settings.ping_seconds, settings.pong_seconds, ping=self._ping, on_silence=self._on_silence
        )
        self._unsent = 0
        self._took_at = loop.time()

    # --- the sink of the socket's messages ---------------------------------------------------------

    def on_message(self, data: bytes) -> None:
        """Handle one message; what it is answered with is written in the next turn of the loop."""
        self._protocol.receive_message(data)
        try:
            for event in self._protocol.events_received():
                if isinstance(event, Subscribe):
                    self._on_subscribe(event)
                elif isinstance(event, UnreadableSubscribe):
                    self._on_unreadable(event)
                elif isinstance(event, Complete):
                    self._forget(event.id)
                elif isinstance(event, ConnectionInit):
                    self._on_init(event)
                elif isinstance(event, Pong):
                    self._pulse.pong()
                    self._took_at = asyncio.get_running_loop().time()
                # A ping is answered already.
        except Exception:
            logger.exception("session_failed", remote=self._socket.remote)
            self.drop()
        else:
            self._send_soon()

    def on_writable(self, writable: bool) -> None:
        """Stop or go on feeding the socket."""
        self._writable = writable
        self._protocol.answers_pings = writable
        if self._feed is not None:
            self._feed.set_writable(writable)

    def on_closed(self, code: int, reason: str) -> None:
        """End everything that ran on the socket."""
        logger.info("closed", remote=self._socket.remote, code=code, reason=reason)
        if self._feed is not None:
            self._services.audit.note(self._caller, "close", "websocket", "ended", reason=str(code))
        self._protocol.receive_closed()
        self._wind_up()
        self._on_end(self)

    def on_peer_closing(self) -> bool:
        """Write the answers that are ready; tell whether queries and mutations are still being executed."""
        if self._is_over:
            return False
        self._is_leaving = True
        self._send()
        return bool(self._tasks)

    # --- the peer of the feed ----------------------------------------------------------------------

    def write(self, frames: bytes) -> None:
        """Write events, framed by :func:`text_frames`, behind what is queued: a live signal goes first."""
        if self._sending is not None:
            self._send()
        self._socket.write(frames)

    def signal(self, cursors: Sequence[tuple[str, str]]) -> None:
        """Send the live signal of operations (the resume protocol's section 3), in one write."""
        for operation_id, cursor in cursors:
            self._protocol.send_ping({"resume": {"id": operation_id, "cursor": cursor}})
        self._send_soon()

    def caught_up(self, operation_id: str) -> None:
        """Say nothing: the live signal has told where the operation stands."""

    def fail(self, operation_id: str, errors: Sequence[GraphQLError]) -> None:
        """End one operation with errors."""
        self._protocol.send_error(operation_id, errors)
        self._send()

    def complete(self, operation_id: str) -> None:
        """End one operation: its stream is over."""
        self._protocol.send_complete(operation_id)
        self._send()

    def drop(self) -> None:
        """Close with 4500: the server failed while it served this peer."""
        try:
            self._protocol.send_close(CloseCode.INTERNAL_SERVER_ERROR, "internal error")
            self._send()
        except Exception:
            # The socket or its protocol is what failed.
            logger.exception("close_failed", remote=self._socket.remote)
            self._wind_up()
            self._socket.abort()

    # --- the life of the session -------------------------------------------------------------------

    def shut_down(self) -> None:
        """Close with 1012, after what was written so far; no ``complete`` is sent."""
        self._protocol.send_close(CloseCode.SERVICE_RESTART, "the server is shutting down")
        self._send()

    def refuse_subprotocol(self) -> None:
        """Close with 4406: the handshake agreed on no protocol that we speak."""
        self._protocol.send_close(
            CloseCode.SUBPROTOCOL_NOT_ACCEPTABLE, f"Subprotocol not acceptable: offer {SUBPROTOCOL}"
        )
        self._send()

    async def wait_closed(self) -> None:
        """Wait until the socket is gone."""
        await self._socket.wait_closed()

    def abort(self) -> None:
        """Drop the socket now."""
        self._socket.abort()

    def _on_init_timeout(self) -> None:
        self._protocol.receive_init_timeout()
        self._send()

    def _on_init(self, event: ConnectionInit) -> None:
        self._end_init_timer()
        authenticator = self._services.authenticator
        try:
            principal = authenticator.of_socket(self._authorization, event.payload)
        except Unauthenticated as refused:
            self._refuse(str(refused))
            return
        if self._services.permissions.is_disabled(principal):
            self._refuse(REVOKED)
            return
        self._authorization = None
        asked = (event.payload or {}).get("resume")
        resume = isinstance(asked, dict) and asked.get("version") == RESUME_VERSION
        services = self._services
        self._caller = Caller(
            principal, services.permissions, address=_host(self._socket.remote), audit=services.audit
        )
        if not self._admit(self):
            services.audit.note(self._caller, "connect", "websocket", "refused", reason=TOO_MANY)
            self._protocol.send_close(CloseCode.TRY_AGAIN_LATER, TOO_MANY)
            return
        services.audit.note(self._caller, "connect", "websocket", "allowed")
        self._rights = self._caller.rights
        self._feed = self._services.gateway.attach(
            self, frame=text_frames, resume=resume, caller=self._caller
        )
        self._feed.set_writable(self._writable)
        answer: dict[str, object] = {"version": RESUME_VERSION, "epoch": self._services.epoch}
        self._protocol.send_ack({"resume": answer} if resume else None)
        self._pulse.start()
        self._token_end = authenticator.at_end(principal, self._on_token_end)
        logger.debug("acknowledged", remote=self._socket.remote, resume=resume)

    def _refuse(self, reason: str) -> None:
        self._services.audit.refused(_host(self._socket.remote), "websocket", reason)
        self._protocol.send_refuse(reason)

    def _end_init_timer(self) -> None:
        if self._init_timer is not None:
            self._init_timer.cancel()
            self._init_timer = None

    def review(self) -> None:
        """Look again at what the peer may see; close if its principal may do nothing any more."""
        if self._feed is None or self._is_over:
            return
        if self._services.permissions.is_disabled(self._caller.principal):
            self.revoke()
            return
        rights = self._caller.rights
        if rights != self._rights:
            self._rights = rights
            self._services.gateway.review(self._feed)

    def revoke(self) -> None:
        """Close: the principal, or their API key, is no longer accepted."""
        self._services.audit.note(self._caller, "revoke", "websocket", "ended", reason=REVOKED)
        self._protocol.send_close(CloseCode.FORBIDDEN, REVOKED)
        self._send()

    def end_surplus(self) -> None:
        """Close: its principal has too many, and has not given one up for it."""
        self._protocol.send_close(CloseCode.TRY_AGAIN_LATER, TOO_MANY)
        self._send()

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
        self._protocol.send_close(CloseCode.FORBIDDEN, EXPIRED)
        self._send()

    def _ping(self) -> None:
        self._protocol.send_ping()
        self._send()

    def _on_silence(self) -> None:
        """Drop a peer that does not answer.

        One that is slow to read has the ping still before it, and of one that sends more than it may the pong
        is not read yet: they have more time.
        """
        now, unsent = asyncio.get_running_loop().time(), self._socket.write_buffer_bytes
        is_held_back = self._socket.holds_back
        if unsent != self._unsent or not (unsent or is_held_back):
            self._unsent, self._took_at = unsent, now
        if (unsent or is_held_back) and now - self._took_at < self._services.settings.stall_seconds:
            self._pulse.start()
            return
        logger.info("peer_silent", remote=self._socket.remote, unsent_bytes=unsent)
        self._wind_up()
        self._socket.abort()

    def _send_soon(self) -> None:
        """Write in the next turn of the loop: what one read brings is answered in one write."""
        if self._protocol.close is not None:
            self._send()
        elif self._sending is None and self._protocol.messages_to_send:
            self._sending = asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        """Write what the protocol has queued, in one write; then close, if that is due."""
        self._end_sending()
        socket = self._socket
        messages = self._protocol.data_to_send()
        if messages:
            parts: list[bytes] = []
            for message in messages:
                parts += (text_frame_header(len(message)), message)
            socket.write(b"".join(parts))
        if self._protocol.close is not None:
            self._wind_up()
            socket.close(self._protocol.close.code, self._protocol.close.reason)
        elif socket.write_buffer_bytes > self._services.settings.max_unsent_bytes:
            # Only answers and pongs can pile up here: events wait in their channel while a socket is full.
            logger.warning("peer_does_not_read", remote=socket.remote)
            self._wind_up()
            socket.abort()

    def _end_sending(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None

    def _wind_up(self) -> None:
        """End the operations; the socket may still be open to write what is queued. Idempotent."""
        if self._is_over:
            return
        self._is_over = True
        self._end_sending()
        self._end_init_timer()
        self._pulse.stop()
        if self._token_end is not None:
            self._token_end.cancel()
        if self._feed is not None:
            self._services.gateway.detach(self._feed)
        for operation_id in list(self._tasks):
            self._forget(operation_id)

    # --- operations --------------------------------------------------------------------------------

    def _on_subscribe(self, event: Subscribe) -> None:
        # Limits first: parsing and validating are what a flood of documents would cost.
        begins: Asked = "subscribes" if begins_with_subscription(event.query) else "operations"
        if self._is_too_often(event.id, begins):
            return
        document: Document | None = None
        # What was asked for first is begun first: behind a document that waits for its turn others wait, too.
        if not self._reading:
            try:
                document = self._services.documents.get_now(event.query, event.variables, key=self._key)
            except DocumentInvalid as error:
                self._protocol.send_error(event.id, error.errors)
                return
        if document is None:
            task = self._begin(event, self._read(event, begins))
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)
            return
        is_subscription = self._kind_of(event, document, begins)
        if is_subscription:
            self._subscribe(event, document)
        elif is_subscription is not None:
            _ = self._begin(event, self._execute(event, document))

    @property
    def _key(self) -> str:
        return self._caller.id or self._caller.address

    def _begin(self, event: Subscribe, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[event.id] = task
        self._own(task)
        return task

    def _kind_of(self, event: Subscribe, document: Document, begins: Asked) -> bool | None:
        """Tell whether an operation is a subscription; ``None`` where it was refused.

        :param begins: what its document begins with, for which the peer's rate was asked already.
        """
        try:
            operation = document.operation(event.operation_name)
        except DocumentInvalid as error:
            self._protocol.send_error(event.id, error.errors)
            return None
        is_subscription = operation.operation is OperationType.SUBSCRIPTION
        asked: Asked = "subscribes" if is_subscription else "operations"
        if asked != begins and self._is_too_often(event.id, asked):
            return None
        return is_subscription

    async def _read(self, event: Subscribe, begins: Asked) -> None:
        """Read a document in its turn, behind those that were asked for before; then begin the operation."""
        is_subscription: bool | None = None
        document: Document | None = None
        try:
            async with self._in_order:
                document = await self._services.documents.read(event.query, event.variables, key=self._key)
            is_subscription = self._kind_of(event, document, begins)
        except DocumentInvalid as error:
            self._protocol.send_error(event.id, error.errors)
        except Exception:
            logger.exception("document_not_read", remote=self._socket.remote)
            self._protocol.send_error(event.id, [internal_error()])
        finally:
            self._reading -= {asyncio.current_task()}
        if document is not None and is_subscription is False:
            await self._execute(event, document)
            return
        if self._is_mine(event.id):
            del self._tasks[event.id]
        if document is not None and is_subscription:
            self._subscribe(event, document)
        self._send()
        self._answer_close_if_done()

    def _answer_close_if_done(self) -> None:
        if self._is_leaving and not self._tasks:
            self._socket.answer_close()

    def _on_unreadable(self, event: UnreadableSubscribe) -> None:
        if not self._is_too_often(event.id, "operations"):
            error = GraphQLError(message=event.reason, extensions={"code": "BAD_REQUEST"})
            self._protocol.send_error(event.id, [error])

    def _is_too_often(self, operation_id: str, asked: Asked) -> bool:
        """Take one from the peer's rate; refuse the operation and tell ``True`` where nothing is left."""
        wait = self._services.rates.take(asked, self._caller.id or self._caller.address)
        if wait is None:
            return False
        text, extensions = too_often(asked, wait)
        self._services.audit.note(self._caller, "refuse", asked, "refused", reason=RATE_LIMITED)
        self._protocol.send_error(operation_id, [GraphQLError(message=text, extensions=extensions)])
        # Who asks again at once would cost as much as who is served.
        self._socket.hold_back(max(wait, _REFUSED_SECONDS))
        return True

    def _subscribe(self, event: Subscribe, document: Document) -> None:
        feed = self._feed
        if feed is None:
            raise RuntimeError("the protocol lets no subscribe through before the ack")
        services = self._services
        try:
            plan = self._plans.get(document, variables=event.variables, operation_name=event.operation_name)
            services.gateway.subscribe(
                feed, event.id, plan, prefix=next_prefix(event.id), after=resume_after(event.extensions)
            )
        except Refused as refused:
            self._protocol.send_error(event.id, refused.errors)
        except Exception:
            logger.exception("subscribe_failed", remote=self._socket.remote)
            self._protocol.send_error(event.id, [internal_error()])

    async def _execute(self, event: Subscribe, document: Document) -> None:
        try:
            payload = await self._services.execute(
                document,
                event.variables,
                event.operation_name,
                self._caller,
                with_cursor=self._feed is not None and self._feed.resume,
            )
            if self._is_mine(event.id):
                self._protocol.send_next(event.id, payload)
                self._protocol.send_complete(event.id)
        except Exception:
            logger.exception("execute_failed", remote=self._socket.remote)
            if self._is_mine(event.id):
                self._protocol.send_error(event.id, [internal_error()])
        finally:
            # By now the id may belong to a successor.
            if self._is_mine(event.id):
                del self._tasks[event.id]
        self._send()
        self._answer_close_if_done()

    def _is_mine(self, operation_id: str) -> bool:
        return self._tasks.get(operation_id) is asyncio.current_task()

    def _forget(self, operation_id: str) -> None:
        if self._feed is not None:
            self._feed.unsubscribe(operation_id)
        task = self._tasks.pop(operation_id, None)
        if task is not None:
            task.cancel()


def _host(remote: str) -> str:
    """Take the port off an address."""
    return remote.rpartition(":")[0] or remote
