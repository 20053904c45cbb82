"""What becomes of each message of an operation: cursors, filters, errors, the buffer, the end."""

from __future__ import annotations

import asyncio

import pytest

from circuit_breaker_sdk.config import BufferLimits, OverflowPolicy
from circuit_breaker_sdk.connections.interfaces import Route
from circuit_breaker_sdk.delivery.filters import Custom
from circuit_breaker_sdk.delivery.subscription_state import Continuity, SubscriptionId, SubscriptionState
from circuit_breaker_sdk.errors import (
    BufferOverflowError,
    CircuitBreakerError,
    ConnectionFailed,
    DecodeError,
    GapError,
    GraphQLError,
    HandlerError,
    OperationError,
    RateLimitExceeded,
    SubscriptionFailed,
    TransportError,
    UsageError,
)
from circuit_breaker_sdk.protocol.messages import Subscribe
from tests.delivery.deliveries import Rig, result

NO = {"message": "no", "path": ["tick"]}


def taken(rig: Rig) -> list[int]:
    return [rig.delivery.consumer.take_value() for _ in range(rig.delivery.consumer.buffered)]


# Cursors (docs/resume.md, 4) -------------------------------------------------------------------------------


async def test_a_chain_that_joins_from_the_start_position_on_is_proven_complete() -> None:
    rig = Rig(resume=True)
    rig.delivery.positioned("c0")
    rig.receive_chain("c1", "c2", "c3", prev="c0")
    delivery = rig.delivery
    assert (delivery.state, delivery.continuity) == (SubscriptionState.LIVE, Continuity.OK)
    assert (delivery.received, delivery.consumer.handled) == ("c3", "c0")


async def test_an_event_that_does_not_join_is_not_delivered_and_ends_it_with_a_gap() -> None:
    rig = Rig(resume=True)
    rig.delivery.positioned("c0")
    rig.receive_chain("c1", prev="c0", value=1)
    rig.receive_chain("c3", prev="c2", value=3)
    delivery = rig.delivery
    assert isinstance(delivery.error, GapError)
    assert delivery.error.reason == "prev"
    assert (delivery.state, delivery.continuity) == (SubscriptionState.FAILED, Continuity.GAP)
    assert (taken(rig), delivery.received, rig.ends) == ([1], "c1", 1)


async def test_the_first_event_joins_the_live_signal_too() -> None:
    rig = Rig(resume=True)
    rig.delivery.positioned("c0")
    rig.receive_chain("c2", prev="c1")
    assert isinstance(rig.delivery.error, GapError)


async def test_a_later_live_signal_moves_the_cursor_to_resume_from_and_not_the_chain() -> None:
    rig = Rig(resume=True)
    rig.delivery.positioned("c0")
    rig.receive_chain("c1", prev="c0")
    rig.delivery.positioned("c7")
    assert (rig.delivery.received, rig.delivery.consumer.handled) == ("c7", "c0")
    rig.receive_chain("c8", prev="c1")
    assert (rig.delivery.error, rig.delivery.received) == (None, "c8")


async def test_events_without_a_cursor_make_continuity_unknown_and_never_ok_again() -> None:
    rig = Rig(resume=True)
    rig.delivery.positioned("c0")
    rig.receive(1)
    assert rig.delivery.received is None, "from c0 it would come once more"
    rig.receive_chain("c5", "c6", prev="c4")
    assert (rig.delivery.error, rig.delivery.continuity) == (None, Continuity.UNKNOWN)


async def test_a_server_without_resume_is_not_believed_about_cursors() -> None:
    rig = Rig()
    rig.receive_chain("c1", prev="c0")
    rig.receive_chain("c9", prev="c8")
    delivery = rig.delivery
    assert delivery.continuity is Continuity.UNKNOWN
    assert (delivery.error, delivery.received, delivery.consumer.handled) == (None, None, None)


