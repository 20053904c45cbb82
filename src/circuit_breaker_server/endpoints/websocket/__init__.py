"""The WebSocket endpoint: graphql-transport-ws sessions and their registry."""
