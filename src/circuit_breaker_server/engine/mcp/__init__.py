"""MCP servers: checked, signed in to, listened to."""
