"""The blocking client with the real server, and beside the async client: each method, each argument."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from circuit_breaker_sdk import Client, OperationError, SyncClient
from circuit_breaker_sdk.subscriptions import SubscriptionBuilder
from circuit_breaker_sdk.types import ChatMessageInput
from tests.sync.real_server import create, serving
from tests.waiting import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
DOMAINS = ("workflows", "agents", "llm", "analytics", "mcp", "rules", "nats", "subscriptions")


def test_mutations_and_streams_of_the_real_server(tmp_path: Path) -> None:
    with serving(tmp_path) as url, SyncClient(url) as client:
        workflow = create(client)
        with (
            client.workflows.subscribe_resource_updates(workflow_id=workflow.id) as updates,
            client.subscriptions.workflow_events(workflow.id) as events,
        ):
            made = [client.workflows.create_resource(workflow_id=workflow.id) for _ in range(20)]
            assert [updates.next(PATIENCE_SECONDS).id for _ in made] == [each.id for each in made]
            client.workflows.execute_activity(resource_id=made[0].id, activity_id="approve")
            assert updates.next(PATIENCE_SECONDS).state == "approved"
            assert [events.next(PATIENCE_SECONDS).resource_id for _ in made] == [each.id for each in made]
        assert len(client.workflows.all_resources(workflow_id=workflow.id)) == 20
        with pytest.raises(OperationError) as refused:
            client.workflows.execute_activity(resource_id=made[0].id, activity_id="approve")
        assert refused.value.code == "ACTIVITY_NOT_ALLOWED"
        assert client.execute("{ health }") == {"health": client.server_health()}


def test_a_completion_comes_piece_by_piece(tmp_path: Path) -> None:
    question = [ChatMessageInput(role="user", content="Every piece, in order.")]
    with serving(tmp_path) as url, SyncClient(url) as client:
        with client.llm.stream(model="echo", messages=question) as stream:
            text = "".join(chunk.content for chunk in stream)
            assert text == stream.response().content == "Every piece, in order."
        with client.llm.stream(model="none such", messages=question) as stream, pytest.raises(OperationError):
            next(stream)


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_method_of_the_async_client_has_its_blocking_form(domain: str) -> None:
    plain, blocking = getattr(Client("ws://localhost"), domain), getattr(SyncClient("ws://localhost"), domain)
    names = {name for name in dir(plain) if not name.startswith("_")}
    assert {name for name in dir(blocking) if not name.startswith("_")} == names
    for name in names:
        theirs, ours = inspect.signature(getattr(plain, name)), inspect.signature(getattr(blocking, name))
        common = {key: value for key, value in ours.parameters.items() if key in theirs.parameters}
        assert common == theirs.parameters, name
        if inspect.iscoroutinefunction(getattr(plain, name)):
            assert ours == theirs, name


def test_the_blocking_client_takes_what_the_async_one_takes() -> None:
    theirs, ours = inspect.signature(Client), inspect.signature(SyncClient)
    assert ours.parameters.keys() - theirs.parameters.keys() == {"executor"}
    assert {name: ours.parameters[name] for name in theirs.parameters} == dict(theirs.parameters)


def test_a_blocking_subscription_takes_what_a_builder_takes() -> None:
    options = {
        name
        for name, value in vars(SubscriptionBuilder).items()
        if inspect.isfunction(value) and not name.startswith("_") and name != "subscribe"
    }
    assert options <= inspect.signature(SyncClient.subscribe).parameters.keys()
    with SyncClient("ws://localhost") as client:
        assert options <= inspect.signature(client.subscriptions.cost_updates).parameters.keys()


def test_the_program_of_the_documentation_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    section = (ROOT / "docs" / "streams.md").read_text(encoding="utf-8").partition("## Without asyncio")[2]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    with serving(tmp_path) as url:
        program = found[1].replace("ws://localhost:4000/graphql", url)
        exec(compile(program, "docs/streams.md", "exec"), {})  # noqa: S102 (our own documentation)
    assert capsys.readouterr().out.startswith("draft\n")
