"""Short cuts for the first steps with a Circuit Breaker server: ``workflow`` and ``resource``."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from circuit_breaker_sdk.cli import runtime
from circuit_breaker_sdk.cli.client_options import DEFAULT_URLS, Token, Urls
from circuit_breaker_sdk.cli.exit_codes import help_end
from circuit_breaker_sdk.errors import UsageError

if TYPE_CHECKING:
    from circuit_breaker_sdk import Client
    from circuit_breaker_sdk.types import ActivityInput, Resource

__all__ = ["resource_app", "workflow_app"]

workflow_app: typer.Typer = typer.Typer(
    help="Workflows: create and list.",
    epilog=help_end("command-line.md"),
    no_args_is_help=True,
    rich_markup_mode=None,
)
resource_app: typer.Typer = typer.Typer(
    help="Resources: create, list, and do an activity of their workflow.",
    epilog=help_end("command-line.md"),
    no_args_is_help=True,
    rich_markup_mode=None,
)

_ACTIVITY: Final = re.compile(r"([^:>]+):([^:>]+)->([^:>]+)")
_EXAMPLE: Final = "Document review"
_EXAMPLE_STATES: Final = ("draft", "review", "approved")
_EXAMPLE_ACTIVITIES: Final = ("submit:draft->review", "approve:review->approved")


@workflow_app.command(name="create", epilog=help_end("command-line.md"))
def create_workflow(
    name: Annotated[str, typer.Argument(help="Its name.", show_default=False)],
    *,
    state: Annotated[
        list[str],
        typer.Option(help="A state, by its id; the first is where resources begin.", show_default=False),
    ],
    activity: Annotated[
        list[str] | None,
        typer.Option(metavar="ID:FROM->TO", help="An activity; several FROM have commas between them."),
    ] = None,
    url: Urls = DEFAULT_URLS,
    token: Token = None,
) -> None:
    """Create a workflow; print it as JSON.

    circuit-breaker workflow create Review --state draft --state approved --activity 'approve:draft->approved'

    circuit-breaker workflow create Order --state new --state paid --activity 'reset:new,paid->new'
    """
    try:
        activities = [_activity(each) for each in activity or ()]
    except UsageError as error:
        raise typer.BadParameter(str(error)) from error

    async def ask(client: Client) -> object:
        return await _create(client, name, state, activities)

    _run(url, token, ask)


@workflow_app.command(name="list", epilog=help_end("command-line.md"))
def list_workflows(*, url: Urls = DEFAULT_URLS, token: Token = None) -> None:
    """List the workflows: a table on a terminal, else JSON.

    circuit-breaker workflow list

    circuit-breaker workflow list --url https://example.com/graphql | jq '.[].name'
    """

    async def ask(client: Client) -> object:
        from circuit_breaker_sdk.cli.requests import Table  # noqa: PLC0415 (aiohttp is slow to load)

        found = await client.workflows.workflows()
        rows = [
            (each.id, each.name, each.initial_state, " ".join(state.id for state in each.states))
            for each in found
        ]
        return Table(found, ("ID", "NAME", "BEGINS", "STATES"), rows)

    _run(url, token, ask)


@resource_app.command(name="create", epilog=help_end("command-line.md"))
def create_resource(
    workflow_id: Annotated[str, typer.Argument(help="The workflow that it follows.", show_default=False)],
    *,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            "-d",
            metavar="NAME=VALUE",
            help="A member of its data: JSON, any other text as it is, or @file; may be repeated.",
        ),
    ] = None,
    url: Urls = DEFAULT_URLS,
    token: Token = None,
) -> None:
    """Create a resource; print it as JSON.

    circuit-breaker resource create WORKFLOW_ID -d title=Hello -d pages=3

    circuit-breaker resource create WORKFLOW_ID -d 'author={"name": "Ada"}'
    """
    members = _members(data)

    async def ask(client: Client) -> object:
        return await client.workflows.create_resource(workflow_id=workflow_id, data=members)

    _run(url, token, ask)


@resource_app.command(name="list", epilog=help_end("command-line.md"))
def list_resources(
    *,
    workflow_id: Annotated[str | None, typer.Option(help="Only this workflow's.")] = None,
    url: Urls = DEFAULT_URLS,
    token: Token = None,
) -> None:
    """List the resources: a table on a terminal, else JSON.

    circuit-breaker resource list

    circuit-breaker resource list --workflow-id WORKFLOW_ID | jq '.[] | select(.state == "draft")'
    """

    async def ask(client: Client) -> object:
        from circuit_breaker_sdk.cli.requests import Table  # noqa: PLC0415 (aiohttp is slow to load)

        if workflow_id is None:
            found = await client.workflows.all_resources()
        else:
            found = await client.workflows.all_resources(workflow_id=workflow_id)
        rows = [(each.id, each.state, each.workflow_id, _text(each)) for each in found]
        return Table(found, ("ID", "STATE", "WORKFLOW", "DATA"), rows)

    _run(url, token, ask)


@resource_app.command(epilog=help_end("command-line.md"))
def do(
    resource_id: Annotated[
        str | None, typer.Argument(help="The resource; without it, --example.", show_default=False)
    ] = None,
    activity: Annotated[
        str | None, typer.Argument(help="The id of an activity of its workflow.", show_default=False)
    ] = None,
    *,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data", "-d", metavar="NAME=VALUE", help="A member of the activity's data; may be repeated."
        ),
    ] = None,
    example: Annotated[
        bool,
        typer.Option(
            "--example", help=f"Make the workflow {_EXAMPLE!r} with a document, and submit that one."
        ),
    ] = False,
    url: Urls = DEFAULT_URLS,
    token: Token = None,
) -> None:
    """Do an activity of a resource; print the resource as JSON.

    circuit-breaker resource do RESOURCE_ID submit

    circuit-breaker resource do --example
    """
    if example == (resource_id is not None) or (resource_id is None) != (activity is None):
        raise typer.BadParameter("give a resource and an activity, or --example")
    members = _members(data)

    async def ask(client: Client) -> object:
        id_, done = resource_id, activity
        if id_ is None or done is None:
            activities = [_activity(each) for each in _EXAMPLE_ACTIVITIES]
            workflow = await _create(client, _EXAMPLE, _EXAMPLE_STATES, activities)
            made = await client.workflows.create_resource(workflow_id=workflow.id, data={"title": "Hello"})
            id_, done = made.id, activities[0].id
        return await client.workflows.execute_activity(resource_id=id_, activity_id=done, data=members)

    _run(url, token, ask)


async def _create(
    client: Client, name: str, states: Sequence[str], activities: Sequence[ActivityInput]
) -> Any:
    from circuit_breaker_sdk.types import StateInput  # noqa: PLC0415 (slow to load: not for --help)

    return await client.workflows.create_workflow(
        name=name,
        initial_state=states[0],
        states=[StateInput(id=each, name=each) for each in states],
        activities=activities,
    )


def _run(urls: Sequence[str], token: str | None, ask: Callable[[Client], Awaitable[object]]) -> None:
    from circuit_breaker_sdk.cli.requests import request  # noqa: PLC0415 (aiohttp is slow to load)

    raise typer.Exit(runtime.run(lambda stop: request(stop, urls, token, ask)))


def _activity(text: str) -> ActivityInput:
    from circuit_breaker_sdk.types import ActivityInput  # noqa: PLC0415 (slow to load: not for --help)

    parts = _ACTIVITY.fullmatch(text)
    if parts is None:
        raise UsageError(f"an activity is given as ID:FROM->TO, as 'approve:draft->approved', not {text!r}")
    id_, before, after = (part.strip() for part in parts.groups())
    return ActivityInput(id=id_, from_states=[each.strip() for each in before.split(",")], to_state=after)


def _members(data: list[str] | None) -> dict[str, Any]:
    from circuit_breaker_sdk.cli.documents import read_variables  # noqa: PLC0415 (slow to load)

    try:
        return read_variables(data or ())
    except UsageError as error:
        raise typer.BadParameter(str(error)) from error


def _text(resource: Resource) -> str:
    import msgspec  # noqa: PLC0415 (slow to load: not for --help)

    return msgspec.json.encode(resource.data).decode()
