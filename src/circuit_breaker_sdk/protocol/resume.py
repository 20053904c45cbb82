"""Payloads of the resume extension (docs/resume.md): the offer, its acknowledgement, the live signal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from circuit_breaker_sdk.protocol.messages import Subscribe

__all__ = [
    "TRACES_HEADER",
    "acknowledged_epoch",
    "answer_behind",
    "live_signal",
    "naming_positions",
    "offering_resume",
    "question_behind",
    "tells_behind",
]

_VERSION: Final = 1
TRACES_HEADER: Final = "Resume-Traces"
"""The header with which a client asks for traces where its events come over HTTP; its value is ``1``."""


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


def naming_positions(message: Subscribe, positions: tuple[str, ...]) -> Subscribe:
    """Return a request that its server answers once it has seen what this client has."""
    extensions = message.extensions or {}
    resume = extensions.get("resume")
    named = {**(resume if isinstance(resume, dict) else {}), "position": list(positions)}
    return Subscribe(
        message.id,
        message.query,
        message.variables,
        message.operation_name,
        {**extensions, "resume": named},
    )


def tells_behind(payload: Mapping[str, object] | None) -> bool:
    """Tell whether a ``connection_ack`` says that the server answers :func:`question_behind`."""
    resume = (payload or {}).get("resume")
    return isinstance(resume, dict) and resume.get("version") == _VERSION and resume.get("behind") is True


def question_behind(cursors: Mapping[str, str]) -> dict[str, object]:
    """Return the payload of a ``ping`` that asks how many records subscriptions are behind.

    :param cursors: the cursor of each by operation id.
    """
    return {"resume": {"behind": dict(cursors)}}


def answer_behind(payload: Mapping[str, object] | None) -> dict[str, int] | None:
    """Return the number of records by operation id from a ``ping``; ``None`` for any other."""
    resume = (payload or {}).get("resume")
    told = resume.get("behind") if isinstance(resume, dict) else None
    if not isinstance(told, dict):
        return None
    return {id_: count for id_, count in told.items() if type(count) is int and count >= 0}


def live_signal(payload: Mapping[str, object] | None) -> tuple[str, str] | None:
    """Return operation id and cursor from a ``ping``; ``None`` for a plain ping."""
    resume = (payload or {}).get("resume")
    if not isinstance(resume, dict):
        return None
    id_, cursor = resume.get("id"), resume.get("cursor")
    return (id_, cursor) if isinstance(id_, str) and isinstance(cursor, str) else None
