"""The operations of one WebSocket: read their documents, limit their rate, execute or subscribe them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, final

from graphql import OperationType

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_sdk.protocol.close_codes import CloseCode
from circuit_breaker_sdk.protocol.messages import Subscribe, UnreadableSubscribe
from circuit_breaker_sdk.protocol.transport_ws import ServerProtocol
from circuit_breaker_sdk.transports.websocket import WebSocket
from circuit_breaker_server.access.caller import Caller
from circuit_breaker_server.admission.draining import DRAINING
from circuit_breaker_server.endpoints.positions import BEHIND, named_in
from circuit_breaker_server.endpoints.services import Services
from circuit_breaker_server.gateway.feed import Feed
from circuit_breaker_server.gateway.subscription_errors import internal_error
from circuit_breaker_server.gateway.subscription_plan import Plans, Refused
from circuit_breaker_server.graphql.documents import Document, begins_with_subscription
from circuit_breaker_server.graphql.errors import DocumentInvalid
from circuit_breaker_server.logs import get_logger
from circuit_breaker_server.refusals import Refusal
from circuit_breaker_server.security.rate_limits import RATE_LIMITED, Asked, too_often
from circuit_breaker_server.tracing import operation_span, trace_context_of

__all__ = ["Operations"]

_REFUSED_SECONDS: Final = 0.1
"""The shortest time for which the server does not read from a peer that it refused by rate."""

logger = get_logger("session")


@final
class Operations:
    """The operations of one acknowledged peer, from its ``subscribe`` messages to their ends.

    A query or mutation runs as a task, and so does the reading of a document that takes long; a subscription
    is given to the peer's feed. Answers are queued in the protocol, for the session to write.

    Example::

        operations = Operations(
            socket, protocol, services, plans, feed, own=tasks.add, on_done=session.send
        )
        operations.subscribe(Subscribe(id="1", query="{ health }"))
        operations.cancel()
    """

    __slots__ = (
        "_caller",
        "_feed",
        "_in_order",
        "_on_done",
        "_own",
        "_plans",
        "_protocol",
        "_reading",
        "_services",
        "_socket",
        "_tasks",
    )

    def __init__(
        self,
        socket: WebSocket,
        protocol: ServerProtocol,
        services: Services,
        plans: Plans,
        feed: Feed,
        *,
        own: Callable[[asyncio.Task[None]], None],
        on_done: Callable[[], None],
    ) -> None:
        """``own`` is given every task, to await it; ``on_done`` is called when one has queued its answer."""
        self._socket = socket
        self._protocol = protocol
        self._services = services
        self._plans = plans
        self._feed = feed
        self._caller: Caller = feed.caller
        self._own = own
        self._on_done = on_done
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._in_order: asyncio.Lock | None = None
        # A dictionary for a set, as in the protocol: it is small without entries.
        self._reading: dict[asyncio.Task[None] | None, None] = {}

    def subscribe(self, event: Subscribe) -> None:
        """Begin an operation, or refuse it with an ``error`` message."""
        # Limits first: parsing and validating are what a flood of documents would cost.
        begins: Asked = "subscribes" if begins_with_subscription(event.query) else "operations"
        if self._is_too_often(event.id, begins):
            return
        document: Document | None = None
        # What was asked for first is begun first: behind one that waits for its turn others wait, too.
        if not self._reading and not self._is_behind(event):
            try:
                document = self._services.documents.get_now(event.query, event.variables, key=self._key)
            except DocumentInvalid as error:
                self._refuse(event.id, error.errors, "invalid")
                return
        if document is None:
            task = self._begin(event, self._read(event, begins))
            self._reading[task] = None
            task.add_done_callback(lambda done: self._reading.pop(done, None))
            return
        is_subscription = self._kind_of(event, document, begins)
        if is_subscription:
            self._start_subscription(event, document)
        elif is_subscription is not None:
            _ = self._begin(event, self._execute(event, document))

    def refuse_unreadable(self, event: UnreadableSubscribe) -> None:
        """Answer a ``subscribe`` message whose payload the protocol could not read."""
        if not self._is_too_often(event.id, "operations"):
            error = GraphQLError(message=event.reason, extensions={"code": "BAD_REQUEST"})
            self._refuse(event.id, [error], "malformed")

    def complete(self, operation_id: str) -> None:
        """End an operation that the client has completed: unsubscribe it, cancel its task."""
        self._feed.unsubscribe(operation_id)
        task = self._tasks.pop(operation_id, None)
        if task is not None:
            task.cancel()

    def cancel(self) -> None:
        """Cancel the tasks of all operations; their owner awaits them. Idempotent."""
        for operation_id in list(self._tasks):
            self.complete(operation_id)

    @property
    def are_executing(self) -> bool:
        """Tell whether a document is still being read, or a query or mutation executed."""
        return bool(self._tasks)

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
            self._refuse(event.id, error.errors, "invalid")
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
            self._in_order = self._in_order or asyncio.Lock()
            async with self._in_order:
                if await self._has_come_to(event):
                    document = await self._services.documents.read(
                        event.query, event.variables, key=self._key
                    )
            if document is not None:
                is_subscription = self._kind_of(event, document, begins)
        except DocumentInvalid as error:
            self._refuse(event.id, error.errors, "invalid")
        except Exception:
            logger.exception("document_not_read", remote=self._socket.remote)
            self._protocol.send_error(event.id, [internal_error()])
        finally:
            self._reading.pop(asyncio.current_task(), None)
        if document is not None and is_subscription is False:
            await self._execute(event, document)
            return
        if self._is_mine(event.id):
            del self._tasks[event.id]
        if document is not None and is_subscription:
            self._start_subscription(event, document)
        self._on_done()

    def _is_behind(self, event: Subscribe) -> bool:
        """Tell whether this server has not come to what the client has seen at another one."""
        positions = self._services.positions
        return positions is not None and positions.are_ahead(named_in(event.extensions))

    async def _has_come_to(self, event: Subscribe) -> bool:
        """Wait until this server is where the client has been; close the connection if it takes too long."""
        positions = self._services.positions
        if positions is None or await positions.reach(named_in(event.extensions), self._key):
            return True
        # An error would end the subscription for good; after this close the client comes again.
        self._protocol.send_close(CloseCode.TRY_AGAIN_LATER, BEHIND)
        return False

    def _is_too_often(self, operation_id: str, asked: Asked) -> bool:
        """Take one from the peer's rate; refuse the operation and tell ``True`` where nothing is left."""
        wait = self._services.rates.take(asked, self._caller.id or self._caller.address)
        if wait is None:
            return False
        text, extensions = too_often(asked, wait)
        self._services.audit.note(self._caller, "refuse", asked, "refused", reason=RATE_LIMITED)
        error = GraphQLError(message=text, extensions=extensions)
        self._refuse(operation_id, [error], "rate")
        # A client that asks again at once would cost as much as one that is served.
        self._socket.hold_back(max(wait, _REFUSED_SECONDS))
        return True

    def _refuse(self, operation_id: str, errors: Sequence[GraphQLError], reason: Refusal) -> None:
        """Answer an operation that is not begun with errors; count and log the refusal."""
        code = (errors[0].extensions or {}).get("code") if errors else None
        self._services.instruments.refusals.note(
            reason, "operation", remote=self._socket.remote, principal=self._caller.id, code=str(code)
        )
        self._protocol.send_error(operation_id, errors)

    def _start_subscription(self, event: Subscribe, document: Document) -> None:
        if self._services.draining.is_on:
            # An error would end the subscription for good; after this close the client comes again.
            self._protocol.send_close(CloseCode.TRY_AGAIN_LATER, DRAINING)
            return
        try:
            plan = self._plans.get(document, variables=event.variables, operation_name=event.operation_name)
        except Refused as refused:
            self._refuse(event.id, refused.errors, "invalid")
            return
        try:
            self._services.gateway.subscribe(
                self._feed,
                event.id,
                plan,
                prefix=self._protocol.event_prefix(event.id),
                extensions=event.extensions,
            )
        except Refused as refused:
            self._protocol.send_error(event.id, refused.errors)
        except Exception:
            logger.exception("subscribe_failed", remote=self._socket.remote)
            self._protocol.send_error(event.id, [internal_error()])

    async def _execute(self, event: Subscribe, document: Document) -> None:
        try:
            kind = document.operation(event.operation_name).operation.value
            context = trace_context_of(event.extensions)
            # The context of this task is that of the operation alone.
            with operation_span(self._services.tracer, kind, event.operation_name or "", context):
                payload = await self._services.execute(
                    document,
                    event.variables,
                    event.operation_name,
                    self._caller,
                    with_cursor=self._feed.resume,
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
        self._on_done()

    def _is_mine(self, operation_id: str) -> bool:
        return self._tasks.get(operation_id) is asyncio.current_task()
