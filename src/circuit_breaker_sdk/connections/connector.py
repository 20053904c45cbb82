"""Open, share and reopen the client's WebSocket connection."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import final

from circuit_breaker_sdk.callbacks import CALLBACK_ERRORS, background_task, in_own_context
from circuit_breaker_sdk.config import CircuitBreakerPolicy, ErrorRecoveryPolicy
from circuit_breaker_sdk.connections.backoff import Backoff
from circuit_breaker_sdk.connections.circuit_breaker import BreakerState
from circuit_breaker_sdk.connections.closing import close_each
from circuit_breaker_sdk.connections.connection import Connection
from circuit_breaker_sdk.connections.connection_replacement import rotate
from circuit_breaker_sdk.connections.connection_settings import ConnectionSettings
from circuit_breaker_sdk.connections.connection_state import (
    TRANSITIONS,
    ConnectionState,
    ConnectionStateChange,
    Trigger,
)
from circuit_breaker_sdk.connections.dialling import Dialler
from circuit_breaker_sdk.connections.endpoints import Endpoints
from circuit_breaker_sdk.connections.trial_connections import ConnectionsApart
from circuit_breaker_sdk.errors import (
    AuthenticationFailed,
    CircuitBreakerError,
    ConnectionFailed,
    TransportError,
    UsageError,
)
from circuit_breaker_sdk.loop_affinity import LoopAffinity
from circuit_breaker_sdk.observability import ConnectionCounters, log
from circuit_breaker_sdk.protocol.close_codes import GOES_AWAY
from circuit_breaker_sdk.urls import redacted

__all__ = ["Supervisor"]


@final
class Supervisor:
    """Own at most one connection and the task that opens it.

    :meth:`connection` is single-flight: a caller that asks while one is being opened waits for that one. The
    first connection of a client has one attempt at each URL, and its failure is the caller's. After one was
    lost, callers wait while it is tried again, as the policy says.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        *,
        urls: Sequence[str] = (),
        policy: ErrorRecoveryPolicy | None = None,
        breaker: CircuitBreakerPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``urls``: all of them, in order of preference; by default the one of the settings."""
        self.counters: ConnectionCounters = ConnectionCounters()
        self._endpoints = Endpoints(urls or (settings.url,), breaker or CircuitBreakerPolicy(), clock=clock)
        self._policy = policy or ErrorRecoveryPolicy()
        self._backoff = Backoff(self._policy, clock=clock)
        self._state = ConnectionState.IDLE
        self._connection: Connection | None = None
        self._opening: asyncio.Task[Connection] | None = None
        self._waiters: dict[asyncio.Future[None], None] = {}
        self._ended: set[asyncio.Task[Connection] | asyncio.Task[None]] = set()
        self._closing: set[Connection] = set()
        self._loss: TransportError | None = None
        self._was_connected = False
        self._listeners: list[Callable[[ConnectionStateChange], object]] = []
        self._affinity = LoopAffinity()
        self._tokens = settings.credentials.tokens
        self._dialler = Dialler(settings, self._endpoints, self.counters, self._lost)
        self.apart: ConnectionsApart = ConnectionsApart(
            self._dialler,
            self._endpoints,
            self._policy,
            self.counters,
            self._tokens,
            is_closed=self._is_closed,
            clock=clock,
        )
        """Connections beside the present one."""
        self._hand_over: Callable[[Connection, Connection], Awaitable[None]] | None = None
        self._rotating: asyncio.Task[None] | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop of the first connection; ``None`` before."""
        return self._affinity.loop

    @property
    def state(self) -> ConnectionState:
        """The state now."""
        return self._state

    def _is_closed(self) -> bool:
        # Asked for anew after each wait; a checker would take what it has seen before for what is.
        return self._state is ConnectionState.CLOSED

    @property
    def was_connected(self) -> bool:
        """Whether a connection has ever stood."""
        return self._was_connected

    @property
    def breaker_state(self) -> BreakerState:
        """The state of the present URL's circuit breaker."""
        return self._endpoints.current.breaker.state

    @property
    def round_trip_seconds(self) -> float | None:
        """From the latest ping to its pong; ``None`` where none was answered yet."""
        return None if self._connection is None else self._connection.round_trip_seconds

    @property
    def url(self) -> str:
        """The present URL, without credentials."""
        return redacted(self._endpoints.current.url)

    @property
    def endpoints(self) -> Endpoints:
        """All URLs, each with its circuit breaker."""
        return self._endpoints

    @property
    def present(self) -> Connection | None:
        """The connection that stands and can be used; ``None`` where there is none."""
        return self._connection if self._connection is not None and self._connection.is_usable else None

    def on_state(self, listener: Callable[[ConnectionStateChange], object]) -> None:
        """Call ``listener`` with every change of the state; what it raises is logged."""
        listener = in_own_context(listener)
        self._listeners.append(listener)

    def may_mend(self, error: CircuitBreakerError) -> bool:
        """Tell whether another attempt can help: it is of that kind, or a fresh token may be accepted."""
        return error.retryable or (isinstance(error, AuthenticationFailed) and self._tokens.can_refresh)

    def on_rotated(self, hand_over: Callable[[Connection, Connection], Awaitable[None]]) -> None:
        """Call with the old connection and the new one, when a fresh token has made a new one needed.

        The old one is closed when it returns.
        """
        self._hand_over = hand_over

    def proven(self) -> None:
        """Note that the present connection is good: what fails after it begins a new row of failures."""
        self._backoff.proven()
        self._endpoints.current.breaker.succeeded()

    async def connection(self) -> Connection:
        """Return a usable connection, opening one if there is none.

        Cancelling a caller does not stop the opening others wait for; :meth:`aclose` does.

        :raises TransportError: it could not be opened, or the policy gave up.
        :raises UsageError: the client is closed, or this is another event loop than before.
        """
        if self._state is ConnectionState.CLOSED:
            raise UsageError("the client is closed: make a new one")
        self._check_loop()
        connection = self._connection
        if connection is not None:
            if connection.is_usable:
                return connection
            # It is closing, its end is not here yet: its subscriptions learn it then, new ones go elsewhere.
            self._closing.add(connection)
            self._drop(None)
        opening = self._opening
        if opening is None:
            opening = self._opening = background_task(self._open(), name="circuit-breaker-connect")
            self._waiters = {}
            opening.add_done_callback(functools.partial(_wake, self._waiters))
        # As `asyncio.shield`, which makes many more objects for each waiting caller.
        waiters, waiter = self._waiters, asyncio.get_running_loop().create_future()
        waiters[waiter] = None
        try:
            # Only the caller's task ever cancels this future: what is raised here is its own cancellation.
            await waiter
        finally:
            del waiters[waiter]
            if not waiters and opening is self._opening and self._state is ConnectionState.RECONNECTING:
                # It only waits for its next attempt, and no caller waits for it any more.
                opening.cancel()
                self._ended.add(opening)
                opening.add_done_callback(self._ended.discard)
                self._opening = None
                self._move(Trigger.LOST)
        if opening.cancelled():
            raise UsageError("the client was closed while it connected")
        return opening.result()

    def adopt(self, connection: Connection) -> bool:
        """Make a connection that is apart the present one; ``False`` if there is one, or will be."""
        is_wanted = self._connection is None and self._opening is None
        if not is_wanted or self._state is ConnectionState.CLOSED or connection not in self.apart:
            return False
        self.apart.forget(connection)
        self._move(Trigger.OPEN, attempt=1)
        self._take(connection)
        return True

    async def aclose(self) -> None:
        """Close the connection, or stop opening it, and wait for the end. Idempotent."""
        self._move(Trigger.CLOSE)
        # Before the first wait: what ends meanwhile is not the present connection any more.
        connection, self._connection = self._connection, None
        if connection is not None:
            self._closing.add(connection)
        opening, self._opening = self._opening, None
        for task in (opening, self._rotating):
            if task is not None:
                task.cancel()
                self._ended.add(task)
        closings = [closing.aclose() for closing in (*self._closing, *self.apart)]
        await close_each([self._end_tasks(), *closings])
        # What a task that was ending has left behind.
        await close_each([closing.aclose() for closing in (*self._closing, *self.apart)])
        self._closing.clear()
        self.apart.clear()

    async def _end_tasks(self) -> None:
        if ended := tuple(self._ended):
            # Not `await` each: its cancellation could not be told from our caller's. Callers that
            # wait for the connection are told why it failed.
            await asyncio.wait(ended)

    async def disconnect(self) -> None:
        """Close the connection, if there is one, and wait for its end; the next call opens another.

        That one is a first one again: an attempt at each URL, whose failure is the caller's.
        """
        connection = self._connection
        if connection is None:
            return
        self._closing.add(connection)
        self._was_connected = False
        self._drop(None)
        await connection.aclose()
        self._closing.discard(connection)

    def _check_loop(self) -> None:
        self._affinity.enter()

    # Opening -----------------------------------------------------------------------------------------------

    async def _open(self) -> Connection:
        try:
            connection = await self._until_open()
        except Exception:
            self._opening = None
            if self._state is not ConnectionState.CLOSED:
                self._move(Trigger.LOST)
            raise
        self._opening = None
        if self._is_closed():
            await connection.aclose()
            raise UsageError("the client is closed: make a new one")
        self._take(connection)
        return connection

    def _take(self, connection: Connection) -> None:
        self._connection = connection
        self._was_connected = True
        self._backoff.connected()
        self._move(Trigger.OPENED)
        if self._tokens.can_refresh and self._rotating is None:
            rotating = rotate(self._tokens, lambda: self._dialler.shown_token, self._replace)
            self._rotating = background_task(rotating, name="circuit-breaker-token")

    async def _until_open(self) -> Connection:
        loss, self._loss = self._loss, None
        attempt = 0
        refused = isinstance(loss, AuthenticationFailed) and self._tokens.can_refresh
        if loss is not None and (seconds := self._delay_after(loss)) is not None:
            await self._wait(seconds, attempt, loss)
        while True:
            attempt += 1
            await self._until_allowed(attempt)
            self._move(Trigger.OPEN, attempt=attempt)
            if self._was_connected:
                self.counters.reconnection_attempts += 1
            try:
                if refused:
                    # It was good once and has ended: another one is needed, whatever our clock says.
                    await self._tokens.renew(self._dialler.shown_token)
                    refused = False
                await self._tokens.ready()
                return await self._dialler.try_each_with_fresh_token()
            except TransportError as error:
                # Refused with a fresh token: another one would be refused as well.
                is_final = isinstance(error, AuthenticationFailed)
                may_wait = self._was_connected and self._waiters and not is_final
                seconds = self._backoff.failed(error) if may_wait else None
                if seconds is None:
                    raise
                await self._wait(seconds, attempt, error)

    def _delay_after(self, loss: TransportError) -> float | None:
        if isinstance(loss, AuthenticationFailed) and self._tokens.can_refresh:
            # What the server refuses is the token, and another one is on its way; but never in a hot loop.
            loss = ConnectionFailed(loss.message)
        return self._backoff.failed(loss, goes_elsewhere=len(self._endpoints) > 1)

    async def _replace(self) -> None:
        old = self._connection
        if old is None or not old.is_usable or self._opening is not None:
            return  # the next connection shows the fresh token
        new = await self._dialler.dial(self._endpoints.current)
        if self._connection is not old:
            # It was lost meanwhile, and another one is being opened: this one is not needed.
            self._closing.add(new)
            await new.aclose()
            self._closing.discard(new)
            return
        self._connection = new
        self._backoff.connected()
        self._closing.add(old)
        log(logging.DEBUG, "connection replaced for a fresh token", url=new.url)
        if self._hand_over is not None:
            await self._hand_over(old, new)
        await old.aclose()
        self._closing.discard(old)

    async def _wait(self, seconds: float, attempt: int, reason: TransportError) -> None:
        seconds = max(seconds, self._endpoints.wait_seconds())
        self._move(Trigger.WAIT, reason=reason, attempt=attempt, retry_in_seconds=seconds)
        await asyncio.sleep(seconds)

    async def _until_allowed(self, attempt: int) -> None:
        while seconds := self._endpoints.wait_seconds():
            if self._state is not ConnectionState.RECONNECTING:
                self._move(Trigger.WAIT, attempt=attempt, retry_in_seconds=seconds)
            await asyncio.sleep(seconds)

    # The end of a connection -------------------------------------------------------------------------------

    def _lost(self, connection: Connection, error: TransportError) -> None:
        if connection in self.apart:
            self.apart.lost(connection, error)
            return
        self.counters.failures += 1
        log(logging.DEBUG, "connection lost", url=connection.url, error=error)
        self._closing.discard(connection)
        if self._connection is connection:
            self._drop(error)
            if connection.was_silent or _goes_away(error):
                self._endpoints.move_on()

    def _drop(self, error: TransportError | None) -> None:
        self._connection = None
        self._loss = error
        if error is not None and not self._backoff.is_proven:
            self._endpoints.current.breaker.failed()
        self._move(Trigger.LOST, reason=error)

    def _move(
        self,
        trigger: Trigger,
        *,
        reason: CircuitBreakerError | None = None,
        attempt: int = 0,
        retry_in_seconds: float | None = None,
    ) -> None:
        before = self._state
        now = self._state = TRANSITIONS[before, trigger]
        if now is before:
            return
        change = ConnectionStateChange(
            before=before,
            now=now,
            url=redacted(self._endpoints.current.url),
            reason=reason,
            attempt=attempt,
            retry_in_seconds=retry_in_seconds,
        )
        log(logging.DEBUG, "connection state", before=before.value, now=now.value)
        for listener in tuple(self._listeners):
            try:
                listener(change)
            except CALLBACK_ERRORS as error:
                log(logging.ERROR, "a listener of the connection's state raised", error=error)


def _goes_away(error: TransportError) -> bool:
    return isinstance(error, ConnectionFailed) and error.close_code in GOES_AWAY


def _wake(waiters: Iterable[asyncio.Future[None]], opening: asyncio.Task[Connection]) -> None:
    if not opening.cancelled():
        opening.exception()  # it counts as looked at, also where nobody waits any more
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
