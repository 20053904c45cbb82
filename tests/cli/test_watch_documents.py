"""``watch`` with a subscription of its own, against a server by others and against ours."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from circuit_breaker_sdk import Client
from circuit_breaker_server import Server, ServerSettings
from tests.cli.process import running
from tests.integration.strawberry_server import strawberry_server
from tests.integration.workflows import create_review_workflow

TICKS = "subscription($upto: Int!) { ticks(upto: $upto) { number label } }"


async def test_a_subscription_of_any_server_is_one_json_object_a_line() -> None:
    async with strawberry_server() as url:

        def watch() -> tuple[int, list[str], list[str]]:
            with running("watch", TICKS, "-v", "upto=1000", "--count", "3", "--url", url) as command:
                return command.end(), command.out, command.err

        status, out, err = await asyncio.to_thread(watch)
    assert status == 0
    assert [json.loads(line)["number"] for line in out] == [0, 1, 2]
    assert err[0].startswith("connected: ")
    assert err[1].startswith("live: subscription($upto: Int!) { ticks(upto: $upto) { number la")
    assert err[-1] == "ended: 3 events; as many as asked for"


async def test_a_subscription_of_ours_comes_from_a_file_and_what_is_wrong_with_it_is_told(
    tmp_path: Path,
) -> None:
    settings = ServerSettings(port=0, data_dir=tmp_path / "data", log_level="critical")
    async with Server(settings) as server, Client(server.url) as client:
        workflow = await create_review_workflow(client)
        file = tmp_path / "updates.graphql"
        file.write_text("subscription($w: String) { resourceUpdates(workflowId: $w) { state } }")
        ready = asyncio.Event()
        loop = asyncio.get_running_loop()

        def watch() -> tuple[int, list[str]]:
            given = (f"@{file}", "-v", f"w={workflow.id}", "--count", "1", "--url", server.url)
            with running("watch", *given) as command:
                command.wait_for("^live: ")
                loop.call_soon_threadsafe(ready.set)
                return command.end(), command.out

        def refused() -> tuple[int, list[str], list[str]]:
            with running("watch", "subscription { nothing }", "--url", server.url) as command:
                return command.end(), command.out, command.err

        watching = asyncio.create_task(asyncio.to_thread(watch))
        await asyncio.wait_for(ready.wait(), 20)
        await client.workflows.create_resource(workflow_id=workflow.id)
        assert await watching == (0, ['{"state":"draft"}'])
        status, out, err = await asyncio.to_thread(refused)
        assert (status, out) == (5, [])
        assert "Cannot query field 'nothing'" in err[-1]
