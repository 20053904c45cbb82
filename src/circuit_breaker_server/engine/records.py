"""The bodies of the log's records: one mutation, one record.

A body is a JSON object with ``type`` and ``v``, its version. Bodies of older versions are brought up to
date step by step by :data:`UPCASTERS`; a body of a newer version stops the start with a clear error.
A body of a resource holds the resource after the change, but only the end of its history (at most
:data:`HISTORY_TAIL` entries, and none beyond :data:`HISTORY_TAIL_BYTES`): a record does not grow with
the number of records before it. Its stream events need nothing but the record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, final

import msgspec

from circuit_breaker_server.engine.definitions import StateDefinition, WorkflowDefinition
from circuit_breaker_server.log.event_log import LogCorruptError, Record

__all__ = [
    "HISTORY_TAIL",
    "HISTORY_TAIL_BYTES",
    "UPCASTERS",
    "VERSION",
    "ActivityExecuted",
    "Body",
    "ResourceCreated",
    "ResourceImage",
    "StateCreated",
    "StateUpdated",
    "WorkflowCreated",
    "decode_as",
    "decode_body",
    "encode_body",
    "history_tail",
]

VERSION = 1

UPCASTERS: dict[int, Callable[[dict[str, object]], dict[str, object]]] = {}
"""By version: makes the body of the next version of it, without changing what it was given."""

HISTORY_TAIL = 16
HISTORY_TAIL_BYTES = 16 * 1024


class VersionedBody(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="type"):
    """What all bodies begin with."""

    v: int = VERSION


@final
class ResourceImage(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A resource after a change, in the shape of ``ResourceGQL``; JSON inside it stays as written.

    :ivar history: the end of the history, oldest first; the last entry is this change's.
    """

    id: str
    workflow_id: str
    state: str
    state_definition: msgspec.Raw
    data: msgspec.Raw
    metadata: msgspec.Raw
    created_at: str
    updated_at: str
    history: tuple[msgspec.Raw, ...]


@final
class WorkflowCreated(VersionedBody, frozen=True, kw_only=True, tag="workflow_created"):
    """By ``createWorkflow``."""

    workflow: WorkflowDefinition


@final
class StateCreated(VersionedBody, frozen=True, kw_only=True, tag="state_created"):
    """By ``createState``; ``state.created_at`` is the time of the change."""

    workflow_id: str
    state: StateDefinition


@final
class StateUpdated(VersionedBody, frozen=True, kw_only=True, tag="state_updated"):
    """By ``updateState``; ``state`` is the whole state after the change, ``state.updated_at`` its time."""

    workflow_id: str
    state: StateDefinition


@final
class ResourceCreated(VersionedBody, frozen=True, kw_only=True, tag="resource_created"):
    """By ``createResource``."""

    resource: ResourceImage


@final
class ActivityExecuted(VersionedBody, frozen=True, kw_only=True, tag="activity_executed"):
    """By ``executeActivity``; the last entry of ``resource.history`` is this change's."""

    activity_id: str
    from_state: str
    to_state: str
    resource: ResourceImage


Body = WorkflowCreated | StateCreated | StateUpdated | ResourceCreated | ActivityExecuted

_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[Body] = msgspec.json.Decoder(Body)

_B = TypeVar("_B", bound=VersionedBody)


def encode_body(body: Body) -> bytes:
    """Write a body of the present version."""
    return _ENCODER.encode(body)


def decode_body(record: Record) -> Body:
    """Read a record's body, brought up to date.

    :raises LogCorruptError: the body is of a newer version, of an unknown type, or no body at all.
    """
    return decode_as(_DECODER, record)


def decode_as(decoder: msgspec.json.Decoder[_B], record: Record) -> _B:
    """Read a record's body, brought up to date, as the decoder's type sees it.

    :raises LogCorruptError: the body is of a newer version, of an unknown type, or no body at all.
    """
    try:
        body = decoder.decode(record.data)
    except msgspec.DecodeError:
        return _decode_old(decoder, record)
    return body if body.v == VERSION else _decode_old(decoder, record)


def _decode_old(decoder: msgspec.json.Decoder[_B], record: Record) -> _B:
    where = f"record {record.offset} ({record.subject})"
    try:
        body = msgspec.json.decode(record.data, type=dict[str, object])
        version = body.get("v")
        if not isinstance(version, int):
            raise LogCorruptError(f"{where} has no version; it was not written by this program")
        if version > VERSION:
            raise LogCorruptError(
                f"{where} has version {version}, this program reads up to {VERSION}; run the newer program"
            )
        for step in range(version, VERSION):
            body = {**UPCASTERS[step](body), "v": step + 1}
        return decoder.decode(_ENCODER.encode(body))
    except (msgspec.DecodeError, KeyError) as error:
        raise LogCorruptError(f"{where} cannot be read: {error}") from error


def history_tail(entries: Sequence[msgspec.Raw]) -> tuple[msgspec.Raw, ...]:
    """Return the end of a history that a record may hold; always the last entry, whatever its size."""
    size = 0
    kept: list[msgspec.Raw] = []
    for entry in reversed(entries[-HISTORY_TAIL:]):
        size += memoryview(entry).nbytes
        if kept and size > HISTORY_TAIL_BYTES:
            break
        kept.append(entry)
    return tuple(reversed(kept))
