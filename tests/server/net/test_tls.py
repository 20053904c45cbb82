"""HTTPS and WSS on one port: who trusts the authority gets through; others and bad files get clear errors."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from circuit_breaker_sdk import Client, ConnectionFailed, ErrorRecoveryPolicy, TransportError
from circuit_breaker_server import Server, ServerSettings, ServerStartError
from circuit_breaker_server.net import http_server
from tests.integration.workflows import create_review_workflow
from tests.server.certificates import Authority

NO_RETRY = ErrorRecoveryPolicy(max_retries=0)
SWORDFISH = b"swordfish"


@contextlib.asynccontextmanager
async def secured(data_dir: Path, **settings: Any) -> AsyncIterator[tuple[Server, ssl.SSLContext]]:
    authority = Authority()
    cert, key = authority.write(data_dir)
    given = {"log_level": "critical", **settings}
    async with Server(
        ServerSettings(data_dir=data_dir / "data", port=0, tls_cert=cert, tls_key=key, **given)
    ) as server:
        yield server, authority.context()


async def rest(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(10):
        with contextlib.suppress(OSError):
            return await reader.read()
        return b""


@contextlib.asynccontextmanager
async def opened(
    server: Server, context: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


# --- who gets through ------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_with_a_context_that_trusts_it_queries_and_a_subscription_over_wss_work(
    tmp_path: Path, host: str
) -> None:
    async with secured(tmp_path) as (server, context):
        assert server.url == f"https://127.0.0.1:{server.port}/graphql"
        url = server.url.replace("127.0.0.1", host)
        async with Client(url, ssl=context, recovery=NO_RETRY) as client:
            workflow = await create_review_workflow(client)
            async with client.workflows.subscribe_resource_updates(workflow_id=workflow.id) as updates:
                for _ in range(3):
                    made = await client.workflows.create_resource(workflow_id=workflow.id)
                    assert (await anext(updates)).id == made.id
                assert not updates.is_polled


async def test_events_by_the_thousand_come_whole_and_in_order_over_wss(tmp_path: Path) -> None:
    async with secured(tmp_path) as (server, context), Client(server.url, ssl=context) as client:
        workflow = await create_review_workflow(client)
        async with client.workflows.subscribe_resource_updates(workflow_id=workflow.id) as updates:
            padding = "x" * 4_000
            made = [
                await client.workflows.create_resource(
                    workflow_id=workflow.id, data={"n": n, "padding": padding}
                )
                for n in range(300)
            ]
            assert [(await anext(updates)).id for _ in made] == [each.id for each in made]


@pytest.mark.parametrize("fallback", ["sse", "poll"])
async def test_event_streams_and_long_polling_work_over_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fallback: str
) -> None:
    monkeypatch.setattr(http_server, "OPERATION_PATHS", ())
    async with (
        secured(tmp_path) as (server, context),
        Client(server.url, ssl=context, critical=True, transports=("websocket", fallback)) as client,
    ):
        workflow = await create_review_workflow(client)
        updates = await client.workflows.subscribe_resource_updates(workflow_id=workflow.id).subscribe()
        assert updates.transport == fallback
        made = await client.workflows.create_resource(workflow_id=workflow.id)
        assert (await anext(updates)).id == made.id
        await updates.unsubscribe()


async def test_a_page_is_at_home_under_https_and_not_under_http(tmp_path: Path) -> None:
    async with secured(tmp_path) as (server, context), aiohttp.ClientSession() as http:
        for scheme, status in (("https", 101), ("http", 403)):
            origin = f"{scheme}://127.0.0.1:{server.port}"
            headers = {"Origin": origin}
            body = {"query": "{ health }"}
            async with http.post(server.url, json=body, headers=headers, ssl=context) as answer:
                assert answer.status == (200 if status == 101 else 403)
            if status == 101:
                async with http.ws_connect(server.url, headers=headers, ssl=context):
                    pass
            else:
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await http.ws_connect(server.url, headers=headers, ssl=context)
                assert refused.value.status == status


async def test_an_authority_that_is_not_trusted_is_a_clear_error(tmp_path: Path) -> None:
    async with secured(tmp_path) as (server, _), Client(server.url, recovery=NO_RETRY) as client:
        for asking in (
            client.workflows.workflows(),
            client.workflows.subscribe_resource_updates(resource_id="r").subscribe(),
        ):
            with pytest.raises(ConnectionFailed, match="certificate was refused") as failed:
                await asking
            assert "trusts its authority" in str(failed.value)


async def test_plain_http_to_the_port_of_tls_is_a_clear_error(tmp_path: Path) -> None:
    async with (
        secured(tmp_path) as (server, _),
        Client(server.url.replace("https", "http"), recovery=NO_RETRY) as client,
    ):
        with pytest.raises(ConnectionFailed, match="https://"):
            await client.workflows.workflows()
        with pytest.raises(TransportError, match="wss://"):
            await client.workflows.subscribe_resource_updates(resource_id="r").subscribe()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_before_1_2_is_refused(tmp_path: Path, version: ssl.TLSVersion) -> None:
    async with secured(tmp_path) as (server, context):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = version
        context.set_ciphers("DEFAULT:@SECLEVEL=0")  # else it is the client that refuses
        if version is ssl.TLSVersion.TLSv1_1:
            with pytest.raises((ssl.SSLError, ConnectionError)) as refused:
                await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
            assert "NO_PROTOCOLS_AVAILABLE" not in str(refused.value)
        else:
            async with opened(server, context) as (_, writer):
                assert writer.get_extra_info("ssl_object").version() == version.name.replace("_", ".")


# --- handshakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n\r\n"])
async def test_a_handshake_that_is_not_finished_in_time_ends_the_connection(
    tmp_path: Path, sent: bytes
) -> None:
    async with secured(tmp_path, head_seconds=0.05) as (server, _), opened(server) as (reader, writer):
        writer.write(sent)
        await rest(reader)


async def test_the_time_of_a_head_counts_behind_the_handshake_too(tmp_path: Path) -> None:
    async with (
        secured(tmp_path, head_seconds=0.3) as (server, context),
        opened(server, context) as (reader, writer),
    ):
        writer.write(b"GET /health HT")
        assert (await rest(reader)).startswith(b"HTTP/1.1 408")


async def test_handshakes_under_way_have_their_share_and_do_not_take_that_of_others(tmp_path: Path) -> None:
    limits = {"max_connections_per_address": 1, "head_seconds": 60.0}
    async with secured(tmp_path, **limits) as (server, context):
        async with opened(server), opened(server) as (reader, _):
            assert await rest(reader) == b"", "two handshakes of one address"
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(OSError):
                    async with opened(server, context) as (reader, writer):
                        # Its answer says that its handshake is over on the other side as well.
                        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                        await reader.readuntil(b"ok")
                        async with opened(server, context) as (refused, _):
                            assert (await rest(refused)).startswith(b"HTTP/1.1 429")
                        return


async def test_a_server_that_stops_ends_the_handshakes_under_way(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with secured(tmp_path, head_seconds=3600.0) as (server, _):
            reader, writer = await stack.enter_async_context(opened(server))
            writer.write(b"\x16\x03\x01")
            await writer.drain()
        await rest(reader)


async def test_a_request_that_comes_with_the_end_of_the_handshake_is_answered(tmp_path: Path) -> None:
    async with secured(tmp_path) as (server, context):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1_2, version
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
            async with opened(server) as (reader, writer):
                while True:
                    try:
                        tls.do_handshake()
                        break
                    except ssl.SSLWantReadError:
                        writer.write(outgoing.read())
                        incoming.write(await reader.read(65_536))
                # With the last of the handshake, where there is any, in one write; then the end.
                tls.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                writer.write(outgoing.read())
                incoming.write(await rest(reader))
                assert tls.read(65_536).startswith(b"HTTP/1.1 200")


# --- files -----------------------------------------------------------------------------------------


async def start_error(data: Path, cert: Path, key: Path) -> str:
    server = Server(ServerSettings(data_dir=data, port=0, tls_cert=cert, tls_key=key))
    with pytest.raises(ServerStartError) as failed:
        await server.start()
    await server.aclose()
    assert not data.exists()
    assert "swordfish" not in str(failed.value)
    assert "PRIVATE KEY" not in str(failed.value)
    return str(failed.value)


async def test_files_that_cannot_be_used_are_named_at_the_start(tmp_path: Path) -> None:
    authority = Authority()
    cert, key = authority.write(tmp_path)
    _, other = authority.write(tmp_path, "other")
    _, sealed = authority.write(tmp_path, "sealed", password=SWORDFISH)
    rubbish, missing, big = tmp_path / "rubbish", tmp_path / "missing", tmp_path / "big"
    rubbish.write_bytes(SWORDFISH)
    big.write_bytes(SWORDFISH * 200_000)
    broken = tmp_path / "broken"
    broken.write_bytes(key.read_bytes()[:60] + SWORDFISH + key.read_bytes()[69:])
    for given, named, says in (
        ((missing, key), missing, "No such file"),
        ((cert, missing), missing, "No such file"),
        ((tmp_path, key), tmp_path, "directory"),
        ((rubbish, key), rubbish, "none in PEM"),
        ((key, key), key, "none in PEM"),
        ((cert, rubbish), rubbish, "no private key"),
        ((cert, cert), cert, "no private key"),
        ((cert, broken), broken, "key"),
        ((cert, other), other, f"not that of the first certificate in {cert}"),
        ((cert, sealed), sealed, "password"),
        ((big, key), big, "over"),
        ((cert, big), big, "over"),
    ):
        text = await start_error(tmp_path / "data", *given)
        assert str(named) in text
        assert says in text


def test_a_certificate_and_its_key_go_together(tmp_path: Path) -> None:
    for alone in ("tls_cert", "tls_key"):
        with pytest.raises(ValueError, match="both or none"):
            ServerSettings(data_dir=tmp_path, **{alone: tmp_path / "x"})  # type: ignore[arg-type]  # a path
