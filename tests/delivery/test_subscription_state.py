"""Every cell of a subscription's table of transitions."""

from __future__ import annotations

from itertools import product

import pytest

from circuit_breaker_sdk.delivery.subscription_state import TRANSITIONS, SubscriptionState, Trigger

_S, _T = SubscriptionState, Trigger

CELLS = {
    _S.STARTING: {
        _T.GO_LIVE: _S.LIVE,
        _T.LOSE: _S.STARTING,
        _T.COMPLETE: _S.COMPLETED,
        _T.FAIL: _S.FAILED,
        _T.UNSUBSCRIBE: _S.UNSUBSCRIBED,
    },
    _S.LIVE: {
        _T.LOSE: _S.RECONNECTING,
        _T.PAUSE: _S.PAUSED,
        _T.COMPLETE: _S.COMPLETED,
        _T.FAIL: _S.FAILED,
        _T.UNSUBSCRIBE: _S.UNSUBSCRIBED,
    },
    _S.RECONNECTING: {
        _T.GO_LIVE: _S.LIVE,
        _T.LOSE: _S.RECONNECTING,
        _T.COMPLETE: _S.COMPLETED,
        _T.FAIL: _S.FAILED,
        _T.UNSUBSCRIBE: _S.UNSUBSCRIBED,
    },
    _S.PAUSED: {
        _T.GO_LIVE: _S.LIVE,
        _T.LOSE: _S.RECONNECTING,
        _T.COMPLETE: _S.COMPLETED,
        _T.FAIL: _S.FAILED,
        _T.UNSUBSCRIBE: _S.UNSUBSCRIBED,
    },
    _S.COMPLETED: {_T.UNSUBSCRIBE: _S.COMPLETED},
    _S.FAILED: {_T.UNSUBSCRIBE: _S.FAILED},
    _S.UNSUBSCRIBED: {_T.UNSUBSCRIBE: _S.UNSUBSCRIBED},
}


@pytest.mark.parametrize(("state", "trigger"), list(product(SubscriptionState, Trigger)))
def test_each_pair_leads_where_the_table_says_or_is_an_error(
    state: SubscriptionState, trigger: Trigger
) -> None:
    assert TRANSITIONS.get((state, trigger)) == CELLS[state].get(trigger)


def test_an_end_is_what_nothing_leads_out_of() -> None:
    for state in SubscriptionState:
        leads_out = any(after is not state for (before, _), after in TRANSITIONS.items() if before is state)
        assert state.is_end is not leads_out
