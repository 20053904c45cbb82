"""The eight messages of ``graphql-transport-ws``, as frozen values.

A message says what crossed the wire, not whether it was allowed to: that is
:mod:`circuit_breaker_sdk.protocol.transport_ws`. Optional payloads are ``None`` where the peer sent
``null`` or nothing: the specification makes no difference between the two. What a message holds is JSON,
which cannot lead back to it: the garbage collector need not look at it.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from circuit_breaker_sdk.errors import GraphQLError

__all__ = [
    "LEGACY_SUBPROTOCOL",
    "MAX_CURSOR_CHARACTERS",
    "SUBPROTOCOL",
    "Complete",
    "ConnectionAck",
    "ConnectionInit",
    "Error",
    "Message",
    "Next",
    "Ping",
    "Pong",
    "Subscribe",
    "UnreadableSubscribe",
]

SUBPROTOCOL: Final = "graphql-transport-ws"
"""The name offered and answered in ``Sec-WebSocket-Protocol``."""

LEGACY_SUBPROTOCOL: Final = "graphql-ws"
"""The name under which subscriptions-transport-ws speaks its own, older protocol; offered second."""

MAX_CURSOR_CHARACTERS: Final = 4_096
"""A cursor is kept by each subscription, sent back and written to files: no server needs a longer one."""


class ConnectionInit(msgspec.Struct, frozen=True, gc=False):
    """Open the conversation (client to server).

    Example::

        ConnectionInit({"authorization": "Bearer …"})
    """

    payload: dict[str, object] | None = None


class ConnectionAck(msgspec.Struct, frozen=True, gc=False):
    """Accept the conversation (server to client).

    Example::

        ConnectionAck()
    """

    payload: dict[str, object] | None = None


class Ping(msgspec.Struct, frozen=True, gc=False):
    """Ask for a :class:`Pong` (either direction, at any time).

    Example::

        Ping({"sent": 1})
    """

    payload: dict[str, object] | None = None


class Pong(msgspec.Struct, frozen=True, gc=False):
    """Answer a :class:`Ping`, or be a one-way sign of life.

    Example::

        Pong({"sent": 1})
    """

    payload: dict[str, object] | None = None


class Subscribe(msgspec.Struct, frozen=True, gc=False):
    """Start one operation: a subscription, query or mutation (client to server).

    Example::

        Subscribe(id="1", query="subscription { resourceUpdates { id } }")
    """

    id: str
    query: str
    variables: dict[str, object] | None = None
    operation_name: str | None = None
    extensions: dict[str, object] | None = None


class UnreadableSubscribe(msgspec.Struct, frozen=True, gc=False):
    """A ``subscribe`` whose payload cannot be read: what a server makes of it, never sent.

    :ivar reason: what is wrong with the payload; nothing of it is repeated.

    Example::

        UnreadableSubscribe("1", "subscribe: invalid payload: NaN, Infinity or a number out of range")
    """

    id: str
    reason: str


class Next(msgspec.Struct, frozen=True, gc=False):
    """Carry one result of an operation (server to client).

    :ivar payload: the execution result as it was encoded, so that it is decoded once, straight into the type
        that wants it, or passed on untouched. One that is no JSON object, or no JSON, fits no event type.

    Example::

        Next(id="1", payload=b'{"data":{"resourceUpdates":{"id":"r-1"}}}')
    """

    id: str
    payload: bytes


class Error(msgspec.Struct, frozen=True):
    """End an operation that could not run (server to client); no :class:`Complete` follows.

    Example::

        Error(id="1", errors=(GraphQLError(message="Cannot query field 'x'"),))
    """

    id: str
    errors: tuple[GraphQLError, ...]


class Complete(msgspec.Struct, frozen=True, gc=False):
    """End an operation (either direction).

    Example::

        Complete(id="1")
    """

    id: str


Message: TypeAlias = ConnectionInit | ConnectionAck | Ping | Pong | Subscribe | Next | Error | Complete
