"""One socket from the handshake to its end: what the protocol's table asks of a server, and the feed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

import graphql
import pytest

from circuit_breaker_sdk.protocol.close_codes import asked_to_return
from circuit_breaker_sdk.transports.websocket import WebSocket
from circuit_breaker_server import logs
from circuit_breaker_server.config import RateSettings
from circuit_breaker_server.endpoints.websocket.frame_headers import text_frames
from circuit_breaker_server.endpoints.websocket.keep_alive import KeepAlive
from circuit_breaker_server.gateway.gateway import Gateway
from circuit_breaker_server.graphql import documents
from circuit_breaker_server.graphql.documents import Document, Documents
from circuit_breaker_server.graphql.validation import parse
from circuit_breaker_server.security.rate_limits import Rates
from tests.server.gateway.worlds import (
    ALL_NOTES,
    ALL_THINGS,
    ONE_THING,
    Payload,
    ScriptedLog,
    assert_chained,
    cursor_of,
)
from tests.server.stage import Client, Stage, staged
from tests.transports.peers import CLOSE, TEXT, frame

NOTHING = "{ nothing }"


@pytest.fixture(autouse=True)
def quiet_logs(default_log_level: None) -> None:
    logs.configure("critical")


def test_frames_are_what_the_protocol_would_have_written() -> None:
    payloads = [b"{}", b'{"data":1}', b"x" * 200, b"y" * 70_000]
    expected = b"".join(frame(TEXT, b"head" + payload + b"}", masked=False) for payload in payloads)
    assert b"head".join(text_frames(4, payloads)) == expected


async def test_resume_is_acknowledged_only_to_those_who_ask_for_a_version_we_speak() -> None:
    async with staged() as stage:
        for payload, told in (
            ({"resume": {"version": 1}}, True),
            ({"resume": {"version": 2}}, False),
            ({"resume": True}, False),
            ({}, False),
            (None, False),
        ):
            client = await stage.open(init=False)
            client.send({"type": "connection_init", "payload": payload})
            ack = await client.receive()
            expected = {"resume": {"version": 1, "epoch": stage.log.epoch, "behind": True}}
            assert ack == {"type": "connection_ack", **({"payload": expected} if told else {})}


async def test_whoever_does_not_introduce_himself_in_time_is_closed_with_4408() -> None:
    async with staged(init_timeout_seconds=0.01) as stage:
        client = await stage.open(init=False)
        assert await client.close_code() == 4408


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([{"id": "1", "type": "subscribe", "payload": {"query": NOTHING}}], 4401),
        ([{"type": "connection_init"}, {"type": "connection_init"}], 4429),
        ([{"type": "hello"}], 4400),
        (
            [
                {"type": "connection_init"},
                {"id": "x" * 129, "type": "subscribe", "payload": {"query": ALL_THINGS}},
            ],
            4400,
        ),
        ([{"type": "connection_init"}, {"id": "1", "type": "subscribe"}], 4400),
        (
            [
                {"type": "connection_init"},
                {"id": "1", "type": "subscribe", "payload": {"query": ALL_THINGS}},
                {"id": "1", "type": "subscribe", "payload": {"query": "not even GraphQL"}},
            ],
            4409,
        ),
    ],
)
async def test_a_peer_that_breaks_the_protocol_is_closed_with_its_code(
    messages: list[dict[str, object]], code: int
) -> None:
    async with staged() as stage:
        client = await stage.open(init=False)
        for message in messages:
            client.send(message)
        assert await client.close_code() == code
        await client.leave()
        await stage.until(lambda: not len(stage.sessions))
        assert stage.gateway.channels == 0


@pytest.mark.parametrize(
    ("subscribe", "failed"),
    [
        (rb'{"id":"2","type":"subscribe","payload":{"query":"q","variables":{"v":"\ud83d"}}}', "2"),
        (rb'{"id":"2","type":"subscribe","payload":{"query":"q","variables":{"v":NaN}}}', "2"),
        (rb'{"id":"2","type":"subscribe","payload":{"query":"\ud83d"}}', "2"),
        (rb'{"id":"2","type":"subscribe","payload":{"query":"q","variables":[]}}', "2"),
        (rb'{"id":"\ud83d","type":"subscribe","payload":{"query":"q"}}', "\ud83d"),
    ],
)
async def test_an_operation_that_cannot_be_read_fails_and_its_neighbour_goes_on(
    subscribe: bytes, failed: str
) -> None:
    async with staged() as stage:
        client = await stage.open()
        client.subscribe("1", ALL_THINGS)
        start = await client.live("1")
        client.peer.send_frame(TEXT, subscribe)
        error = json.loads(await client.receive_bytes())
        assert (error["type"], error["id"]) == ("error", failed)
        assert error["payload"][0]["extensions"] == {"code": "BAD_REQUEST"}
        stage.log.thing("a", 1)
        assert_chained([await client.next_of("1")], start)


async def test_the_live_signal_comes_first_and_names_where_the_events_begin() -> None:
    async with staged() as stage:
        stage.log.thing("a", 0)
        client = await stage.open()
        client.subscribe("1", ALL_THINGS)
        start = await client.live("1")
        assert start == cursor_of(stage.log, 1, 2)
        client.send({"type": "pong"})
        stage.log.thing("a", 1)
        event = await client.next_of("1")
        assert event["data"]["things"] == {"id": "a", "n": 1}
        assert_chained([event], start)


async def test_what_one_read_brings_is_answered_in_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged() as stage:
        client = await stage.open()
        written: list[bytes] = []
        write = WebSocket.write

        def noted(socket: WebSocket, frames: bytes) -> None:
            written.append(frames)
            write(socket, frames)

        monkeypatch.setattr(WebSocket, "write", noted)
        for number in "123":
            client.subscribe(number, ALL_THINGS)
        for number in "123":
            await client.live(number)
        assert len(written) == 1


async def test_the_live_signal_comes_before_an_event_of_the_same_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with staged() as stage:
        client = await stage.open()
        subscribe = Gateway.subscribe

        def overtaken(gateway: Gateway, *arguments: Any, **named: Any) -> None:
            subscribe(gateway, *arguments, **named)
            stage.log.thing("a", 1)
            gateway.flush()

        monkeypatch.setattr(Gateway, "subscribe", overtaken)
        client.subscribe("1", ALL_THINGS)
        start = await client.live("1")
        assert_chained([await client.next_of("1")], start)


async def test_a_peer_without_resume_gets_events_as_any_graphql_server_sends_them() -> None:
    async with staged() as stage:
        client = await stage.open(resume=False)
        client.subscribe('quoted "id"', ONE_THING, {"id": "a"})
        await client.answers()
        stage.log.thing("a", 1)
        assert await client.receive_bytes() == (
            b'{"id":"quoted \\"id\\"","type":"next","payload":{"data":{"things":{"id":"a","n":1}}}}'
        )


async def test_a_subscription_that_resumes_gets_what_it_missed_and_then_what_comes() -> None:
    async with staged() as stage:
        for n in range(5):
            stage.log.thing("a", n)
        client = await stage.open()
        after = cursor_of(stage.log, 2, 0)
        client.subscribe("1", ALL_THINGS, after=after)
        assert await client.live("1") == after
        events = [await client.next_of("1") for _ in range(3)]
        stage.log.thing("a", 5)
        events.append(await client.next_of("1"))
        assert [event["data"]["things"]["n"] for event in events] == [2, 3, 4, 5]
        assert_chained(events, after)


@pytest.mark.parametrize(
    ("after", "reason"),
    [(7, "malformed"), ("x", "malformed"), (["x"], "malformed"), ("ffff.1.0.00000000", "epoch")],
)
async def test_a_cursor_that_cannot_be_resumed_from_ends_the_operation_and_frees_its_id(
    after: object, reason: str
) -> None:
    async with staged() as stage:
        client = await stage.open()
        client.subscribe("1", ALL_THINGS, after=after)
        error = await client.error_of("1")
        assert error["extensions"] == {"code": "RESUME_GAP", "reason": reason}
        client.subscribe("1", ALL_THINGS)
        await client.live("1")


async def test_a_cursor_that_only_the_log_can_judge_ends_the_operation_too() -> None:
    async with staged() as stage:
        stage.log.thing("a", 0)
        client = await stage.open()
        client.subscribe("1", ALL_THINGS, after=f"{stage.log.epoch}.1.0.0badf00d")
        assert (await client.error_of("1"))["extensions"] == {"code": "RESUME_GAP", "reason": "rewritten"}
        await client.answers()


@pytest.mark.parametrize(
    ("query", "variables", "text"),
    [
        ("subscription {", None, "Syntax Error"),
        ("subscription { nonsense { id } }", None, "nonsense"),
        ("subscription { things { id } notes { id } }", None, "only one"),
        (ONE_THING, None, "$id"),
        (ONE_THING, {"id": 1}, "$id"),
        (ONE_THING, {"id": "missing"}, "missing"),
        ("fragment F on Thing { id }", None, "F"),
    ],
)
async def test_an_operation_that_cannot_be_served_is_an_error_of_its_own(
    query: str, variables: Mapping[str, object] | None, text: str
) -> None:
    async with staged() as stage:
        client = await stage.open()
        client.subscribe("1", query, variables)
        assert text in str((await client.error_of("1"))["message"])
        await client.answers()
        client.subscribe("1", ALL_THINGS)
        await client.live("1")


async def test_a_query_is_answered_by_one_next_and_complete_and_its_id_is_free() -> None:
    async with staged() as stage:
        client = await stage.open()
        for _ in range(2):
            client.subscribe("q", NOTHING)
            assert await client.result_of("q") == {"data": {"nothing": None}}
            assert await client.receive() == {"id": "q", "type": "complete"}


async def test_a_query_that_is_completed_or_whose_socket_goes_is_cancelled_and_never_answered() -> None:
    started: asyncio.Queue[asyncio.Event] = asyncio.Queue()

    async def execute(
        _document: Document, _variables: object, _name: object, _caller: object, **_more: object
    ) -> bytes:
        cancelled = asyncio.Event()
        started.put_nowait(cancelled)
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError("it waits for ever")

    async with staged(execute=execute) as stage:
        client = await stage.open()
        client.subscribe("q", NOTHING)
        first = await started.get()
        client.send({"id": "q", "type": "complete"})
        await first.wait()
        client.subscribe("q", NOTHING)
        second = await started.get()
        await client.answers()
        client.peer.vanish()
        await second.wait()


async def test_a_query_that_fails_inside_tells_nothing_of_the_inside() -> None:
    async def execute(
        _document: Document, _variables: object, _name: object, _caller: object, **_more: object
    ) -> bytes:
        raise RuntimeError("the password is swordfish")

    async with staged(execute=execute) as stage:
        client = await stage.open()
        client.subscribe("q", NOTHING)
        assert await client.error_of("q") == {
            "message": "internal error",
            "extensions": {"code": "INTERNAL"},
        }
        await client.answers()


async def test_an_internal_failure_of_the_session_closes_with_4500(monkeypatch: pytest.MonkeyPatch) -> None:
    def get_now(_self: Documents, _query: str, **_given: object) -> Document:
        raise RuntimeError("the password is swordfish")

    monkeypatch.setattr(Documents, "get_now", get_now)
    async with staged() as stage:
        client = await stage.open()
        client.subscribe("1", ALL_THINGS)
        assert await client.close_code() == 4500


async def test_complete_ends_one_operation_and_frees_its_id_for_another() -> None:
    async with staged() as stage:
        client = await stage.open()
        for operation_id, query in (("1", ALL_THINGS), ("2", ALL_NOTES)):
            client.subscribe(operation_id, query)
            await client.live(operation_id)
        client.send({"id": "1", "type": "complete"})
        client.send({"id": "1", "type": "complete"})
        client.send({"id": "unknown", "type": "complete"})
        await client.answers()
        assert stage.gateway.channels == 1
        stage.log.thing("a", 1)
        assert [(await client.next_of("2"))["data"]["notes"]["text"] for _ in range(2)] == [
            "1 begins",
            "1 ends",
        ]
        client.subscribe("1", ONE_THING, {"id": "b"})
        await client.live("1")
        stage.log.thing("b", 2)
        assert {(await client.receive())["id"] for _ in range(3)} == {"1", "2"}


LONG: Final = ALL_THINGS + " " * 2_000
"""A document that is parsed beside the event loop."""


async def test_operations_begin_in_the_order_in_which_they_were_asked_for() -> None:
    executed: list[bool] = []

    async def execute(*_given: object, **_more: object) -> bytes:
        executed.append(stage.gateway.channels == 1)
        return b'{"data":null}'

    async with staged(execute=execute) as stage:
        client = await stage.open()
        client.subscribe("known", NOTHING)
        assert (await client.receive())["type"] == "next"
        assert (await client.receive())["type"] == "complete"
        client.subscribe("1", LONG)
        client.subscribe("2", NOTHING)  # known, and behind one that is not
        await client.live("1")
        assert [(await client.receive())["id"] for _ in range(2)] == ["2", "2"]
    assert executed == [False, True]


async def test_an_operation_that_is_completed_while_its_document_waits_does_not_begin() -> None:
    async with staged() as stage:
        client = await stage.open()
        for _ in range(3):
            client.subscribe("1", LONG)
            client.send({"id": "1", "type": "complete"})
        await client.answers()
        assert stage.gateway.channels == 0
        client.subscribe("1", LONG)
        await client.live("1")


async def test_a_long_document_that_is_none_is_refused_as_a_short_one_is() -> None:
    async with staged() as stage:
        client = await stage.open()
        client.subscribe("1", "subscription { things { nothing } }" + " " * 2_000)
        error = await client.error_of("1")
        assert "nothing" in str(error["message"])
        await client.leave()


async def test_a_socket_that_goes_takes_its_channels_with_it() -> None:
    async with staged() as stage:
        polite, rude = await stage.open(), await stage.open()
        for client in (polite, rude):
            client.subscribe("1", ALL_THINGS)
            await client.live("1")
        assert stage.gateway.channels == 1
        rude.peer.vanish()
        await polite.leave()
        await stage.until(lambda: not len(stage.sessions))
        assert stage.gateway.channels == 0


async def test_each_socket_is_written_once_in_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []
    original = WebSocket.write

    def write(self: WebSocket, frames: bytes) -> None:
        writes.append(frames)
        original(self, frames)

    async with staged() as stage:
        clients = [await stage.open() for _ in range(3)]
        for client in clients:
            for operation_id, query in (("1", ALL_THINGS), ("2", ALL_NOTES)):
                client.subscribe(operation_id, query)
                await client.live(operation_id)
        monkeypatch.setattr(WebSocket, "write", write)
        for n in range(4):
            stage.log.thing("a", n)
        for client in clients:
            received = [await client.receive() for _ in range(12)]
            assert [message["id"] for message in received] == ["1"] * 4 + ["2"] * 8
        assert len(writes) == len(clients)


async def test_a_paused_reader_loses_nothing_and_costs_no_more_than_its_socket_s_buffer() -> None:
    log = ScriptedLog()
    padding = "x" * 20_000
    async with staged(log=log, ring_size=4) as stage:
        client = await stage.open()
        client.subscribe("1", ALL_NOTES)
        start = await client.live("1")
        count = 0
        highest = 0
        is_full = False
        # Until the socket is full, and then far beyond the ring.
        beyond = 0
        while beyond < 100:
            log.put(("thing.a", [("notes", {"id": str(count), "text": padding})]))
            count += 1
            await asyncio.sleep(0)
            (socket,) = stage.sockets
            is_full = is_full or socket.write_buffer_bytes > 64 * 1024
            beyond += is_full
            highest = max(highest, socket.write_buffer_bytes)
        assert highest < 2 * 1024 * 1024
        assert log.reads == 0
        reading = asyncio.create_task(receive_all(client, count + 50))
        for _ in range(50):
            log.put(("thing.a", [("notes", {"id": str(count), "text": padding})]))
            count += 1
            await asyncio.sleep(0)
        events = await reading
        assert [event["data"]["notes"]["id"] for event in events] == [str(n) for n in range(count)]
        assert_chained(events, start)
        reads = log.reads
        assert reads > 0
        log.thing("a", 1)
        assert_chained(
            [await client.next_of("1"), await client.next_of("1")],
            str(events[-1]["extensions"]["resume"]["cursor"]),
        )
        assert log.reads == reads, "it goes on from the ring"


async def receive_all(client: Client, count: int) -> list[Payload]:
    return [await client.next_of("1") for _ in range(count)]


async def test_a_peer_that_asks_and_never_reads_is_dropped() -> None:
    async def execute(
        _document: Document, _variables: object, _name: object, _caller: object, **_more: object
    ) -> bytes:
        return b'{"data":"' + b"y" * 20_000 + b'"}'

    async with staged(max_unsent_bytes=100_000, execute=execute) as stage:
        client = await stage.open()
        async with asyncio.timeout(10):
            number = 0
            while len(stage.sessions):
                client.subscribe(f"q{number}", "{ nothing }")
                number += 1
                await asyncio.sleep(0)


async def test_a_peer_that_pings_and_never_reads_gets_no_pongs_to_pile_up() -> None:
    async with staged(max_unsent_bytes=10_000_000) as stage:
        client = await stage.open()
        (socket,) = stage.sockets
        payload = {"type": "ping", "payload": {"x": "y" * 20_000}}
        for _ in range(2_000):
            client.send(payload)
            await asyncio.sleep(0)
        assert socket.write_buffer_bytes < 1_000_000
        assert len(stage.sessions) == 1


async def test_shutting_down_writes_what_is_due_then_closes_with_1012_and_completes_nothing() -> None:
    async with staged() as stage:
        client = await stage.open()
        client.subscribe("1", ALL_THINGS)
        await client.live("1")
        stage.log.thing("a", 1)
        stage.gateway.flush()
        closing = asyncio.create_task(stage.sessions.aclose())
        assert (await client.next_of("1"))["data"]["things"]["n"] == 1
        assert await client.close_code() == 1012
        await client.leave()
        await closing


async def test_clients_are_asked_to_come_back_at_different_moments_where_the_settings_say_so() -> None:
    asked = []
    async with staged(retry_after_seconds=100.0) as stage:
        clients = [await stage.open() for _ in range(5)]
        closing = asyncio.create_task(stage.sessions.aclose())
        for client in clients:
            code, reason = await client.closed()
            assert code == 1012
            assert reason.startswith("the server is shutting down; retry-after=")
            asked.append(asked_to_return(reason))
            await client.leave()
        await closing
    assert all(seconds is not None and 0 <= seconds <= 100 for seconds in asked)
    assert len(set(asked)) > 1


async def test_shutting_down_waits_no_longer_than_it_may_for_a_peer_that_is_silent() -> None:
    async with staged(shutdown_seconds=0.05) as stage:
        await stage.open()
        await stage.sessions.aclose()
        assert len(stage.sessions) == 0


async def test_cursors_move_on_by_pings_on_the_socket() -> None:
    async with staged() as stage:
        client = await stage.open()
        client.subscribe("1", ONE_THING, {"id": "quiet"})
        await client.live("1")
        stage.log.thing("a", 1)
        stage.gateway.advance()
        assert await client.live("1") == cursor_of(stage.log, 1, 2)


async def test_a_peer_that_answers_no_ping_is_dropped() -> None:
    async with staged(ping_seconds=0.02, pong_seconds=0.05) as stage:
        client = await stage.open()
        client.subscribe("1", ALL_THINGS)
        await client.live("1")
        assert await client.receive() == {"type": "ping"}
        await stage.until(lambda: not len(stage.sessions))
        assert not stage.gateway.channels


async def test_a_peer_that_answers_stays() -> None:
    async with staged(ping_seconds=0.01, pong_seconds=5.0) as stage:
        client = await stage.open()
        for _ in range(5):
            assert await client.receive() == {"type": "ping"}
            client.send({"type": "pong"})
        assert len(stage.sessions) == 1


async def test_a_peer_that_is_slow_to_read_is_not_taken_for_silent_until_it_takes_nothing_at_all() -> None:
    def silent(stage: Stage) -> bool:
        (session,) = stage.sessions._open
        assert isinstance(session._keep_alive, KeepAlive)
        session._keep_alive.on_silence()
        return False

    async with staged(stall_seconds=1e-9) as stage:
        client = await stage.open()
        (socket,) = stage.sockets
        chunk = b"x".join(text_frames(1, [b"y" * 60_000]))
        while socket.write_buffer_bytes < 500_000:
            socket.write(chunk)
        silent(stage)  # the first look: something may have been taken since
        assert len(stage.sessions) == 1
        await client.peer.read(2_000_000)
        await stage.until(lambda: socket.write_buffer_bytes < 500_000)
        while socket.write_buffer_bytes < 600_000:
            socket.write(chunk)
        silent(stage)
        assert len(stage.sessions) == 1
        await stage.until(lambda: not len(stage.sessions) or silent(stage))


async def test_a_mutation_and_a_close_frame_in_one_write_are_both_answered() -> None:
    begun: asyncio.Queue[asyncio.Event] = asyncio.Queue()

    async def execute(_document: Document, *_given: object, **_more: object) -> bytes:
        goes_on = asyncio.Event()
        begun.put_nowait(goes_on)
        await goes_on.wait()
        return b'{"data":{"nothing":1}}'

    async with staged(execute=execute) as stage:
        client = await stage.open()
        client.subscribe("q", NOTHING)
        client.peer.send_frame(CLOSE, b"\x03\xe8")
        (await begun.get()).set()
        assert await client.result_of("q") == {"data": {"nothing": 1}}
        assert (await client.receive())["type"] == "complete"
        assert (await client.peer.read_frame()).close_code == 1000


async def test_answers_that_never_come_delay_a_close_for_the_closing_time_only() -> None:
    async def execute(_document: Document, *_given: object, **_more: object) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError("it waits for ever")

    async with staged(execute=execute, closing_seconds=0.05) as stage:
        client = await stage.open()
        client.subscribe("q", NOTHING)
        client.peer.send_frame(CLOSE, b"\x03\xe8")
        assert (await client.peer.read_frame()).close_code == 1000


async def test_only_a_peer_that_negotiated_resume_is_told_the_cursor_of_a_mutation() -> None:
    told: list[object] = []

    async def execute(_document: Document, *_given: object, **more: object) -> bytes:
        told.append(more["with_cursor"])
        return b'{"data":{"nothing":1}}'

    async with staged(execute=execute) as stage:
        for resume in (True, False):
            client = await stage.open(resume=resume)
            client.subscribe("q", NOTHING)
            await client.result_of("q")
    assert told == [True, False]


async def test_a_document_of_a_peer_over_its_rate_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []

    def counting(query: str, *, max_tokens: int) -> graphql.DocumentNode:
        parsed.append(query)
        return parse(query, max_tokens=max_tokens)

    monkeypatch.setattr(documents, "parse", counting)
    async with staged(rates=Rates(RateSettings(operations_per_second=1, subscribes_per_second=1))) as stage:
        client = await stage.open()
        for number, query in enumerate(
            ("{ invalid", "# a\n subscription { broken", "{ again", "subscription { x")
        ):
            client.subscribe(str(number), query)
        errors = {message["id"]: str(message) for message in [await client.receive() for _ in range(4)]}
    assert {id_ for id_, error in errors.items() if "RATE_LIMITED" in error} == {"2", "3"}
    assert parsed == ["{ invalid", "# a\n subscription { broken"]