async def test_an_iterated_event_is_handled_when_the_next_is_asked_for() -> None:
    rig = Rig(resume=True)
    rig.delivery.positioned("c0")
    rig.receive_chain("c1", "c2", prev="c0")
    handled = []
    for _ in range(2):
        rig.delivery.consumer.take()
        handled.append(rig.delivery.consumer.handled)
        rig.delivery.consumer.mark_handled()
        handled.append(rig.delivery.consumer.handled)
    assert handled == ["c0", "c1", "c1", "c2"]


async def test_an_event_of_a_plain_handler_is_handled_when_it_returns_even_by_raising() -> None:
    rig = Rig(resume=True)
    seen: list[str | None] = []

    def handler(value: int) -> None:
        seen.append(rig.delivery.consumer.handled)
        if value:
            raise ValueError(value)

    rig.delivery.positioned("c0")
    rig.delivery.consumer.handlers.add_data(handler)
    rig.receive_chain("c1", prev="c0")
    rig.receive_chain("c2", prev="c1", value=1)
    rig.receive_chain("c3", prev="c2")
    assert seen == ["c0", "c1", "c2"]
    assert rig.delivery.consumer.handled == "c3"


async def test_events_of_an_async_handler_are_handled_one_by_one_as_it_finishes() -> None:
    rig = Rig(resume=True)
    rig.delivery.positioned("c0")
    seen: list[str | None] = []

    async def handler(_: int) -> None:
        await asyncio.sleep(0)
        seen.append(rig.delivery.consumer.handled)

    rig.delivery.consumer.handlers.add_data(handler)
    rig.receive_chain("c1", "c2", "c3", prev="c0")
    rig.delivery.completed()
    await rig.settled()
    assert seen == ["c0", "c1", "c2"]
    assert rig.delivery.consumer.handled == "c3"


# Filters ---------------------------------------------------------------------------------------------------


async def test_all_filters_must_hold_and_the_first_that_does_not_is_the_last_asked() -> None:
    rig = Rig()
    asked: list[int] = []

    def below_three(value: int) -> bool:
        asked.append(value)
        return value < 3

    rig.receive(9)
    rig.delivery.consumer.add_filter(Custom(lambda value: value % 2))
    rig.delivery.consumer.add_filter(Custom(below_three))
    rig.receive(0, 1, 2, 3)
    assert taken(rig) == [9, 1]
    assert asked == [1, 3]
    stats = rig.delivery.stats()
    assert (stats.received, stats.handled, stats.filtered) == (5, 2, 3)


async def test_a_filter_that_raises_is_reported_and_lets_the_event_pass() -> None:
    rig = Rig()
    errors: list[CircuitBreakerError] = []
    rig.delivery.consumer.handlers.add_error(errors.append)
    rig.delivery.consumer.add_filter(Custom(lambda value: 1 / value))
    rig.receive(0, 1)
    assert taken(rig) == [0, 1]
    assert [type(error.__cause__) for error in errors] == [ZeroDivisionError]
    assert isinstance(errors[0], HandlerError)
    assert rig.delivery.state is SubscriptionState.LIVE


async def test_a_filtered_event_moves_the_chain_on() -> None:
    rig = Rig(resume=True)
    rig.delivery.positioned("c0")
    rig.delivery.consumer.add_filter(Custom(lambda _: False))
    rig.receive_chain("c1", "c2", prev="c0")
    assert (rig.delivery.error, rig.delivery.received, rig.delivery.consumer.buffered) == (None, "c2", 0)


# Results that are not just a value -------------------------------------------------------------------------


async def test_errors_beside_a_value_are_reported_and_the_value_is_delivered() -> None:
    rig = Rig()
    errors: list[CircuitBreakerError] = []
    rig.delivery.consumer.handlers.add_error(errors.append)
    assert rig.delivery.deliver(result(5, errors=[NO]))
    assert rig.delivery.deliver(result(None, errors=[NO, NO]))
    assert taken(rig) == [5]
    assert [len(e.errors) for e in errors if isinstance(e, OperationError)] == [1, 2]
    assert str(errors[0]) == "ticks failed: no at tick"
    assert rig.delivery.stats().operation_errors == 2
    assert rig.delivery.last_error is errors[1]
    assert rig.delivery.error is None


