"""Open the TCP socket on which the server listens."""

from __future__ import annotations

import errno
import socket
from dataclasses import replace
from typing import Final

from circuit_breaker_server.settings.server import ServerSettings
from circuit_breaker_server.start_errors import ServerStartError

__all__ = ["BACKLOG", "listen", "listen_for_metrics"]

BACKLOG: Final = 2048
"""Connections that wait to be accepted."""
_METRICS_HOST: Final = "127.0.0.1"


def listen_for_metrics(settings: ServerSettings, port: int, *, worker: int | None = None) -> socket.socket:
    """Listen on a port for the metrics, which only this machine reaches.

    :param worker: the number of the worker whose port it is, for the error's text.
    :raises ServerStartError: the port cannot be used; the text says what to do.
    """
    purpose = "the metrics port" + ("" if worker is None else f" of worker {worker}")
    return listen(replace(settings, host=_METRICS_HOST, port=port, reuse_port=False), purpose=purpose)


def listen(settings: ServerSettings, *, purpose: str | None = None) -> socket.socket:
    """Bind the address of the settings and listen on it.

    A port that several processes share is only bound: connections that came now would wait until this one
    accepts, and another one accepts already. Whoever begins to accept listens (again) with :data:`BACKLOG`.

    :param purpose: of the port, for the error's text.
    :raises ServerStartError: the address or the port cannot be used; the text says what to do.
    """
    host, port = settings.host, settings.port
    where = f"{host}:{port}" + (f", {purpose}" if purpose else "")
    try:
        family, kind, proto, _name, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ServerStartError(
            f"cannot listen on {where}: unknown host ({error.strerror}); use an address of this machine"
        ) from error
    listener = socket.socket(family, kind, proto)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if settings.reuse_port:
            _share_port(listener)
        if settings.send_buffer_bytes is not None:
            # Inherited by the sockets that are accepted.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.send_buffer_bytes)
        user_timeout = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux has it
        if user_timeout is not None:
            # Inherited as well. A peer that has vanished acknowledges nothing; without it, that takes the
            # system a quarter of an hour to notice.
            listener.setsockopt(socket.IPPROTO_TCP, user_timeout, int(settings.stall_seconds * 1000))
        listener.bind(address)
        # Here already, so that a second server on the port fails now and not after it opened its log.
        if not settings.reuse_port:
            listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ServerStartError(f"cannot listen on {where}: {_advice(error)}") from error
    return listener


def _share_port(listener: socket.socket) -> None:
    option = getattr(socket, "SO_REUSEPORT", None)
    if option is None:
        raise ServerStartError("reuse_port: this system does not let several processes share a port")
    listener.setsockopt(socket.SOL_SOCKET, option, 1)


def _advice(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "the port is in use; stop the other program or choose another port (0 takes a free one)"
        case errno.EACCES:
            return "this user may not use the port; choose one above 1023"
        case errno.EADDRNOTAVAIL:
            return "the address is not one of this machine; try 127.0.0.1"
        case _:
            return f"{error.strerror}; choose another address or port"
