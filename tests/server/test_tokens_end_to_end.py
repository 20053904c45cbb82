"""A whole server that asks for tokens: HTTP, polls, upgrades, keys of mutations; a token that really ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import aiohttp
import msgspec
import pytest

from circuit_breaker_server import Server, ServerSettings, TokenSettings, logs
from tests.server.gateway.worlds import ALL_THINGS, Payload
from tests.server.operations import CREATE_RESOURCE, CREATE_WORKFLOW, EVENTS, EXECUTE, WORKFLOW
from tests.server.polling_stage import Result, operation, polling
from tests.server.stage import Client
from tests.server.tokens import LEEWAY, NOW, SECRET, SetClock, authenticator, forged, token, unsigned
from tests.transports.peers import CLOSE, raw_client
from tests.waiting import until

HEALTH = {"query": "{ health }"}
POLL = {"query": EVENTS, "variables": {"id": "w"}, "waitMs": 0}


@pytest.fixture(autouse=True)
def quiet_logs(default_log_level: None) -> None:
    logs.configure("critical")


def bearer(given: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {given}"}


def good(**claims: object) -> str:
    """Sign a token that is good by the clock of the machine."""
    return token(**{"exp": time.time() + 3600, **claims})  # type: ignore[arg-type]  # claims only


@contextlib.asynccontextmanager
async def serving(
    data_dir: Path, *, log_level: str = "critical", leeway_seconds: float = LEEWAY
) -> AsyncIterator[tuple[Server, aiohttp.ClientSession]]:
    settings = ServerSettings(
        data_dir=data_dir,
        port=0,
        log_level=log_level,
        token_keys=TokenSettings(key=SECRET, leeway_seconds=leeway_seconds),
    )
    async with Server(settings) as server, aiohttp.ClientSession() as http:
        yield server, http


async def made(
    server: Server, http: aiohttp.ClientSession, query: str, given: Mapping[str, object], shown: str
) -> str:
    body = {"query": query, "variables": {"input": given}}
    async with http.post(server.url, json=body, headers=bearer(shown)) as answer:
        data = msgspec.json.decode(await answer.read(), type=dict[str, object])["data"]
    ((thing),) = msgspec.convert(data, dict[str, dict[str, str]]).values()
    return thing["id"]


# --- HTTP ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/graphql", "/", "/graphql/poll"])
async def test_http_wants_a_token_in_the_header_and_says_what_is_wrong_with_another(
    tmp_path: Path, path: str
) -> None:
    body = POLL if path.endswith("poll") else HEALTH
    async with serving(tmp_path) as (server, http):
        url = server.url.removesuffix("/graphql") + path
        shown: list[tuple[dict[str, str], str]] = [
            ({}, "token missing"),
            ({"Authorization": "Bearer "}, "token missing"),
            ({"Authorization": "Basic dXNlcjpwYXNz"}, "token invalid"),
            ({"Authorization": good()}, "token invalid"),
            (bearer("rubbish"), "token invalid"),
            (bearer("tökén"), "token invalid"),
            (bearer(forged()), "token invalid"),
            (bearer(unsigned()), "token invalid"),
            (bearer(good(sub=None)), "token invalid"),
            (bearer(token(exp=None)), "token invalid"),
            (bearer(good(nbf=time.time() + 600)), "token invalid"),
            (bearer(token(exp=time.time() - 600)), "token expired"),
        ]
        for headers, reason in shown:
            for accept in ("*/*", "application/graphql-response+json"):
                async with http.post(url, json=body, headers={**headers, "Accept": accept}) as answer:
                    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
                    assert await answer.json(content_type=None) == {
                        "errors": [{"message": reason, "extensions": {"code": "UNAUTHENTICATED"}}]
                    }
        for query in (f"?token={good()}", f"?access_token={good()}", f"?Authorization=Bearer%20{good()}"):
            async with http.post(url + query, json=body) as answer:
                assert answer.status == 401
        async with http.post(url, json=body, headers=bearer(good())) as answer:
            assert answer.status == 200
        async with http.get(server.url.removesuffix("/graphql") + "/health") as answer:
            assert (answer.status, await answer.text()) == (200, "ok")


async def test_bytes_that_are_no_text_and_two_headers_are_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, _):
        for headers in (
            b"Authorization: Bearer \xff\xfe\xc3\x28\r\n",
            b"Authorization: \xf0\x9f\r\n",
            f"Authorization: Bearer {good()}\r\nAuthorization: Bearer {good()}\r\n".encode(),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(
                b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: 2\r\nConnection: close\r\n" + headers + b"\r\n{}"
            )
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 401 ")
            assert b"token invalid" in answer
            writer.close()
            await writer.wait_closed()


async def test_a_body_without_a_token_is_not_read(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(
            b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000000000\r\n\r\n"
        )
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 401 ")
        writer.close()
        await writer.wait_closed()


async def test_keys_of_mutations_are_of_one_principal(tmp_path: Path) -> None:
    body = {"query": CREATE_WORKFLOW, "variables": {"input": WORKFLOW}}

    async with serving(tmp_path) as (server, http):

        async def send(subject: str) -> tuple[str, bool]:
            headers = {**bearer(good(sub=subject)), "Idempotency-Key": "k"}
            async with http.post(server.url, json=body, headers=headers) as answer:
                replayed = answer.headers.get("Idempotency-Replayed") == "true"
                return (await answer.json())["data"]["createWorkflow"]["id"], replayed

        first, _ = await send("user-1")
        other, replayed = await send("user-2/")
        assert first != other
        assert not replayed
        assert await send("user-1") == (first, True)
        assert await send("user-2/") == (other, True)
    async with serving(tmp_path) as (server, http):
        assert await send("user-1") == (first, True)
        assert await send("user-2/") == (other, True)


# --- sockets ---------------------------------------------------------------------------------------


async def socket(server: Server, *, path: str = "/graphql", more: str = "") -> Client:
    client = Client(await raw_client(server.port, path=path, more=more))
    assert "101" in await client.peer.read_head()
    return client


async def test_the_header_of_the_upgrade_does_where_the_payload_shows_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, _):
        header = f"authorization: Bearer {good()}\r\n"
        for more, payload, answer in (
            (header, None, None),
            (header, {"locale": "en"}, None),
            ("", bearer(good()), None),
            ("Authorization: Bearer rubbish\r\n", bearer(good()), None),
            (header, bearer("rubbish"), "token invalid"),
            (header, bearer(token(exp=time.time() - 600)), "token expired"),
            ("Authorization: Bearer t\xf6k\xe9n\r\n", None, "token invalid"),
            ("Authorization: Basic dXNlcjpwYXNz\r\n", None, "token invalid"),
            ("", None, "token missing"),
        ):
            client = await socket(server, more=more)
            client.send({"type": "connection_init", "payload": payload})
            if answer is None:
                assert (await client.receive())["type"] == "connection_ack"
            else:
                assert await client.closed() == (4403, answer)
            await client.leave()
        client = await socket(server, path=f"/graphql?token={good()}&Authorization=Bearer%20{good()}")
        client.send({"type": "connection_init"})
        assert await client.closed() == (4403, "token missing")
        await client.leave()


async def test_a_token_that_really_ends_closes_its_socket_and_a_fresh_one_goes_on(tmp_path: Path) -> None:
    async with serving(tmp_path, leeway_seconds=0.1) as (server, http):
        workflow = await made(server, http, CREATE_WORKFLOW, WORKFLOW, good())
        resource = await made(server, http, CREATE_RESOURCE, {"workflowId": workflow}, good())
        running = True

        async def work() -> int:
            done = 0
            while running:
                activity = ("ping", "pong")[done % 2]
                given = {"resourceId": resource, "activityId": activity}
                await made(server, http, EXECUTE, given, good())
                done += 1
            return done

        working = asyncio.create_task(work())
        events: list[Payload] = []
        after: str | None = None
        firsts: list[str] = []
        for _ in range(3):
            exp = time.time() + 0.9
            shown = token(exp=exp)
            client = await socket(server)
            client.send({"type": "connection_init", "payload": {**bearer(shown), "resume": {"version": 1}}})
            assert (await client.receive())["type"] == "connection_ack"
            client.subscribe("1", EVENTS, {"id": workflow}, after=after)
            firsts.append(await client.live("1"))
            while (frame := await client.peer.read_frame()).opcode != CLOSE:
                message = msgspec.json.decode(frame.payload, type=dict[str, object])
                if message["type"] == "next":
                    events.append(msgspec.convert(message["payload"], Payload))
            assert time.time() >= exp + 0.1
            assert (frame.close_code, frame.payload[2:]) == (4403, b"token expired")
            await client.leave()
            after = str(events[-1]["extensions"]["resume"]["cursor"])
        running = False
        await working
        # A subscriber that never had to come again sees the same.
        client = await socket(server, more=f"Authorization: Bearer {good()}\r\n")
        await client.init()
        client.subscribe("1", EVENTS, {"id": workflow}, after=firsts[0])
        assert await client.live("1") == firsts[0]
        assert [(await client.next_of("1"))["data"] for _ in events] == [event["data"] for event in events]
        await client.leave()


# --- polls -----------------------------------------------------------------------------------------


async def test_a_poll_that_waits_is_answered_at_the_instant_and_the_next_needs_a_fresh_token() -> None:
    clock = SetClock()
    async with polling(authenticator=authenticator(clock)) as stage:
        shown = bearer(token(exp=NOW + 60))

        async def poll(after: str | None, *, wait_ms: int = 25_000) -> tuple[int, bytes]:
            body = {**operation(ALL_THINGS, after=after), "waitMs": wait_ms}
            async with stage.http.post(stage.url, json=body, headers=shown) as answer:
                return answer.status, await answer.read()

        def result(answer: tuple[int, bytes]) -> Result:
            assert answer[0] == 200
            return msgspec.json.decode(answer[1], type=Result)

        start = result(await poll(None)).after
        assert not clock.alarms
        waiting = asyncio.create_task(poll(start))
        await until(lambda: len(clock.alarms) == 1 and stage.gateway.channels == 1)
        clock.set(NOW + 60 + LEEWAY - 0.001)
        stage.log.thing("a", 0)
        assert result(await waiting).numbers == [0]
        assert not clock.alarms
        after = result(await poll(start)).after
        waiting = asyncio.create_task(poll(after))
        await until(lambda: len(clock.alarms) == 1 and stage.gateway.channels == 1)
        clock.set(NOW + 60 + LEEWAY)
        told = result(await waiting)
        assert (told.events, told.done, told.errors) == ([], False, [])
        stage.log.thing("a", 1)
        status, body = await poll(told.after)
        assert status == 401
        assert b"token expired" in body
        shown = bearer(token(exp=clock.now() + 60))
        assert result(await poll(told.after)).numbers == [1]
        assert not clock.alarms


# --- logs ------------------------------------------------------------------------------------------


async def test_no_token_and_no_key_is_ever_logged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown = [good(), forged(), unsigned(), token(exp=1), good(sub="x" * 999), "swordfish.sword.fish"]
    async with serving(tmp_path, log_level="debug") as (server, http):
        for each in shown:
            for path in ("", "/poll"):
                body = POLL if path else HEALTH
                async with http.post(server.url + path, json=body, headers=bearer(each)) as answer:
                    assert answer.status in (200, 401)
            for more, payload in ((f"Authorization: Bearer {each}\r\n", None), ("", bearer(each))):
                client = await socket(server, more=more, path=f"/graphql?token={each}")
                client.send({"type": "connection_init", "payload": payload})
                await client.peer.read_frame()
                client.send({"type": f"Bearer {each}"})
                await client.leave()
    logged = capsys.readouterr().err + caplog.text
    assert "token_refused" in logged
    assert SECRET.decode() not in logged
    for each in shown:
        # The head of a token is the same for all, and no secret.
        for part in each.split(".")[1:]:
            assert not part or part not in logged