async def test_a_stream_of_nothing_but_errors_has_failed_when_it_completes() -> None:
    rig = Rig()
    rig.delivery.deliver(result(None, errors=[NO]))
    rig.delivery.completed()
    assert isinstance(rig.delivery.error, SubscriptionFailed)
    assert rig.delivery.error.errors == (GraphQLError(message="no", path=("tick",)),)
    assert rig.delivery.state is SubscriptionState.FAILED


FAILED_AS_A_WHOLE = [
    result(None, errors=[NO]),
    b'{"data":null,"errors":[{"message":"no"}]}',
    b'{"errors":["no"]}',
]


@pytest.mark.parametrize("last", FAILED_AS_A_WHOLE)
async def test_a_stream_whose_last_result_is_errors_without_data_has_failed(last: bytes) -> None:
    rig = Rig()
    rig.receive(1)
    rig.delivery.deliver(result(2, errors=[NO]))
    rig.delivery.deliver(last)
    rig.delivery.completed()
    assert taken(rig) == [1, 2]
    assert isinstance(rig.delivery.error, SubscriptionFailed)
    assert rig.delivery.error.errors[0].message == "no"


@pytest.mark.parametrize("errors", [None, [NO]])
async def test_a_stream_that_went_on_after_an_error_has_not_failed_by_it(errors: list[object] | None) -> None:
    rig = Rig()
    rig.delivery.deliver(result(None, errors=[NO]))
    rig.delivery.deliver(result(1, errors=errors))
    rig.delivery.completed()
    assert (rig.delivery.error, rig.delivery.state) == (None, SubscriptionState.COMPLETED)


async def test_a_stream_whose_errors_all_came_beside_data_completes() -> None:
    rig = Rig()
    rig.delivery.deliver(result(1, errors=[NO]))
    rig.delivery.completed()
    assert (rig.delivery.error, rig.delivery.state) == (None, SubscriptionState.COMPLETED)


async def test_errors_that_cannot_be_read_are_reported_as_that() -> None:
    rig = Rig()
    assert rig.delivery.deliver(b'{"data":null,"errors":[{"text":"broken"}]}')
    assert "cannot be read" in str(rig.delivery.last_error)


@pytest.mark.parametrize("data", [b'{"tick":"x"}', b'{"tick":null}', b"{}", b'{"tick":{"a":1}}'])
async def test_errors_beside_data_that_does_not_fit_are_told_and_the_stream_goes_on(data: bytes) -> None:
    rig = Rig()
    rig.delivery.deliver_checked(b'{"data":%b,"errors":[{"message":"no such tick"}]}' % data)
    assert rig.delivery.error is None
    assert "no such tick" in str(rig.delivery.last_error)
    rig.delivery.deliver_checked(b'{"data":{"tick":2}}')
    assert (rig.delivery.events_received, rig.delivery.state) == (2, SubscriptionState.LIVE)


async def test_errors_beside_data_that_does_not_fit_move_the_cursor_on() -> None:
    rig = Rig(resume=True)
    rig.delivery.positioned("c0")
    extensions = b'"extensions":{"resume":{"cursor":"c1","prev":"c0"}}'
    rig.delivery.deliver_checked(b'{"data":{"tick":"x"},"errors":[{"message":"no"}],%b}' % extensions)
    assert rig.delivery.received == "c1"


