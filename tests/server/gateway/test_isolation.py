"""Isolation: a peer or a subscription that fails ends alone, and the others notice nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from circuit_breaker_server.access.streams import EVERYTHING_SEEN, View
from circuit_breaker_server.endpoints.websocket.session import Session
from circuit_breaker_server.engine.cursor import Cursor
from circuit_breaker_server.engine.errors import EngineError, ErrorCode
from circuit_breaker_server.engine.events import Finite, Selection
from circuit_breaker_server.gateway.feed import Feed
from circuit_breaker_server.gateway.gateway import Gateway
from circuit_breaker_server.gateway.projection import Projection
from circuit_breaker_server.security.rights import Rights
from tests.server.gateway.failing_peer import Failing
from tests.server.gateway.worlds import ALL_NOTES, FakePeer, ScriptedLog, running, select, thing_record, turns
from tests.server.polling_stage import polling
from tests.server.stage import staged
from tests.waiting import until


def among_others(gateway: Gateway, *broken: str, operations: int = 1) -> tuple[list[FakePeer], Failing]:
    """Subscribe a peer that fails between two that do not; all of them follow the same channel."""
    peers = [FakePeer(gateway), Failing(gateway, *broken), FakePeer(gateway)]
    for peer in peers:
        for number in range(operations):
            peer.subscribe(str(number))
    first, failing, last = peers
    assert isinstance(failing, Failing)
    return [first, last], failing


@pytest.mark.parametrize("operations", [1, 3])
@pytest.mark.parametrize("broken", [("write",), ("write", "fail", "drop")])
async def test_a_peer_that_cannot_be_written_to_ends_alone(operations: int, broken: tuple[str, ...]) -> None:
    log = ScriptedLog()
    async with running(log) as gateway:
        others, failing = among_others(gateway, *broken, operations=operations)
        for n in range(3):
            log.thing("a", n)
            await turns()
        for other in others:
            assert other.numbers("0") == [0, 1, 2]
            assert other.failures == []
        assert failing.dropped
        assert failing.feed.closed


@pytest.mark.parametrize("operations", [1, 3])
async def test_a_peer_that_leaves_inside_a_write_disturbs_nobody(operations: int) -> None:
    log = ScriptedLog()
    async with running(log) as gateway:
        others, leaving = among_others(gateway, operations=operations)
        leaving.on_write = lambda: gateway.detach(leaving.feed)
        for n in range(3):
            log.thing("a", n)
            await turns()
        assert [other.numbers("0") for other in others] == [[0, 1, 2]] * 2
        assert [other.failures for other in others] == [[], []]
        assert len(leaving.writes) == 1


@pytest.mark.parametrize(("leaves", "comes"), [(True, True), (True, False), (False, True)])
async def test_peers_that_leave_or_come_inside_the_write_of_another_are_no_failure(
    leaves: bool, comes: bool
) -> None:
    log = ScriptedLog()
    async with running(log) as gateway:
        others, acting = among_others(gateway)
        newcomer = FakePeer(gateway)

        def act() -> None:
            acting.on_write = lambda: None
            if leaves:
                gateway.detach(others[1].feed)
            if comes:
                newcomer.subscribe("0")

        acting.on_write = act
        log.thing("a", 1)
        log.thing("a", 2)
        await turns()
        log.thing("a", 3)
        await turns()
        assert others[0].numbers("0") == acting.numbers("0") == [1, 2, 3]
        assert others[1].numbers("0") == ([] if leaves else [1, 2, 3])
        assert newcomer.numbers("0") == ([3] if comes else [])


async def test_a_peer_that_fails_in_a_burst_over_the_ring_is_not_the_channel_s_failure() -> None:
    log = ScriptedLog()
    async with running(log, ring_size=2) as gateway:
        others, failing = among_others(gateway, "write")
        log.put(*(thing_record("a", n) for n in range(6)))
        await turns()
        assert [other.numbers("0") for other in others] == [list(range(6))] * 2
        assert failing.dropped


async def test_a_peer_that_fails_while_it_catches_up_ends_and_leaves_no_task() -> None:
    log = ScriptedLog()
    async with running(log, ring_size=1) as gateway:
        others, failing = among_others(gateway, "write", "fail")
        failing.feed.set_writable(False)
        for n in range(5):
            log.thing("a", n)
            await turns()
        failing.drain()
        await until(lambda: failing.dropped)
        assert others[0].numbers("0") == list(range(5))


async def test_an_event_that_cannot_be_encoded_ends_only_those_who_need_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = ScriptedLog()
    async with running(log) as gateway:
        peers = [FakePeer(gateway) for _ in range(3)]
        for peer in peers:
            peer.subscribe("1", ALL_NOTES)

        def encode(_projection: Projection, _value: Mapping[str, object]) -> bytes:
            raise ValueError("a secret of the inside")

        with monkeypatch.context() as patched:
            patched.setattr(Projection, "encode", encode)
            log.thing("a", 1)
            late = FakePeer(gateway)
            late.subscribe("1", ALL_NOTES)
            await turns()
        assert [(await peer.failed("1")).code for peer in peers] == ["INTERNAL"] * 3
        log.thing("a", 2)
        await late.received("1", 2)


async def test_a_peer_that_takes_no_signal_does_not_stop_the_cursors_of_others() -> None:
    log = ScriptedLog()
    async with running(log, advance_seconds=0.01) as gateway:
        others, failing = among_others(gateway)
        failing.broken = ("signal",)
        log.put(("other.x", []))
        await until(lambda: all(len(other.signals) == 2 for other in others))
        assert failing.dropped


async def test_a_gateway_closes_every_peer_though_one_of_them_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(ScriptedLog()) as gateway:
        others, failing = among_others(gateway)
        close = Feed.close

        def fail_once(feed: Feed) -> None:
            if feed is failing.feed and not failing.dropped:
                raise RuntimeError("this feed cannot be closed")
            close(feed)

        monkeypatch.setattr(Feed, "close", fail_once)
        await gateway.aclose()
        assert all(other.feed.closed for other in others)


# --- rights that change ------------------------------------------------------------------------------


class Policy:
    """Looks as a test says: what is shown, and for which ``id`` the looking fails."""

    def __init__(self) -> None:
        self.version = 0
        self.broken: dict[object, Exception] = {}

    def look(self, _rights: Rights, _field: str, arguments: Mapping[str, object]) -> View:
        if (error := self.broken.get(arguments.get("id"))) is not None:
            raise error
        return View(self.version, None) if self.version else EVERYTHING_SEEN


def unstreamed(_field: str, arguments: Mapping[str, object]) -> Selection:
    """Select things; the one named ``whole`` is waited for, until it has run without pieces."""
    if arguments.get("id") != "whole":
        return select(_field, arguments)

    def start() -> Cursor | None:
        if ran:
            raise EngineError(ErrorCode.INVALID_INPUT, "it ran without pieces")
        return None

    return Selection(("thing.whole",), finite=Finite(start, lambda: False, lambda _: False, "not there"))


ran: list[bool] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


ONE = "subscription($id: String!) { things(id: $id) { id n } }"


async def test_rights_are_reviewed_though_a_stream_that_is_waited_for_cannot_be_read() -> None:
    log, policy = ScriptedLog(), Policy()
    async with running(log, select=unstreamed, look=policy.look) as gateway:
        peer = FakePeer(gateway)
        for name in ("a", "whole", "b"):
            peer.subscribe(name, ONE, {"id": name})
        ran.append(True)
        policy.version = 1
        gateway.review(peer.feed)
        error = await peer.failed("whole")
        assert (error.message, error.code) == ("it ran without pieces", "INVALID_INPUT")
        views = {each.channel.view.key for each in peer.feed.subscribers.values()}
        assert views == {1}
        assert gateway.channels == 2, "no channel stays that nobody follows"
        log.thing("a", 1)
        log.thing("b", 2)
        await peer.received("a", 1)
        await peer.received("b", 1)


@pytest.mark.parametrize("error", [ValueError("a secret"), EngineError(ErrorCode.NOT_FOUND, "gone")])
async def test_a_subscription_that_cannot_be_reviewed_ends_and_the_others_are_reviewed(
    error: Exception,
) -> None:
    policy = Policy()
    async with running(ScriptedLog(), look=policy.look) as gateway:
        peer = FakePeer(gateway)
        for name in ("a", "b", "c"):
            peer.subscribe(name, ONE, {"id": name})
        policy.version, policy.broken = 1, {"b": error}
        gateway.review(peer.feed)
        told = await peer.failed("b")
        assert told.message == ("gone" if isinstance(error, EngineError) else "internal error")
        assert {name: each.channel.view.key for name, each in peer.feed.subscribers.items()} == {
            "a": 1,
            "c": 1,
        }


async def test_a_stream_whose_deadline_cannot_be_judged_ends_with_an_error() -> None:
    policy = Policy()
    async with running(ScriptedLog(), select=unstreamed, look=policy.look, begin_seconds=0.01) as gateway:
        peer = FakePeer(gateway)
        peer.subscribe("1", ONE, {"id": "whole"})
        policy.broken = {"whole": ValueError("a secret")}
        assert (await peer.failed("1")).code == "INTERNAL"


async def test_a_session_that_cannot_be_reviewed_is_closed_and_the_others_are_reviewed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with staged() as stage:
        clients = [await stage.open() for _ in range(3)]
        called: list[object] = []

        def fail_first(session: object) -> None:
            called.append(session)
            if len(called) == 1:
                raise RuntimeError("this session cannot be looked at")

        monkeypatch.setattr(Session, "review", fail_first)
        stage.sessions.review()
        assert len(called) == 3
        await stage.until(lambda: len(stage.sessions) == 2)
        codes = [asyncio.ensure_future(client.close_code()) for client in clients]
        done, pending = await asyncio.wait(codes, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result() for task in done] == [4500]
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


async def test_a_poll_that_cannot_be_reviewed_is_answered_and_the_others_wait_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with polling() as stage:
        start = (await stage.poll()).after
        waiting = [asyncio.ensure_future(stage.poll(after=start)) for _ in range(3)]
        await until(lambda: len(stage.polls) == 3 and stage.gateway.channels == 1)
        review, calls = Gateway.review, []

        def fail_first(gateway: Gateway, feed: Feed) -> None:
            calls.append(feed)
            if len(calls) == 1:
                raise RuntimeError("this one cannot be looked at")
            review(gateway, feed)

        monkeypatch.setattr(Gateway, "review", fail_first)
        stage.polls.review()
        assert len(calls) == 3
        (failed,), pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert failed.result().done
        assert failed.result().extensions["code"] == "INTERNAL"
        stage.log.thing("a", 1)
        assert [(await each).numbers for each in pending] == [[1], [1]]
