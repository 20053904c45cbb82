"""The network side: listeners, connection limits, TLS, HTTP/1.1, upgrades to WebSocket."""
