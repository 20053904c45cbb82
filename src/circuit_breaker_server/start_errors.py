"""The errors with which a server does not start."""

from __future__ import annotations

__all__ = ["RecordNotAppliedError", "ServerStartError"]


class ServerStartError(Exception):
    """The server could not start. The text names what, where, and what to do about it."""


class RecordNotAppliedError(ServerStartError):
    """A record of the event log cannot be applied to the state (fail-stop)."""
