"""A snapshot of a client's counters does not change any more; the counters behind it do."""

from __future__ import annotations

import pytest

from circuit_breaker_sdk import Client
from circuit_breaker_sdk.observability import ConnectionCounters


def test_a_new_client_has_counted_nothing_and_its_snapshot_is_frozen() -> None:
    metrics = Client("ws://localhost").metrics
    assert [getattr(metrics, name) for name in metrics.__struct_fields__] == [0, 0, 0, 0, 0, None]
    with pytest.raises(AttributeError):
        metrics.connection_failures = 1  # type: ignore[misc]  # what is refused


def test_counters_of_one_supervisor_are_its_own() -> None:
    one, other = ConnectionCounters(), ConnectionCounters()
    one.failures += 1
    assert (one.failures, other.failures) == (1, 0)
