"""Whatever happens to log, server and network in whatever order: every event once, in order, or a gap."""

from __future__ import annotations

import asyncio
import functools
import logging
from unittest import mock

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from circuit_breaker_sdk.recovery import gaps
from circuit_breaker_server import logs
from circuit_breaker_server.gateway import catch_up, feed
from tests.model.world import ROOMS, a_world

Step = tuple[str, int, int]

OFTEN = ["publish"] * 6 + ["flow"] * 6 + ["subscribe"] * 4 + ["dial"] * 3 + ["put on"] * 3 + ["cut"] * 2
SOMETIMES = ["to server", "to client", "take", "turn", "hand over", "begin after", "notice", "unsubscribe"]
RARELY = ["nothing", "hole", "advance", "trim", "restart", "save", "restore", "wipe", "rob"]

BEGINNING: list[Step] = [("dial", 0, 3), ("flow", 0, 0), ("flow", 0, 0)]

steps = st.lists(
    st.tuples(
        st.sampled_from(OFTEN + SOMETIMES * 2 + RARELY),
        st.integers(0, 11),
        st.integers(0, 11),
    ),
    min_size=8,
    max_size=60,
)


@pytest.fixture(autouse=True)
def quiet_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    logs.configure("critical")
    monkeypatch.setattr(logging.getLogger("circuit_breaker_sdk"), "disabled", True)
    monkeypatch.setattr(gaps, "_RETRY_SECONDS", 0)
    # A page of some events is written in several pieces, and a socket may be full inside it.
    for module in (feed, catch_up):
        monkeypatch.setattr(module, "MAX_WRITE_BYTES", 300)


async def play(script: list[Step], *, ring_size: int, page_records: int, room: int) -> None:
    patch = functools.partial(mock.patch, "circuit_breaker_sdk.transports.websocket.connect")
    async with a_world(patch, ring_size=ring_size, page_records=page_records, room=room) as world:
        for step in [*BEGINNING, *script]:
            await world.play(*step)
        await world.finish()


# A full buffer has stopped its connection; it is handed over, and must stop the other one too.
STOPPED_AND_HANDED_OVER: list[Step] = [
    ("dial", 0, 3),
    ("flow", 0, 0),
    ("flow", 0, 0),
    ("subscribe", 0, 2),
    ("flow", 0, 3),
    ("publish", 0, 2),
    ("flow", 0, 3),
    ("hand over", 0, 3),
    ("flow", 0, 3),
    ("publish", 0, 2),
    ("flow", 0, 3),
]
# An operation ends by a full buffer, its id is used again, and only then does its owner end it.
ID_USED_AGAIN: list[Step] = [
    ("subscribe", 0, 1),
    ("flow", 0, 3),
    ("publish", 0, 2),
    ("flow", 0, 3),
    ("flow", 0, 3),
    ("subscribe", 0, 0),
    ("flow", 0, 3),
    ("unsubscribe", 0, 3),
    ("flow", 0, 3),
    ("publish", 0, 2),
]
# The log is trimmed past what waits behind a full socket.
TRIMMED_BEHIND_A_FULL_SOCKET: list[Step] = [
    ("subscribe", 0, 0),
    ("flow", 0, 3),
    ("flow", 0, 3),
    ("publish", 0, 2),
    ("turn", 0, 9),
    ("publish", 0, 2),
    ("turn", 0, 9),
    ("trim", 0, 1),
]
# Resumed after the first event of the record that was trimmed last: its others are gone.
TRIMMED_INSIDE_A_RECORD: list[Step] = [("publish", 0, 2), ("trim", 0, 3), ("begin after", 6, 1)]

# What came before a gap waits in the buffer when the gap is noticed, and is to be taken first.
GAP_BEHIND_WHAT_IS_BUFFERED: list[Step] = [
    ("subscribe", 0, 1),
    ("flow", 0, 3),
    ("flow", 0, 3),
    ("publish", 0, 1),
    ("flow", 0, 3),
    ("wipe", 0, 3),
    ("notice", 0, 0),
    ("dial", 0, 3),
    ("flow", 0, 3),
    ("flow", 0, 3),
    ("put on", 0, 3),
    ("flow", 0, 3),
    ("flow", 0, 3),
    ("flow", 0, 3),
]


@example(script=GAP_BEHIND_WHAT_IS_BUFFERED, ring_size=64, page_records=256, room=1000)
@example(script=STOPPED_AND_HANDED_OVER, ring_size=64, page_records=256, room=1000)
@example(script=ID_USED_AGAIN, ring_size=64, page_records=256, room=1000)
@example(script=TRIMMED_BEHIND_A_FULL_SOCKET, ring_size=1, page_records=2, room=1)
@example(script=TRIMMED_INSIDE_A_RECORD, ring_size=1, page_records=2, room=1000)
@settings(max_examples=1200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    script=steps,
    ring_size=st.sampled_from([1, 2, 64]),
    page_records=st.sampled_from([1, 2, 256]),
    room=st.sampled_from(ROOMS),
)
def test_every_event_once_and_in_order_or_a_gap(
    script: list[Step], ring_size: int, page_records: int, room: int
) -> None:
    asyncio.run(play(script, ring_size=ring_size, page_records=page_records, room=room))


@pytest.mark.parametrize("turns_before", range(8))
def test_a_trim_at_any_turn_of_a_reading_is_a_gap_or_comes_too_late(turns_before: int) -> None:
    script: list[Step] = [
        *[("publish", 0, 2)] * 3,
        ("begin after", 5, 3),
        ("turn", 0, 1),
        ("to server", 0, 4),
        *[("to client", 0, 1)] * turns_before,
        ("trim", 0, 1),
    ]
    asyncio.run(play(script, ring_size=1, page_records=2, room=1000))
