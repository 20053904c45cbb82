"""Streams that ``watch`` can follow, with options and rendering of each, and subscriptions of any server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeAlias, cast, final

from circuit_breaker_sdk import Client, Subscription, SubscriptionBuilder, UsageError
from circuit_breaker_sdk.cli import event_rendering
from circuit_breaker_sdk.cli.documents import read_document, read_variables
from circuit_breaker_sdk.events import (
    AgentExecutionEvent,
    CostUpdate,
    Event,
    LLMStreamChunk,
    MCPServerStatusUpdate,
    MCPSessionEvent,
    Resource,
    WorkflowEvent,
)

__all__ = ["STREAMS", "AnySubscription", "Stream", "Watchable", "Watched", "choose", "moment_and_words"]

_SHOWN_CHARACTERS = 60

AnyBuilder: TypeAlias = SubscriptionBuilder[Any, Subscription[Any]]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Watchable:
    """A kind of stream.

    :ivar start: makes the builder; given the options by name.
    :ivar options: those that it takes.
    :ivar required: one of these must be given; empty where none must.
    """

    start: Callable[..., object]
    options: tuple[str, ...]
    required: tuple[str, ...] = ()


STREAMS: Mapping[str, Watchable] = {
    "resource-updates": Watchable(
        start=lambda client, **given: client.subscriptions.resource_updates(**given),
        options=("resource_id", "workflow_id", "state"),
    ),
    "workflow-events": Watchable(
        start=lambda client, **given: client.subscriptions.workflow_events(**given),
        options=("workflow_id",),
        required=("workflow_id",),
    ),
    "agent-executions": Watchable(
        start=lambda client, **given: client.subscriptions.agent_execution_stream(**given),
        options=("execution_id", "agent_id", "resource_id"),
        required=("execution_id", "agent_id", "resource_id"),
    ),
    "llm-stream": Watchable(
        start=lambda client, **given: client.subscriptions.llm_stream(**given),
        options=("request_id",),
        required=("request_id",),
    ),
    "cost-updates": Watchable(
        start=lambda client, **given: client.subscriptions.cost_updates(**given),
        options=("user_id", "project_id"),
    ),
    "mcp-server-status": Watchable(
        start=lambda client, **given: client.subscriptions.mcp_server_status_updates(**given),
        options=("server_id",),
    ),
    "mcp-sessions": Watchable(
        start=lambda client, **given: client.subscriptions.mcp_session_events(**given),
        options=("user_id", "server_id"),
    ),
}
"""By the name on the command line."""


class Watched(Protocol):
    """A stream or subscription to watch; its text names it."""

    @property
    def has_table(self) -> bool:
        """Whether its events have a time and words for a table."""
        ...

    def builder(self, client: Client) -> AnyBuilder:
        """Return the builder of the subscription."""
        ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AnySubscription:
    """A subscription of any GraphQL server, as a document; its events are what its field answers."""

    document: str
    variables: Mapping[str, Any]

    def __str__(self) -> str:
        """Show the beginning of the document."""
        text = " ".join(self.document.split())
        return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"

    @property
    def has_table(self) -> bool:
        """Whether its events have words for a table: their meaning is not known."""
        return False

    def builder(self, client: Client) -> AnyBuilder:
        """Return the builder of the subscription."""
        return client.subscribe(self.document, self.variables)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One stream to watch, with its options."""

    name: str
    given: Mapping[str, str]

    def __str__(self) -> str:
        """Name the stream and its options."""
        told = ", ".join(f"{option.replace('_', ' ')} {value}" for option, value in self.given.items())
        return f"{self.name} ({told or 'all'})"

    @property
    def has_table(self) -> bool:
        """Its events have a time and words for a table."""
        return True

    def builder(self, client: Client) -> AnyBuilder:
        """Return the builder of the subscription."""
        # Which builder it is depends on a name: the type checker cannot follow.
        return cast("AnyBuilder", STREAMS[self.name].start(client, **self.given))


def choose(name: str, options: Mapping[str, str | None], variables: Sequence[str] = ()) -> Watched:
    """Choose a stream by its name, or take a subscription: its text, ``@file``, or ``-`` for stdin.

    :param variables: of a subscription, as ``name=value`` each.
    :raises UsageError: there is no such stream; an option or a variable does not belong to what is watched,
        or one is missing; a file cannot be read.
    """
    given = {option: value for option, value in options.items() if value is not None}
    if name == "-" or name.startswith("@") or "{" in name:
        if given:
            raise UsageError(f"{_flags([*given])} is of streams: a subscription has variables (-v)")
        return AnySubscription(document=read_document(name), variables=read_variables(variables))
    if name not in STREAMS:
        known = ", ".join(STREAMS)
        raise UsageError(f"no stream is called {name!r}: choose of {known}, or give a subscription")
    if variables:
        raise UsageError(f"--variable is of subscriptions: {name} has options")
    kind = STREAMS[name]
    foreign = [option for option in given if option not in kind.options]
    if foreign:
        raise UsageError(f"{name} takes {_flags(kind.options)} only, not {_flags(foreign)}")
    if kind.required and not any(option in given for option in kind.required):
        raise UsageError(f"{name} needs {_flags(kind.required, ' or ')}")
    return Stream(name=name, given=given)


def _flags(options: tuple[str, ...] | list[str], between: str = ", ") -> str:
    return between.join("--" + option.replace("_", "-") for option in options)


def moment_and_words(event: Event) -> tuple[datetime, str]:  # noqa: PLR0911 (one per stream)
    """Return when an event happened, and what, for a table."""
    match event:
        case Resource():
            return event.updated_at, event_rendering.words_of_resource(event)
        case WorkflowEvent():
            return event.timestamp, event_rendering.words_of_workflow_event(event)
        case AgentExecutionEvent():
            return event.timestamp, event_rendering.words_of_execution(event)
        case LLMStreamChunk():
            return event.timestamp, event_rendering.words_of_chunk(event)
        case CostUpdate():
            return event.timestamp, event_rendering.words_of_cost(event)
        case MCPServerStatusUpdate():
            return event.timestamp, event_rendering.words_of_server_status(event)
        case MCPSessionEvent():
            return event.timestamp, event_rendering.words_of_session(event)
        case _:
            raise TypeError(f"{type(event).__name__} is an event of no stream that can be watched")
