"""A real MCP server for the demo, in a process of its own: ``python -m …mcp_tools PORT``; 0 takes a free one.

It prints its port once it listens, and ends when its standard input does: it never outlives the demo.
"""

from __future__ import annotations

import os
import socket
import sys
import threading

__all__ = ["main"]


def main(port: int) -> None:
    """Serve two tools until standard input ends."""
    # Before it is loaded: what it takes to start must not be taken from the demo's latencies.
    os.nice(10)
    import uvicorn  # noqa: PLC0415 (as said above)
    from mcp.server import MCPServer  # noqa: PLC0415 (as said above)

    server = MCPServer("demo-tools")

    @server.tool()
    def word_count(text: str) -> int:
        """Count the words of a text."""
        return len(text.split())

    @server.tool()
    def shout(text: str) -> str:
        """Say a text in capitals."""
        return text.upper()

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    config = uvicorn.Config(server.streamable_http_app(), log_config=None, timeout_graceful_shutdown=1)
    running = uvicorn.Server(config)

    def end_with_stdin() -> None:
        sys.stdin.read()
        running.should_exit = True

    threading.Thread(target=end_with_stdin, daemon=True).start()
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    running.run(sockets=[listener])


if __name__ == "__main__":
    main(int(sys.argv[1]))
