"""The GraphQL protocols as pure state machines: bytes in, events out, no input or output of their own.

:mod:`~circuit_breaker_sdk.protocol.transport_ws` holds both roles of ``graphql-transport-ws``,
:mod:`~circuit_breaker_sdk.protocol.codec` its messages' bytes, :mod:`~circuit_breaker_sdk.protocol.frames`
what RFC 6455 asks of a receiver, and :mod:`~circuit_breaker_sdk.protocol.prefix` the short way from a
message's first bytes to its operation.
"""
