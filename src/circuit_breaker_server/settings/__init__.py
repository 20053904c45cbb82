"""The settings of a server, in groups; :mod:`circuit_breaker_server.config` is their public entry."""
