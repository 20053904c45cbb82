"""Every error the SDK raises, in one tree.

Whether trying again can help stands on the class (:attr:`CircuitBreakerError.retryable`); facts are
attributes; ``str(error)`` says what happened, to what, and what to do. No secret enters a message.
Every error survives ``pickle`` and ``copy`` with its attributes, its notes and what it is chained to.

::

    CircuitBreakerError
    ├── UsageError                  the caller's mistake: a wrong argument, a closed client
    ├── OperationError              a query or mutation was answered with errors
    ├── TransportError              no usable answer: of a query, a mutation or a subscription
    │   ├── ConnectionFailed        no connection, or it was lost; a ConnectionError     (retryable)
    │   │   └── HandshakeFailed     the peer answered, but not as a GraphQL WebSocket server
    │   ├── AuthenticationFailed    credentials missing, wrong or expired
    │   ├── RateLimitExceeded       too many requests; see retry_after                   (retryable)
    │   ├── OfflineQueueFull        as many mutations wait for the server as may
    │   ├── OperationTimeoutError   no answer in time; a TimeoutError                    (retryable)
    │   ├── ProtocolError           a peer broke the protocol
    │   └── DecodeError             a payload does not fit the type it is decoded to
    └── SubscriptionError           about one subscription
        ├── SubscriptionFailed      the server refused or ended this one subscription
        ├── BufferOverflowError     the consumer is slower than the stream and the buffer is full
        ├── HandlerError            a handler of the application raised
        └── GapError                events are missing and cannot be read again

A query or mutation raises ``OperationError`` or ``TransportError``. A subscription ends with
``TransportError`` or ``SubscriptionError``; ``except CircuitBreakerError`` catches all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, TypeAlias

import msgspec

from circuit_breaker_sdk.error_pickling import ErrorLink, restored, shown

__all__ = [
    "AuthenticationFailed",
    "BufferOverflowError",
    "CircuitBreakerError",
    "ConnectionFailed",
    "DecodeError",
    "GapError",
    "GraphQLError",
    "HandlerError",
    "HandshakeFailed",
    "OfflineQueueFull",
    "OperationError",
    "OperationTimeoutError",
    "ProtocolError",
    "RateLimitExceeded",
    "SubscriptionError",
    "SubscriptionFailed",
    "TransportError",
    "UsageError",
]


class GraphQLError(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a response's ``errors`` (GraphQL specification, section 7.1.2)."""

    message: str
    path: tuple[str | int, ...] | None = None
    locations: tuple[dict[str, int], ...] | None = None
    extensions: dict[str, object] | None = None

    @property
    def code(self) -> str | None:
        """``extensions.code`` where the server gave one, for example ``NOT_FOUND`` or ``CONFLICT``."""
        code = (self.extensions or {}).get("code")
        return code if isinstance(code, str) else None

    def __str__(self) -> str:
        where = " at " + ".".join(map(str, self.path)) if self.path else ""
        code = f" [{self.code}]" if self.code else ""
        return f"{self.message}{where}{code}"


_SHOWN_ERRORS = 10
_SHOWN_CHARACTERS = 2_000


def joined(errors: Sequence[GraphQLError]) -> str:
    """Join errors for people: the first ten, each cut to 2,000 characters, whatever a server sends."""
    shown = [str(error) for error in errors[:_SHOWN_ERRORS]]
    text = "; ".join(
        each if len(each) <= _SHOWN_CHARACTERS else f"{each[:_SHOWN_CHARACTERS]}…" for each in shown
    )
    return text if len(errors) <= _SHOWN_ERRORS else f"{text}; and {len(errors) - _SHOWN_ERRORS} more"


class CircuitBreakerError(Exception):
    """Base of all errors of this package.

    :ivar member: where a :class:`BatchSubscriptionManager` raised it, the name of the member it is about.
    """

    retryable: ClassVar[bool] = False
    carries_its_chain: ClassVar[bool] = True
    """Whether pickling takes the chained error along, as ``__reduce__`` does."""
    member: str | None = None

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        # Python's own way calls the class with `args`: keyword-only arguments would be missing, and what the
        # error is chained to would be lost.
        return restored, (type(self), self.args, self.__dict__, ErrorLink(self))