@pytest.mark.parametrize(
    ("payload", "detail"),
    [
        (b'{"data":{"tick":"x"}}', "Expected `int"),
        (b'{"data":{"tick":"x"},"errors":[]}', "Expected `int"),
        (b'{"data":{"tick":null}}', "null where int was expected - at `$.data.tick`"),
        (b'{"data":null}', "neither data nor errors"),
        (b"{}", "neither data nor errors"),
        (b'{"data":{"tick":1},"errors":{"message":"x"}', "truncated"),
    ],
)
async def test_a_result_that_does_not_fit_changes_nothing_until_it_is_checked_and_then_ends_it(
    payload: bytes, detail: str
) -> None:
    rig = Rig()
    assert not rig.delivery.deliver(payload)
    assert (rig.delivery.events_received, rig.delivery.state) == (0, SubscriptionState.STARTING)
    rig.delivery.deliver_checked(payload)
    assert isinstance(rig.delivery.error, DecodeError)
    assert detail in str(rig.delivery.error)
    assert rig.ends == 1


async def test_the_root_field_is_learned_from_the_first_event_and_again_when_it_changes() -> None:
    rig = Rig(root_field=None)
    assert not rig.delivery.deliver(result(1))
    rig.delivery.deliver_checked(result(1))
    rig.receive(2)
    assert not rig.delivery.deliver(result(3, field="alias"))
    rig.delivery.deliver_checked(result(3, field="alias"))
    assert rig.delivery.deliver(result(4, field="alias"))
    assert taken(rig) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("extensions", "kind", "detail"),
    [
        ({"code": "RESUME_GAP", "reason": "trimmed"}, GapError, "trimmed"),
        ({"code": "RESUME_GAP"}, GapError, "unknown"),
        ({"code": "RATE_LIMITED", "retryAfter": 3}, RateLimitExceeded, "in 3 s"),
        ({"code": "RATE_LIMITED", "retryAfter": "soon"}, RateLimitExceeded, "later"),
        ({"code": "NOT_FOUND"}, SubscriptionFailed, "no [NOT_FOUND]"),
        (None, SubscriptionFailed, "no"),
    ],
)
async def test_the_servers_error_becomes_the_error_its_code_names(
    extensions: dict[str, object] | None, kind: type[CircuitBreakerError], detail: str
) -> None:
    rig = Rig(resume=True)
    rig.delivery.failed((GraphQLError(message="no", extensions=extensions),))
    error = rig.delivery.error
    assert type(error) is kind
    assert detail in str(error)
    assert rig.delivery.continuity is (Continuity.GAP if kind is GapError else Continuity.OK)


async def test_an_error_without_errors_says_so() -> None:
    rig = Rig()
    rig.delivery.failed(())
    assert "no reason" in str(rig.delivery.error)


# The buffer ------------------------------------------------------------------------------------------------


async def test_a_full_buffer_fails_and_what_it_held_is_still_handed_out() -> None:
    rig = Rig(limits=BufferLimits(max_events=2))
    rig.receive(1, 2, 3)
    assert isinstance(rig.delivery.error, BufferOverflowError)
    assert rig.delivery.error.events == 2
    await rig.delivery.consumer.wait()
    assert taken(rig) == [1, 2]


async def test_an_event_that_does_not_fit_is_read_again_from_the_one_before_it() -> None:
    rig = Rig(resume=True, limits=BufferLimits(max_events=2))
    rig.receive_chain("c1", "c2", "c3", prev="c0")
    assert rig.delivery.is_stopped
    assert rig.delivery.received == "c2"


async def test_dropping_the_oldest_is_counted_and_is_a_gap() -> None:
    rig = Rig(resume=True, limits=BufferLimits(max_events=2, overflow=OverflowPolicy.DROP_OLDEST))
    rig.delivery.positioned("c0")
    rig.receive_chain("c1", "c2", prev="c0")
    before = rig.delivery.continuity
    rig.receive_chain("c3", prev="c2", value=3)
    assert (before, rig.delivery.continuity) == (Continuity.OK, Continuity.GAP)
    assert taken(rig) == [0, 3]
    assert rig.delivery.stats().dropped == 1


