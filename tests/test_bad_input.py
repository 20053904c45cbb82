"""Bad input for every query, mutation and subscription: a clear error with a code, and nothing hangs.

What is valid is taken from the calls that cover the API; then each part of it is made wrong, one at a time:
left out, null, of another type, too long, out of range, an id of nothing, another enum value.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator, Mapping
from pathlib import Path

import aiohttp
import graphql
import msgspec
import pytest
from graphql import GraphQLEnumType, GraphQLInputObjectType, GraphQLInputType, GraphQLList, GraphQLNonNull

from circuit_breaker_sdk import Client, SubscriptionFailed
from circuit_breaker_sdk.subscriptions.variables import encode_variables
from circuit_breaker_server import Server, ServerSettings
from circuit_breaker_server.config import OAuthProviderSettings
from circuit_breaker_server.graphql.schema import load_schema
from scripts.coverage_api import CALLS, World, endpoints

Variables = dict[str, object]
SCHEMA = load_schema()
CODES = {
    "NOT_FOUND",
    "INVALID_INPUT",
    "CONFLICT",
    "ACTIVITY_NOT_ALLOWED",
    "PROVIDER_FAILED",
    "RATE_LIMITED",
    "AUTHENTICATION_FAILED",
}
PATIENCE_SECONDS = 20.0
LONG = "x" * 70_000


async def valid_calls(client: Client, endpoint: str) -> dict[str, tuple[str, Variables]]:
    """Make every call of the API once; return each one's document and variables."""
    found: dict[str, tuple[str, Variables]] = {}
    executor = client._parts.executor
    execute = executor.execute

    async def remember(
        document: str, variables: Mapping[str, object] | None = None, **more: object
    ) -> object:
        name = str(more["operation_name"])
        found[name[0].lower() + name[1:]] = (document, encode_variables(variables) or {})
        return await execute(document, variables, **more)  # type: ignore[arg-type]  # passed on as it came

    executor.execute = remember  # type: ignore[method-assign,assignment]  # that is the point
    try:
        world = World(client, endpoint)
        for _, call in CALLS.values():
            await call(world)
    finally:
        del executor.execute
    return found


def wrong(type_: GraphQLInputType, value: object) -> Iterator[tuple[str, object, bool]]:
    """Yield what is wrong for a type: what was done, the value, and whether it must be refused."""
    required = isinstance(type_, GraphQLNonNull)
    yield "null", None, required
    inner = type_.of_type if isinstance(type_, GraphQLNonNull) else type_
    if isinstance(inner, GraphQLList):
        yield "no list", {"a": 1}, True
        return
    named = graphql.get_named_type(inner)
    if isinstance(named, GraphQLEnumType):
        yield "another enum value", "NO_SUCH_VALUE", True
        return
    match named.name:
        case "String" | "ID":
            yield "no text", {"a": 1}, True
            yield "empty", "", False
            yield "an id of nothing", "nothing", False
            yield "too long", LONG, False
            yield "not printable", "a\x00\ud7ff\n", False
        case "Int":
            yield "no number", "x", True
            yield "more than 32 bits", 2**31, True
            yield "below the range", -1, False
            yield "above the range", 2**31 - 1, False
        case "Float":
            yield "no number", "x", True
            yield "below the range", -1e300, False
            yield "above the range", 1e300, False
        case "Boolean":
            yield "no boolean", "yes", True
        case "JSON":
            yield "no object", [1], False
            yield "too large", {"a": LONG * 5}, False
        case _ if isinstance(named, GraphQLInputObjectType):
            yield "no object", "x", True
            yield "an unknown field", {**_object(value), "noSuchField": 1}, True


def _object(value: object) -> Variables:
    return dict(value) if isinstance(value, dict) else {}


