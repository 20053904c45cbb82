"""Where users may sign in: what is built in, and what the settings add or replace."""

from __future__ import annotations

import pytest

from circuit_breaker_server.config import OAuthProviderSettings
from circuit_breaker_server.engine.mcp.providers import BUILT_IN, custom
from tests.server.engine.mcp.worlds import running
from tests.server.engine.memory_log import MemoryLog


def settings(**more: str) -> OAuthProviderSettings:
    given = {"id": "corp", "name": "Corp", "authorization_endpoint": "https://a.example/", **more}
    return OAuthProviderSettings(**{"token_endpoint": "https://t.example/", **given})  # type: ignore[arg-type]


async def test_providers_of_the_settings_come_after_the_built_in_ones_or_replace_them() -> None:
    more = [custom(settings()), custom(settings(id="gitlab", name="Ours"))]
    async with running(MemoryLog(), providers=more) as engine:
        found = engine.mcp.providers()
    assert [each["id"] for each in found] == [*(each.id for each in BUILT_IN), "corp"]
    assert (found[0]["name"], found[0]["type"]) == ("Ours", "CUSTOM")


@pytest.mark.parametrize("bad", [{"id": ""}, {"name": ""}, {"token_endpoint": "ftp://t.example/"}])
def test_a_provider_that_cannot_be_used_is_refused_with_the_settings(bad: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="OAuth provider"):
        settings(**bad)
