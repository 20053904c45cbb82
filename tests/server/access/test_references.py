"""Each input of the schema is a value or a reference; what is not for the caller is as what is not there."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from graphql import GraphQLInputObjectType, GraphQLInputType, get_named_type
from joserfc import jwt
from joserfc.jwk import RSAKey

from circuit_breaker_server.access.input_references import REFERENCES, VALUES
from circuit_breaker_server.graphql.schema import load_schema
from tests.server.access.office import MINE, Office, open_office
from tests.server.operations import (
    AGENT,
    CREATE_AGENT,
    CREATE_CONFIG,
    CREATE_RULE,
    CREATE_SERVER,
    RULE,
    TOOLS,
    TRIGGER,
    config_of,
)
from tests.system.attack.naming import KINDS_OF_IDS, NOBODYS, Operation, with_ids, written


def inputs() -> Iterator[str]:
    """Yield every argument and input field that holds a value, by its owner and its name."""
    schema = load_schema()

    def is_value(type_: GraphQLInputType) -> bool:
        return not isinstance(get_named_type(type_), GraphQLInputObjectType)

    for type_ in schema.type_map.values():
        if isinstance(type_, GraphQLInputObjectType):
            yield from (
                f"{type_.name}.{name}" for name, field in type_.fields.items() if is_value(field.type)
            )
    for root in (schema.query_type, schema.mutation_type, schema.subscription_type):
        for name, field in {} if root is None else root.fields.items():
            yield from (
                f"{root}.{name}.{argument}" for argument, arg in field.args.items() if is_value(arg.type)
            )


def test_every_input_of_the_schema_is_in_the_table_once_and_nothing_else_is() -> None:
    values = {f"{owner}.{name}" for owner, names in VALUES.items() for name in names.split()}
    assert values.isdisjoint(REFERENCES)
    assert values | set(REFERENCES) == set(inputs())


# --- what is not for the caller ----------------------------------------------------------------------------

CONFIGURE: Final = "mutation($input: LlmProviderConfigInput!) { configureLlmProvider(input: $input) { id } }"
PROVIDER: Final = {
    "providerType": "openai",
    "name": "work",
    "baseUrl": "http://127.0.0.1:9/v1",
    "apiKeyId": "",
    "models": [],
}
KEY: Final = RSAKey.generate_key(2048)
JWT: Final = {"issuer": "us", "publicKey": KEY.as_pem(private=False).decode()}
SIGN_IN: Final = "mutation($input: AuthenticateMcpJwtInput!) { authenticateMcpJwt(input: $input) { id } }"


async def all_of_it(office: Office) -> dict[str, str]:
    """Make one of everything; MCP server, its session and provider are those of acme."""
    workflow = await office.workflow()
    resource = await office.resource(workflow)
    agent = await office.made(CREATE_AGENT, AGENT)
    await office.made(CREATE_CONFIG, config_of(agent))
    started = await office.ask("boss", TRIGGER, id=resource)
    provider = await office.ask("ada", CONFIGURE, input=PROVIDER)
    server = await office.made(CREATE_SERVER, {**TOOLS, "enabled": True, "auth": {"jwt": JWT}})
    session = await office.made(SIGN_IN, {"serverId": server, "userId": "ada", "token": signed()})
    return {
        "workflow": workflow,
        "resource": resource,
        "agent": agent,
        "execution": started["data"]["triggerStateAgents"][0]["id"],
        "rule": await office.made(CREATE_RULE, RULE),
        "server": server,
        "session": session,
        "provider": provider["data"]["configureLlmProvider"]["id"],
    }


def signed() -> str:
    claims = {"iss": "us", "sub": "ada", "exp": int(time.time()) + 600}
    return jwt.encode({"alg": "RS256"}, claims, KEY, algorithms=["RS256"])


async def asked(office: Office, who: str, kind: Operation, document: str) -> str:
    """Ask, over a poll where it is a subscription; return the answer as text, without its cursor."""
    if kind != "subscription":
        return json.dumps(await office.ask(who, document))
    headers = {"Authorization": f"Bearer {office.token_of(who)}"}
    body = {"query": document, "waitMs": 0}
    async with office.http.post(f"{office.server.url}/poll", json=body, headers=headers) as answer:
        found: dict[str, Any] = await answer.json(content_type=None)
        found.pop("cursor", None)
        return json.dumps(found)


async def test_every_field_answers_of_what_is_foreign_as_of_what_is_unknown(tmp_path: Path) -> None:
    fields = with_ids()
    people = {
        "ada": ("acme", ["provider:admin:*"]),
        "neighbour": ("other", MINE),
        "stranger": ("acme", MINE),
    }
    async with open_office(tmp_path, None, **people) as office:
        ids = await all_of_it(office)
        assert set(ids) == KINDS_OF_IDS
        nobodys = dict.fromkeys(ids, NOBODYS)
        for who in ("neighbour", "stranger"):
            for kind, name in fields:
                foreign = await asked(office, who, kind, written(kind, name, ids)[0])
                unknown = await asked(office, who, kind, written(kind, name, nobodys)[0])
                assert "Syntax Error" not in foreign, foreign
                for id_ in ids.values():
                    foreign = foreign.replace(id_, NOBODYS)
                assert foreign == unknown, (who, name)
    assert len(fields) > 45
