"""GraphQL responses in the bodies of HTTP answers, and what they say about a refusal."""

from __future__ import annotations

from typing import Final

import msgspec

from circuit_breaker_sdk.errors import AuthenticationFailed, GraphQLError, TransportError
from circuit_breaker_sdk.protocol.json_depth import check_depth

__all__ = ["GraphQLResponse", "graphql_response", "with_server_text"]


class GraphQLResponse(msgspec.Struct):
    """A GraphQL response: JSON with ``data``, ``errors`` or both (specification, section 7.1)."""

    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    errors: list[msgspec.Raw] | None = None


_RESPONSE: Final = msgspec.json.Decoder(GraphQLResponse)
_ERROR: Final = msgspec.json.Decoder(GraphQLError)


def graphql_response(body: bytes) -> GraphQLResponse | None:
    """Read the body of an answer; ``None`` where it is no GraphQL response."""
    try:
        response = _RESPONSE.decode(body)
        if response.data is not msgspec.UNSET:
            check_depth(bytes(response.data))  # errors are judged one by one
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if response.data is msgspec.UNSET and not response.errors else response


def with_server_text(error: TransportError, response: GraphQLResponse | None) -> TransportError:
    """Add what the server itself says about refused credentials."""
    if not isinstance(error, AuthenticationFailed) or response is None or not response.errors:
        return error
    try:
        text = _ERROR.decode(response.errors[0]).message
    except (msgspec.DecodeError, UnicodeDecodeError):
        return error
    return AuthenticationFailed(f"{error.message}; the server says: {text}")
