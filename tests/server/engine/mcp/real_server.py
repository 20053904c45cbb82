"""A real MCP server, run as a process of its own: ``python real_server.py PORT TOOL…``."""

from __future__ import annotations

import socket
import sys

import uvicorn
from mcp.server import MCPServer


def main() -> None:
    server = MCPServer("real")
    for name in sys.argv[2:]:
        server.add_tool(_tool, name=name, description=f"Does {name}.")

    @server.resource("data://one")
    def one() -> str:
        return "1"

    @server.prompt()
    def greet(name: str) -> str:
        """Greets."""
        return f"Hello {name}"

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(sys.argv[1])))
    listener.listen()
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(server.streamable_http_app(), log_config=None, timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])


def _tool(text: str) -> str:
    return text


if __name__ == "__main__":
    main()
