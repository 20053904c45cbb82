"""The event that every benchmark sends: an update of a resource of about 290 bytes."""

from __future__ import annotations

__all__ = ["DOCUMENT", "FIELDS", "resource"]

FIELDS = "id workflowId state data createdAt updatedAt"
DOCUMENT = f"subscription {{ resourceUpdates {{ {FIELDS} }} }}"


def resource(number: int) -> dict[str, object]:
    """Return the value of one event."""
    return {
        "id": f"resource-{number:08d}-3f8a-4a52",
        "workflowId": "workflow-5b1e77c0-8d6f",
        "state": "in_review",
        "data": {"title": "Quarterly plan", "revision": number},
        "createdAt": "2026-01-15T10:30:00.123Z",
        "updatedAt": "2026-01-15T10:31:07.456Z",
    }
