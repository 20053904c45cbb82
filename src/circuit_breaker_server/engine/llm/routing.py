"""Find the provider that serves a model."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final, final

import msgspec

from circuit_breaker_server.engine.errors import EngineError, ErrorCode, shown
from circuit_breaker_server.engine.llm.echo import ECHO_MODEL
from circuit_breaker_server.engine.llm.inputs import ModelInput
from circuit_breaker_server.engine.llm.state import ProviderEntry

__all__ = ["ECHO", "Route", "find_route"]

_BY_PREFIX: Final = (
    (re.compile(r"gpt-|o\d"), "openai"),
    (re.compile(r"claude-"), "anthropic"),
    (re.compile(r"gemini-"), "google"),
    (re.compile(r"echo"), "echo"),
)


@final
class Route(msgspec.Struct, frozen=True):
    """The provider that serves a model.

    :ivar provider: a configured provider, or the built-in one.
    :ivar strategy: the reason for this provider: ``model-prefix`` or ``model-list``.
    """

    provider: ProviderEntry
    strategy: str

    def price(self, model_id: str) -> ModelInput | None:
        """Return the model as the provider lists it."""
        if self.provider.id == ECHO.id:
            return ECHO_MODEL
        return self.provider.model(model_id)


ECHO: Final = ProviderEntry(
    created=0,
    last=0,
    id="echo",
    provider_type="echo",
    name="echo",
    base_url="",
    api_key_id="",
    models=(ECHO_MODEL,),
    created_at="1970-01-01T00:00:00.000Z",
    updated_at="1970-01-01T00:00:00.000Z",
)
"""The built-in provider."""


def find_route(model: str, providers: Collection[ProviderEntry], *, tenant: str | None) -> Route:
    """Find the provider of a model: by the model's prefix, else the first that lists it.

    :param tenant: of the caller. Its own providers come before the operator's; others' do not serve it.

    :raises EngineError: ``NOT_FOUND``.
    """
    kind = next((kind for prefix, kind in _BY_PREFIX if prefix.match(model)), None)
    if kind == ECHO.provider_type:
        return Route(ECHO, "model-prefix")
    own = [provider for provider in providers if provider.tenant == tenant]
    serving = own if tenant is None else [*own, *(each for each in providers if each.tenant is None)]
    for provider in serving:
        if kind is not None and provider.provider_type == kind:
            return Route(provider, "model-prefix")
    for provider in serving:
        if provider.model(model) is not None:
            return Route(provider, "model-list")
    wanted = f"of the type {kind}, or one " if kind is not None else ""
    raise EngineError(
        ErrorCode.NOT_FOUND,
        f"no provider serves the model {shown(model)}; configure one {wanted}that lists it",
    )
