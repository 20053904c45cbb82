"""What does not keep the log's promises is refused at the start, each with one clear error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from circuit_breaker_server.log.event_log import MAX_DATA_BYTES, LogCorruptError, LogError
from circuit_breaker_server.log.jetstream import JetStreamEventLog
from tests.conformance.nats_server import NatsServer
from tests.ports import free_ports
from tests.server.log.jetstream.log_stage import api, connected, new, opened

PERMISSIONS = """
authorization {
    users: [
        {user: "reader", password: "secret", permissions: {publish: ["_INBOX.>", "$JS.API.INFO"]}}
        {user: "admin", password: "secret"}
    ]
}
"""


async def reshape(server: NatsServer, stream: str, **changes: object) -> None:
    async with connected(server.url) as client:
        config: dict[str, Any] = (await api(client, f"STREAM.INFO.{stream}"))["config"]
        await api(client, f"STREAM.UPDATE.{stream}", config | changes)


async def test_the_streams_are_made_as_the_log_needs_them(server: NatsServer) -> None:
    async with opened(server.url) as log, connected(server.url) as client:
        info = await api(client, "STREAM.INFO.events")
        config = info["config"]
        assert config["subjects"] == ["events.>"]
        assert (config["storage"], config["num_replicas"], config["allow_direct"]) == ("file", 1, True)
        assert config["allow_atomic"] is True
        assert config["metadata"]["circuit-breaker-epoch"] == log.epoch
        assert config["metadata"]["circuit-breaker-format"] == "1"
        assert (await api(client, "STREAM.INFO.events-state"))["config"]["subjects"] == ["events-state.>"]


@pytest.mark.parametrize("stream", ["events", "events-state"])
@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"max_age": 3600 * 10**9}, "by their age"),
        ({"max_msgs": 10**6}, "by their number"),
        ({"max_bytes": 10**6}, "by their size"),
        ({"max_msgs_per_subject": 1}, "number per subject"),
        ({"allow_direct": False}, "allow_direct"),
        ({"no_ack": True, "allow_atomic": False}, "does not acknowledge"),
        ({"max_msg_size": 1024 * 1024}, "max_msg_size to -1"),
    ],
)
async def test_a_stream_of_another_shape_is_refused(
    server: NatsServer, stream: str, changes: dict[str, object], complaint: str
) -> None:
    async with opened(server.url):
        pass
    await reshape(server, stream, **changes)
    with pytest.raises(LogError, match=complaint):
        await JetStreamEventLog.open(server.url, name="events")


async def test_a_stream_with_further_subjects_is_refused(server: NatsServer) -> None:
    async with opened(server.url):
        pass
    await reshape(server, "events", subjects=["events.>", "more"])
    with pytest.raises(LogError, match="takes the subjects"):
        await JetStreamEventLog.open(server.url, name="events")


async def test_a_foreign_stream_is_refused(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await api(
            client,
            "STREAM.CREATE.events",
            {"name": "events", "subjects": ["events.>"], "storage": "file", "allow_direct": True},
        )
    with pytest.raises(LogError, match="not made by this program"):
        await JetStreamEventLog.open(server.url, name="events")


async def test_a_log_of_another_format_is_refused(server: NatsServer) -> None:
    async with opened(server.url):
        pass
    metadata = {"circuit-breaker-format": "2", "circuit-breaker-epoch": "0123456789abcdef"}
    await reshape(server, "events", metadata=metadata)
    with pytest.raises(LogCorruptError, match="its format is '2'"):
        await JetStreamEventLog.open(server.url, name="events")


async def test_subjects_that_another_stream_has_are_refused(server: NatsServer) -> None:
    async with connected(server.url) as client:
        await api(client, "STREAM.CREATE.other", {"name": "other", "subjects": ["events.a"]})
    with pytest.raises(LogError, match="overlap"):
        await JetStreamEventLog.open(server.url, name="events")


async def test_a_server_whose_messages_are_too_small_is_refused(tmp_path: Path) -> None:
    server = NatsServer(tmp_path, max_payload=MAX_DATA_BYTES)
    with server.running(), pytest.raises(LogError, match="max_payload: 8MB"):
        await JetStreamEventLog.open(server.url)


async def test_a_server_without_jetstream_is_refused(tmp_path: Path) -> None:
    server = NatsServer(tmp_path, jetstream=False)
    with server.running(), pytest.raises(LogError, match="JetStream is off"):
        await JetStreamEventLog.open(server.url)


async def test_a_missing_permission_is_named(tmp_path: Path) -> None:
    with NatsServer(tmp_path, more=PERMISSIONS).running() as server:
        url = server.url.replace("//", "//reader:secret@")
        with pytest.raises(LogError, match=r"(?i)permission is missing.*\$JS\.API\.STREAM") as refused:
            await JetStreamEventLog.open(url)
        assert "secret" not in str(refused.value)


async def test_a_wrong_password_is_named_as_the_reason(tmp_path: Path) -> None:
    with NatsServer(tmp_path, more=PERMISSIONS).running() as server:
        with pytest.raises(LogError, match=r"(?i)authorization") as refused:
            await JetStreamEventLog.open(server.url.replace("//", "//admin:wrong@"), open_seconds=0.5)
        assert "wrong" not in str(refused.value)


async def test_no_server_is_one_clear_error() -> None:
    (port,) = free_ports(1)
    with pytest.raises(LogError, match="cannot connect to NATS"):
        await JetStreamEventLog.open(f"nats://127.0.0.1:{port}", open_seconds=0.5)


@pytest.mark.parametrize("name", ["", "a.b", "a b", "a>", "a*", "a/b", "ü"])
async def test_a_name_that_nats_does_not_take_is_refused(server: NatsServer, name: str) -> None:
    with pytest.raises(LogError, match="no name for a stream"):
        await JetStreamEventLog.open(server.url, name=name)


async def test_two_nodes_that_make_the_log_at_once_have_one_epoch(server: NatsServer) -> None:
    async with opened(server.url) as one, opened(server.url) as two:
        assert one.epoch == two.epoch


async def test_a_subject_that_nats_cannot_carry_is_refused(server: NatsServer) -> None:
    async with opened(server.url) as log:
        with pytest.raises(ValueError, match="2048 bytes"):
            await log.append(new("x" * 3000))
        await log.append(new("x" * 2000))


async def test_a_server_that_does_not_sync_is_refused_where_it_can_be_asked(tmp_path: Path) -> None:
    lazy = NatsServer(tmp_path / "lazy", syncs=False)
    with lazy.running(), pytest.raises(LogError, match="sync_interval: always"):
        await JetStreamEventLog.open(lazy.url, monitoring_url=f"http://127.0.0.1:{lazy.monitoring_port}")
    eager = NatsServer(tmp_path / "eager")
    with eager.running():
        url = f"http://127.0.0.1:{eager.monitoring_port}"
        log = await JetStreamEventLog.open(eager.url, monitoring_url=url)
        await log.aclose()
        with pytest.raises(LogError, match="monitoring port does not answer"):
            await JetStreamEventLog.open(eager.url, monitoring_url=f"http://127.0.0.1:{eager.port}")
