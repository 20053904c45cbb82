"""API keys in the bucket: what one process makes or revokes, every node takes or refuses."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import aiohttp
import msgspec
import pytest

from circuit_breaker_server import Server, ServerSettings
from circuit_breaker_server.log.jetstream.broker import Broker
from circuit_breaker_server.security.api_key_file import ApiKeyFile
from circuit_breaker_server.security.api_key_records import ApiKey, ApiKeyRefused, NoSuchKey
from circuit_breaker_server.security.api_keys import ApiKeys
from circuit_breaker_server.security.shared_api_keys import BucketApiKeys, open_shared_api_keys
from tests.conformance.nats_server import NatsServer
from tests.server.shared.bucket_stage import bucket_on, on
from tests.server.tokens import NOW, SetClock
from tests.waiting import until

DAY = 86_400


def reason_for(keys: ApiKeys, text: str) -> str | None:
    try:
        keys.verify(text)
    except ApiKeyRefused as refused:
        return str(refused)
    return None


async def test_a_key_is_taken_by_every_node_until_it_is_revoked(broker: NatsServer) -> None:
    async with bucket_on(broker) as here, bucket_on(broker) as there:
        made = await BucketApiKeys(here).create("user-7", label="laptop")
        keys = await open_shared_api_keys(there)
        told: list[ApiKey] = []
        keys.on_revoked(told.append)
        await until(lambda: reason_for(keys, made.text) is None)
        assert keys.verify(made.text) == made.key
        other = await BucketApiKeys(here).create("user-8")
        began = time.monotonic()
        revoked = await BucketApiKeys(here).revoke(made.key.id)
        await until(lambda: told)
        assert time.monotonic() - began < 1
        assert told == [made.key]
        assert reason_for(keys, made.text) == "key revoked"
        assert await BucketApiKeys(here).revoke(made.key.id) == revoked, "it stays as it was"
        await until(lambda: reason_for(keys, other.text) is None)
        assert await BucketApiKeys(there).list() == (revoked, other.key)
        await keys.aclose()


async def test_keys_have_times_and_are_checked_as_in_a_file(broker: NatsServer) -> None:
    clock = SetClock()
    async with bucket_on(broker) as bucket:
        command = BucketApiKeys(bucket, clock=clock)
        made = await command.create("user-7", expires_in_seconds=DAY)
        keys = await open_shared_api_keys(bucket, clock=clock)
        assert (made.key.created_at, made.key.expires_at) == (NOW, NOW + DAY)
        assert reason_for(keys, made.text) is None
        clock.set(NOW + DAY)
        assert reason_for(keys, made.text) == "key expired"
        assert reason_for(keys, made.text[:-5] + "AAAAA") == "key invalid"
        for principal, label, seconds in (("", "", None), ("x", "y" * 256, None), ("x", "", 0)):
            with pytest.raises(ValueError, match=r"is a text|is greater than 0"):
                await command.create(principal, label=label, expires_in_seconds=seconds)
        with pytest.raises(NoSuchKey, match="there is no key of that id"):
            await command.revoke(made.text)
        await keys.aclose()


async def test_an_entry_that_is_no_key_is_not_taken_and_the_others_are(broker: NatsServer) -> None:
    async with bucket_on(broker) as bucket:
        made = await BucketApiKeys(bucket).create("user-7")
        moved = msgspec.structs.replace(made.key, principal="root")
        await bucket.put("api-key", "another-id", msgspec.json.encode(moved))
        await bucket.put("api-key", "no-key", b"{}")
        keys = await open_shared_api_keys(bucket)
        assert keys.verify(made.text).principal == "user-7"
        assert await BucketApiKeys(bucket).list() == (made.key,)
        with pytest.raises(NoSuchKey):
            await BucketApiKeys(bucket).revoke("no-key")
        await keys.aclose()


async def test_keys_of_a_bucket_that_was_deleted_are_not_taken_any_more(broker: NatsServer) -> None:
    async with bucket_on(broker) as here:
        made = await BucketApiKeys(here).create("user-7")
        keys = await open_shared_api_keys(here)
        assert reason_for(keys, made.text) is None
        async with contextlib.aclosing(await Broker.open(broker.url, timeout_seconds=10)) as other:
            await other.api(f"STREAM.DELETE.KV_{here.name}", {})
        async with bucket_on(broker):  # makes a new one, which has none of the keys
            await until(lambda: reason_for(keys, made.text) is not None)
        await keys.aclose()


async def test_two_processes_that_revoke_at_once_agree(broker: NatsServer) -> None:
    async with bucket_on(broker) as here, bucket_on(broker) as there:
        made = await BucketApiKeys(here).create("user-7")
        one, other = await asyncio.gather(
            *(BucketApiKeys(bucket).revoke(made.key.id) for bucket in (here, there))
        )
        assert one == other


async def test_a_revoked_key_ends_a_request_of_a_server_and_keys_of_the_directory_move(
    tmp_path: Path, broker: NatsServer
) -> None:
    data = tmp_path / "data"
    of_before = ApiKeyFile(data).create("user-7")
    settings = ServerSettings(
        data_dir=data, port=0, api_keys=True, cluster=on(broker, tmp_path), log_level="critical"
    )
    for turn in range(2):
        async with Server(settings) as server, aiohttp.ClientSession() as http, bucket_on(broker) as bucket:
            assert not (data / "api_keys.json").exists()
            assert (data / "api_keys.json.moved").exists()

            async def status(text: str, http: aiohttp.ClientSession = http, url: str = server.url) -> int:
                headers = {"Authorization": f"Bearer {text}"}
                async with http.post(url, json={"query": "{ health }"}, headers=headers) as answer:
                    return answer.status

            made = await BucketApiKeys(bucket).create("user-8")
            async with asyncio.timeout(5):
                while await status(made.text) != 200:  # each look is a request
                    continue
            assert await status(of_before.text) == (200 if turn == 0 else 401)
            await BucketApiKeys(bucket).revoke(of_before.key.id)
            async with asyncio.timeout(1):
                while await status(of_before.text) != 401:
                    continue
