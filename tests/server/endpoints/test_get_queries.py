"""Queries by GET: GraphQL over HTTP, section "GET"."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import pytest
from yarl import URL

from circuit_breaker_server import RateSettings, Server, ServerSettings
from tests.server.site import Site, site

GRAPHQL_JSON = "application/graphql-response+json"
CREATE = 'mutation { createResource(input: {workflowId: "w"}) { id } }'


async def ask(running: Site, path: str, **headers: str) -> tuple[int, Any]:
    """Ask for ``/graphql?…`` as it is written; return the status and the answer."""
    url = URL(running.server.url + path, encoded=True)
    async with running.http.get(url, headers=headers) as answer:
        assert answer.status != 200 or answer.headers["Cache-Control"] == "no-store"
        return answer.status, await answer.json(content_type=None)


@pytest.mark.parametrize("accept", ["application/json", GRAPHQL_JSON, "*/*", "text/html,*/*"])
async def test_a_query_is_answered_as_by_post(tmp_path: Path, accept: str) -> None:
    document = "query Health { health } query Type($name: String!) { __type(name: $name) { name } }"
    async with site(tmp_path) as running:
        parameters = {
            "query": document,
            "operationName": "Type",
            "variables": json.dumps({"name": "Query"}),
            "extensions": "{}",
            "of": "no meaning",
        }
        status, answer = await ask(running, f"?{urlencode(parameters)}", Accept=accept)
        body = {"query": document, "operationName": "Type", "variables": {"name": "Query"}}
        async with running.http.post(running.server.url, json=body) as posted:
            assert (status, answer) == (posted.status, await posted.json(content_type=None))
        assert answer == {"data": {"__type": {"name": "Query"}}}
        status, answer = await ask(running, f"/?query={quote('{ health }')}&operationName=&variables=")
        assert (status, answer) == (200, {"data": {"health": "ok"}})


@pytest.mark.parametrize(
    ("operation", "kind"), [(CREATE, "mutation"), ("subscription { resourceUpdates { id } }", "subscription")]
)
async def test_only_a_query_is_executed(tmp_path: Path, operation: str, kind: str) -> None:
    async with site(tmp_path) as running:
        status, answer = await ask(running, f"?query={quote(operation)}")
        assert status == 405
        assert f"a {kind} cannot be sent as GET" in answer["errors"][0]["message"]


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ("?query=%7B+health+%7D&query=%7B+health+%7D", "the parameter query more than once"),
        ("?query=%7B+health+%7D&variables=1", "the URL's parameter variables is not a JSON object"),
        ("?query=%7B+health+%7D&variables=%7B", "the URL's parameter variables is not a JSON object"),
        ("?query=%7B+health+%7D&extensions=%5B%5D", "the URL's parameter extensions is not a JSON object"),
        ("?query=%FF", "not UTF-8"),
        ("?query=%7B+health+%7D" + "&x=1" * 40, "more than 32 parameters"),
        ("?query=%7B+health+%7D&variables=" + "%7B%22a%22%3A" * 501 + "1" + "%7D" * 501, "deeper than 500"),
        ("?query=", "Syntax Error"),
        ("?query=%7B", "Syntax Error"),
        ("?query=%7B+health+%7D&operationName=Other", "Other"),
        ("?variables=%7B%7D", "there is no query"),
    ],
)
async def test_what_is_no_request_gets_one_clear_error(tmp_path: Path, parameters: str, text: str) -> None:
    async with site(tmp_path) as running:
        status, answer = await ask(running, parameters, Accept=GRAPHQL_JSON)
        assert status == 400
        assert text in answer["errors"][0]["message"]


async def test_it_is_limited_and_asked_for_its_origin_as_a_post(tmp_path: Path) -> None:
    settings = ServerSettings(data_dir=tmp_path, port=0, rates=RateSettings(operations_per_second=2))
    async with Server(settings) as server, aiohttp.ClientSession() as http:
        running = Site(server, http)
        status, answer = await ask(running, "?query=%7B+health+%7D", Origin="https://elsewhere.example")
        assert (status, answer["errors"][0]["extensions"]["code"]) == (403, "ORIGIN_NOT_ALLOWED")
        statuses = [(await ask(running, "?query=%7B+health+%7D"))[0] for _ in range(8)]
        assert 429 in statuses
