"""What the server counts: at the place where it happens, and as Prometheus reads it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from circuit_breaker_server import Server, ServerSettings, ServerStartError, TokenSettings
from circuit_breaker_server.instruments import METRICS, Histogram, Instruments, LoopDelay
from circuit_breaker_server.log.event_log import LogWriteError
from circuit_breaker_server.log.writer import Writer
from tests.server.gateway.worlds import ALL_THINGS, turns
from tests.server.operations import CREATE_RESOURCE, CREATE_WORKFLOW, UPDATES, WORKFLOW
from tests.server.site import Site, site
from tests.server.stage import Client, staged
from tests.server.tokens import SECRET
from tests.transports.peers import raw_client
from tests.waiting import until

Values = dict[tuple[str, tuple[str, ...]], float]


async def scraped(running: Site) -> Values:
    """Return every sample by its name and the values of its labels."""
    assert running.server.metrics_url is not None
    async with running.http.get(running.server.metrics_url) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/plain"
        text = await answer.text()
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@contextlib.asynccontextmanager
async def measured(data_dir: Path, **more: int) -> AsyncIterator[Site]:
    async with site(data_dir, metrics_port=0, **more) as running:  # type: ignore[arg-type]  # numbers
        yield running


# --- the instruments -------------------------------------------------------------------------------


def test_a_value_is_counted_in_the_first_bucket_that_holds_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.0, 1.0, 1.5, 2.0, 3.0):
        histogram.observe(value)
    assert (histogram.counts, histogram.total) == ([2, 2, 1], 7.5)


def test_an_answer_is_counted_by_what_it_holds() -> None:
    instruments = Instruments()
    for answer in (
        b'{"data":{"health":"ok"}}',
        b'{"data":null,"errors":[{"message":"no"}]}',
        b'{"errors":[{"message":"no"}]}',
    ):
        instruments.answered("query", answer)
    assert [instruments.operations["query", each] for each in ("ok", "failed", "refused")] == [1, 1, 1]


async def test_a_loop_that_is_held_up_is_late() -> None:
    instruments = Instruments()
    instruments.loop_delay_seconds = histogram = Histogram((0.05, 10.0))
    delay = LoopDelay(instruments, lambda: (0, 0))
    delay.start()
    await asyncio.sleep(0)
    sleep_blocking(0.3)
    await asyncio.sleep(0.01)
    delay.stop()
    delay.stop()
    assert histogram.counts[1] == 1


def sleep_blocking(seconds: float) -> None:
    import time

    time.sleep(seconds)


# --- a whole server --------------------------------------------------------------------------------


async def test_every_metric_is_served_and_nothing_else(tmp_path: Path) -> None:
    async with measured(tmp_path) as running:
        found = {name for name, _ in await scraped(running)}
    for metric in METRICS:
        name = metric.prometheus_name
        if metric.kind == "histogram":
            assert {f"{name}_bucket", f"{name}_count", f"{name}_sum"} <= found
            found -= {f"{name}_bucket", f"{name}_count", f"{name}_sum"}
        else:
            assert name in found
            found.discard(name)
    assert found == set()


async def test_what_happens_is_counted(tmp_path: Path) -> None:
    async with measured(tmp_path) as running:
        workflow, _ = await running.made(CREATE_WORKFLOW, WORKFLOW)
        client = await running.open()
        await client.init()
        client.subscribe("1", UPDATES)
        await client.live("1")
        for _ in range(5):
            await running.made(CREATE_RESOURCE, {"workflowId": workflow})
        for _ in range(5):
            await client.result_of("1")
        await running.post("{ health }")
        client.subscribe("2", "subscription { resourceUpdates { id } }", after="nonsense")
        await client.error_of("2")
        values = await scraped(running)
        held = running.server.instruments

    def of(name: str, *labels: str) -> float:
        return values[f"circuit_breaker_{name}", labels]

    assert of("connections", "websocket") == 1
    assert of("connections", "event_stream") == of("connections", "poll") == 0
    assert of("channels") == 1
    assert of("operations_total", "mutation", "ok") == 6
    assert of("operations_total", "query", "ok") == 1
    assert of("operations_total", "subscription", "ok") == 1
    assert of("operations_total", "subscription", "refused") == 1
    assert of("events_delivered_total") == 5
    assert of("events_written_bytes_total") > 5 * 50
    assert of("ring_misses_total") == 0
    assert of("log_last_offset") == 6
    assert of("log_append_seconds_count") == 6
    assert of("log_group_records_sum") == 6
    assert of("log_append_failures_total") == 0
    assert of("log_size_bytes") > 4096
    assert of("tail_lag_records") == 0
    assert of("audit_backlog_bytes") == 0
    assert of("ready") == 1
    assert held.ring_misses == 0


async def test_a_resumed_subscriber_is_read_for_from_the_log_and_its_events_are_counted(
    tmp_path: Path,
) -> None:
    async with measured(tmp_path) as running:
        workflow, cursor = await running.made(CREATE_WORKFLOW, WORKFLOW)
        for _ in range(3):
            await running.made(CREATE_RESOURCE, {"workflowId": workflow})
        client = await running.open()
        await client.init()
        client.subscribe("1", UPDATES, after=cursor)
        await client.live("1")
        for _ in range(3):
            await client.result_of("1")
        values = await scraped(running)
    assert values["circuit_breaker_catch_up_reads_total", ()] >= 1
    assert values["circuit_breaker_catch_up_fallbacks_total", ()] == 0
    assert values["circuit_breaker_events_delivered_total", ()] == 3
    assert values["circuit_breaker_events_written_bytes_total", ()] > 3 * 50


async def test_what_is_refused_is_counted_by_its_reason(tmp_path: Path) -> None:
    settings = {"max_body_bytes": 1000, "max_connections_per_address": 4}
    async with measured(tmp_path, **settings) as running:
        body = {"query": "{ health }" + " " * 2000}
        async with running.http.post(running.server.url, json=body) as answer:
            assert answer.status == 413
        headers = {"Host": "evil.example"}
        async with running.http.get(running.root + "/health", headers=headers) as answer:
            assert answer.status == 421
        headers = {"Origin": "https://evil.example"}
        async with running.http.post(running.server.url, json={}, headers=headers) as answer:
            assert answer.status == 403
        many = [Client(await raw_client(running.server.port)) for _ in range(5)]
        # Not by its answer: a reset may come before it.
        await until(lambda: running.server.instruments.refused["connections"])
        for client in many:
            # Answered before the draining begins, or it would be refused by that.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await client.peer.read_head()
            await client.leave()
        running.server._draining.begin()
        async with aiohttp.ClientSession() as http, http.post(running.server.url, json={}) as answer:
            assert answer.status == 503
        refused = running.server.instruments.refused
    assert refused["origin"] == 1
    assert refused["draining"] == 1
    assert refused["host"] in {1, 2}  # the client sends a GET again if its connection is closed
    assert refused["connections"] >= 1


async def test_callers_who_are_not_known_are_counted(tmp_path: Path) -> None:
    settings = ServerSettings(
        data_dir=tmp_path, port=0, log_level="critical", token_keys=TokenSettings(key=SECRET)
    )
    async with Server(settings) as server, aiohttp.ClientSession() as http:
        async with http.post(server.url, json={"query": "{ health }"}) as answer:
            assert answer.status == 401
        client = Client(await raw_client(server.port))
        assert "101" in await client.peer.read_head()
        client.send({"type": "connection_init"})
        assert await client.close_code() == 4403
        await client.leave()
        assert server.instruments.refused["unauthenticated"] == 2
        assert server.metrics_url is None


async def test_an_append_that_fails_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with site(tmp_path) as running:

        def fail(_writer: Writer, _group: object) -> None:
            raise LogWriteError("no room")

        monkeypatch.setattr(Writer, "append", fail)
        answer = await running.post(CREATE_WORKFLOW, {"input": WORKFLOW})
        assert "errors" in answer
        instruments = running.server.instruments
        assert instruments.append_failures == 1
        assert instruments.operations["mutation", "failed"] == 1


async def test_an_operation_that_raises_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_given: object, **_more: object) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr("circuit_breaker_server.app.execute", fail)
    async with site(tmp_path) as running:
        async with running.http.post(running.server.url, json={"query": "{ health }"}) as answer:
            assert answer.status == 500
        assert running.server.instruments.operations["query", "failed"] == 1


async def test_a_subscriber_that_falls_behind_the_ring_is_counted() -> None:
    async with staged(ring_size=2) as stage:
        client = await stage.open()
        client.subscribe("1", ALL_THINGS)
        await client.live("1")
        (session,) = stage.sessions._open
        session.on_writable(False)
        for n in range(5):
            stage.log.thing("a", n)
        await turns()
        session.on_writable(True)
        for _ in range(5):
            await client.next_of("1")
        counts = stage.gateway.instruments
        assert (counts.ring_misses, stage.gateway.events_delivered) == (1, 5)
        client.send({"id": "1", "type": "complete"})
        await stage.until(lambda: not stage.gateway.channels)
        assert (counts.events_delivered, stage.gateway.events_delivered) == (5, 5)
        assert counts.catch_up_reads >= 1
        # The schema of this test has no sources: all that was read again was derived.
        assert counts.catch_up_fallbacks == 5


# --- the port --------------------------------------------------------------------------------------


async def test_the_port_of_metrics_answers_for_this_machine_only_and_nothing_but_metrics(
    tmp_path: Path,
) -> None:
    async with measured(tmp_path) as running:
        url = running.server.metrics_url
        assert url is not None
        assert url.startswith("http://127.0.0.1:")
        async with running.http.get(url, headers={"Host": "evil.example"}) as answer:
            assert answer.status == 421
        async with running.http.get(url.replace("/metrics", "/graphql")) as answer:
            assert answer.status == 404
        async with running.http.get(running.root + "/metrics") as answer:
            assert answer.status == 404
    with pytest.raises(aiohttp.ClientConnectorError):
        async with aiohttp.ClientSession() as http, http.get(url):
            pass


async def test_a_port_of_metrics_that_is_in_use_stops_the_start(tmp_path: Path) -> None:
    async with measured(tmp_path / "a") as running:
        url = running.server.metrics_url
        assert url is not None
        port = int(url.rpartition(":")[2].partition("/")[0])
        second = Server(ServerSettings(data_dir=tmp_path / "b", port=0, metrics_port=port))
        with pytest.raises(ServerStartError, match="the port is in use"):
            await second.start()


async def test_without_the_extra_the_server_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "circuit_breaker_server.prometheus_exporter", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ServerStartError, match=r"pip install 'circuit-breaker-sdk\[server,prometheus\]'"):
        await Server(ServerSettings(data_dir=tmp_path, port=0, metrics_port=0)).start()
    async with Server(ServerSettings(data_dir=tmp_path, port=0)) as server:
        assert server.metrics_url is None


def test_a_port_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="metrics_port must be between 0 and 65535, not 65536"):
        ServerSettings(data_dir=tmp_path, metrics_port=65_536)
