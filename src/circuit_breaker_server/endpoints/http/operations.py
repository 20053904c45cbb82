"""Execute a query or mutation that came over HTTP, once for each idempotency key."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, final

from graphql import OperationType
from starlette.requests import Request

from circuit_breaker_sdk.protocol.resume import TRACES_HEADER
from circuit_breaker_server.access.caller import Caller
from circuit_breaker_server.endpoints.http.graphql_request import GraphQLRequest
from circuit_breaker_server.endpoints.http.request_headers import header, header_values
from circuit_breaker_server.endpoints.services import Execute
from circuit_breaker_server.endpoints.websocket.handshake import RESUME_VERSION
from circuit_breaker_server.graphql.documents import Document
from circuit_breaker_server.graphql.idempotent_execution import Done, Once
from circuit_breaker_server.instruments import Instruments
from circuit_breaker_server.tracing import Tracer, operation_span, trace_context, trace_context_of

__all__ = ["Operations", "asks_for_cursor", "asks_for_traces", "header_context"]

KEY: Final = "Idempotency-Key"
_KEY: Final = KEY.lower().encode()
RESUME: Final = "Resume-Version"
"""A request with this header and the value ``1`` is answered with the cursor of a mutation's record."""
_RESUME: Final = RESUME.lower().encode()
_RESUME_VERSION: Final = str(RESUME_VERSION)
_TRACES: Final = TRACES_HEADER.lower().encode()


def asks_for_traces(request: Request) -> bool:
    """Tell whether a client wants the traces of the mutations that caused its events."""
    return header(request, _TRACES) == "1"


def asks_for_cursor(request: Request) -> bool:
    """Tell whether a client knows the resume protocol."""
    return header(request, _RESUME) == _RESUME_VERSION


def header_context(request: Request) -> dict[str, str]:
    """Return the trace context of a request's headers (W3C Trace Context)."""
    traceparent = header(request, b"traceparent")
    return {} if traceparent is None else trace_context(traceparent, header(request, b"tracestate"))


@final
class Operations:
    """Executes queries and mutations.

    Example::

        done = await Operations(execute, once).execute(document, asked, request, caller)
    """

    def __init__(
        self,
        execute: Execute,
        once: Once,
        instruments: Instruments | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._tracer = tracer
        self._instruments = instruments or Instruments()
        self._execute = execute
        self._once = once

    async def execute(
        self, document: Document, asked: GraphQLRequest, request: Request, caller: Caller
    ) -> Done:
        """Execute an operation; whatever an ``Idempotency-Key`` says counts for mutations only.

        The trace of its ``traceparent``, a header or in its ``extensions``, is kept with the record of a
        mutation.
        """
        kind = document.operation(asked.operation_name).operation.value
        context = header_context(request) or trace_context_of(asked.extensions)
        # The context of this task is that of the request alone.
        with operation_span(self._tracer, kind, asked.operation_name or "", context):
            return await self._execute_once(document, asked, request, caller)

    async def _execute_once(
        self, document: Document, asked: GraphQLRequest, request: Request, caller: Caller
    ) -> Done:
        is_mutation = document.operation(asked.operation_name).operation is OperationType.MUTATION
        keys: Sequence[str] = header_values(request, _KEY) if is_mutation else ()
        if keys:
            # A second header makes a key with a comma and a blank in it, which is none.
            began = time.perf_counter()
            try:
                done = await self._once.execute(
                    document,
                    asked.variables,
                    asked.operation_name,
                    key=", ".join(keys),
                    caller=caller,
                    with_cursor=asks_for_cursor(request),
                )
            finally:
                self._instruments.timed("mutation", began, lambda: document.root_fields(asked.operation_name))
            self._instruments.answered("mutation", done.answer)
            return done
        return Done(
            await self._execute(
                document,
                asked.variables,
                asked.operation_name,
                caller,
                with_cursor=asks_for_cursor(request),
            )
        )
