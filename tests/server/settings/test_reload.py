"""A running server takes other rates, limits, logs and a certificate over, and closes no connection."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from circuit_breaker_sdk import Client, ConnectionFailed, OperationError, RateLimitExceeded
from circuit_breaker_server import DocumentLimits, RateSettings, Server, ServerSettings, ServerStartError
from circuit_breaker_server.settings.catalogue import CATALOGUE
from circuit_breaker_server.settings.live import Change, changes
from tests.integration.workflows import create_review_workflow
from tests.server.certificates import Authority


async def test_rates_and_limits_change_beside_a_stream_that_goes_on(tmp_path: Path) -> None:
    before = ServerSettings(port=0, data_dir=tmp_path)
    async with Server(before) as server, Client(server.url) as client:
        workflow = (await create_review_workflow(client)).id
        updates = await client.workflows.subscribe_resource_updates(workflow_id=workflow).subscribe()
        found = server.reload(
            replace(before, port=1, document_limits=DocumentLimits(max_depth=1, max_cost=2))
        )
        assert found.taken == (
            Change("limits.document.max_depth", 15, 1),
            Change("limits.document.max_cost", 100_000, 2),
        )
        assert found.left == (Change("network.port", 0, 1),)
        assert (server.settings.port, server.settings.document_limits.max_depth) == (0, 1)
        with pytest.raises(OperationError, match="levels of selections"):
            await client.execute("{ workflows { id } }")
        server.reload(replace(before, rates=RateSettings(operations_per_second=1)))
        with pytest.raises(RateLimitExceeded):
            await asyncio.gather(*(client.execute("{ health }") for _ in range(3)))
        server.reload(before)
        await client.workflows.create_resource(workflow_id=workflow, data={"n": 1})
        assert (await anext(updates)).data["n"] == 1  # type: ignore[call-overload, index]
        assert client.health().connections[0].reconnects == 0


async def test_the_number_of_connections_is_bounded_anew(tmp_path: Path) -> None:
    before = ServerSettings(port=0, data_dir=tmp_path)
    async with Server(before) as server, Client(server.url) as first:
        assert await first.server_health()
        server.reload(replace(before, max_connections=1))
        async with Client(server.url) as second:
            with pytest.raises(ConnectionFailed, match="HTTP 503"):
                await second.server_health()
        assert await first.server_health()


async def test_a_new_certificate_is_used_for_new_connections(tmp_path: Path) -> None:
    old, new = Authority(), Authority()
    cert, key = old.write(tmp_path)
    settings = ServerSettings(port=0, data_dir=tmp_path / "data", tls_cert=cert, tls_key=key)
    async with Server(settings) as server, Client(server.url, ssl=old.context()) as client:
        assert await client.server_health()
        key.write_text("nonsense", encoding="utf-8")
        with pytest.raises(ServerStartError, match="is no private key in PEM"):
            server.reload(replace(settings, log_level="error"))
        assert server.settings.log_level == "warning"
        new.write(tmp_path)
        server.reload(settings)
        async with Client(server.url, ssl=new.context()) as other:
            assert await other.server_health()
        assert await client.server_health()


def test_what_a_running_server_takes_over_is_what_the_catalogue_says(tmp_path: Path) -> None:
    before = ServerSettings(data_dir=tmp_path)
    after = replace(
        before,
        rates=RateSettings(frames_per_second=100, polls_per_second=None),
        log_format="json",
        max_body_bytes=7,
    )
    found = changes(before, after)
    assert [each.name for each in found.taken] == ["rates.polls_per_second", "log.format"]
    assert [each.name for each in found.left] == ["limits.max_body_bytes", "rates.frames_per_second"]
    assert found.settings == replace(before, rates=RateSettings(polls_per_second=None), log_format="json")
    assert all(CATALOGUE[each.name].is_live for each in found.taken)


def test_only_a_running_server_can_be_reloaded(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="while it runs"):
        Server(ServerSettings(data_dir=tmp_path)).reload(ServerSettings(data_dir=tmp_path))
