"""``circuit-breaker schema``: print the schema of any GraphQL server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from graphql import build_client_schema, get_introspection_query, print_schema

from circuit_breaker_sdk import Client
from circuit_breaker_sdk.cli.requests import request
from circuit_breaker_sdk.errors import ConnectionFailed

__all__ = ["print_server_schema"]


async def print_server_schema(
    stop: asyncio.Event, *, url: str | Sequence[str], token: str | None, as_json: bool
) -> int:
    """Print the schema in the schema language, or as introspection tells it; return the exit status."""

    async def ask(client: Client) -> object:
        found = await client.execute(get_introspection_query())
        return found if as_json else _text(client, found)

    return await request(stop, url, token, ask)


def _text(client: Client, introspection: object) -> str:
    try:
        return print_schema(build_client_schema(introspection))  # type: ignore[arg-type]  # checked by it
    except (TypeError, KeyError) as error:
        raise ConnectionFailed(
            f"the answer to introspection is no schema: {error}", url=client.url
        ) from error
