"""How many records subscriptions are behind: what an acknowledgement and a ping of any server may say."""

from __future__ import annotations

import pytest

from circuit_breaker_sdk.protocol.resume import answer_behind, question_behind, tells_behind


@pytest.mark.parametrize(
    ("payload", "is_told"),
    [
        ({"resume": {"version": 1, "epoch": "e", "behind": True}}, True),
        ({"resume": {"version": 1, "epoch": "e"}}, False),
        ({"resume": {"version": 1, "behind": 1}}, False),
        ({"resume": {"version": 2, "behind": True}}, False),
        ({"resume": True}, False),
        (None, False),
    ],
)
def test_only_a_server_that_says_so_tells_it(payload: dict[str, object] | None, is_told: bool) -> None:
    assert tells_behind(payload) is is_told


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        ({"resume": {"behind": {"1": 3, "2": 0}}}, {"1": 3, "2": 0}),
        ({"resume": {"behind": {"1": -1, "2": True, "3": "4", "4": 1.5, "5": None}}}, {}),
        ({"resume": {"behind": [3]}}, None),
        ({"resume": {"id": "1", "cursor": "c"}}, None),
        (None, None),
        # A server that echoes the question answers nothing.
        (question_behind({"1": "a-cursor"}), {}),
    ],
)
def test_only_counts_are_taken(payload: dict[str, object] | None, told: dict[str, int] | None) -> None:
    assert answer_behind(payload) == told
