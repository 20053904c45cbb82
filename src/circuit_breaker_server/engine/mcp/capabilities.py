"""The capabilities of MCP servers: listed by checks, registered by callers, and both merged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, final

import msgspec

__all__ = ["Features", "Listing", "Offer", "Parameter", "Prompt", "Resource", "Tool"]

_T = TypeVar("_T")


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The base of capabilities; their JSON has the shape of the schema."""

    def value(self) -> dict[str, object]:
        """Return it in the shape of its type of the schema."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]


@final
class Tool(_Part, frozen=True, kw_only=True):
    """``McpToolInput``, and ``McpTool`` but for ``deprecated``."""

    name: str
    description: str
    input_schema: object
    category: str | None = None
    metadata: object = None


@final
class Resource(_Part, frozen=True, kw_only=True):
    """``McpResourceInput``, and ``McpResource``."""

    uri: str
    name: str
    description: str | None = None
    type: str
    mime_type: str | None = None
    metadata: object = None


@final
class Parameter(_Part, frozen=True, kw_only=True):
    """``McpPromptParameterInput``, and ``McpPromptParameter``."""

    name: str
    description: str | None = None
    type: str
    required: bool
    default_value: object = None
    constraints: object = None


@final
class Prompt(_Part, frozen=True, kw_only=True):
    """``McpPromptInput``, and ``McpPrompt``."""

    name: str
    description: str
    template: str
    parameters: tuple[Parameter, ...]
    category: str | None = None
    metadata: object = None


@final
class Features(_Part, frozen=True, kw_only=True):
    """``McpServerFeaturesInput``, and ``McpServerFeatures``."""

    streaming: bool
    file_operations: bool
    notifications: bool
    batch_operations: bool
    max_request_size: int | None = None
    content_types: tuple[str, ...]


@final
class Listing(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The capabilities of an MCP server from one source: a check, or a registration."""

    tools: tuple[Tool, ...]
    resources: tuple[Resource, ...]
    prompts: tuple[Prompt, ...]
    features: Features
    protocol_version: str


@final
class Offer(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The capabilities of an MCP server, as it lists them and as they were registered; at least one is set.

    :ivar at: the time when the merged capabilities last changed.
    """

    listed: Listing | None = None
    registered: Listing | None = None
    at: str

    def merged(self) -> Listing:
        """Return both merged: of two with one name the listed one counts; the registered features count."""
        listed, registered = self.listed, self.registered
        if listed is None or registered is None:
            one = listed or registered
            if one is None:
                raise ValueError("an offer of nothing")
            return one
        return Listing(
            tools=_union(listed.tools, registered.tools, lambda tool: tool.name),
            resources=_union(listed.resources, registered.resources, lambda resource: resource.uri),
            prompts=_union(listed.prompts, registered.prompts, lambda prompt: prompt.name),
            features=registered.features,
            protocol_version=listed.protocol_version,
        )

    def value(self, server_id: str) -> dict[str, object]:
        """Return it in the shape of ``McpServerCapabilities``."""
        merged = self.merged()
        return {
            "serverId": server_id,
            "tools": [{**tool.value(), "deprecated": False} for tool in merged.tools],
            "resources": [resource.value() for resource in merged.resources],
            "prompts": [prompt.value() for prompt in merged.prompts],
            "features": merged.features.value(),
            "protocolVersion": merged.protocol_version,
            "lastUpdated": self.at,
        }


def _union(listed: Sequence[_T], registered: Sequence[_T], key: Callable[[_T], str]) -> tuple[_T, ...]:
    known = {key(item) for item in listed}
    return (*listed, *(item for item in registered if key(item) not in known))
