"""The ways from one status of an MCP server to another."""

from __future__ import annotations

__all__ = ["way"]


def way(old: str, new: str) -> tuple[str, ...]:
    """Return the statuses passed through, both ends included; nothing where they are the same.

    What comes to be ONLINE was STARTING before, what is switched off while in use is STOPPING before.
    """
    if old == new:
        return ()
    if new == "ONLINE" and old != "STARTING":
        return old, "STARTING", new
    if new == "OFFLINE" and old in ("ONLINE", "STARTING"):
        return old, "STOPPING", new
    return old, new
