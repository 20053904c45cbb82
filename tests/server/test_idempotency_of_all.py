"""Every mutation of the schema under a key: sent twice, it happens once and is answered alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import aiohttp
import msgspec
import pytest

from circuit_breaker_sdk import Client
from circuit_breaker_sdk.transports.http import HttpTransport
from circuit_breaker_server import Server, ServerSettings
from circuit_breaker_server.config import OAuthProviderSettings
from circuit_breaker_server.engine.event_derivation import derive
from circuit_breaker_server.graphql import execute
from circuit_breaker_server.graphql.root_fields import MUTATIONS
from circuit_breaker_server.log.event_log import Record
from circuit_breaker_server.log.sqlite import SqliteEventLog
from scripts.coverage_api import CALLS, World, endpoints

SECRET = {"initiateMcpOAuth"}
NO_RECORD = {"evaluateRule"}
TWO_RECORDS = {"llmChatCompletion"}


class Asked(msgspec.Struct, rename="camel"):
    """A request of the SDK."""

    query: str
    operation_name: str = ""
    variables: dict[str, object] | None = None


class Enveloped(msgspec.Struct):
    """A record, as far as it matters here."""

    idempotency: dict[str, object] | None = None


def keys_of(records: list[Record]) -> Counter[str]:
    found = (msgspec.json.decode(record.data, type=Enveloped).idempotency for record in records)
    return Counter(str(each["key"]) for each in found if each is not None)


def hidden(body: bytes) -> list[str]:
    """Return what a request has that no answer ever shows."""
    given = (msgspec.json.decode(body, type=Asked).variables or {}).get("input")
    flat = {**given, **given.get("config", {})} if isinstance(given, dict) else {}
    found = (flat.get(name) for name in ("token", "clientSecret", "privateKey", "code", "state"))
    return [text for text in found if isinstance(text, str) and len(text) > 3]


def unchecked(answer: bytes) -> object:
    """Return an answer without the health of an MCP server: a check may end at any moment."""

    def without(value: object) -> object:
        return {**value, "health": None} if isinstance(value, dict) and "health" in value else value

    read = msgspec.json.decode(answer, type=dict[str, object])
    data = msgspec.convert(read["data"], dict[str, object])
    return {**read, "data": {name: without(value) for name, value in data.items()}}


async def post(url: str, body: bytes, headers: Mapping[str, str], key: str) -> tuple[int, bytes, str | None]:
    headers = {**headers, "Content-Type": "application/json", "Idempotency-Key": key}
    async with aiohttp.ClientSession() as http, http.post(url, data=body, headers=headers) as answer:
        return answer.status, await answer.read(), answer.headers.get("Idempotency-Replayed")


@pytest.mark.timeout(120)
async def test_every_mutation_sent_twice_under_a_key_happens_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: dict[str, tuple[bytes, tuple[int, bytes, str | None]]] = {}
    send = HttpTransport._send
    url = ""

    async def twice(
        self: HttpTransport,
        body: bytes,
        headers: Mapping[str, str],
        judge: Callable[[aiohttp.ClientResponse, bytes], bytes],
    ) -> bytes:
        asked = msgspec.json.decode(body, type=Asked)
        name = asked.operation_name[0].lower() + asked.operation_name[1:]
        if name not in MUTATIONS:
            return await send(self, body, headers, judge)
        key = f"{name}-{len(sent)}"
        first = await post(url, body, headers, key)
        again = await post(url, body, headers, key)
        assert (first[0], first[2]) == (200, None), (name, first)
        assert b'"errors"' not in first[1], (name, first)
        if name in SECRET:
            assert again[0] == 409, (name, again)
            assert b"IDEMPOTENCY_ANSWER_SECRET" in again[1]
        else:
            assert again == (200, first[1], None if name in NO_RECORD else "true"), (name, first, again)
        assert unchecked(first[1]) in map(unchecked, without_key), (name, first, without_key)
        without_key.clear()
        sent[key] = (body, first)
        return first[1]

    without_key: list[bytes] = []

    async def run(*given: object, **more: object) -> bytes:
        without_key.append(await execute.run(*given, **more))  # type: ignore[arg-type]  # passed on as it came
        return without_key[-1]

    monkeypatch.setattr("circuit_breaker_server.graphql.idempotent_execution.run", run)
    monkeypatch.setattr(HttpTransport, "_send", twice)
    async with endpoints() as endpoint:
        corp = OAuthProviderSettings(
            id="corp",
            name="Corp",
            authorization_endpoint="https://corp.example/auth",
            token_endpoint=f"{endpoint}/token",
        )
        settings = ServerSettings(
            port=0, data_dir=tmp_path, oauth_providers=(corp,), mcp_check_seconds=3600.0
        )
        async with Server(settings) as server, Client(server.url) as client:
            url = server.url
            world = World(client, endpoint)
            for _, call in CALLS.values():
                await call(world)
        assert {key.rpartition("-")[0] for key in sent} == set(MUTATIONS)

        log = await SqliteEventLog.open(tmp_path)
        records = [record async for record in log.scan(after=0)]
        await log.aclose()
        assert keys_of(records) == {
            key: 2 if key.startswith(tuple(TWO_RECORDS)) else 1
            for key in sent
            if not key.startswith(tuple(NO_RECORD))
        }
        secrets = [
            world.ids["state"],
            "code_challenge",
            *(text for body, _ in sent.values() for text in hidden(body)),
        ]
        assert len(secrets) >= 4
        for record in records:
            assert not any(secret.encode() in record.data for secret in secrets), record
            assert b"idempotency" not in msgspec.json.encode([event.whole for event in derive(record)])

        async with Server(settings) as server:  # from a snapshot; and all of it is still known
            for key, (body, first) in sent.items():
                again = await post(server.url, body, {}, key)
                name = key.rpartition("-")[0]
                if name in SECRET:
                    assert again[0] == 409
                elif name not in NO_RECORD:
                    assert again == (200, first[1], "true"), (name, first, again)
    log = await SqliteEventLog.open(tmp_path)
    assert keys_of([record async for record in log.scan(after=len(records))]) == {}
    await log.aclose()
