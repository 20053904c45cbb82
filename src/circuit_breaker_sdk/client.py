"""The client: puts the parts together."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, final, overload

from circuit_breaker_sdk import domains
from circuit_breaker_sdk.client_arguments import check_types, checked_text, checked_urls, connection_settings
from circuit_breaker_sdk.client_builder import ClientBuilder
from circuit_breaker_sdk.client_parts import ClientParts
from circuit_breaker_sdk.client_status import ClientStatus
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
    SubscriptionConnectionPool,
    TokenSource,
)
from circuit_breaker_sdk.delivery.decodable_types import DecodeHook, JSONObject, check_type
from circuit_breaker_sdk.domains.execution import Result
from circuit_breaker_sdk.errors import UsageError
from circuit_breaker_sdk.loop_affinity import LoopAffinity
from circuit_breaker_sdk.observability.tracing import Tracer
from circuit_breaker_sdk.subscriptions import (
    CursorStore,
    Gap,
    Operation,
    ResumeBy,
    ResumeByExtension,
    Snapshot,
    Subscription,
    SubscriptionBuilder,
)

if TYPE_CHECKING:
    import ssl as tls

__all__ = ["Client"]

T = TypeVar("T")


@final
class Client(ClientStatus):
    """One server: queries and mutations over HTTP, all subscriptions over one WebSocket, or its stand-ins.

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
    :param recovery: how a lost connection is tried again; by default until it stands.
    :param circuit_breaker: when a URL that keeps failing is left alone.
    :param transports: what may bring subscriptions; those behind ``websocket`` stand in for it, for critical
        subscriptions, or for all where the server has no WebSockets.
    :param critical: all are: see :meth:`SubscriptionBuilder.critical`.
    :param offline_queue: how mutations wait for a server that is away; ``None``: they fail at once.
    :param pool: spreads subscriptions over several connections; ``None``: all share one.
    :param batching: how messages to the server wait for each other, to go out in one write.
    :param heartbeat: how a dead connection is noticed; ``None`` sends no pings.
    :param buffer: bounds of each subscription's buffer; ``max_buffered_bytes`` bounds all of them together.
    :param cursor_store: where each ``cursor_key`` keeps its cursor: a file's path, or an object of yours.
    :param ssl: a context for ``wss`` and ``https``; ``None`` trusts what the system trusts.
    :param proxy: for all connections; without it, ``trust_env`` takes ``HTTP_PROXY`` and its like.
    :param tracer: makes spans of requests and of handlers, linked to the mutations that caused their events:
        :class:`.observability.otel_tracing.OpenTelemetryTracer`; ``None``: nothing does.
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
        proxy: str | None = None,
        trust_env: bool = True,
        transports: Sequence[str] = ("websocket", "sse", "poll"),
        tracer: Tracer | None = None,
    ) -> None:
        urls = checked_urls(url)
        settings = connection_settings(
            urls[0],
            token=token,
            headers=headers,
            connection_params=connection_params,
            ssl=ssl,
            limits=limits,
            timeouts=timeouts,
            heartbeat=heartbeat,
            batching=batching,
            proxy=proxy,
            trust_env=trust_env,
            tracer=tracer,
        )
        affinity = LoopAffinity()
        parts = ClientParts(
            settings,
            urls,
            recovery=recovery,
            circuit_breaker=circuit_breaker,
            pool=pool,
            buffer=buffer,
            max_buffered_bytes=max_buffered_bytes,
            cursor_store=cursor_store,
            critical=critical,
            offline_queue=offline_queue,
            affinity=affinity,
            transports=transports,
        )
        super().__init__(urls[0], parts, affinity)

    @staticmethod
    def builder() -> ClientBuilder[Client]:
        """Start a builder: ``Client.builder().base_url(…).token(…).build()``."""
        return ClientBuilder(Client)

    # The domains: each module is loaded when it is first used, so that importing the package stays fast.

    @cached_property
    def workflows(self) -> domains.WorkflowsClient:
        """Workflows, states, resources, activities."""
        return domains.WorkflowsClient(self._parts.executor, self._parts.manager)

    @cached_property
    def agents(self) -> domains.AgentsClient:
        """Agents and their runs."""
        return domains.AgentsClient(self._parts.executor, self._parts.manager)

    @cached_property
    def llm(self) -> domains.LLMClient:
        """Completions and providers of language models."""
        return domains.LLMClient(self._parts.executor, self._parts.manager)

    @cached_property
    def analytics(self) -> domains.AnalyticsClient:
        """Costs and budgets."""
        return domains.AnalyticsClient(self._parts.executor, self._parts.manager)

    @cached_property
    def mcp(self) -> domains.MCPClient:
        """MCP servers and sessions."""
        return domains.MCPClient(self._parts.executor, self._parts.manager)

    @cached_property
    def rules(self) -> domains.RulesClient:
        """Rules that conditions of activities name."""
        return domains.RulesClient(self._parts.executor)

    @cached_property
    def nats(self) -> domains.NATSClient:
        """Resources with their place in the event log."""
        return domains.NATSClient(self._parts.executor, self._parts.manager)

    @cached_property
    def subscriptions(self) -> domains.SubscriptionClient:
        """All streams in one place."""
        return domains.SubscriptionClient(self._parts.manager)

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
        resume: ResumeBy[JSONObject] | ResumeByExtension | None = None,
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
        resume: ResumeBy[T] | ResumeByExtension | None = None,
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
        resume: ResumeBy[Any] | ResumeByExtension | None = None,
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
        :param after: a cursor to begin behind. ``resume``: how to, at a server with cursors of its own.
        :param cursor_key: as ``critical`` (``None`` takes the client's setting) and ``on_gap``, for which
            ``snapshot`` reads the present state, a method of :class:`SubscriptionBuilder`.
        :raises UsageError: the document or the type cannot be used. Starting it raises what
            :meth:`SubscriptionBuilder.subscribe` does.
        """
        check_types(buffer=(buffer, BufferLimits), resume=(resume, (ResumeBy, ResumeByExtension)))
        check_type(type, decode_hook)
        document = checked_text(document, "document")
        if isinstance(resume, ResumeBy):
            resume.check(document)
        operation: Operation[Any] = Operation(
            document=document,
            type=type,
            decode_hook=decode_hook,
            variables=variables,
            operation_name=operation_name,
            label=operation_name or "subscription",
            buffer=buffer,
            after=after,
            resume=resume,
            cursor_key=cursor_key,
            on_gap=on_gap,
            snapshot=snapshot,
            critical=critical,
        )
        return SubscriptionBuilder(self._parts.manager, operation, Subscription)

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
        run = self._parts.executor.execute if errors == "raise" else self._parts.executor.result
        return await run(
            checked_text(document, "document"),
            variables,
            type=type,
            operation_name=operation_name,
            decode_hook=decode_hook,
        )

    async def server_health(self) -> str:
        """Ask the server whether it serves: ``ok`` (``health``). It raises what :meth:`execute` does."""
        return await self._parts.executor.field("query Health { health }", type=str, operation_name="Health")

    async def aclose(self) -> None:
        """End every subscription, here and on the server, and close all connections. Idempotent.

        All parts close side by side within ``close_seconds``, whatever one of them raises or waits for.
        """
        self._affinity.check()
        await self._parts.aclose()

    async def __aenter__(self) -> Self:
        self._affinity.enter()
        return self

    async def __aexit__(self, *_exc_info: object) -> None:
        await self.aclose()
