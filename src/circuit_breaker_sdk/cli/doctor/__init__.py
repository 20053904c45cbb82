"""``circuit-breaker doctor``: examine the way to a GraphQL server."""
