"""One check: in time, with a clear text, whatever the peer does."""

from __future__ import annotations

import asyncio
import socket
import ssl

import msgspec
import pytest
import trustme

from circuit_breaker_server.engine.mcp.health_finding import Finding
from circuit_breaker_server.engine.mcp.health_probe import check, delay_seconds
from circuit_breaker_server.engine.mcp.records import Retry
from circuit_breaker_server.engine.mcp.tls import tls_context
from tests.server.engine.mcp.health_target import target
from tests.server.engine.mcp.peers import fake_mcp, real_server


def parts(finding: Finding) -> tuple[str, ...]:
    health = finding.health("now")
    return (health.status, health.connection, health.authentication, health.capabilities, health.tools)


async def test_a_real_server_is_healthy_and_what_it_lists_is_what_it_offers() -> None:
    with real_server("add", "subtract") as port:
        finding = await check(target(f"http://127.0.0.1:{port}/mcp", seconds=20))
    assert finding.error is None
    assert finding.listing is not None
    assert [tool.name for tool in finding.listing.tools] == ["add", "subtract"]
    assert [resource.uri for resource in finding.listing.resources] == ["data://one"]
    (prompt,) = finding.listing.prompts
    assert (prompt.name, prompt.description, prompt.parameters[0].name) == ("greet", "Greets.", "name")
    assert finding.listing.protocol_version == "2025-11-25"
    assert finding.listing.features.file_operations
    assert parts(finding) == ("HEALTHY",) * 5
    assert finding.response_time_ms is not None


@pytest.mark.parametrize(
    ("kind", "text", "found"),
    [
        ("html", "HTTP status 200): Unexpected content type: text/html", "HEALTHY UNKNOWN UNHEALTHY UNKNOWN"),
        ("rubbish", "Failed to parse JSON", "HEALTHY UNKNOWN UNHEALTHY UNKNOWN"),
        ("unauthorized", "refuses us: HTTP status 401", "HEALTHY UNHEALTHY UNHEALTHY UNKNOWN"),
        ("liar", "validation error", "HEALTHY UNKNOWN UNHEALTHY UNKNOWN"),
        ("moved", "not followed", "HEALTHY UNKNOWN UNHEALTHY UNKNOWN"),
        ("abort", "disconnected", "HEALTHY UNKNOWN UNKNOWN UNKNOWN"),
        ("deaf", "failed after initialize (HTTP status 500)", "HEALTHY HEALTHY HEALTHY UNHEALTHY"),
        ("endless", "lists too many tools", "HEALTHY HEALTHY HEALTHY UNHEALTHY"),
    ],
)
async def test_a_peer_that_is_no_mcp_server_or_lies_is_an_error_that_says_so(
    kind: str, text: str, found: str
) -> None:
    async with fake_mcp() as fake:
        finding = await check(target(f"{fake.base}/{kind}"))
    assert not finding.succeeded
    assert finding.error is not None
    assert text in finding.error
    assert "\n" not in finding.error
    assert "input_value" not in finding.error
    assert parts(finding) == ("UNHEALTHY", *found.split())


async def test_a_peer_that_hangs_is_given_up_in_time() -> None:
    async with fake_mcp() as fake:
        finding = await check(target(f"{fake.base}/hang", seconds=0.3))
    assert finding.error == "no whole answer within 0.3 s"
    assert fake.methods == ["initialize"]


async def test_a_port_that_refuses_and_a_host_that_is_not_known_are_told_apart() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        refused = await check(target(f"http://127.0.0.1:{unused.getsockname()[1]}/mcp"))
    assert (refused.dns, refused.tcp) == (True, False)
    assert "does not accept connections" in str(refused.error)
    unknown = await check(target("http://nobody.invalid/mcp"))
    assert (unknown.dns, unknown.tcp) == (False, False)
    assert "nobody.invalid is not known" in str(unknown.error)


async def test_a_check_tries_as_often_as_it_may_but_not_again_where_it_is_refused() -> None:
    async with fake_mcp() as fake:
        fake.failures = 2
        assert (await check(target(fake.url, attempts=3))).succeeded
        assert fake.methods.count("initialize") == 3
        fake.failures = 2
        assert not (await check(target(fake.url, attempts=2))).succeeded
        fake.methods.clear()
        assert not (await check(target(f"{fake.base}/unauthorized", attempts=3))).succeeded
        assert fake.methods == ["initialize"]


async def test_what_is_listed_twice_or_is_too_much_is_not_kept() -> None:
    async with fake_mcp() as fake:
        fake.tools = [*fake.tools, *fake.tools]
        assert "is there twice" in str((await check(target(fake.url))).error)
        fake.tools = [
            {"name": str(i), "inputSchema": {"type": "object", "x": "y" * 1000}} for i in range(400)
        ]
        assert "bytes as JSON" in str((await check(target(fake.url))).error)


async def test_the_configured_headers_come_with_every_request() -> None:
    async with fake_mcp() as fake:
        assert (await check(target(fake.url, headers={"X-Team": "blue"}))).succeeded
    assert fake.headers
    assert all(headers["x-team"] == "blue" for headers in fake.headers)


async def test_an_https_endpoint_is_trusted_by_its_authority_and_not_without() -> None:
    authority = trustme.CA()
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(theirs)
    authority.configure_trust(theirs)
    theirs.verify_mode = ssl.CERT_REQUIRED
    ours = authority.issue_cert("client.example")
    pem = authority.cert_pem.bytes().decode()
    certificate = "".join(blob.bytes().decode() for blob in ours.cert_chain_pems)
    key = ours.private_key_pem.bytes().decode()
    trusting = tls_context(verify=True, ca_cert=pem, client_cert=certificate, client_key=key)
    async with fake_mcp(theirs) as fake:
        finding = await check(target(fake.url, tls=trusting))
        assert (finding.succeeded, finding.handshake) == (True, True)
        distrusting = await check(target(fake.url))
        assert distrusting.handshake is False
        assert "TLS handshake" in str(distrusting.error)
        anyone = tls_context(verify=False, ca_cert=None, client_cert=certificate, client_key=key)
        assert (await check(target(fake.url, tls=anyone))).succeeded


async def test_a_check_can_be_cancelled_and_leaves_nothing_behind() -> None:
    async with fake_mcp() as fake:
        task = asyncio.get_running_loop().create_task(check(target(f"{fake.base}/hang")))
        await fake.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_waits_grow_up_to_the_longest_and_are_spread_by_the_jitter() -> None:
    steady = Retry(
        max_attempts=9, initial_delay_ms=100, max_delay_ms=350, backoff_multiplier=2.0, jitter_factor=0.0
    )
    assert [delay_seconds(steady, attempt) for attempt in (1, 2, 3, 9)] == [0.1, 0.2, 0.35, 0.35]
    spread = msgspec.structs.replace(steady, jitter_factor=0.5)
    assert all(0.05 <= delay_seconds(spread, 1) <= 0.15 for _ in range(100))
    assert len({delay_seconds(spread, 1) for _ in range(100)}) > 1
