"""The client: puts the parts together."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, final, overload

from circuit_breaker_sdk.client_builder import ClientBuilder
from circuit_breaker_sdk.config import (
    BufferLimits,
    CircuitBreakerPolicy,
    ErrorRecoveryPolicy,
    Heartbeat,
    MessageBatching,
    MessageLimits,
    OfflineQueue,
    Timeouts,
)
from circuit_breaker_sdk.connections import (
    BreakerState,
    ConnectionSettings,
    ConnectionState,
    ConnectionStateChange,
    Credentials,
    PollConnection,
    SubscriptionConnectionPool,
    Supervisor,
    TokenSource,
    close_each,
)
from circuit_breaker_sdk.delivery.decoding import DecodeHook, JSONObject, check_type
from circuit_breaker_sdk.domains.execution import Executor, Result
from circuit_breaker_sdk.errors import UsageError
from circuit_breaker_sdk.loop_affinity import LoopAffinity
from circuit_breaker_sdk.observability import SubscriptionMetrics
from circuit_breaker_sdk.subscriptions import (
    Changes,
    CursorStore,
    FileCursorStore,
    Gap,
    Operation,
    Snapshot,
    Subscription,
    SubscriptionBuilder,
    SubscriptionManager,
)
from circuit_breaker_sdk.urls import redacted, websocket_url

if TYPE_CHECKING:
    import ssl as tls

    from circuit_breaker_sdk.domains import (
        AgentsClient,
        AnalyticsClient,
        LLMClient,
        MCPClient,
        NATSClient,
        RulesClient,
        SubscriptionClient,
        WorkflowsClient,
    )

__all__ = ["Client"]

T = TypeVar("T")


@final
class Client:
    """One server: queries and mutations over HTTP, all subscriptions over one WebSocket, or a pool.

    It connects on first use and ends with its block or :meth:`aclose`. All methods belong on the event loop
    of the first use; from another loop or thread they raise ``UsageError``.

    :param url: ``ws``, ``wss``, ``http`` or ``https``; without a path, ``/graphql``. Where that does not
        upgrade, ``/ws`` is tried. Of several, in order of preference, the next is tried where one fails.
    :param token: sent as ``Authorization: Bearer …`` on the upgrade, in ``connection_init`` and over HTTP.
        Where it is a function, plain or async, that gives a fresh token each time, the client asks it before
        the token in use ends (``exp`` of a JWT) and when a server refuses it; subscriptions go over to a new
        connection and lose nothing.
    :param headers: of the upgrade and of HTTP requests.
    :param connection_params: the payload of ``connection_init``.
    :param recovery: how a lost connection is tried again; by default until it stands. Subscriptions go on by
        themselves, without loss where the server resumes: see ``Subscription.continuity``.
    :param circuit_breaker: when a URL that keeps failing is left alone.
    :param critical: poll for every subscription while no WebSocket gets through: see
        :meth:`SubscriptionBuilder.critical`.
    :param offline_queue: how mutations wait for a server that is away; ``None``: they fail at once.
    :param pool: spreads subscriptions over several connections; ``None``: all share one.
    :param batching: how messages to the server wait for each other, to go out in one write.
    :param heartbeat: how a dead connection is noticed; ``None`` sends no pings.
    :param buffer: bounds of each subscription's buffer; ``max_buffered_bytes`` bounds all of them together.
    :param cursor_store: where subscriptions with a ``cursor_key`` keep their cursors: a file's path, or an
        object of yours.
    :param ssl: a context for ``wss`` and ``https``; ``None`` trusts what the system trusts.
    :raises UsageError: an argument cannot be used.

    Example::

        async with Client("ws://localhost:4000/graphql") as client:
            async for resource in client.workflows.subscribe_resource_updates(workflow_id="w-1"):
                print(resource.id, resource.state)
    """

    def __init__(
        self,
        url: str | Sequence[str],
        *,
        token: str | TokenSource | None = None,
        headers: Mapping[str, str] | None = None,
        connection_params: Mapping[str, object] | None = None,
        ssl: tls.SSLContext | None = None,
        buffer: BufferLimits | None = None,
        max_buffered_bytes: int = 64 * 1024 * 1024,
        cursor_store: CursorStore | str | os.PathLike[str] | None = None,
        limits: MessageLimits | None = None,
        timeouts: Timeouts | None = None,
        recovery: ErrorRecoveryPolicy | None = None,
        circuit_breaker: CircuitBreakerPolicy | None = None,
        heartbeat: Heartbeat | None = Heartbeat(),  # noqa: B008 (frozen; None means something else)
        critical: bool = False,
        offline_queue: OfflineQueue | None = None,
        pool: SubscriptionConnectionPool | None = None,
        batching: MessageBatching | None = None,
    ) -> None:
        urls = [url] if isinstance(url, str) else list(_urls(url))
        if not urls:
            raise UsageError("a client needs a URL")
        _check_types(
            buffer=(buffer, BufferLimits),
            limits=(limits, MessageLimits),
            timeouts=(timeouts, Timeouts),
            recovery=(recovery, ErrorRecoveryPolicy),
            circuit_breaker=(circuit_breaker, CircuitBreakerPolicy),
            heartbeat=(heartbeat, Heartbeat),
            offline_queue=(offline_queue, OfflineQueue),
            batching=(batching, MessageBatching),
            pool=(pool, SubscriptionConnectionPool),
            max_buffered_bytes=(max_buffered_bytes, int),
            critical=(critical, bool),
        )
        if ssl is not None:
            _check_context(ssl)
        if max_buffered_bytes <= 0:
            raise UsageError(f"max_buffered_bytes must be greater than 0, not {max_buffered_bytes}")
        policy = recovery or ErrorRecoveryPolicy()
        settings = ConnectionSettings(
            url=websocket_url(urls[0]),
            credentials=Credentials(token=token, headers=headers, connection_params=connection_params),
            ssl=ssl,
            limits=limits or MessageLimits(),
            timeouts=timeouts or Timeouts(),
            heartbeat=heartbeat,
            batching=batching or MessageBatching(),
        )
        self._url = urls[0]
        self._affinity = LoopAffinity()
        websocket_urls = [websocket_url(each) for each in urls]

        def supervisor() -> Supervisor:
            return Supervisor(settings, urls=websocket_urls, policy=policy, breaker=circuit_breaker)

        pooled = None if pool is None else pool.serve(supervisor)
        self._supervisor = supervisor() if pooled is None else pooled.first
        self._connections = pooled or self._supervisor
        self._poll = PollConnection(settings, websocket_urls)
        self._manager = SubscriptionManager(
            self._supervisor,
            self._poll,
            buffer=buffer or BufferLimits(),
            timeouts=settings.timeouts,
            policy=policy,
            max_buffered_bytes=max_buffered_bytes,
            cursor_store=(
                FileCursorStore(cursor_store) if isinstance(cursor_store, str | os.PathLike) else cursor_store
            ),
            snapshot_of=self._snapshot_of,
            changes_of=self._changes_of,
            critical=critical,
            retry_seconds=(circuit_breaker or CircuitBreakerPolicy()).open_seconds,
            pool=pooled,
            affinity=self._affinity,
        )
        self._executor = Executor(settings, urls, offline_queue=offline_queue, affinity=self._affinity)
        self._tokens = settings.credentials.tokens
        self._close_seconds = settings.timeouts.close_seconds

    @staticmethod
    def builder() -> ClientBuilder:
        """Start a builder: ``Client.builder().base_url(…).token(…).build()``."""
        return ClientBuilder()

    @property
    def url(self) -> str:
        """The URL of the server, as given; the first of several."""
        return self._url

    @property
    def state(self) -> ConnectionState:
        """The state of the WebSocket connection; of a pool, ``CONNECTED`` if any connection is."""
        return self._connections.state

    @property
    def circuit_breaker(self) -> BreakerState:
        """The state of the present URL's circuit breaker; of a pool, the most permissive one."""
        return self._connections.breaker_state

    def on_connection_state(self, handler: Callable[[ConnectionStateChange], object]) -> Self:
        """Call ``handler`` with every change of :attr:`state`, with its reason and when the next attempt is.

        It is called on the loop, in the middle of things: keep it short. What it raises is logged.
        """
        self._affinity.check()
        self._connections.on_state(handler)
        return self

    @property
    def metrics(self) -> SubscriptionMetrics:
        """A snapshot of the counters; of a pool, their sums, and the longest round trip."""
        counters = self._connections.counters
        return SubscriptionMetrics(
            active_subscriptions=self._manager.active,
            messages_received=self._manager.messages_received,
            buffered_bytes=self._manager.buffered_bytes,
            connection_failures=counters.failures,
            reconnection_attempts=counters.reconnection_attempts,
            round_trip_seconds=self._connections.round_trip_seconds,
        )

    # The domains: each is loaded when it is first used, so that importing the package stays fast.

    @cached_property
    def workflows(self) -> WorkflowsClient:
        """Workflows, states, resources, activities."""
        from circuit_breaker_sdk.domains.workflows import WorkflowsClient  # noqa: PLC0415 (as said above)

        return WorkflowsClient(self._executor, self._manager)

    @cached_property
    def agents(self) -> AgentsClient:
        """Agents and their runs."""
        from circuit_breaker_sdk.domains.agents import AgentsClient  # noqa: PLC0415 (as said above)

        return AgentsClient(self._executor, self._manager)

    @cached_property
    def llm(self) -> LLMClient:
        """Completions and providers of language models."""
        from circuit_breaker_sdk.domains.llm import LLMClient  # noqa: PLC0415 (as said above)

        return LLMClient(self._executor, self._manager)

    @cached_property
    def analytics(self) -> AnalyticsClient:
        """Costs and budgets."""
        from circuit_breaker_sdk.domains.analytics import AnalyticsClient  # noqa: PLC0415 (as said above)

        return AnalyticsClient(self._executor, self._manager)

    @cached_property
    def mcp(self) -> MCPClient:
        """MCP servers and sessions."""
        from circuit_breaker_sdk.domains.mcp import MCPClient  # noqa: PLC0415 (as said above)

        return MCPClient(self._executor, self._manager)

    @cached_property
    def rules(self) -> RulesClient:
        """Rules that conditions of activities name."""
        from circuit_breaker_sdk.domains.rules import RulesClient  # noqa: PLC0415 (as said above)

        return RulesClient(self._executor)

    @cached_property
    def nats(self) -> NATSClient:
        """Resources with their place in the event log."""
        from circuit_breaker_sdk.domains.nats import NATSClient  # noqa: PLC0415 (as said above)

        return NATSClient(self._executor, self._manager)

    @cached_property
    def subscriptions(self) -> SubscriptionClient:
        """All streams in one place."""
        from circuit_breaker_sdk.domains.subscription_client import SubscriptionClient  # noqa: PLC0415 (as said above)

        return SubscriptionClient(self._manager)

    # Any server's operations

    @overload
    def subscribe(
        self,
        document: str,
        variables: Mapping[str, object] | None = None,
        *,
        operation_name: str | None = None,
        buffer: BufferLimits | None = None,
        after: str | None = None,
        cursor_key: str | None = None,
        on_gap: Callable[[Gap], object] | None = None,
        snapshot: Snapshot | None = None,
        critical: bool | None = None,
    ) -> SubscriptionBuilder[JSONObject, Subscription[JSONObject]]: ...

    @overload
    def subscribe(
        self,
        document: str,
        variables: Mapping[str, object] | None = None,
        *,
        type: type[T],
        decode_hook: DecodeHook | None = None,
        operation_name: str | None = None,
        buffer: BufferLimits | None = None,
        after: str | None = None,
        cursor_key: str | None = None,
        on_gap: Callable[[Gap], object] | None = None,
        snapshot: Snapshot | None = None,
        critical: bool | None = None,
    ) -> SubscriptionBuilder[T, Subscription[T]]: ...

    def subscribe(
        self,
        document: str,
        variables: Mapping[str, object] | None = None,
        *,
        type: Any = Any,  # noqa: A002 (as above; the overloads say what it is)
        decode_hook: DecodeHook | None = None,
        operation_name: str | None = None,
        buffer: BufferLimits | None = None,
        after: str | None = None,
        cursor_key: str | None = None,
        on_gap: Callable[[Gap], object] | None = None,
        snapshot: Snapshot | None = None,
        critical: bool | None = None,
    ) -> SubscriptionBuilder[Any, Subscription[Any]]:
        """Subscribe to any server's stream: await the subscription, enter it as a block, or iterate.

        The value of the one root field is decoded to ``type``. Without a type events are plain JSON, for most
        documents a dict: for a root field that is a number or a list, say ``type=int`` or ``type=list[…]``.

        :param type: a struct of msgspec, a dataclass, a TypedDict, a builtin type, a container or union of
            these, or a model of pydantic.
        :param decode_hook: ``function(cls, value)`` decodes each other class in ``type``, as custom scalars
            need; it raises ``ValueError`` where the value does not fit.
        :param after: a cursor to begin behind, where the server gives cursors.
        :param cursor_key: see :meth:`SubscriptionBuilder.cursor_key`.
        :param critical: see :meth:`SubscriptionBuilder.critical`; ``None`` takes the client's setting.
        :param on_gap: see :meth:`SubscriptionBuilder.on_gap`; ``snapshot`` reads the present state for it.
        :raises UsageError: the document or the type cannot be used.

        Starting it raises what :meth:`SubscriptionBuilder.subscribe` does.
        """
        _check_types(buffer=(buffer, BufferLimits))
        check_type(type, decode_hook)
        operation: Operation[Any] = Operation(
            document=_text(document, "document"),
            type=type,
            decode_hook=decode_hook,
            variables=variables,
            operation_name=operation_name,
            label=operation_name or "subscription",
            buffer=buffer,
            after=after,
            cursor_key=cursor_key,
            on_gap=on_gap,
            snapshot=snapshot,
            critical=critical,
        )
        return SubscriptionBuilder(self._manager, operation, Subscription)

    @overload
    async def execute(
        self,
        document: str,
        variables: Mapping[str, object] | None = None,
        *,
        operation_name: str | None = None,
        errors: Literal["raise"] = "raise",
    ) -> JSONObject: ...

    @overload
    async def execute(
        self,
        document: str,
        variables: Mapping[str, object] | None = None,
        *,
        operation_name: str | None = None,
        errors: Literal["return"],
    ) -> Result[JSONObject]: ...

    @overload
    async def execute(
        self,
        document: str,
        variables: Mapping[str, object] | None = None,
        *,
        type: type[T],
        decode_hook: DecodeHook | None = None,
        operation_name: str | None = None,
        errors: Literal["raise"] = "raise",
    ) -> T: ...

    @overload
    async def execute(
        self,
        document: str,
        variables: Mapping[str, object] | None = None,
        *,
        type: type[T],
        decode_hook: DecodeHook | None = None,
        operation_name: str | None = None,
        errors: Literal["return"],
    ) -> Result[T]: ...

    async def execute(
        self,
        document: str,
        variables: Mapping[str, object] | None = None,
        *,
        type: Any = Any,  # noqa: A002 (as above)
        decode_hook: DecodeHook | None = None,
        operation_name: str | None = None,
        errors: Literal["raise", "return"] = "raise",
    ) -> object:
        """Execute a query or mutation over HTTP and decode its ``data`` to ``type``; without one, to a dict.

        :param type: as in :meth:`subscribe`, and ``decode_hook`` too.
        :param errors: ``"return"`` returns a :class:`Result` with the data and the server's errors, instead
            of raising them.
        :raises OperationError: the server answered with errors; its ``data`` is what came beside them.
        :raises TransportError: ``ConnectionFailed`` and its kin: no answer came.
        :raises UsageError: the document, the variables or the type cannot be used: nothing was sent.
        """
        if errors not in {"raise", "return"}:
            raise UsageError(f'errors must be "raise" or "return", not {errors!r:.60}')
        run = self._executor.execute if errors == "raise" else self._executor.result
        return await run(
            _text(document, "document"),
            variables,
            type=type,
            operation_name=operation_name,
            decode_hook=decode_hook,
        )

    async def server_health(self) -> str:
        """Ask the server whether it serves: ``ok`` (``health``).

        :raises TransportError: ``ConnectionFailed`` and its kin: no answer came.
        """
        return await self._executor.field("query Health { health }", type=str, operation_name="Health")

    def _snapshot_of(self, field: str, arguments: Mapping[str, object]) -> Snapshot | None:
        from circuit_breaker_sdk.domains.snapshots import Snapshots  # noqa: PLC0415 (loaded when it is used)

        return Snapshots(self._executor, self._manager).of(field, arguments)

    def _changes_of(self, field: str, arguments: Mapping[str, object]) -> Changes | None:
        from circuit_breaker_sdk.domains.snapshots import Snapshots  # noqa: PLC0415 (loaded when it is used)

        return Snapshots(self._executor, self._manager).changes(field, arguments)

    async def aclose(self) -> None:
        """End every subscription, here and on the server, and close all connections. Idempotent.

        All is closed side by side, whatever a part raises, and within ``close_seconds``: a handler that does
        not end by then, or a peer that does not answer, is not waited for any longer.
        """
        self._affinity.check()
        caller = asyncio.current_task()
        await close_each(
            [
                # First: what it unsubscribes goes out before its connection closes.
                self._manager.aclose(caller=caller),
                self._poll.aclose(),
                self._connections.aclose(),
                self._executor.aclose(),
                self._tokens.aclose(caller=caller),
            ],
            seconds=self._close_seconds,
        )

    async def __aenter__(self) -> Self:
        self._affinity.enter()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<Client {redacted(self._url)} {self.state}>"


def _urls(given: object) -> Sequence[str]:
    if not isinstance(given, Sequence):
        raise UsageError(f"a URL is a text, or several in a list; not {type(given).__name__}")
    return given


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{name} must be a text that is not empty, not {value!r:.60}")
    return value


def _check_context(given: object) -> None:
    import ssl as tls  # noqa: PLC0415 (4 ms that most programs can do without)

    if not isinstance(given, tls.SSLContext):
        # Each transport reads False, True and a path in its own way; False would send the token to anyone.
        raise UsageError(
            f"ssl must be an ssl.SSLContext or None, not {given!r:.60}. None verifies the server against "
            "what the system trusts; ssl.create_default_context(cafile=…) verifies it against certificates "
            "of your own. To verify nothing, pass a context that says so (check_hostname = False, "
            "verify_mode = ssl.CERT_NONE)."
        )


def _check_types(**given: tuple[object, type]) -> None:
    for name, (value, kind) in given.items():
        if value is not None and not isinstance(value, kind):
            raise UsageError(f"{name} must be of type {kind.__name__}, not {type(value).__name__}")
