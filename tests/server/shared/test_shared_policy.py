"""The policy in the bucket: what is published is in force on every node, and what is not valid is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from circuit_breaker_server import ClusterSettings, Server, ServerSettings, ServerStartError
from circuit_breaker_server.security.policy import Policy, PolicyError
from circuit_breaker_server.security.shared_api_keys import BucketApiKeys
from circuit_breaker_server.security.shared_policy import open_shared_policy, publish_policy
from tests.conformance.nats_server import NatsServer
from tests.server.operations import CREATE_WORKFLOW, WORKFLOW
from tests.server.shared.bucket_stage import bucket_on, on
from tests.waiting import until

VIEWER = """
[principals.user-7]
tenant = "acme"
scopes = ["workflow:read:*"]
"""


def file_of(directory: Path, text: str) -> Path:
    path = directory / "policy.toml"
    path.write_text(text)
    return path


async def test_a_published_policy_is_in_force_on_every_node(tmp_path: Path, broker: NatsServer) -> None:
    async with bucket_on(broker) as here, bucket_on(broker) as there:
        first = await publish_policy(here, file_of(tmp_path, VIEWER))
        await until(lambda: there.get("policy", "current"))
        source = await open_shared_policy(there)
        told: list[Policy] = []
        source.on_change(told.append)
        assert source.current.version == first.version
        assert source.current.rights_of("user-7").allows("workflow", "read", "wf_1")
        second = await publish_policy(here, file_of(tmp_path, VIEWER.replace("read", "write")))
        await until(lambda: told)
        assert source.current.version == second.version
        assert source.current.rights_of("user-7").allows("workflow", "write", "wf_1")
        await publish_policy(here, file_of(tmp_path, VIEWER.replace("read", "write")))
        await source.check_now()
        assert len(told) == 1, "the same version is no change"
        await source.aclose()


async def test_a_policy_that_is_not_valid_is_not_published(tmp_path: Path, broker: NatsServer) -> None:
    async with bucket_on(broker) as bucket:
        first = await publish_policy(bucket, file_of(tmp_path, VIEWER))
        path = file_of(tmp_path, '[principals.user-7]\nscopes = ["nonsense"]\n')
        with pytest.raises(PolicyError) as at_start:
            Policy.load(path)
        with pytest.raises(PolicyError) as published:
            await publish_policy(bucket, path)
        assert published.value.problems == at_start.value.problems
        with pytest.raises(PolicyError, match="cannot be read"):
            await publish_policy(bucket, tmp_path / "absent.toml")
        source = await open_shared_policy(bucket)
        assert source.current.version == first.version
        await source.aclose()


async def test_what_is_put_there_by_others_and_not_valid_changes_nothing(
    tmp_path: Path, broker: NatsServer, capsys: pytest.CaptureFixture[str]
) -> None:
    async with bucket_on(broker) as bucket:
        first = await publish_policy(bucket, file_of(tmp_path, VIEWER))
        source = await open_shared_policy(bucket)
        await bucket.put("policy", "current", b"[principals")
        await bucket.remove("policy", "current")
        assert source.current.version == first.version
        await source.aclose()
        with pytest.raises(PolicyError, match="has no policy; put one there: circuit-breaker policy publish"):
            await open_shared_policy(bucket)


async def test_a_server_takes_its_policy_from_the_bucket(tmp_path: Path, broker: NatsServer) -> None:
    settings = ServerSettings(
        data_dir=tmp_path / "data",
        port=0,
        api_keys=True,
        policy_from="bucket",
        cluster=on(broker, tmp_path),
        log_level="critical",
    )
    with pytest.raises(ServerStartError, match="bucket events-shared: has no policy"):
        await Server(settings).start()
    async with bucket_on(broker) as bucket:
        await publish_policy(bucket, file_of(tmp_path, VIEWER))
        key = (await BucketApiKeys(bucket).create("user-7")).text
        async with Server(settings) as server, aiohttp.ClientSession() as http:

            async def answer() -> str:
                body = {"query": CREATE_WORKFLOW, "variables": {"input": WORKFLOW}}
                headers = {"Authorization": f"Bearer {key}"}
                async with http.post(server.url, json=body, headers=headers) as found:
                    return await found.text()

            assert "FORBIDDEN" in await answer()
            await publish_policy(bucket, file_of(tmp_path, VIEWER.replace("read", "admin")))
            async with asyncio.timeout(1):
                while "errors" in await answer():  # each look is a request
                    continue


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"policy_from": "elsewhere"}, "must be file or bucket"),
        ({"policy_from": "bucket"}, "set cluster.urls and cluster.key_file"),
        ({"policy_from": "bucket", "policy_file": Path("p"), "api_keys": True}, "set one of them"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    tmp_path: Path, more: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        ServerSettings(data_dir=tmp_path, **more)  # type: ignore[arg-type]  # the test's own


def test_a_policy_of_the_bucket_needs_callers(tmp_path: Path) -> None:
    cluster = ClusterSettings(urls=("nats://a:4222",), key_file=Path("k"))
    with pytest.raises(ValueError, match="set token_keys or api_keys"):
        ServerSettings(data_dir=tmp_path, policy_from="bucket", cluster=cluster)