class UsageError(CircuitBreakerError):
    """The call itself is wrong: nothing was sent."""


class OperationError(CircuitBreakerError):
    """A query or mutation was answered with errors.

    :ivar errors: the server's errors, paths kept.
    :ivar operation: the operation's name, or ``None`` for an anonymous document.
    :ivar data: what the server answered beside the errors, as plain JSON; ``None`` where that was nothing.
        The fields that failed are null in it. ``client.execute(…, errors="return")`` returns it typed.
    """

    def __init__(
        self, errors: Sequence[GraphQLError], *, operation: str | None = None, data: object = None
    ) -> None:
        self.errors: tuple[GraphQLError, ...] = tuple(errors)
        self.operation = operation
        self.data: object = data
        super().__init__(self.errors, operation)

    @property
    def code(self) -> str | None:
        """The first error's ``extensions.code``."""
        return self.errors[0].code if self.errors else None

    def __str__(self) -> str:
        return f"{self.operation or 'the operation'} failed: " + joined(self.errors)


class TransportError(CircuitBreakerError):
    """No usable answer came: base of what a query raises, and of what can end every subscription."""


class SubscriptionError(CircuitBreakerError):
    """Base of the errors of one subscription; others on its connection go on."""


class ConnectionFailed(TransportError, ConnectionError):
    """The connection could not be made, or was lost. It is also a :class:`ConnectionError`.

    :ivar url: where to, without credentials.
    :ivar close_code: the WebSocket close code, when there was one.
    :ivar not_sent: whether it is certain that nothing was sent: there was no connection.
    :ivar retry_after: seconds after which the server asks its client to come back, from the reason of its
        close; ``None`` where it asks for nothing.
    """

    retryable: ClassVar[bool] = True

    def __init__(
        self,
        message: str,
        *,
        url: str | None = None,
        close_code: int | None = None,
        not_sent: bool = False,
        retry_after: float | None = None,
    ) -> None:
        self.message = message
        self.url = url
        self.not_sent = not_sent
        self.retry_after = retry_after
        self.close_code = close_code
        super().__init__(message)

    def __str__(self) -> str:
        code = f" (close code {self.close_code})" if self.close_code is not None else ""
        return f"{self.url}: {self.message}{code}" if self.url else f"{self.message}{code}"


class HandshakeFailed(ConnectionFailed):
    """The peer answered, but did not become a GraphQL WebSocket: wrong path, protocol or kind of server.

    :ivar status: the HTTP status of the answer, when there was one.
    """

    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, url: str | None = None, status: int | None = None) -> None:
        self.status = status
        super().__init__(message, url=url)


class AuthenticationFailed(TransportError):
    """Credentials are missing, wrong or expired (close code 4403, or HTTP 401 and 403)."""

    def __init__(self, message: str) -> None:
        self.message = message
        super().__init__(message)

    def __str__(self) -> str:
        return self.message


