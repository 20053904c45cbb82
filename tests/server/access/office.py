"""A whole server with a policy file, and requests to it in the name of any principal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final, final

import aiohttp

from circuit_breaker_sdk import Client
from circuit_breaker_server import Server, ServerSettings, TokenSettings
from tests.policy_file import policy_of
from tests.server.operations import CREATE_RESOURCE, CREATE_WORKFLOW, WORKFLOW
from tests.server.tokens import SECRET, token

__all__ = ["MINE", "UNKNOWN", "Office", "open_office", "settled"]

MINE: Final = [
    "workflow:admin:mine*",
    "nats:admin:mine*",
    "agent:admin:mine*",
    "rule:admin:mine*",
    "mcp:admin:server/mine*",
    "mcp:admin:session/mine*",
    "llm:admin:mine*",
]
"""Scopes that cover nothing that the administrator creates."""
UNKNOWN: Final = "00000000-0000-4000-8000-000000000000"
"""An id of nothing."""


@final
class Office:
    """A running server with a policy, and HTTP requests and clients of its principals."""

    def __init__(self, server: Server, http: aiohttp.ClientSession, policy: Path) -> None:
        self.server = server
        self.http = http
        self.policy = policy

    def token_of(self, who: str) -> str:
        return token(sub=who, exp=time.time() + 3600)

    def client(self, who: str) -> Client:
        return Client(self.server.url, token=self.token_of(who))

    async def ask(self, who: str, query: str, **variables: object) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.token_of(who)}"}
        body = {"query": query, "variables": variables}
        async with self.http.post(self.server.url, json=body, headers=headers) as answer:
            found: dict[str, Any] = await answer.json(content_type=None)
            return found

    async def made(self, query: str, given: Mapping[str, object]) -> str:
        answer = await self.ask("boss", query, input=given)
        ((thing),) = answer["data"].values()
        return str(thing["id"])

    async def workflow(self) -> str:
        return await self.made(CREATE_WORKFLOW, WORKFLOW)

    async def resource(self, workflow: str) -> str:
        return await self.made(CREATE_RESOURCE, {"workflowId": workflow, "data": {}, "metadata": {}})


@contextlib.asynccontextmanager
async def open_office(
    tmp_path: Path, settings_: Mapping[str, Any] | None = None, **people: tuple[str, list[str]]
) -> AsyncIterator[Office]:
    """Run a server whose policy names these principals and ``boss``, the administrator."""
    policy = tmp_path / "policy.toml"
    policy.write_text(policy_of(people))
    settings = ServerSettings(
        data_dir=tmp_path / "data",
        port=0,
        log_level="critical",
        token_keys=TokenSettings(key=SECRET),
        policy_file=policy,
        allowed_outbound=("127.0.0.1",),
        **(settings_ or {}),
    )
    async with Server(settings) as server, aiohttp.ClientSession() as http:
        yield Office(server, http, policy)


async def settled(office: Office, who: str, workflow: str) -> None:
    """Wait until the policy that lets a principal see a workflow is in force."""
    query = "query($id: String!) { workflow(id: $id) { id } }"
    while (await office.ask(who, query, id=workflow))["data"]["workflow"] is None:
        pass
