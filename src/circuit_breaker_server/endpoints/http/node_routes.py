"""Raise the format of the event log, for administrators: once all nodes read a newer version of records."""

from __future__ import annotations

from typing import Final, final

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.access.audit_lines import NO_AUDIT
from circuit_breaker_server.access.caller import Caller
from circuit_breaker_server.endpoints.http.answers import (
    JSON,
    NOT_STORED,
    BadRequest,
    client_left,
    error_answer,
    read_json,
)
from circuit_breaker_server.engine.command_origin import ORIGIN, Origin
from circuit_breaker_server.engine.engine import Engine
from circuit_breaker_server.engine.errors import EngineError, ErrorCode

__all__ = ["NodeRoutes"]

_MAX_BYTES: Final = 1024
_ACTION: Final = "raiseLogFormat"
_REFUSED: Final = (
    "the log's format is raised by callers who may administer everything in every tenant; docs/security.md"
)

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(dict[str, object]).decode


@final
class NodeRoutes:
    """The route of the log's format: ``POST`` with an empty JSON object.

    It answers 200 with ``format`` and whether it ``wasRaised``, 403 without the rights, 409 where a node does
    not read the newer version, with the names in ``extensions.nodes``.

    Example::

        answer = admission.guarded(NodeRoutes(engine).raise_format, "operations")
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def raise_format(self, request: Request, caller: Caller) -> ASGIApp:
        """Raise the format to the newest version that this node reads."""
        if request.method != "POST":
            error = GraphQLError(message="the log's format is raised by POST")
            return error_answer(405, JSON, [error], Allow="POST", **NOT_STORED)
        if not caller.rights.is_unlimited:
            caller.audit.note(caller, "refuse", _ACTION, "refused", reason=ErrorCode.FORBIDDEN.value)
            error = GraphQLError(message=_REFUSED, extensions={"code": ErrorCode.FORBIDDEN.value})
            return error_answer(403, JSON, [error], **NOT_STORED)
        try:
            # The type of the body: a page of another origin cannot send it without asking.
            await read_json(request, _decode, max_bytes=_MAX_BYTES)
            raised = await self._engine.commands.run(self._raise(caller))
        except BadRequest as refused:
            error = GraphQLError(message=str(refused))
            return error_answer(refused.status, JSON, [error], **NOT_STORED)
        except ClientDisconnect:
            return client_left()
        except EngineError as refused:
            error = GraphQLError(message=str(refused), extensions=refused.extensions)
            status = 409 if refused.code is ErrorCode.CONFLICT else 503
            return error_answer(status, JSON, [error], **NOT_STORED)
        told = {"format": self._engine.nodes.format, "wasRaised": raised}
        return Response(_encode(told), 200, NOT_STORED, JSON)

    async def _raise(self, caller: Caller) -> bool:
        action = "" if caller.audit is NO_AUDIT else f"{_ACTION}({self._engine.nodes.reads})"
        origin = Origin(
            principal=caller.id,
            tenant=caller.tenant,
            address=caller.address,
            policy=caller.policy,
            action=action,
        )
        ORIGIN.set(origin)
        try:
            return await self._engine.nodes.raise_format()
        except EngineError as error:
            caller.audit.note(caller, "mutate", _ACTION, "refused", reason=error.code.value)
            raise