async def test_a_wait_ends_with_the_events_the_half_full_buffer_or_the_end() -> None:
    rig = Rig(limits=BufferLimits(max_events=6))
    waiting = asyncio.create_task(rig.delivery.consumer.wait(2))
    await asyncio.sleep(0)
    rig.receive(1)
    await asyncio.sleep(0)
    assert not waiting.done()
    rig.receive(2)
    await waiting
    half = asyncio.create_task(rig.delivery.consumer.wait(5))
    await asyncio.sleep(0)
    rig.receive(3)
    await half
    assert taken(rig) == [1, 2, 3]
    end = asyncio.create_task(rig.delivery.consumer.wait(1))
    await asyncio.sleep(0)
    rig.delivery.completed()
    await end


async def test_two_tasks_cannot_wait_for_the_same_events_and_a_cancelled_wait_loses_none() -> None:
    rig = Rig()
    first = asyncio.create_task(rig.delivery.consumer.wait())
    await asyncio.sleep(0)
    with pytest.raises(UsageError, match="another task"):
        await rig.delivery.consumer.wait()
    rig.receive(1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await rig.delivery.consumer.wait()
    assert taken(rig) == [1]


async def test_unsubscribing_drops_what_is_buffered_and_changes_no_end_that_was_before() -> None:
    rig = Rig()
    rig.receive(1)
    lost = ConnectionFailed("gone")
    rig.delivery.connection_lost(lost)
    rig.delivery.unsubscribe()
    rig.delivery.unsubscribe()
    assert (rig.delivery.state, rig.delivery.error, rig.delivery.consumer.buffered) == ("failed", lost, 0)
    assert rig.ends == 1


async def test_abandoning_ends_it_unless_a_handler_lives_on() -> None:
    alone, handled = Rig(), Rig()
    handled.delivery.consumer.handlers.add_data(lambda _: None)
    for rig in (alone, handled):
        rig.receive(1)
        rig.delivery.abandon()
    assert (alone.delivery.state, handled.delivery.state) == ("unsubscribed", "live")


async def test_a_gap_before_it_was_live_is_remembered_when_it_goes_on() -> None:
    rig = Rig(resume=True, bridges_gaps=True)
    delivery = rig.delivery
    delivery.failed((GraphQLError(message="gone", extensions={"code": "RESUME_GAP", "reason": "epoch"}),))
    assert delivery.continuity is Continuity.GAP
    delivery.resume(SubscriptionId("00000002"), HeldLink())
    assert delivery.continuity is Continuity.GAP
    await rig.aclose()


async def test_what_is_handed_over_with_a_full_buffer_stops_its_new_connection_too() -> None:
    rig = Rig(resume=True, limits=BufferLimits(max_events=2, overflow=OverflowPolicy.BLOCK))
    delivery = rig.delivery
    delivery.positioned("0")
    rig.receive_chain("1", "2", prev="0")
    assert delivery.is_stopped
    link = HeldLink()
    delivery.resume(SubscriptionId("00000002"), link)
    assert link.held == {delivery}
    delivery.consumer.take()
    assert link.held == set()
    await rig.aclose()


class HeldLink:
    """A link that notes who stops it."""

    resume_negotiated = True
    write_delay_seconds = 0.0
    is_usable = True
    received_at = None

    def __init__(self) -> None:
        self.held: set[object] = set()

    def subscribe(self, message: Subscribe, route: Route) -> None:
        assert route not in self.held

    def complete(self, id: str, route: Route) -> None:  # noqa: A002 (the protocol's own word)
        assert id

    def redacted(self, errors: tuple[GraphQLError, ...]) -> tuple[GraphQLError, ...]:
        return errors

    def hold(self, route: Route) -> None:
        self.held.add(route)

    def release(self, route: Route) -> None:
        self.held.discard(route)

    def let_consumers_run(self) -> None:
        pass

    def drop(self, error: TransportError) -> None:
        raise AssertionError(error)
