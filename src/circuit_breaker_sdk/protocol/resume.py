"""Payloads of the resume extension (docs/resume.md): the offer, its acknowledgement, the live signal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["acknowledged_epoch", "live_signal", "offering_resume"]

_VERSION: Final = 1


def offering_resume(init_payload: Mapping[str, object], *, traces: bool = False) -> dict[str, object]:
    """Return the payload of ``connection_init`` with the offer to resume in it.

    :param traces: whether events shall have the traces of the mutations that caused them.
    """
    offer: dict[str, object] = {"version": _VERSION}
    if traces:
        offer["traceparent"] = True
    return {**init_payload, "resume": offer}


def acknowledged_epoch(payload: Mapping[str, object] | None) -> str | None:
    """Return the epoch of the server's log from ``connection_ack``; ``None`` where it does not resume."""
    resume = (payload or {}).get("resume")
    if not isinstance(resume, dict) or resume.get("version") != _VERSION:
        return None
    epoch = resume.get("epoch")
    return epoch if isinstance(epoch, str) else ""


def live_signal(payload: Mapping[str, object] | None) -> tuple[str, str] | None:
    """Return operation id and cursor from a ``ping``; ``None`` for a plain ping."""
    resume = (payload or {}).get("resume")
    if not isinstance(resume, dict):
        return None
    id_, cursor = resume.get("id"), resume.get("cursor")
    return (id_, cursor) if isinstance(id_, str) and isinstance(cursor, str) else None
