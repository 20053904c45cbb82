"""Convert errors to the GraphQL errors that a peer gets, without internal details."""

from __future__ import annotations

from collections.abc import Sequence

import graphql

from circuit_breaker_sdk.errors import GraphQLError
from circuit_breaker_server.engine.errors import EngineError
from circuit_breaker_server.logs import get_logger

__all__ = ["DocumentInvalid", "forget_frames", "input_error", "to_wire"]

_SHOWN_CHARACTERS = 200

_log = get_logger("graphql")


class DocumentInvalid(Exception):
    """A document cannot be executed: it does not parse, does not fit the schema, or is too large.

    :ivar errors: at least one, ready for the peer, with locations in the document.

    Example::

        try:
            document = documents.get("{ nonsense }")
        except DocumentInvalid as error:
            print(error.errors[0].message)
    """

    def __init__(self, errors: Sequence[GraphQLError]) -> None:
        self.errors = tuple(errors)
        super().__init__(self.errors)

    def __str__(self) -> str:
        return "; ".join(map(str, self.errors))


def input_error(error: graphql.GraphQLError, code: str) -> GraphQLError:
    """Turn an error about what a caller wrote into one for the peer, whatever a parser raised for it.

    ``int()`` refuses a literal of more than 4,300 digits with an exception of its own: the text is at fault,
    not the server.
    """
    cause = error.original_error
    if cause is None or isinstance(cause, EngineError | graphql.GraphQLError):
        return to_wire(error, code)
    # What was written may be as long as the document, and the exception's text speaks of Python.
    message = error.message.removesuffix(str(cause)).rstrip("; ")
    if not message:
        return to_wire(error, code)  # an exception that says nothing about a value
    shown = message if len(message) <= _SHOWN_CHARACTERS else message[:_SHOWN_CHARACTERS] + " …"
    return to_wire(graphql.GraphQLError(shown, error.nodes, path=error.path), code)


def to_wire(error: graphql.GraphQLError, code: str | None = None) -> GraphQLError:
    """Turn an error of graphql-core into one for the peer.

    The engine's refusals keep their text and code. GraphQL's own errors keep their text and get ``code``.
    Any other exception is logged and becomes "internal error", code ``INTERNAL``: no text of ours, no
    trace.
    """
    cause = error.original_error
    extensions: dict[str, object] | None
    if isinstance(cause, EngineError):
        message, extensions = cause.message, cause.extensions
    elif cause is None or isinstance(cause, graphql.GraphQLError):
        message, extensions = error.message, {"code": code} if code else None
    else:
        path = ".".join(map(str, error.path or ()))
        _log.error("resolver_failed", path=path, exc_info=cause)
        message, extensions = "internal error", {"code": "INTERNAL"}
    forget_frames(error)
    return GraphQLError(
        message=message,
        path=None if error.path is None else tuple(error.path),
        locations=tuple({"line": at.line, "column": at.column} for at in error.locations or ()) or None,
        extensions=extensions,
    )


def forget_frames(error: graphql.GraphQLError) -> None:
    """Let go of the frames that an error has come through: graphql-core's lists of errors are in them.

    What was executed would stay with such a circle, until the garbage collection comes by.
    """
    found: BaseException | None = error
    while found is not None:
        found.__traceback__ = None
        cause = found.original_error if isinstance(found, graphql.GraphQLError) else None
        found = cause or found.__cause__ or found.__context__