def spoiled(type_: GraphQLInputType, value: object) -> Iterator[tuple[str, object, bool]]:
    """Yield a value with one part of it wrong, wherever that part is."""
    for what, bad, must in wrong(type_, value):
        yield what, bad, must
    named = graphql.get_named_type(type_)
    if isinstance(named, GraphQLInputObjectType) and isinstance(value, dict):
        for name, field in named.fields.items():
            if name in value and graphql.is_required_input_field(field):
                yield f"{name}: left out", {k: v for k, v in value.items() if k != name}, True
            for what, bad, must in spoiled(field.type, value.get(name)):
                yield f"{name}: {what}", {**copy.deepcopy(value), name: bad}, must
    elif isinstance(value, list) and value:
        item = type_.of_type if isinstance(type_, GraphQLNonNull) else type_
        assert isinstance(item, GraphQLList)
        for what, bad, must in spoiled(item.of_type, value[0]):
            yield f"[0]: {what}", [bad, *value[1:]], must


def cases(kind: str, name: str, variables: Variables) -> Iterator[tuple[str, Variables, bool]]:
    root = SCHEMA.type_map[kind]
    assert isinstance(root, graphql.GraphQLObjectType)
    assert set(variables) <= set(root.fields[name].args), "variables are named as the arguments they are for"
    for argument, declared in root.fields[name].args.items():
        if isinstance(declared.type, GraphQLNonNull):
            yield f"{argument}: left out", {k: v for k, v in variables.items() if k != argument}, True
        for what, bad, must in spoiled(declared.type, variables.get(argument)):
            yield f"{argument}: {what}", {**variables, argument: bad}, must


async def answer(http: aiohttp.ClientSession, url: str, document: str, variables: Variables) -> Variables:
    body = msgspec.json.encode({"query": document, "variables": variables})
    async with asyncio.timeout(PATIENCE_SECONDS), http.post(url, data=body) as response:
        text = await response.read()
        assert response.status == 200, text[:200]
    assert b"Traceback" not in text
    return msgspec.json.decode(text, type=Variables)


def code_of(answered: Variables) -> str | None:
    errors = msgspec.convert(answered.get("errors", []), list[dict[str, object]])
    return None if not errors else str(_object(errors[0].get("extensions")).get("code"))


@pytest.mark.timeout(300)
async def test_every_wrong_part_of_every_query_and_mutation_is_a_clear_error(tmp_path: Path) -> None:
    tried, failures = 0, []
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
        async with (
            Server(settings) as server,
            Client(server.url) as client,
            aiohttp.ClientSession(headers={"Content-Type": "application/json"}) as http,
        ):
            for name, (document, variables) in (await valid_calls(client, endpoint)).items():
                kind = "Query" if document.split()[0] == "query" else "Mutation"
                for what, spoilt, must in cases(kind, name, variables):
                    tried += 1
                    code = code_of(await answer(http, server.url, document, spoilt))
                    if (code is None and must) or (code is not None and code not in CODES):
                        failures.append(f"{name}({what}): {code}")
            assert await client.server_health() == "ok"
    assert not failures, "\n".join(failures)
    assert tried > 500


STREAMS = {
    "resourceUpdates": ("resourceId", "workflowId"),
    "workflowEvents": ("workflowId",),
    "agentExecutionStream": ("agentId", "resourceId"),
    "llmStream": (),
    "costUpdates": (),
    "mcpServerStatusUpdates": (),
    "mcpSessionEvents": (),
}
"""The streams, and those of their arguments that must name something that is there."""


@pytest.mark.parametrize("name", STREAMS)
async def test_every_wrong_argument_of_a_stream_ends_that_subscription_with_a_clear_error(
    name: str, tmp_path: Path
) -> None:
    root = SCHEMA.subscription_type
    assert root is not None
    async with Server(ServerSettings(port=0, data_dir=tmp_path)) as server, Client(server.url) as client:
        fine = await client.subscriptions.cost_updates().subscribe()
        for argument, declared in root.fields[name].args.items():
            document = f"subscription($it: {declared.type}) {{ {name}({argument}: $it) {{ __typename }} }}"
            wanted: list[tuple[str, object]] = [
                (w, bad) for w, bad, must in wrong(declared.type, None) if must
            ]
            if argument in STREAMS[name]:
                wanted.append(("an id of nothing", "nothing"))
            for what, bad in wanted:
                with pytest.raises(SubscriptionFailed) as refused:
                    await client.subscribe(document, {"it": bad}, type=dict)
                assert refused.value.code in CODES, (name, argument, what)
        assert fine.error is None
        await fine.unsubscribe()
