"""The whole server on a real port: HTTP, upgrades, the ways it cannot start, and how it stops."""

from __future__ import annotations

import asyncio
import io
import socket
from pathlib import Path

import aiohttp
import pytest

from circuit_breaker_sdk.config import MessageLimits, Timeouts
from circuit_breaker_sdk.errors import HandshakeFailed
from circuit_breaker_sdk.transports.websocket import connect
from circuit_breaker_server import Server, ServerSettings, ServerStartError
from tests.server.operations import CREATE_RESOURCE, CREATE_WORKFLOW, EVENTS, EXECUTE, NATS, UPDATES, WORKFLOW
from tests.server.site import site
from tests.transports.peers import SUBPROTOCOL, TEXT, RecordingSink

JSON = "application/json"
GRAPHQL_JSON = "application/graphql-response+json"


# --- HTTP ------------------------------------------------------------------------------------------


async def test_health_is_answered_as_a_query_and_as_a_page(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        assert await running.post("{ health }") == {"data": {"health": "ok"}}
        async with running.http.get(running.root + "/health") as answer:
            assert (answer.status, await answer.text()) == (200, "ok")
        async with running.http.post(running.root + "/", json={"query": "{ health }"}) as answer:
            assert answer.status == 200


async def test_a_browser_gets_a_page_and_others_are_told_to_post(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        for url, accept in ((running.root + "/", "*/*"), (running.server.url, "text/html,*/*")):
            async with running.http.get(url, headers={"Accept": accept}) as answer:
                assert (answer.status, answer.content_type) == (200, "text/html")
                assert running.server.url in await answer.text()
        async with running.http.get(running.server.url) as answer:
            assert answer.status == 400
            assert "send operations as POST" in (await answer.json())["errors"][0]["message"]
        for method in ("PATCH", "OPTIONS", "TRACE"):
            async with running.http.request(method, running.server.url) as answer:
                assert (answer.status, answer.headers["Allow"]) == (405, "GET, POST, PUT, DELETE")
                assert "send operations as POST" in (await answer.json())["errors"][0]["message"]
        async with running.http.get(running.server.url + "/poll") as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "POST")
        async with running.http.get(running.root + "/elsewhere") as answer:
            assert answer.status == 404


@pytest.mark.parametrize(
    ("body", "content_type", "status", "text"),
    [
        (b'[{"query": "{ health }"}]', JSON, 400, "arrays"),
        (b"{nonsense", JSON, 400, "not a GraphQL request"),
        (b"", JSON, 400, "not a GraphQL request"),
        (b"\xff\xfe", JSON, 400, "not a GraphQL request"),
        (b"[" * 100_000, JSON, 400, "arrays"),
        (b'{"a":' * 100_000, JSON, 400, "not a GraphQL request"),
        (b'{"query":"x","variables":' + b'{"a":' * 500 + b"1" + b"}" * 501, JSON, 400, "deeper than 500"),
        (b"{}", JSON, 400, "query"),
        (b'{"query": 1}', JSON, 400, "query"),
        (b'{"query": "{ health }", "variables": []}', JSON, 400, "variables"),
        (b'{"query": "{ health }", "operationName": 1}', JSON, 400, "operationName"),
        (b'{"query": "{ health }"}', "text/plain", 415, JSON),
        (b"query=%7B+health+%7D", "application/x-www-form-urlencoded", 415, JSON),
        (b'{"query": "' + b"x" * 1_048_576 + b'"}', JSON, 413, "1048576"),
    ],
)
async def test_a_body_that_is_no_request_gets_one_clear_error(
    tmp_path: Path, body: bytes, content_type: str, status: int, text: str
) -> None:
    async with site(tmp_path) as running:
        headers = {"Content-Type": content_type}
        async with running.http.post(running.server.url, data=io.BytesIO(body), headers=headers) as answer:
            assert answer.status == status
            (error,) = (await answer.json())["errors"]
            assert text in error["message"]
        assert await running.post("{ health }") == {"data": {"health": "ok"}}


@pytest.mark.parametrize(
    ("query", "variables", "text"),
    [
        ("{ health", {}, "Syntax Error"),
        ("{ nothing }", {}, "nothing"),
        ("query($id: String!) { workflow(id: $id) { id } }", {}, "$id"),
        ("query($id: String!) { workflow(id: $id) { id } }", {"id": 7}, "$id"),
        ("query A { health } query B { health }", {}, "operation"),
        ("subscription { resourceUpdates { id } }", {}, "WebSocket"),
    ],
)
async def test_a_request_that_cannot_be_executed_is_200_or_400_as_the_client_accepts(
    tmp_path: Path, query: str, variables: dict[str, object], text: str
) -> None:
    async with site(tmp_path) as running:
        for accept, status in ((JSON, 200), (GRAPHQL_JSON + ", " + JSON, 400)):
            body, headers = {"query": query, "variables": variables}, {"Accept": accept}
            async with running.http.post(running.server.url, json=body, headers=headers) as answer:
                assert (answer.status, answer.content_type) == (status, accept.partition(",")[0])
                (error,) = (await answer.json(content_type=None))["errors"]
                assert text in error["message"]


async def test_an_error_of_the_engine_is_200_with_its_code(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        body = {"query": '{ resources(workflowId: "no") { id } }'}
        async with running.http.post(
            running.server.url, json=body, headers={"Accept": GRAPHQL_JSON}
        ) as answer:
            assert answer.status == 200
            (error,) = (await answer.json(content_type=None))["errors"]
            assert error["extensions"]["code"] == "NOT_FOUND"


# --- WebSockets ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/graphql", "/ws", "/graphql?token=x"])
async def test_a_mutation_s_events_reach_its_subscribers(tmp_path: Path, path: str) -> None:
    async with site(tmp_path) as running:
        workflow, _ = await running.made(CREATE_WORKFLOW, WORKFLOW)
        resource, created = await running.made(CREATE_RESOURCE, {"workflowId": workflow})
        client = await running.open(path)
        await client.init()
        client.subscribe("u", UPDATES, {"id": resource})
        assert await client.live("u") == created
        client.subscribe("e", EVENTS, {"id": workflow})
        await client.live("e")
        client.subscribe("n", NATS, {"id": workflow})
        await client.live("n")
        _, cursor = await running.made(EXECUTE, {"resourceId": resource, "activityId": "ping"})
        received = [await client.receive() for _ in range(4)]
        assert sorted(str(message["id"]) for message in received) == ["e", "e", "n", "u"]
        assert cursor in str(received), "the last of the record's events has the cursor of the answer"
        # A query over the socket, and a subscription to a thing that is not there.
        client.subscribe("q", "query($id: String!) { resource(id: $id) { state } }", {"id": resource})
        assert await client.result_of("q") == {"data": {"resource": {"state": "right"}}}
        assert await client.receive() == {"id": "q", "type": "complete"}
        client.subscribe("x", UPDATES, {"id": "nobody"})
        assert (await client.error_of("x"))["extensions"] == {"code": "NOT_FOUND"}


async def test_a_cursor_outlives_the_server(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        workflow, start = await running.made(CREATE_WORKFLOW, WORKFLOW)
        resource, _ = await running.made(CREATE_RESOURCE, {"workflowId": workflow})
        client = await running.open()
        await client.init()
        client.subscribe("1", EVENTS, {"id": workflow})
        await client.live("1")
        for activity in ("ping", "pong"):
            await running.made(EXECUTE, {"resourceId": resource, "activityId": activity})
        first = await client.next_of("1")
        live = [await client.receive_bytes() for _ in range(3)]
    async with site(tmp_path) as running:
        client = await running.open()
        await client.init()
        client.subscribe("1", EVENTS, {"id": workflow}, after=start)
        assert await client.live("1") == start
        created = await client.next_of("1")
        assert created["data"]["workflowEvents"]["eventType"] == "RESOURCE_CREATED"
        again = await client.next_of("1")
        assert again["data"] == first["data"]
        # The first event after a subscribe is the subscriber's own in one thing: the cursor before it.
        assert again["extensions"]["resume"]["cursor"] == first["extensions"]["resume"]["cursor"]
        assert [await client.receive_bytes() for _ in range(3)] == live


async def test_an_upgrade_elsewhere_is_404(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        with pytest.raises(HandshakeFailed) as failed:
            await connect(
                f"ws://127.0.0.1:{running.server.port}/elsewhere",
                RecordingSink(),
                subprotocols=[SUBPROTOCOL],
                limits=MessageLimits(),
                timeouts=Timeouts(),
            )
        assert failed.value.status == 404


@pytest.mark.parametrize("offered", ["graphql", "soap, graphql-WS", None])
async def test_a_subprotocol_we_do_not_speak_is_closed_with_4406_after_the_handshake(
    tmp_path: Path, offered: str | None
) -> None:
    named = f"Sec-WebSocket-Protocol: {offered}\r\n" if offered else ""
    async with site(tmp_path) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.server.port)
        writer.write(
            b"GET /graphql HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
            + f"{named}\r\n".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        assert "101" in head
        assert "sec-websocket-protocol" not in head.lower()
        assert int.from_bytes((await reader.readexactly(4))[2:]) == 4406
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("offered", "answered"),
    [
        ("graphql-ws", "graphql-ws"),
        ("soap, graphql-ws", "graphql-ws"),
        ("graphql-ws, graphql-transport-ws", "graphql-transport-ws"),
    ],
)
async def test_the_legacy_protocol_is_agreed_on_where_the_modern_one_is_not_offered(
    tmp_path: Path, offered: str, answered: str
) -> None:
    async with site(tmp_path) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.server.port)
        writer.write(
            b"GET /graphql HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
            + f"Sec-WebSocket-Protocol: {offered}\r\n\r\n".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert f"sec-websocket-protocol: {answered}\r\n" in head
        writer.close()
        await writer.wait_closed()


async def test_a_message_over_the_limit_closes_with_1009_and_other_sockets_go_on(tmp_path: Path) -> None:
    async with site(tmp_path, max_message_bytes=1000) as running:
        big, other = await running.open(), await running.open()
        await other.init()
        big.peer.send_frame(TEXT, b"x" * 1001)
        assert await big.close_code() == 1009
        await other.answers()


# --- start and stop --------------------------------------------------------------------------------


async def start_error(settings: ServerSettings) -> str:
    server = Server(settings)
    with pytest.raises(ServerStartError) as failed:
        await server.start()
    await server.aclose()
    return str(failed.value)


async def test_a_port_in_use_is_named_with_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = await start_error(ServerSettings(data_dir=tmp_path / "data", port=port))
    assert f"127.0.0.1:{port}" in text
    assert "in use" in text
    assert not (tmp_path / "data").exists(), "nothing was made before it was clear that it can be used"


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
async def test_a_host_that_is_not_this_machine_is_named(tmp_path: Path, host: str) -> None:
    text = await start_error(ServerSettings(data_dir=tmp_path, port=0, host=host, insecure=True))
    assert host in text


async def test_a_data_directory_that_cannot_be_one_is_named(tmp_path: Path) -> None:
    in_the_way = tmp_path / "data"
    in_the_way.write_text("a file")
    assert str(in_the_way) in await start_error(ServerSettings(data_dir=in_the_way, port=0))


async def test_a_database_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "events.db").write_bytes(b"certainly no database" * 100)
    assert "events.db" in await start_error(ServerSettings(data_dir=tmp_path, port=0))


async def test_a_second_server_on_the_same_data_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    async with site(tmp_path) as running:
        assert str(tmp_path) in await start_error(ServerSettings(data_dir=tmp_path, port=0))
        assert await running.post("{ health }") == {"data": {"health": "ok"}}


async def test_a_server_that_stops_closes_its_sockets_with_1012_and_sends_what_was_due(
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as running:
        workflow, _ = await running.made(CREATE_WORKFLOW, WORKFLOW)
        client = await running.open()
        await client.init()
        client.subscribe("1", EVENTS, {"id": workflow})
        await client.live("1")
        await running.made(CREATE_RESOURCE, {"workflowId": workflow})
        waiting = asyncio.create_task(running.server.wait())
        closing = [asyncio.create_task(running.server.aclose()) for _ in range(2)]
        await client.next_of("1")
        assert await client.close_code() == 1012
        await client.leave()
        await asyncio.gather(*closing, waiting)
        await running.server.aclose()
        with pytest.raises(aiohttp.ClientConnectorError):
            await running.post("{ health }")
        with pytest.raises(RuntimeError, match="once"):
            await running.server.start()


async def test_a_server_knows_its_url_once_it_has_started(tmp_path: Path) -> None:
    server = Server(
        ServerSettings(data_dir=tmp_path, port=0, host="0.0.0.0", insecure=True, log_level="critical")  # noqa: S104 (no data)
    )
    with pytest.raises(RuntimeError, match="started"):
        _ = server.url
    async with server:
        assert server.url == f"http://127.0.0.1:{server.port}/graphql"
    await Server(ServerSettings(data_dir=tmp_path)).aclose()


@pytest.mark.parametrize(
    "wrong", [{"port": 65_536}, {"port": -1}, {"ring_size": 0}, {"close_seconds": 0}, {"log_level": "loud"}]
)
def test_settings_that_make_no_sense_are_refused_by_name(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ServerSettings(data_dir=tmp_path, **wrong)  # type: ignore[arg-type]  # wrong on purpose
