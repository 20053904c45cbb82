"""Conflicts, duplicates and the member at fault of a batch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from nats.aio.msg import Msg

from circuit_breaker_server.log.event_log import ExpectationFailed, LogWriteError, NewRecord, Record
from circuit_breaker_server.log.jetstream import JetStreamEventLog
from tests.conformance.nats_server import NatsServer
from tests.server.log.jetstream.log_stage import Watch, api, connected, everything, new, opened


def refuse_once(log: JetStreamEventLog, monkeypatch: pytest.MonkeyPatch, *errors: dict[str, Any]) -> None:
    """Let the next answers to appends be refusals; those appends do not reach the broker."""
    broker = log._broker
    publish = broker.publish
    waiting: Iterator[dict[str, Any]] = iter(errors)

    async def refusing(subject: str, data: bytes, *, headers: Any = None, reply: str = "") -> None:
        is_answered = headers is not None and bool(reply)
        error = next(waiting, None) if is_answered else None
        if error is None:
            await publish(subject, data, headers=headers, reply=reply)
        else:
            answer = json.dumps({"error": error}).encode()
            await broker._answered(Msg(broker._client, subject=reply, data=answer))

    monkeypatch.setattr(broker, "publish", refusing)


IN_FLIGHT = {"code": 400, "err_code": 10071, "description": "wrong last sequence"}
NO_LEADER = {"code": 503, "err_code": 10008, "description": "system temporarily unavailable"}
DUPLICATE_IN_FLIGHT = {"code": 400, "err_code": 10158, "description": "duplicate message id is in process"}
BATCH_INCOMPLETE = {"code": 400, "err_code": 10176, "description": "atomic publish batch is incomplete"}
STORE_FULL = {"code": 400, "err_code": 10047, "description": "insufficient storage resources available"}


@pytest.mark.parametrize("error", [IN_FLIGHT, NO_LEADER, DUPLICATE_IN_FLIGHT])
@pytest.mark.parametrize("count", [1, 9])
async def test_a_refusal_that_is_no_conflict_is_tried_again(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch, error: dict[str, Any], count: int
) -> None:
    async with opened(server.url) as log:
        refuse_once(log, monkeypatch, error, error, error)
        records = await asyncio.gather(*(log.append(new(f"s{i}", expected=0)) for i in range(count)))
        assert sorted(records, key=lambda r: r.offset) == await everything(log)


async def test_a_batch_that_arrives_incomplete_is_sent_again(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(server.url) as log:
        refuse_once(log, monkeypatch, BATCH_INCOMPLETE)
        records = await asyncio.gather(*(log.append(new(f"s{i}", expected=0)) for i in range(9)))
        assert sorted(records, key=lambda r: r.offset) == await everything(log)


async def test_a_refusal_for_good_fails_at_once_and_says_why(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(server.url) as log:
        refuse_once(log, monkeypatch, STORE_FULL)
        with pytest.raises(LogWriteError, match="insufficient storage"):
            await log.append(new("a"))
        assert await everything(log) == []
        await log.append(new("a"))


async def test_only_the_members_at_fault_of_a_batch_fail(server: NatsServer) -> None:
    async with opened(server.url) as log, opened(server.url) as other:
        taken = {name: await other.append(new(name)) for name in ("s3", "s17", "s40")}
        # Not seen yet, perhaps: the broker decides.
        group = [new(f"s{i}", expected=0) for i in range(64)]
        outcomes = await asyncio.gather(*map(log.append, group), return_exceptions=True)
        for wanted, outcome in zip(group, outcomes, strict=True):
            if wanted.subject in taken:
                assert isinstance(outcome, ExpectationFailed)
                assert outcome.actual == taken[wanted.subject].offset
            else:
                assert isinstance(outcome, Record)
                assert outcome.id == wanted.id
        assert len(await everything(log)) == 64


@pytest.mark.parametrize("expected", [None, 0])
async def test_an_id_that_another_node_has_appended_returns_its_record(
    server: NatsServer, expected: int | None
) -> None:
    wanted = new("a", expected=expected)
    others = [new(f"s{i}") for i in range(20)]
    async with opened(server.url) as one:
        record = await one.append(wanted)
    async with opened(server.url) as two:
        again, *rest = await asyncio.gather(*map(two.append, [wanted, *others]))
        assert again == record
        assert len(rest) == 20
        assert await two.append(wanted) == record
        assert len(await everything(two)) == 21


async def test_an_id_is_recognised_by_the_log_itself_beyond_every_memory(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[NewRecord] = []
    async with opened(server.url) as log:
        last = 0
        for _ in range(5):
            wanted.append(new("a", expected=last))
            last = (await log.append(wanted[-1])).offset
        records = await everything(log)
    async with connected(server.url) as client:
        # The server forgets the ids.
        config = (await api(client, "STREAM.INFO.events"))["config"]
        await api(client, "STREAM.UPDATE.events", config | {"duplicate_window": 100_000_000})
        server.kill()
        server.start()
    server.wait_until_healthy()
    async with opened(server.url) as log:
        assert list(await asyncio.gather(*map(log.append, wanted))) == records
        assert await everything(log) == records


async def test_an_id_whose_record_was_trimmed_is_appended_anew(server: NatsServer) -> None:
    async with opened(server.url) as log:
        wanted = new("a")
        first = await log.append(wanted)
        await log.save_snapshot(1, [])
        await log.trim(2)
        again = await log.append(wanted)
        assert again.offset > first.offset
        assert await everything(log) == [again]


async def test_a_message_of_somebody_else_is_a_hole(server: NatsServer) -> None:
    async with opened(server.url) as log, connected(server.url) as client:
        seen = Watch(log)
        first = await log.append(new("a"))
        await client.jetstream().publish("events.a", b"foreign")
        with pytest.raises(ExpectationFailed):
            await log.append(new("a", expected=first.offset))
        last = await log.append(new("b"))
        assert seen.records == await everything(log) == [first, last]
        assert await log.check(2) is None
