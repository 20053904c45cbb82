"""Answers and events in the shapes of ``NatsResourceGQL`` and its kin.

The log is this server's own; what the schema calls a sequence is a record's offset in it, and what it calls
a subject is the record's subject.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from circuit_breaker_server.engine.events import StreamEvent
from circuit_breaker_server.log.event_log import Record

__all__ = ["NATS_RESOURCE_STREAM", "activity_records", "nats_event", "nats_value"]

NATS_RESOURCE_STREAM = "natsResourceStream"

_SHARED = ("id", "workflowId", "state", "data", "metadata", "createdAt", "updatedAt", "history")


def nats_value(
    resource: Mapping[str, object], activities: object, *, offset: int | str, subject: str
) -> dict[str, object]:
    """Return a resource as ``NatsResourceGQL``.

    :param resource: as ``ResourceGQL``.
    :param activities: its ``activityHistory``, or what returns it.
    :param offset: of the resource's last record.
    """
    value: dict[str, object] = {name: resource[name] for name in _SHARED}
    value["natsSequence"] = str(offset)
    value["natsTimestamp"] = resource["updatedAt"]
    value["natsSubject"] = subject
    value["activityHistory"] = activities
    return value


def activity_records(history: Iterable[Mapping[str, object]]) -> list[dict[str, object]]:
    """Return entries of a history as ``ActivityRecordGQL``."""
    return [
        {
            "fromState": entry["fromState"],
            "toState": entry["toState"],
            "activityId": entry["activity"],
            "timestamp": entry["timestamp"],
            "triggeredBy": entry.get("triggeredBy"),
            "natsSequence": entry.get("natsSequence"),
            "metadata": entry.get("data"),
        }
        for entry in history
    ]


def nats_event(
    record: Record,
    event_type: str,
    resource: Callable[[], Mapping[str, object]],
    history: Callable[[], Iterable[Mapping[str, object]]],
    *,
    triggered_by: str | None = None,
    activity: str | None = None,
    previous_state: str | None = None,
) -> StreamEvent:
    """Return the event of ``natsResourceStream`` that a record of a resource is.

    :param resource: returns it after the change, as ``ResourceGQL``.
    :param history: returns the resource's, as far as the record holds it.
    """
    about = (activity, previous_state, triggered_by)
    return StreamEvent(NATS_RESOURCE_STREAM, partial(_event, record, event_type, resource, history, about))


def _event(
    record: Record,
    event_type: str,
    resource: Callable[[], Mapping[str, object]],
    history: Callable[[], Iterable[Mapping[str, object]]],
    about: tuple[str | None, str | None, str | None],
) -> dict[str, object]:
    activity, previous_state, triggered_by = about
    after = resource()
    return {
        "eventType": event_type,
        "resource": nats_value(
            after, lambda: activity_records(history()), offset=record.offset, subject=record.subject
        ),
        "subject": record.subject,
        "sequence": str(record.offset),
        "timestamp": after["updatedAt"],
        "activity": activity,
        "previousState": previous_state,
        "metadata": None if triggered_by is None else {"triggeredBy": triggered_by},
    }
