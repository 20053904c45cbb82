"""What nodes that share a log need of it: to catch up with each other, and to hear that they live."""

from __future__ import annotations

import asyncio

from tests.conformance.nats_server import NatsServer
from tests.server.log.jetstream.log_stage import new, opened
from tests.waiting import until


async def test_what_another_node_has_appended_is_waited_for(server: NatsServer) -> None:
    async with opened(server.url) as one, opened(server.url) as two:
        for _ in range(20):
            record = await one.append(new())
            assert await two.reaches(record.offset)
            assert two.last_offset >= record.offset
        assert not await two.reaches(record.offset + 1)


async def test_each_node_hears_all_heartbeats_its_own_too(server: NatsServer) -> None:
    async with opened(server.url) as one, opened(server.url) as two:
        heard: dict[str, list[bytes]] = {"one": [], "two": []}
        await one.heartbeats.listen(heard["one"].append)
        await two.heartbeats.listen(heard["two"].append)
        # Subscribing is not answered: what is sent after an answer of the server is behind it.
        await asyncio.gather(one.reaches(1), two.reaches(1))
        await one.heartbeats.send(b"1")
        await two.heartbeats.send(b"2")
        await until(lambda: sorted(heard["one"]) == sorted(heard["two"]) == [b"1", b"2"])
        assert one.last_offset == 0, "a heartbeat is no record"