class RateLimitExceeded(TransportError):
    """The server asks to slow down.

    :ivar retry_after: seconds to wait before the next attempt, ``None`` where the server did not say.
    """

    retryable: ClassVar[bool] = True

    def __init__(self, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(retry_after)

    def __str__(self) -> str:
        wait = "later" if self.retry_after is None else f"in {self.retry_after:g} s"
        return f"rate limit exceeded: try again {wait}"


class OfflineQueueFull(TransportError):
    """A mutation was given up because as many wait for the server as may; it was not sent.

    :ivar max_operations: how many may wait.
    """

    def __init__(self, what: str, max_operations: int) -> None:
        self.what = what
        self.max_operations = max_operations
        super().__init__(what, max_operations)

    def __str__(self) -> str:
        return f"{self.what} was not sent: {self.max_operations} mutations wait for the server already"


class OperationTimeoutError(TransportError, TimeoutError):
    """No answer came in time. It is also a :class:`TimeoutError`.

    :ivar seconds: how long was waited.
    """

    retryable: ClassVar[bool] = True

    def __init__(self, what: str, *, seconds: float) -> None:
        self.what = what
        self.seconds = seconds
        super().__init__(what)  # of two arguments an OSError makes an errno

    def __str__(self) -> str:
        return f"{self.what}: no answer within {self.seconds:g} s"


class ProtocolError(TransportError):
    """A peer broke the protocol; the connection is closed with :attr:`close_code`."""

    def __init__(self, reason: str, *, close_code: int) -> None:
        self.reason = reason
        self.close_code = close_code
        super().__init__(reason, close_code)

    def __str__(self) -> str:
        return f"protocol error: {self.reason} (close code {self.close_code})"


class SubscriptionFailed(SubscriptionError):
    """The server refused or ended this subscription; others on the connection go on.

    :ivar id: the operation id.
    :ivar reason: the server's errors, joined.
    :ivar errors: the server's errors, paths kept.
    :ivar close_code: where the server closed the connection whenever it was sent, the code of that close.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 (the planned SDKs' name)
        reason: str,
        *,
        errors: Sequence[GraphQLError] = (),
        close_code: int | None = None,
    ) -> None:
        self.id = id
        self.reason = reason
        self.close_code = close_code
        self.errors: tuple[GraphQLError, ...] = tuple(errors)
        super().__init__(id, reason)

    @property
    def code(self) -> str | None:
        """The first error's ``extensions.code``."""
        return self.errors[0].code if self.errors else None

    def __str__(self) -> str:
        code = "" if self.close_code is None else f" (close code {self.close_code})"
        return f"subscription {self.id} failed: {self.reason}{code}"


class DecodeError(TransportError):
    """A payload does not fit the event type.

    :ivar id: the operation id.
    :ivar detail: what does not fit, and where in the payload.
    """

    def __init__(self, id: str, *, type_name: str, detail: str) -> None:  # noqa: A002 (as above)
        self.id = id
        self.type_name = type_name
        self.detail = detail
        super().__init__(id, type_name, detail)

    def __str__(self) -> str:
        return (
            f"operation {self.id}: the server's payload does not fit {self.type_name}: {self.detail}. "
            "Compare the document with the type it is decoded to."
        )


class BufferOverflowError(SubscriptionError):
    """The consumer is slower than the stream and its bounded buffer is full.

    :ivar events: events held when it overflowed.
    :ivar size_bytes: their encoded size.
    """

    def __init__(self, id: str, *, events: int, size_bytes: int) -> None:  # noqa: A002 (as above)
        self.id = id
        self.events = events
        self.size_bytes = size_bytes
        super().__init__(id, events, size_bytes)

    def __str__(self) -> str:
        return (
            f"subscription {self.id}: buffer full ({self.events} events, {self.size_bytes} bytes). "
            "Consume faster, raise BufferLimits, or choose another overflow policy."
        )


class HandlerError(SubscriptionError):
    """A handler raised; the subscription goes on. The handler's exception is ``__cause__``.

    :ivar raised: the ``repr`` of the handler's exception: a process pool puts a traceback in the place of
        ``__cause__``.
    """

    def __init__(self, id: str, handler: str, cause: BaseException) -> None:  # noqa: A002 (as above)
        self.id = id
        self.handler = handler
        self.raised: str = shown(cause)
        super().__init__(id, handler, self.raised)
        self.__cause__: BaseException | None = cause

    def __str__(self) -> str:
        return f"subscription {self.id}: handler {self.handler} raised {self.raised}"


class GapError(SubscriptionError):
    """Events are missing between what was delivered and what comes next.

    :ivar reason: ``trimmed``, ``epoch``, ``rewritten``, ``future``, ``malformed``, ``skipped``, or ``prev``
        when the chain of cursors itself is broken.
    """

    def __init__(self, id: str, reason: str) -> None:  # noqa: A002 (as above)
        self.id = id
        self.reason = reason
        super().__init__(id, reason)

    def __str__(self) -> str:
        return (
            f"subscription {self.id}: events are missing ({self.reason}). "
            "Read the present state with a query and subscribe anew, or let on_gap do both."
        )


StreamFailure: TypeAlias = TransportError | SubscriptionError
"""Whatever can end a subscription; in an ``except`` the two stand side by side."""
