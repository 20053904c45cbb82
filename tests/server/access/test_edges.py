"""Ways round the rules: what is foreign is as what is unknown, for every id; nothing is told by the way."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from circuit_breaker_server import Server, ServerSettings, logs
from circuit_breaker_server.access.caller import Caller
from circuit_breaker_server.config import DocumentLimits
from circuit_breaker_server.endpoints.long_poll.poll_request import PollRequest
from circuit_breaker_server.endpoints.long_poll.polls import Polls
from circuit_breaker_server.security.api_key_file import ApiKeyFile
from tests.policy_file import policy_of
from tests.server.access.office import MINE, UNKNOWN, Office, open_office
from tests.server.operations import (
    AGENT,
    CREATE_AGENT,
    CREATE_CONFIG,
    CREATE_RULE,
    CREATE_SERVER,
    CREATE_WORKFLOW,
    RULE,
    TOOLS,
    TRIGGER,
    WORKFLOW,
    config_of,
)


@pytest.fixture(autouse=True)
def quiet_logs(default_log_level: None) -> None:
    logs.configure("critical")


# --- what agents are started for -------------------------------------------------------------------


async def test_a_configuration_for_all_workflows_is_not_made_by_who_may_not_change_them(
    tmp_path: Path,
) -> None:
    scopes = ["agent:admin:*", "workflow:admin:mine*"]
    async with open_office(tmp_path, eve=("other", scopes)) as office:
        agent = await office.made(CREATE_AGENT, AGENT)
        answer = await office.ask("eve", CREATE_CONFIG, input=config_of(agent))
        assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN"
        assert "workflow:write:*" in answer["errors"][0]["message"]


@pytest.mark.parametrize("key", [None, "k"])
async def test_who_starts_agents_hears_of_those_he_may_see(tmp_path: Path, key: str | None) -> None:
    async with open_office(
        tmp_path, eve=("other", ["workflow:write:*"]), ann=("other", ["workflow:write:*", "agent:read:*"])
    ) as office:
        resource = await office.resource(await office.workflow())
        await office.made(CREATE_CONFIG, config_of(await office.made(CREATE_AGENT, AGENT)))
        for who, count in (("eve", 0), ("ann", 1)):
            answer = await asked_once(office, who, TRIGGER, {"id": resource}, key)
            assert len(answer["data"]["triggerStateAgents"]) == count, who


async def test_a_rule_that_one_may_not_read_is_no_condition(tmp_path: Path) -> None:
    async with open_office(tmp_path, eve=("other", MINE)) as office:
        rule = await office.made(CREATE_RULE, RULE)
        for condition in (f"rule:{rule}", f"not:rule:{rule}", f"rule:{UNKNOWN}"):
            activity = {"id": "a", "fromStates": ["left"], "toState": "right", "conditions": [condition]}
            given = {**WORKFLOW, "activities": [activity]}
            answer = await office.ask("eve", CREATE_WORKFLOW, input=given)
            assert answer["errors"][0]["extensions"]["code"] == "FORBIDDEN", condition


async def test_who_may_only_rule_sessions_makes_no_servers(tmp_path: Path) -> None:
    async with open_office(
        tmp_path, eve=("acme", ["mcp:admin:self"]), ann=("acme", ["mcp:admin:server/*"])
    ) as office:
        refused = await office.ask("eve", CREATE_SERVER, input=TOOLS)
        assert refused["errors"][0]["extensions"]["code"] == "FORBIDDEN"
        assert "errors" not in await office.ask("ann", CREATE_SERVER, input=TOOLS)


# --- the same for a mutation under a key -----------------------------------------------------------


@pytest.mark.parametrize("key", [None, "k"])
async def test_the_time_of_an_answer_for_what_one_may_not_see_is_blurred(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    blurred: list[tuple[float, float]] = []

    def uniform(least: float, most: float) -> float:
        blurred.append((least, most))
        return least

    monkeypatch.setattr(random, "uniform", uniform)
    execute_activity = (
        'mutation($id: String!) { executeActivity(input: {resourceId: $id, activityId: "ping"}) { id } }'
    )
    async with open_office(tmp_path, eve=("other", MINE)) as office:
        resource = await office.resource(await office.workflow())
        blurred.clear()
        await asked_once(office, "eve", execute_activity, {"id": resource}, key)
        assert blurred.count((0.0, 0.002)) == 1


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_mutation_that_would_answer_too_much_is_refused_and_not_made(
    tmp_path: Path, key: str | None
) -> None:
    fields = " ".join(f"a{number}: states {{ id }}" for number in range(90))
    query = (
        "mutation($input: WorkflowDefinitionInput!) { createWorkflow(input: $input) { id " + fields + " } }"
    )
    limits = DocumentLimits(max_cost=50)
    async with open_office(tmp_path, {"document_limits": limits}) as office:
        refused = await asked_once(office, "boss", query, {"input": WORKFLOW}, key)
        assert "data" not in refused
        assert refused["errors"][0]["extensions"]["code"] == "DOCUMENT_TOO_COMPLEX"
        assert (await office.ask("boss", "{ workflows { id } }"))["data"]["workflows"] == []
        # The key was not used up.
        assert (await asked_once(office, "boss", CREATE_WORKFLOW, {"input": WORKFLOW}, key))["data"]


# --- numbers of the log ----------------------------------------------------------------------------


async def asked_once(
    office: Office, who: str, query: str, variables: Mapping[str, object], key: str | None
) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {office.token_of(who)}"}
    if key is not None:
        headers["Idempotency-Key"] = key
    body = {"query": query, "variables": variables}
    async with office.http.post(office.server.url, json=body, headers=headers) as answer:
        found: dict[str, Any] = await answer.json(content_type=None)
        return found


async def test_an_answer_is_not_told_again_once_its_numbers_are_withheld(tmp_path: Path) -> None:
    scopes = ["workflow:write:*", "nats:write:*"]
    async with open_office(tmp_path, ann=("acme", [*scopes, "log:read:sequence"])) as office:
        workflow = await office.workflow()
        make = (
            "mutation($id: String!) { createWorkflowInstance(input: {workflowId: $id}) { id natsSequence } }"
        )
        plain = "mutation($id: String!) { createWorkflowInstance(input: {workflowId: $id}) { id } }"
        first = await asked_once(office, "ann", make, {"id": workflow}, "k")
        other = await asked_once(office, "ann", plain, {"id": workflow}, "other")
        made = first["data"]["createWorkflowInstance"]
        assert made["natsSequence"] is not None
        assert await asked_once(office, "ann", make, {"id": workflow}, "k") == first
        office.policy.write_text(policy_of({"ann": ("acme", scopes)}))
        query = "query($id: String!) { natsResource(id: $id) { natsSequence } }"
        while (await office.ask("ann", query, id=made["id"]))["data"]["natsResource"]["natsSequence"]:
            pass
        again = await asked_once(office, "ann", make, {"id": workflow}, "k")
        assert again["errors"][0]["extensions"]["code"] == "FORBIDDEN"
        assert "data" not in again
        assert await asked_once(office, "ann", plain, {"id": workflow}, "other") == other


async def test_cursors_of_pages_tell_nothing_and_lead_on(tmp_path: Path) -> None:
    page = (
        "query($p: PaginationInput) { mcpServers(pagination: $p) "
        "{ edges { cursor node { id } } pageInfo { startCursor endCursor } } }"
    )
    async with open_office(tmp_path, ann=("acme", ["mcp:read:*"])) as office:
        made = [await office.made(CREATE_SERVER, {**TOOLS, "name": name}) for name in ("a", "b", "c")]
        for who in ("ann", "boss"):
            found: list[str] = []
            after: str | None = None
            for _ in made:
                answer = await office.ask(who, page, p={"first": 1, "after": after})
                (edge,) = answer["data"]["mcpServers"]["edges"]
                found.append(edge["node"]["id"])
                after = edge["cursor"]
                assert after is not None
                assert "~" in after
                assert answer["data"]["mcpServers"]["pageInfo"] == {"startCursor": after, "endCursor": after}
            assert found == made
            for forged in ("YXQ6Mw==", f"{str(after)[:-1]}{'0' if str(after)[-1] != '0' else '1'}"):
                refused = await office.ask(who, page, p={"after": forged})
                assert refused["errors"][0]["extensions"]["code"] == "INVALID_INPUT"
        query = "subscription { resourceUpdates { id } }"
        asked = {"query": query, "extensions": {"resume": {"after": after}}, "waitMs": 0}
        headers = {"Authorization": f"Bearer {office.token_of('boss')}"}
        async with office.http.post(f"{office.server.url}/poll", json=asked, headers=headers) as answered:
            assert "RESUME_GAP" in await answered.text()


# --- keys that are revoked -------------------------------------------------------------------------


async def polled(http: aiohttp.ClientSession, url: str, key: str, **more: object) -> dict[str, Any]:
    asked = {"query": "subscription { resourceUpdates { id } }", **more}
    headers = {"Authorization": f"Bearer {key}"}
    async with http.post(f"{url}/poll", json=asked, headers=headers) as answer:
        found: dict[str, Any] = await answer.json(content_type=None)
        return found


async def test_a_poll_that_waits_ends_when_its_key_is_revoked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Polls] = []
    answer = Polls.answer

    def noted(
        polls: Polls, request: PollRequest, *, gone: Awaitable[None], caller: Caller, traces: bool
    ) -> Awaitable[bytes]:
        begun.append(polls)
        return answer(polls, request, gone=gone, caller=caller, traces=traces)

    monkeypatch.setattr(Polls, "answer", noted)
    file = ApiKeyFile(tmp_path)
    mine, other = file.create("ann"), file.create("bob")
    settings = ServerSettings(data_dir=tmp_path, port=0, log_level="critical", api_keys=True)
    async with Server(settings) as server, aiohttp.ClientSession() as http:
        start = (await polled(http, server.url, mine.text))["cursor"]
        resume = {"resume": {"after": start}}
        # Were they to wait to their end, the other one would come first.
        waiting = [
            asyncio.create_task(polled(http, server.url, key.text, extensions=resume, waitMs=wait_ms))
            for key, wait_ms in ((mine, 25_000), (other, 20_000))
        ]
        while len(begun) < 3 or len(begun[0]) < 2:
            await http.get(server.url.replace("/graphql", "/health"))
        file.revoke(mine.key.id)
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert done == {waiting[0]}
        assert (await waiting[0])["events"] == []
        refused = await polled(http, server.url, mine.text, extensions=resume)
        assert refused["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
        waiting[1].cancel()
        await asyncio.gather(waiting[1], return_exceptions=True)
