"""The GraphQL protocols as pure state machines: bytes in, events out, no input or output of their own.

- :mod:`~circuit_breaker_sdk.protocol.transport_ws`: both roles of ``graphql-transport-ws``.
- :mod:`~circuit_breaker_sdk.protocol.legacy_ws`: both roles of its predecessor, ``graphql-ws``.
- :mod:`~circuit_breaker_sdk.protocol.conversation`: what the roles have in common.
- :mod:`~circuit_breaker_sdk.protocol.codec`: the bytes of its messages.
- :mod:`~circuit_breaker_sdk.protocol.message_assembly`: messages from WebSocket frames (RFC 6455).
- :mod:`~circuit_breaker_sdk.protocol.next_prefix`: the operation of a ``next`` from its first bytes.
"""
