"""Sockets that need a token: how it is shown, what is said of a wrong one, and its end."""

from __future__ import annotations

import msgspec
import pytest

from circuit_breaker_server import logs
from tests.server.gateway.worlds import ALL_THINGS, Payload, assert_chained
from tests.server.stage import Client, staged
from tests.server.tokens import LEEWAY, NOW, SetClock, authenticator, forged, token, unsigned
from tests.transports.peers import CLOSE
from tests.waiting import until

RESUME = {"resume": {"version": 1}}


@pytest.fixture(autouse=True)
def quiet_logs(default_log_level: None) -> None:
    logs.configure("critical")


def init(client: Client, payload: object) -> None:
    client.send({"type": "connection_init", "payload": payload})


@pytest.mark.parametrize("name", ["Authorization", "authorization"])
async def test_a_good_token_is_acknowledged_and_the_socket_serves(name: str) -> None:
    async with staged(authenticator=authenticator()) as stage:
        client = await stage.open(init=False)
        init(client, {name: f"Bearer {token()}", **RESUME})
        assert (await client.receive())["type"] == "connection_ack"
        client.subscribe("1", ALL_THINGS)
        await client.live("1")


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (None, "token missing"),
        ({}, "token missing"),
        (RESUME, "token missing"),
        ({"token": token()}, "token missing"),
        ({"Authorization": "Bearer "}, "token missing"),
        ({"Authorization": token()}, "token invalid"),
        ({"Authorization": 7}, "token invalid"),
        ({"Authorization": "Bearer rubbish"}, "token invalid"),
        ({"Authorization": "Bearer tökén"}, "token invalid"),
        ({"Authorization": f"Bearer {forged()}"}, "token invalid"),
        ({"Authorization": f"Bearer {unsigned()}"}, "token invalid"),
        ({"Authorization": f"Bearer {token(exp=None)}"}, "token invalid"),
        ({"Authorization": f"Bearer {token(sub=None)}"}, "token invalid"),
        ({"Authorization": f"Bearer {token(nbf=NOW + 60)}"}, "token invalid"),
        ({"Authorization": f"Bearer {token(exp=NOW - LEEWAY)}"}, "token expired"),
    ],
)
async def test_any_other_socket_is_closed_with_4403_and_the_reason(payload: object, reason: str) -> None:
    async with staged(authenticator=authenticator()) as stage:
        client = await stage.open(init=False)
        init(client, payload)
        client.subscribe("1", ALL_THINGS)
        assert await client.closed() == (4403, reason)
        await client.leave()
        await stage.until(lambda: not len(stage.sessions))
        assert stage.gateway.channels == 0


async def test_at_the_instant_the_socket_is_closed_after_whole_events_and_a_fresh_token_goes_on() -> None:
    clock = SetClock()
    async with staged(authenticator=authenticator(clock)) as stage:
        received, start, after, n = [], "", None, 0
        for _ in range(4):
            exp = clock.now() + 60
            client = await stage.open(init=False)
            init(client, {"Authorization": f"Bearer {token(exp=exp)}", **RESUME})
            await client.receive()
            client.subscribe("1", ALL_THINGS, after=after)
            live = await client.live("1")
            start = start or live
            for _ in range(3):
                stage.log.thing("a", n)
                n += 1
            clock.set(exp + LEEWAY - 0.001)
            assert len(stage.sessions) == 1
            received.append(await client.next_of("1"))
            # Written or not, whatever is committed at the end is got now or with the next socket.
            stage.log.thing("a", n)
            n += 1
            clock.set(exp + LEEWAY)
            assert stage.gateway.channels == 0
            messages = []
            while (frame := await client.peer.read_frame()).opcode != CLOSE:
                messages.append(frame)
            assert (frame.close_code, frame.payload[2:]) == (4403, b"token expired")
            for each in messages:
                message = msgspec.json.decode(each.payload, type=dict[str, object])
                received.append(msgspec.convert(message["payload"], Payload))
            after = str(received[-1]["extensions"]["resume"]["cursor"])
            await client.leave()
            await stage.until(lambda: not len(stage.sessions))
        client = await stage.open(init=False)
        init(client, {"Authorization": f"Bearer {token(exp=clock.now() + 60)}", **RESUME})
        await client.receive()
        client.subscribe("1", ALL_THINGS, after=after)
        await client.live("1")
        received += [await client.next_of("1") for _ in range(n - len(received))]
        assert [event["data"]["things"]["n"] for event in received] == list(range(n))
        assert_chained(received, start)
        await client.answers()


async def test_the_timer_of_a_token_goes_with_its_socket() -> None:
    clock = SetClock()
    async with staged(authenticator=authenticator(clock)) as stage:
        clients = [await stage.open(init=False) for _ in range(3)]
        for client in clients:
            init(client, {"Authorization": f"Bearer {token()}"})
            await client.receive()
        assert len(clock.alarms) == 3
        clients[0].peer.vanish()
        await clients[1].leave()
        clients[2].send({"type": "nonsense"})
        assert await clients[2].close_code() == 4400
        await until(lambda: not clock.alarms)


async def test_without_a_key_a_token_is_neither_wanted_nor_looked_at() -> None:
    async with staged() as stage:
        for payload in (None, {"Authorization": "Bearer rubbish"}):
            client = await stage.open(init=False)
            init(client, payload)
            assert (await client.receive())["type"] == "connection_ack"
